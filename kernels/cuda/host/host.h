/* host.h: the CUDA kernels on a CPU, for tests: the same .cu files compiled as C++ for the host (shim.cuh), with every memory access checked.
 *
 * Blocks run one after another, the threads of a block as fibers of one thread, from one barrier, shuffle or vote to the next. Found, and
 * reported with kernel, block and thread:
 *   a read or write outside of memory from hfc_host_alloc, of the block's shared memory and of the kernels' own tables; a write to what is constant;
 *   a vector or word that is not aligned
 *   a barrier or shuffle that some threads of the block or warp never reach, or reach at another place of the code; a shuffle from a lane that
 *   takes no part
 *   two threads at the same byte of shared memory, one of them writing, with no barrier between them
 * Shared memory and fresh allocations hold NaN (all bits set), so that values never written show.
 * The launch that finds something ends there and returns HFC_FAULT; what is wrong is hfc_host_fault(). Not thread-safe.
 * Accesses are seen through the compiler's address instrumentation, its hooks defined here; in a build with AddressSanitizer, whose hooks have the
 * same names, barriers are checked and accesses are not (hfc_host_checked). */
#ifndef HF_KERNELS_CUDA_HOST_HOST_H
#define HF_KERNELS_CUDA_HOST_HOST_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HFC_FAULT = 719 /* the number of a launch that failed, in the CUDA runtime */ };

/* Aligned to 256 bytes as device memory is, no byte more than asked for. NULL: no memory. name: of reports, borrowed. */
void *hfc_host_alloc(size_t bytes, const char *name);
void hfc_host_free(void *p); /* NULL ok */
/* The caller's own memory, for kernels to read and write until it is taken back: what a GPU sees of pinned host memory. No two overlap. */
void hfc_host_lend(void *p, size_t bytes, const char *name);
void hfc_host_take_back(void *p);
/* From now on a write there is a fault. p: from hfc_host_alloc. */
void hfc_host_constant(void *p);
/* "" or the first thing found since hfc_host_clear: "kernel K, block (x, y, z), thread (x, y, z): ..." */
const char *hfc_host_fault(void);
void hfc_host_clear(void);
/* Threads of a block in descending order: results must not depend on it. */
void hfc_host_backwards(bool on);
bool hfc_host_checked(void);

#ifdef __cplusplus
}
#endif
#endif
