/* probe.h: how fast the pool's threads read memory right now: the one definition of "DRAM read bandwidth" in the suite; hf-profile stores
 * it, hf-run probes it for a moment at start to tell drift of the machine from error of the prediction. */
#ifndef HF_KERNELS_PROBE_H
#define HF_KERNELS_PROBE_H
#include "kernels/mem/pool.h"

typedef struct mem_probe mem_probe;
/* A buffer of `bytes` (at least four times the last-level cache, see topology), touched by the pool's threads. */
HF_MUST hf_status mem_probe_new(pool *p, size_t bytes, mem_probe **out);
void mem_probe_free(mem_probe *m);
/* One pass of the first n_threads threads over the whole buffer, each its own contiguous part: bytes per second. */
double mem_probe_pass(mem_probe *m, int n_threads);
#endif
