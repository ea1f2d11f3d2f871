/* shim_kernels.cu: see shim_kernels.h. */
#include "shim_kernels.h"

#include "kernels/cuda/cuda.cuh"

static __device__ const float table[4] = {1, 2, 3, 4};

static __global__ void reduce(const float *x, int n, float *out) {
  __shared__ float part[256];
  const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  part[threadIdx.x] = i < n ? x[i] : 0;
  for (unsigned half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

static __global__ void scan(const int *x, int *out) {
  int v = x[threadIdx.x];
  for (unsigned by = 1; by < 32; by *= 2) {
    const int left = __shfl_up_sync(ALL_LANES, v, by);
    if (threadIdx.x >= by) v += left;
  }
  out[threadIdx.x] = v;
}

static __global__ void vote(const int *x, unsigned *ballot, int *count) {
  const unsigned yes = __ballot_sync(ALL_LANES, x[threadIdx.x] > 0);
  if (threadIdx.x == 0) *ballot = yes;
  if (x[threadIdx.x] > 0) atomicAdd(count, 1);
}

static __global__ void reverse(const int *x, int n, int *out) {
  DYNAMIC_SHARED(int, room);
  room[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = room[n - 1 - (int)threadIdx.x];
}

static __global__ void wrong_memory(int what, const float *x, float *out) {
  __shared__ float room[64];
  DYNAMIC_SHARED(float, dynamic);
  const int t = (int)threadIdx.x, i = (int)(blockIdx.x * blockDim.x) + t;
  float v = 0;
  room[t] = x[i];
  dynamic[t] = x[i];
  __syncthreads();
  switch (what) {
    case SHIM_READ_PAST: v = x[i + 1]; break;
    case SHIM_WRITE_BEFORE: out[i - 1] = 1; break;
    case SHIM_WRITE_CONSTANT: ((float *)(uintptr_t)x)[i] = 1; break;
    case SHIM_MISALIGNED: v = (float)*(const int *)((const char *)x + i * 2 + 1); break;
    case SHIM_SHARED_PAST: v = room[t + 1]; break;
    case SHIM_DYNAMIC_PAST: v = dynamic[t + 1]; break;
    case SHIM_TABLE_PAST: v = table[t % 5]; break;
    case SHIM_WILD: v = *(const float *)(uintptr_t)(64 + 4 * t); break;
    default: v = room[t];
  }
  out[i] = v;
}

static __global__ void wrong_order(int what, const float *x, float *out) {
  __shared__ float room[64];
  const int t = (int)threadIdx.x, i = (int)(blockIdx.x * blockDim.x) + t;
  float v = x[i];
  if (what != SHIM_UNWRITTEN || t % 2) room[t] = v;
  switch (what) {
    case SHIM_DIVERGENT:
      if (t < 32) __syncthreads();
      break;
    case SHIM_TWO_BARRIERS:
      if (t < 32) __syncthreads();
      else __syncthreads();
      break;
    case SHIM_MISSING_LANE:
      if (t % 32 != 5) v = __shfl_xor_sync(ALL_LANES, v, 1);
      break;
    case SHIM_FOREIGN_LANE:
      if (t % 32 < 16) v = __shfl_sync(0xffffu, v, t % 32 + 8);
      break;
    case SHIM_RACE: v = room[t ^ 32]; break;
    case SHIM_RACE_IN_WARP: v = room[t ^ 1]; break;
    default: __syncthreads(); v = room[t];
  }
  out[i] = v;
}

extern "C" int shim_reduce(const float *x, int n, float *out) {
  return HFC_LAUNCH(reduce, dim3((unsigned)(n + 255) / 256), dim3(256), 0, nullptr, x, n, out);
}
extern "C" int shim_scan(const int *x, int *out) {
  return HFC_LAUNCH(scan, dim3(1), dim3(32), 0, nullptr, x, out);
}
extern "C" int shim_vote(const int *x, unsigned *ballot, int *count) {
  return HFC_LAUNCH(vote, dim3(1), dim3(32), 0, nullptr, x, ballot, count);
}
extern "C" int shim_reverse(const int *x, int n, int *out) {
  return HFC_LAUNCH(reverse, dim3(1), dim3((unsigned)n), (size_t)n * sizeof(int), nullptr, x, n, out);
}
extern "C" int shim_wrong(shim_mistake what, const float *x, float *out) {
  if (what >= SHIM_DIVERGENT) return HFC_LAUNCH(wrong_order, dim3(2), dim3(64), 0, nullptr, what, x, out);
  return HFC_LAUNCH(wrong_memory, dim3(2), dim3(64), 64 * sizeof(float), nullptr, what, x, out);
}
