/* experts_lists.cu: the pairs (token, expert) of a step whose experts are resident, sorted by expert, those of one in order of tokens. One block,
 * a thread an expert; n_tok * top_k ids read by each. Limit: latency of a launch and the barriers of two scans. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { LISTS_THREADS = 1024 };

static __global__ __launch_bounds__(LISTS_THREADS) void experts_lists(hfc_experts_lists a) {
  __shared__ int pairs[LISTS_THREADS], actives[LISTS_THREADS];
  const int e = (int)threadIdx.x, n_tok = a.count && *a.count < a.n_tok ? *a.count : a.n_tok, n = n_tok * a.top_k;
  int32_t *active = a.lists + 2, *first = active + a.n_experts, *pair_tok = first + a.n_experts + 1,
          *pair_of = pair_tok + a.n_tok * a.top_k;
  const bool here = e < a.n_experts && a.experts[e].gate != nullptr;
  int mine = 0;
  for (int i = 0; i < n && here; i++) mine += a.ids[i] == e;
  pairs[e] = mine;
  actives[e] = mine > 0;
  for (int by = 1; by < LISTS_THREADS; by *= 2) { /* inclusive sums of both */
    __syncthreads();
    const int p = e >= by ? pairs[e - by] : 0, q = e >= by ? actives[e - by] : 0;
    __syncthreads();
    pairs[e] += p;
    actives[e] += q;
  }
  for (int i = e; i < a.n_tok * a.top_k; i += LISTS_THREADS) pair_of[i] = -1;
  __syncthreads();
  if (mine > 0) {
    const int at = actives[e] - 1;
    int p = pairs[e] - mine;
    active[at] = e;
    first[at] = p;
    for (int i = 0; i < n; i++) {
      if (a.ids[i] != e) continue;
      pair_tok[p] = i / a.top_k;
      pair_of[i] = p++;
    }
  }
  if (e == LISTS_THREADS - 1) {
    a.lists[0] = actives[e];
    a.lists[1] = pairs[e];
    first[actives[e]] = pairs[e];
  }
}

extern "C" size_t hfc_experts_lists_ints(int n_experts, int top_k, int n_tok) {
  return 3 + 2 * (size_t)n_experts + 2 * (size_t)n_tok * (size_t)top_k;
}

extern "C" int hfc_experts_sort(const hfc_experts_lists *a, void *stream) {
  if (a->n_experts < 1 || a->n_experts > LISTS_THREADS || a->top_k < 1 || a->n_tok < 1) return HFC_INVALID;
  return HFC_LAUNCH(experts_lists, dim3(1), dim3(LISTS_THREADS), 0, stream, *a);
}
