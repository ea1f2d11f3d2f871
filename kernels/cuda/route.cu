/* route.cu: which experts a token goes to, for the routers of every family (kern_route): scores by softmax or sigmoid, a bias that only chooses,
 * groups of which the best stay, ties to the lower index, weights normalised and scaled. One block a token; a choice is one pass over the block's
 * registers. n_experts * 4 bytes a token; limit: top_k times two barriers, a few us beside the launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { ROUTE_THREADS = 256, ROUTE_WARPS = ROUTE_THREADS / WARP, ROUTE_EXPERTS = 1024, ROUTE_CHOSEN = 64 };

struct route_room {
  float score[ROUTE_EXPERTS], choice[ROUTE_EXPERTS], group[ROUTE_EXPERTS];
  float most[ROUTE_WARPS], sums[ROUTE_WARPS + 1];
  int where[ROUTE_WARPS], best, ids[ROUTE_CHOSEN];
  bool taken[ROUTE_EXPERTS];
};

/* Takes an index, where it is better than the one at hand; an index of -1 is none. */
static __device__ __forceinline__ void better(float v, int i, float *best, int *at) {
  if (i >= 0 && (*at < 0 || v > *best || (v == *best && i < *at))) *best = v, *at = i;
}

/* The largest of n numbers that are not taken, the lower of equal ones; taken from now on. To all threads. */
static __device__ int take_best(const float *v, int n, route_room *r) {
  float best = 0;
  int at = -1;
  for (int i = (int)threadIdx.x; i < n; i += ROUTE_THREADS) better(v[i], r->taken[i] ? -1 : i, &best, &at);
  for (int by = WARP / 2; by > 0; by /= 2) {
    const float o = __shfl_xor_sync(ALL_LANES, best, by);
    const int i = __shfl_xor_sync(ALL_LANES, at, by);
    better(o, i, &best, &at);
  }
  if (threadIdx.x % WARP == 0) r->most[threadIdx.x / WARP] = best, r->where[threadIdx.x / WARP] = at;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < ROUTE_WARPS; w++) better(r->most[w], r->where[w], &best, &at);
    r->best = at < 0 ? 0 : at;
    r->taken[r->best] = true;
  }
  __syncthreads();
  return r->best;
}

static __device__ void none_taken(int n, route_room *r) {
  for (int i = (int)threadIdx.x; i < n; i += ROUTE_THREADS) r->taken[i] = false;
  __syncthreads();
}

static __device__ void route_scores(const hfc_route *a, const float *logits, route_room *r) {
  const int n = a->n_experts;
  float most = -INFINITY, sum = 0;
  if (a->score == 0) {
    for (int e = (int)threadIdx.x; e < n; e += ROUTE_THREADS) most = fmaxf(most, logits[e]);
    most = warp_max(most);
    if (threadIdx.x % WARP == 0) r->most[threadIdx.x / WARP] = most;
    __syncthreads();
    for (int w = 0; w < ROUTE_WARPS; w++) most = fmaxf(most, r->most[w]);
    for (int e = (int)threadIdx.x; e < n; e += ROUTE_THREADS) sum += expf(logits[e] - most);
    sum = block_sum(sum, r->sums, ROUTE_WARPS);
  }
  for (int e = (int)threadIdx.x; e < n; e += ROUTE_THREADS) {
    const float z = logits[e], s = a->score == 1 ? 1.0f / (1.0f + expf(-z)) : a->score == 0 ? expf(z - most) / sum : z;
    r->score[e] = s;
    r->choice[e] = a->bias ? s + a->bias[e] : s;
  }
  __syncthreads();
}

/* Experts outside of the best groups cannot be chosen. */
static __device__ void route_groups(const hfc_route *a, route_room *r) {
  const int size = a->n_experts / a->n_group;
  for (int g = (int)threadIdx.x; g < a->n_group; g += ROUTE_THREADS) {
    float first = -INFINITY, second = -INFINITY;
    for (int e = g * size; e < (g + 1) * size; e++) {
      const float v = r->choice[e];
      if (v > first) second = first, first = v;
      else if (v > second) second = v;
    }
    r->group[g] = a->group == 1 && size > 1 ? first + second : first;
  }
  __syncthreads();
  none_taken(a->n_group, r);
  for (int k = 0; k < a->topk_group && k < a->n_group; k++) take_best(r->group, a->n_group, r);
  for (int e = (int)threadIdx.x; e < a->n_experts; e += ROUTE_THREADS)
    if (e / size >= a->n_group || !r->taken[e / size]) r->choice[e] = -INFINITY;
  __syncthreads();
}

/* By one thread: ids ascending, weights from the scores alone. */
static __device__ void route_weigh(const hfc_route *a, route_room *r, int32_t *ids, float *weights) {
  const int k = a->top_k;
  for (int i = 1; i < k; i++) {
    const int v = r->ids[i];
    int j = i;
    for (; j > 0 && r->ids[j - 1] > v; j--) r->ids[j] = r->ids[j - 1];
    r->ids[j] = v;
  }
  float most = -INFINITY, all = 0, sum = 0;
  for (int i = 0; i < k; i++) most = fmaxf(most, r->score[r->ids[i]]);
  for (int i = 0; i < k && a->score == 2; i++) all += expf(r->score[r->ids[i]] - most);
  for (int i = 0; i < k; i++) {
    const float s = r->score[r->ids[i]];
    sum += a->score == 2 ? expf(s - most) / all : s;
  }
  for (int i = 0; i < k; i++) {
    const float s = r->score[r->ids[i]], w = a->score == 2 ? expf(s - most) / all : s;
    ids[i] = r->ids[i];
    weights[i] = (a->norm ? w / (sum + 1e-20f) : w) * a->scale;
  }
}

static __global__ __launch_bounds__(ROUTE_THREADS) void route_rows(hfc_route a) {
  __shared__ route_room room;
  route_room *r = &room;
  const int t = (int)blockIdx.x;
  if (a.count && t >= *a.count) return;
  const size_t at = (size_t)t * (size_t)a.top_k;
  route_scores(&a, a.logits + (size_t)t * a.stride, r);
  if (a.forced && a.forced[at] >= 0) {
    for (int i = (int)threadIdx.x; i < a.top_k; i += ROUTE_THREADS) r->ids[i] = a.forced[at + (size_t)i];
  } else {
    if (a.group != 0 && a.n_group > 1) route_groups(&a, r);
    none_taken(a.n_experts, r);
    for (int i = 0; i < a.top_k; i++) {
      const int e = take_best(r->choice, a.n_experts, r);
      if (threadIdx.x == 0) r->ids[i] = e;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) route_weigh(&a, r, a.ids + at, a.weights + at);
}

extern "C" int hfc_route_rows(const hfc_route *a, void *stream) {
  if (a->n_tok < 1 || a->n_experts < 1 || a->n_experts > ROUTE_EXPERTS || a->top_k < 1 || a->top_k > ROUTE_CHOSEN ||
      a->top_k > a->n_experts)
    return HFC_INVALID;
  return HFC_LAUNCH(route_rows, dim3((unsigned)a->n_tok), dim3(ROUTE_THREADS), 0, stream, *a);
}
