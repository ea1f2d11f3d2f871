/* devices.h: several devices in an engine: which has what, and how a step goes from one to the next. Private to the engine.
 *
 * Every layer has a home device: its attention, router, shared or dense part and KV pages are there. A step is cut into parts, one for each run of
 * layers with the same home, each a recording of its own; the engine launches a part when the one before it has ended, on the same stream
 * number of another device, and the residual goes through the step's host_x. Micro-batches are in different parts at the same time. The embedding
 * is on the first layer's home, the output matrix on the last one's.
 *
 *   device 0 | m0: layers 0-8 | m1: layers 0-8 |               | m0 ..
 *   device 1                  | m0: layers 9-15 | m1: layers 9-15 |
 *
 * The same operations run in the same order as on one device, so results are the same bits however layers are divided. */
#ifndef HF_EXECUTOR_DEVICES_H
#define HF_EXECUTOR_DEVICES_H

#include "executor/engine_int.h"

/* What the options say, before anything is opened. Without a device there is one place, the host's memory, as device 0. One that was lost keeps its number,
 * and is a host device, too. */
int devices_of(const engine_options *o);
bool device_on_host(const engine_options *o, int device);
/* Of those that compute on their own. */
int devices_left(const engine_options *o);
int64_t device_size(const engine_options *o, int device);
int device_of_layer(const model_config *c, const engine_options *o, int layer);
/* -1: on a CPU, of this machine or another. */
int device_of_expert(const model_config *c, const engine_options *o, int layer, int expert);
/* HF_INPUT for a plan that names a device that there is not, HF_UNSUPPORTED for placements that cannot be executed yet. */
HF_MUST hf_status devices_check(const model_config *c, const engine_options *o);
/* Whether it has experts of layers that are at home on others. */
bool device_has_guests(const model_config *c, const engine_options *o, int device);
/* Parts of a step that are on it. */
int parts_on(const model_config *c, const engine_options *o, int device);

/* The device that a micro-batch's step is on. */
engine_device *device_at_work(engine *e, int micro_batch);
/* Launches the part of the step that mb->part says; one of the host's own has ended when this returns, or is held while the pool is at work. */
HF_MUST hf_status part_launch(engine *e, int micro_batch);
/* A part has ended: its records know their device. True: it was the step's last one. */
bool part_end(engine *e, int micro_batch);

/* Experts of a layer on devices where it is not at home. Its rows go there as they come to the CPU (host_x), all of them, and the sums come back and
 * are taken together in the order of devices, in step.host_guests, which the layer adds behind what the CPU gave or was sent, the same bits in both kinds
 * of step: launch, compute the CPU's, collect. */
HF_MUST hf_status guests_open(engine *e, micro_batch *mb); /* once recorded */
void guests_close(micro_batch *mb);
HF_MUST hf_status guests_launch(engine *e, micro_batch *mb, int layer);
/* aside: called while it waits. HF_LOST: one of them is. */
HF_MUST hf_status guests_collect(engine *e, micro_batch *mb, int layer, void (*aside)(void *user));
#endif
