/* rope.cu: rotary position embedding of heads, with the copy that puts rotated parts where attention wants them. 8 bytes a number; limit: latency
 * of a launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

static __global__ __launch_bounds__(128) void rope_rows(hfc_rope a) {
  const int t = (int)blockIdx.x, h = (int)blockIdx.y, half = a.dim / 2;
  if (a.count && t >= *a.count) return;
  const float *x = a.x + (size_t)t * a.x_stride + (size_t)h * a.x_head + a.offset;
  float *y = a.y + (size_t)t * a.y_stride + (size_t)h * a.y_head + a.y_offset;
  const float *cos_row = a.cos + (size_t)a.pos[t] * (size_t)half, *sin_row = a.sin + (size_t)a.pos[t] * (size_t)half;
  const int step = a.pairs ? 2 : 1, other = a.pairs ? 1 : half;
  for (int i = (int)threadIdx.x; i < half; i += 128) { /* a thread has both numbers of a pair, so y may be x */
    const float u = x[i * step], v = x[i * step + other], c = cos_row[i], s = sin_row[i];
    y[i * step] = u * c - v * s;
    y[i * step + other] = u * s + v * c;
  }
  for (int i = 2 * half + (int)threadIdx.x; i < a.n; i += 128) y[i] = x[i];
}

extern "C" int hfc_rope_rows(const hfc_rope *a, void *stream) {
  if (a->n_tok < 1 || a->heads < 1 || a->dim < 0 || a->n < a->dim || a->dim % 2) return HFC_INVALID;
  return HFC_LAUNCH(rope_rows, dim3((unsigned)a->n_tok, (unsigned)a->heads), dim3(128), 0, stream, *a);
}
