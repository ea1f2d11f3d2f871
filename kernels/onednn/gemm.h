/* gemm.h: matrix products of a fixed shape by oneDNN (libdnnl 2.6 or 3.x), on the calling thread alone; private to kernels/onednn. gemm.c is the only
 * file that sees oneDNN's headers.
 *
 *     c[i][j] = sum over k:  a[i * K + k] * b(j, k)        in f32, c [m][n], everything without gaps
 *
 * What oneDNN offers is tried before it is used: 7 vectors and 5 rows in turn over all m x n places of a product must give everywhere the same bits,
 * near the sums in double, and those of the first usable product of that kind and k, which is one of the least m: others are declined until there is
 * one. So bits depend on vector and row alone, whatever shapes a call is cut into and whichever came first.
 * What sums in another order at some places (the products without AVX-512 do so for m 32 and 128) is left unused; rows with gaps between them
 * go another, slower way with other bits (2.6), so there are none.
 *
 * A product is made at the first call of its shape and kept: 1 to 5 ms under a lock. After that gemm_run allocates nothing of ours (oneDNN
 * keeps its list of arguments on the heap). Errors are values: NULL or false, and the caller has another way. */
#ifndef HF_KERNELS_ONEDNN_GEMM_H
#define HF_KERNELS_ONEDNN_GEMM_H

#include "base/status.h"

typedef enum {
  GEMM_F32,       /* b(j, k) = b[j * K + k] */
  GEMM_BF16,      /* the same; a and b BF16 */
  GEMM_BF16_LANES /* a and b BF16, b as [k / 2][n][2]; k a multiple of 32, n 32 or 64 */
} gemm_kind;

enum { GEMM_LEAST_M = 16 };

typedef struct {
  gemm_kind kind;
  int m, n, k;
} gemm_shape;

typedef struct gemm gemm;
typedef struct gemm_thread gemm_thread;

/* The library's name and version, or why it is not used. `isa` (KERN_ISA_*) bounds what it may use, from the first call on. */
const char *gemm_state(unsigned isa);
/* False where the library cannot be used at all, or failed its trial at the smallest m for this kind and k. */
bool gemm_offers(gemm_kind kind, int k, unsigned isa);
/* Of the calling thread, made at its first call, freed when it ends; NULL: no memory. */
gemm_thread *gemm_this_thread(unsigned isa);
/* A buffer of the thread, at least so large, 64-byte aligned, contents lost when it grows. NULL: no memory. */
enum { GEMM_A, GEMM_B, GEMM_C, GEMM_PAD, GEMM_BUFFERS };
void *gemm_buffer(gemm_thread *t, int which, size_t bytes);
/* NULL: declined, no memory, or m is not the least and none of the least m is usable so far. */
const gemm *gemm_find(const gemm_shape *s, gemm_thread *t);
bool gemm_run(const gemm *g, gemm_thread *t, const void *a, const void *b, float *c);

#endif
