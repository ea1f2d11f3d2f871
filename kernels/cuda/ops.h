/* ops.h: the operations of a CUDA device, one function each: checks what it is asked, launches on `stream` and returns the runtime's error number,
 * 0 for none, HFC_UNSUPPORTED where it declines. Built twice, by nvcc and for the host (host/host.h); no type of CUDA here.
 *
 * All addresses are the device's, of the element type named. Formats, packed activations, tiles and the KV cache lie as on the host (kernels.h,
 * layouts.h), so experts and pages move between both as they are, and activations are rounded by the same contract. `stream`: a cudaStream_t.
 * n_tok of a call is the most that its launch serves; where `count` is not 0 the kernel reads there how many tokens there really are, so that a
 * recorded launch serves steps of any size up to it.
 * Results of a token depend on no other token, on no count and no order of threads: the same bits. */
#ifndef HF_KERNELS_CUDA_OPS_H
#define HF_KERNELS_CUDA_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HFC_UNSUPPORTED = 801 /* the runtime's number of "not supported" */, HFC_INVALID = 1 };
enum { HFC_MM_TOKENS = 8 };

/* y[t][r] = (old y) + (bias[r]) + sum_c W[r][c] x[t][c] for 1 to 8 tokens. W in KL_TILE16, aligned to 16 bytes; x packed as the format wants,
 * x_bytes apart, aligned to 16. */
typedef struct {
  const void *w;
  int n_rows, n_cols, n_tok;
  const void *x;
  size_t x_bytes;
  float *y;
  size_t y_stride;   /* floats */
  const float *bias; /* or 0 */
  int add;
  const int32_t *count; /* or 0 */
} hfc_mm;
int hfc_mm_q8_0(const hfc_mm *a, void *stream);
int hfc_mm_q4_0(const hfc_mm *a, void *stream);
int hfc_mm_q4_1(const hfc_mm *a, void *stream);
int hfc_mm_q5_0(const hfc_mm *a, void *stream);
int hfc_mm_q5_1(const hfc_mm *a, void *stream);
int hfc_mm_q4_k(const hfc_mm *a, void *stream);
int hfc_mm_q5_k(const hfc_mm *a, void *stream);
int hfc_mm_q6_k(const hfc_mm *a, void *stream);
int hfc_mm_iq4_nl(const hfc_mm *a, void *stream);
int hfc_mm_mxfp4(const hfc_mm *a, void *stream);
int hfc_mm_int4(const hfc_mm *a, void *stream);
int hfc_mm_bf16(const hfc_mm *a, void *stream);
int hfc_mm_f16(const hfc_mm *a, void *stream);
int hfc_mm_fp8(const hfc_mm *a, void *stream); /* n_cols a multiple of 4 */

#ifdef __cplusplus
}
#endif
#endif
