/* embed.cu: rows of the embedding as f32. 4 bytes written a number and its weight's bytes read (in tiles 4 of each 64 that a sector run has); limit:
 * latency of a launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { EMBED_THREADS = 256 };

template <int KIND> static __device__ __forceinline__ float number_at(const hfc_embed *a, int row, int c) {
  const char *w = (const char *)a->w + (size_t)(a->tiles ? row / TILE * TILE : row) * a->row_bytes;
  const int lane = row % TILE;
  if (KIND == HFC_EMBED_F32) return ((const float *)w)[c];
  if (KIND == HFC_EMBED_Q8_0) {
    const char *block = w + (size_t)(c / 32) * 34 * (a->tiles ? TILE : 1);
    const int i = c % 32;
    const uint16_t d = *(const uint16_t *)(block + (a->tiles ? 2 * lane : 0));
    const int8_t q = *(const int8_t *)(a->tiles ? block + 32 + 64 * (i / 4) + 4 * lane + i % 4 : block + 2 + i);
    return f32_of_f16(d) * (float)q;
  }
  const uint16_t h = *(const uint16_t *)(w + (a->tiles ? (size_t)(c / 2) * 64 + (size_t)(4 * lane + 2 * (c % 2)) : 2 * (size_t)c));
  return KIND == HFC_EMBED_F16 ? f32_of_f16(h) : f32_of_bf16(h);
}

template <int KIND> static __global__ __launch_bounds__(EMBED_THREADS) void embed_rows(hfc_embed a) {
  const int t = (int)blockIdx.y, c = (int)(blockIdx.x * EMBED_THREADS + threadIdx.x);
  if (c >= a.n_cols || (a.count && t >= *a.count)) return;
  a.y[(size_t)t * a.y_stride + (size_t)c] = number_at<KIND>(&a, a.ids[t], c);
}

extern "C" int hfc_embed_rows(const hfc_embed *a, void *stream) {
  if (a->n_tok < 1 || a->n_cols < 1) return HFC_INVALID;
  const dim3 grid((unsigned)(a->n_cols + EMBED_THREADS - 1) / EMBED_THREADS, (unsigned)a->n_tok), block(EMBED_THREADS);
  if (a->format == HFC_EMBED_F32 && !a->tiles) return HFC_LAUNCH((embed_rows<HFC_EMBED_F32>), grid, block, 0, stream, *a);
  if (a->tiles && a->n_cols % 2) return HFC_UNSUPPORTED;
  if (a->format == HFC_EMBED_F16) return HFC_LAUNCH((embed_rows<HFC_EMBED_F16>), grid, block, 0, stream, *a);
  if (a->format == HFC_EMBED_BF16) return HFC_LAUNCH((embed_rows<HFC_EMBED_BF16>), grid, block, 0, stream, *a);
  if (a->format == HFC_EMBED_Q8_0 && a->n_cols % 32 == 0) return HFC_LAUNCH((embed_rows<HFC_EMBED_Q8_0>), grid, block, 0, stream, *a);
  return HFC_UNSUPPORTED;
}
