/* device.h of kernels/cuda: the device behind kernels/device.h that computes by the operations of ops.h through a runtime (runtime.h).
 *
 * A recording becomes one graph with its first launch. What changes from step to step is put into one page-locked block, which the graph copies to
 * the device first; routing, rows for the host's experts and logits come back through page-locked memory, from which host nodes carry them to the
 * step's own arrays before they ring (host nodes never wait); the host's answer goes the other way (dev_step.answer). Every wait has a deadline: that of
 * a WAIT is the polling kernel's, everything else is polled by the driver.
 *
 * Steps of decode: tokens of a step go through the products eight at a time. Not there yet (HF_UNSUPPORTED by dev_record or dev_launch): latent attention,
 * uploads, guests, imposed routing, the cache in Q8_0, exact activations of formats that round them, weights that are not in tiles;
 * trace records. */
#ifndef HF_KERNELS_CUDA_DEVICE_H
#define HF_KERNELS_CUDA_DEVICE_H

#include "kernels/cuda/runtime.h"
#include "kernels/device.h"

/* mem_bytes: the most that dev_alloc gives, above 0. The table is copied; what is behind it lives as long as the device. */
HF_MUST hf_status dev_cuda_new(const cuda_runtime *rt, int64_t mem_bytes, int n_streams, dev **out);

#endif
