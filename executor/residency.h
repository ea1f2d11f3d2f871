/* residency.h: routed experts change their places while an engine serves, in place: none waits for it.
 *
 * Experts change in pairs of the same shape, one that leaves the device and one that takes its memory there, a few pairs (a wave) at a time:
 *   out    the bytes of those that leave are read back into spare host memory; the device computes from them meanwhile
 *   seen   every micro-batch, when it is idle, takes the table in which the CPU has them; once all have, nobody reads their device memory
 *   in     the bytes of the others are written there; the CPU computes from theirs meanwhile
 *   seen   every micro-batch takes the table in which the device has them; what they had in host memory is the spare for the next wave
 * Each micro-batch has a residency table of its own (dev_context.experts and the host's experts), which changes between its steps only, so that a step sees
 * one placement from beginning to end. Host memory has each expert once, and that of a wave more; device memory needs no byte more.
 *
 * Copies are made by the driver's thread, in pieces of RESIDENCY_PIECE bytes at most, one a look at the device (engine_poll), under a budget in bytes a
 * second of both directions together. Bytes are those of the layout that they have on both sides.
 *
 * A move that fails, but for a loss, is given up: what has not begun to change stays, as do pairs whose experts have not left; after that experts change places no
 * more (engine_options.movable is false from then on), those that have left being the CPU's. Serving goes on.
 *
 * A device lost with pairs under way is lost as any other is: what is whole in host memory stays there, moves are forgotten.
 * Thread rule: the driver's thread. */
#ifndef HF_EXECUTOR_RESIDENCY_H
#define HF_EXECUTOR_RESIDENCY_H

#include "executor/engine.h"

enum { RESIDENCY_PIECE = 128 << 10, RESIDENCY_WAVE = 4, RESIDENCY_SHAPES = 16 /* of experts in a model */ };

typedef struct {
  int pairs;    /* that will change places */
  int left_out; /* experts that the target has elsewhere and that stay: they have no partner of their shape, or their layer asks the CPU for nothing */
  int64_t bytes; /* to be copied, both directions */
} residency_order;

/* target: 1 = on the device, [n_layers * n_experts]. The engine moves towards it from now on, while it is polled; pairs of an earlier order that have
 * not begun are forgotten. Needs engine_options.movable. */
HF_MUST hf_status engine_move_to(engine *e, const uint8_t *target, residency_order *order);
/* What that order would be; nothing moves, but pairs which have not begun are forgotten. One pass over the cells: below a millisecond for those of R1
 * (tests/bench/bench_moves.c). engine_move_begin begins it, before the engine is polled again. */
HF_MUST hf_status engine_move_look(engine *e, const uint8_t *target, residency_order *order);
void engine_move_begin(engine *e);
/* Whether an order is at work. */
bool engine_moving(const engine *e);
/* Pairs that have not begun are forgotten. */
void engine_stop_moving(engine *e);
/* Since the engine was opened. */
typedef struct {
  int64_t pairs, bytes;
  bool changed; /* some have left their places, be it that the others are not in theirs yet */
} residency_total;
residency_total engine_moved(const engine *e);
/* Of an expert, while it changes its place: RAM that a movable engine needs beside the experts' own. */
int64_t residency_table_bytes(const model_config *c); /* and of tables, beside those of micro-batches */
int64_t residency_spare_bytes(int64_t largest_expert_bytes);
#endif
