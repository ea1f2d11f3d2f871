/* attn.cuh: attention of one query a token over the paged cache, the context cut into segments of 512 tokens, each a block's work (split-KV).
 *
 * A block has R query heads of one KV head, 128 threads, a segment. 64 tokens at a time: scores (grouped heads: tokens in lanes, as keys of 16
 * tokens lie side by side; latents: numbers of a row in lanes), the softmax kept online, one warp a row, then values, dimensions in threads.
 * A second kernel folds the segments of a head in ascending order, with the sink. Partial result: dv sums, maximum, weight.
 *
 * Bytes moved: the context's keys and values once for each R heads of a KV head (the second cache has them for the others). Limit: the memory's
 * bandwidth for grouped heads; f32 multiply-adds for latents, 2 * (dk + dv) a head and token of context, as this variant uses no tensor cores. */
#ifndef HF_KERNELS_CUDA_ATTN_CUH
#define HF_KERNELS_CUDA_ATTN_CUH

#include "kernels/cuda/kv.cuh"

enum { ATTN_THREADS = 128, ATTN_WARPS = ATTN_THREADS / WARP, ATTN_BLOCK = 64, ATTN_DIMS = 4 /* a thread: values of 512 */ };

struct attn_room {
  float score[8][ATTN_BLOCK]; /* [R] */
  float most[8], weight[8], shrink[8];
};

/* Scores of tokens [b0, b0 + 64) with tokens in lanes; half of the lanes has half of the dimensions. */
template <class N, int R>
static __device__ void scores_of_heads(const hfc_attn *a, int seq, int g, int b0, int lo, int hi, const float *q,
                                       attn_room *room) {
  const int lane = (int)threadIdx.x % WARP, slot = (int)threadIdx.x / WARP * KV_GROUP + lane % KV_GROUP, half = lane / KV_GROUP,
            token = b0 + slot, mid = a->dk / 2;
  const bool seen = token >= lo && token < hi;
  float s[R] = {0};
  if (seen) {
    const kv_place at = kv_place_of(&a->kv, seq, token, g, a->n_kv_heads, a->dk, a->dv, N::BYTES);
    for (int j = half ? mid : 0; j < (half ? a->dk : mid); j++) {
      const float key = N::get(at.key, (size_t)(j * at.step));
#pragma unroll
      for (int r = 0; r < R; r++) s[r] = fmaf(q[r * a->dk + j], key, s[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    s[r] += __shfl_xor_sync(ALL_LANES, s[r], KV_GROUP);
    if (half == 0) room->score[r][slot] = seen ? s[r] * a->scale : -INFINITY;
  }
}

/* The same with a latent's numbers in lanes, 16 tokens a warp. */
template <class N, int R>
static __device__ void scores_of_latents(const hfc_attn *a, int seq, int b0, int lo, int hi, const float *q, attn_room *room) {
  const int lane = (int)threadIdx.x % WARP, first = (int)threadIdx.x / WARP * KV_GROUP;
  for (int slot = first; slot < first + KV_GROUP; slot++) {
    const int token = b0 + slot;
    const bool seen = token >= lo && token < hi;
    float s[R] = {0};
    if (seen) {
      const char *row = kv_row(&a->kv, seq, token);
      for (int j = lane; j < a->dk; j += WARP) {
        const float key = N::get(row, (size_t)j);
#pragma unroll
        for (int r = 0; r < R; r++) s[r] = fmaf(q[r * a->dk + j], key, s[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      s[r] = warp_sum(s[r]);
      if (lane == 0) room->score[r][slot] = seen ? s[r] * a->scale : -INFINITY;
    }
  }
}

/* Scores become weights; a block of 64 always holds a token that is seen. */
template <int R> static __device__ void softmax_block(attn_room *room) {
  const int lane = (int)threadIdx.x % WARP;
  for (int r = (int)threadIdx.x / WARP; r < R; r += ATTN_WARPS) {
    const float before = room->most[r], s0 = room->score[r][lane], s1 = room->score[r][lane + WARP];
    const float most = fmaxf(before, warp_max(fmaxf(s0, s1)));
    const float p0 = expf(s0 - most), p1 = expf(s1 - most), shrink = expf(before - most), sum = warp_sum(p0 + p1);
    room->score[r][lane] = p0;
    room->score[r][lane + WARP] = p1;
    __syncwarp();
    if (lane == 0) {
      room->most[r] = most;
      room->shrink[r] = shrink;
      room->weight[r] = room->weight[r] * shrink + sum;
    }
  }
}

/* MLA: one KV head of latents, D dimensions of a value to a thread. */
template <class N, bool MLA, int R, int D> static __global__ __launch_bounds__(ATTN_THREADS, 4) void attn_part(hfc_attn a) {
  __shared__ attn_room room;
  DYNAMIC_SHARED(float, q);
  const int t = (int)blockIdx.z, seg = (int)blockIdx.y, n_seg = (int)gridDim.y, per = a.n_heads / a.n_kv_heads,
            chunks = (per + R - 1) / R;
  const int g = (int)blockIdx.x / chunks, r0 = (int)blockIdx.x % chunks * R, head0 = g * per + r0;
  if (a.count && t >= *a.count) return;
  const int seq = a.kv.seq[t], end = a.kv.pos[t] + 1, first = a.window > 0 && end > a.window ? end - a.window : 0;
  const int lo = seg * HFC_SEGMENT > first ? seg * HFC_SEGMENT : first,
            hi = (seg + 1) * HFC_SEGMENT < end ? (seg + 1) * HFC_SEGMENT : end;
  if (seg * HFC_SEGMENT >= end) return;
  const int rows = per - r0 < R ? per - r0 : R;
  for (int i = (int)threadIdx.x; i < R * a.dk; i += ATTN_THREADS)
    q[i] = i < rows * a.dk ? a.q[(size_t)t * a.q_stride + (size_t)head0 * (size_t)a.dk + (size_t)i] : 0.0f;
  if (threadIdx.x < R) room.most[threadIdx.x] = -INFINITY, room.weight[threadIdx.x] = 0;
  float sum[R][D] = {{0}};
  __syncthreads();
  for (int b0 = lo / ATTN_BLOCK * ATTN_BLOCK; b0 < hi; b0 += ATTN_BLOCK) {
    if (MLA) scores_of_latents<N, R>(&a, seq, b0, lo, hi, q, &room);
    else scores_of_heads<N, R>(&a, seq, g, b0, lo, hi, q, &room);
    __syncthreads();
    softmax_block<R>(&room);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
      for (int d = 0; d < D; d++) sum[r][d] *= room.shrink[r];
    const int from = b0 > lo ? b0 : lo, to = b0 + ATTN_BLOCK < hi ? b0 + ATTN_BLOCK : hi;
    for (int token = from; token < to; token++) {
      const char *value =
          MLA ? kv_row(&a.kv, seq, token) : kv_place_of(&a.kv, seq, token, g, a.n_kv_heads, a.dk, a.dv, N::BYTES).value;
#pragma unroll
      for (int d = 0; d < D; d++) {
        const int j = (int)threadIdx.x + d * ATTN_THREADS;
        if (j >= a.dv) continue;
        const float v = N::get(value, (size_t)j);
#pragma unroll
        for (int r = 0; r < R; r++) sum[r][d] = fmaf(room.score[r][token - b0], v, sum[r][d]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    if (r >= rows) continue;
    float *part =
        a.part + (((size_t)t * (size_t)a.n_heads + (size_t)(head0 + r)) * (size_t)n_seg + (size_t)seg) * (size_t)(a.dv + 2);
#pragma unroll
    for (int d = 0; d < D; d++)
      if ((int)threadIdx.x + d * ATTN_THREADS < a.dv) part[(int)threadIdx.x + d * ATTN_THREADS] = sum[r][d];
    if (threadIdx.x == 0) part[a.dv] = room.most[r], part[a.dv + 1] = room.weight[r];
  }
}

static __global__ __launch_bounds__(ATTN_THREADS) void attn_fold(hfc_attn a, int n_seg) {
  const int h = (int)blockIdx.x, t = (int)blockIdx.y;
  if (a.count && t >= *a.count) return;
  const int used = a.kv.pos[t] / HFC_SEGMENT + 1;
  const float *part = a.part + ((size_t)t * (size_t)a.n_heads + (size_t)h) * (size_t)n_seg * (size_t)(a.dv + 2);
  float most = -INFINITY, weight = 0, sum[ATTN_DIMS] = {0};
  for (int s = 0; s < used; s++, part += a.dv + 2) {
    const float other = part[a.dv];
    if (other == -INFINITY) continue; /* outside of the window */
    const float top = fmaxf(most, other), mine = expf(most - top), theirs = expf(other - top);
#pragma unroll
    for (int d = 0; d < ATTN_DIMS; d++) {
      const int j = (int)threadIdx.x + d * ATTN_THREADS;
      if (j < a.dv) sum[d] = sum[d] * mine + part[j] * theirs;
    }
    weight = weight * mine + part[a.dv + 1] * theirs;
    most = top;
  }
  float shrink = 1;
  if (a.sinks) {
    const float sink = a.sinks[h], top = fmaxf(sink, most);
    shrink = expf(most - top);
    weight = weight * shrink + expf(sink - top);
  }
  float *out = a.out + (size_t)t * a.out_stride + (size_t)h * (size_t)a.dv;
#pragma unroll
  for (int d = 0; d < ATTN_DIMS; d++)
    if ((int)threadIdx.x + d * ATTN_THREADS < a.dv) out[(int)threadIdx.x + d * ATTN_THREADS] = sum[d] * shrink / weight;
}

template <class N, bool MLA, int R, int D> static int attn_launch(const hfc_attn *a, void *stream) {
  const int per = a->n_heads / a->n_kv_heads, n_seg = (a->max_context + HFC_SEGMENT - 1) / HFC_SEGMENT;
  const dim3 grid((unsigned)(a->n_kv_heads * ((per + R - 1) / R)), (unsigned)n_seg, (unsigned)a->n_tok);
  const int rc =
      HFC_LAUNCH((attn_part<N, MLA, R, D>), grid, dim3(ATTN_THREADS), (size_t)R * (size_t)a->dk * sizeof(float), stream, *a);
  if (rc) return rc;
  return HFC_LAUNCH(attn_fold, dim3((unsigned)a->n_heads, (unsigned)a->n_tok), dim3(ATTN_THREADS), 0, stream, *a, n_seg);
}

static inline int attn_check(const hfc_attn *a, int most_dims) {
  if (a->n_tok < 1 || a->n_kv_heads < 1 || a->n_heads % a->n_kv_heads || a->max_context < 1) return HFC_INVALID;
  if (a->dv < 1 || a->dv > most_dims || a->dk < 1 || a->dk > 640 || a->kv.type > KV_AS_BF16) return HFC_UNSUPPORTED;
  return 0;
}
#endif
