/* dma.h: a device that uploads out of this machine's memory, as far as the memory sees it: a thread on a core of its own that reads a large
 * buffer, piece by piece into its own cache, at a paced rate. Private to profiler/.
 *
 * It needs a core that the measured pool leaves free, so what runs beside it is the pool of all threads but one.
 *
 *   dram_read_beside_dma_bytes_per_s   params threads=N,dma=8GB/s: what N threads read beside uploads of that rate; dma=0: alone, dma=most: as
 *                                      fast as the stand-in reads
 *   dma_beside_read_bytes_per_s        the same params: what the uploads reached
 *   dma_load_bytes_per_s               params threads=N: the uploads' rate while the kernel rows with load "dma" were measured */
#ifndef HF_PROFILER_DMA_H
#define HF_PROFILER_DMA_H
#include "profiler/profile.h"

typedef struct dma_load dma_load;

/* The pool that leaves a core free, NULL where there is one core only. */
pool *dma_pool(const profile *p);
/* Starts idle. HF_MACHINE when no thread or memory can be had. */
HF_MUST hf_status dma_start(const profile *p, dma_load **out);
/* Bytes per second wanted; INFINITY: as fast as it goes; 0: idle. The rate that it reached counts from here on. */
void dma_set(dma_load *d, double bytes_per_s);
double dma_reached(const dma_load *d); /* bytes per second since dma_set */
void dma_stop(dma_load *d);            /* NULL ok */

#endif
