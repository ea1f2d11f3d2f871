/* cuda.cuh: what every kernel file includes: CUDA C by nvcc, or the same for the host (host/shim.cuh), and the few things that both spell
 * differently: launches, dynamic shared memory, conversions, loads. */
#ifndef HF_KERNELS_CUDA_CUDA_CUH
#define HF_KERNELS_CUDA_CUDA_CUH

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#else
#include "kernels/cuda/host/shim.cuh"
#endif

enum { WARP = 32, TILE = 16 /* rows of KL_TILE16 */ };
#define ALL_LANES 0xffffffffu

#ifdef __CUDACC__
#define HFC_ON_HOST 0
/* A launch, whose value is the runtime's error number, 0 for none. */
#define HFC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (kernel<<<(grid), (block), (shared_bytes), (cudaStream_t)(stream)>>>(__VA_ARGS__), (int)cudaPeekAtLastError())
#define DYNAMIC_SHARED(type, name)                             \
  extern __shared__ __align__(16) unsigned char hfc_dynamic[]; \
  type *name = (type *)hfc_dynamic

static __device__ __forceinline__ float f32_of_f16(uint16_t h) {
  return __half2float(__ushort_as_half(h));
}
static __device__ __forceinline__ uint16_t f16_of_f32(float f) {
  return __half_as_ushort(__float2half_rn(f));
}
/* Weights: read once, so they are kept out of the first cache. */
static __device__ __forceinline__ uint32_t load_weights(const void *p) {
  uint32_t v;
  asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
/* Flags in host memory: the host's stores before the one that is seen here come before what follows, and the other way round. */
static __device__ __forceinline__ int32_t load_from_host(const int32_t *p) {
  int32_t v;
  asm volatile("ld.acquire.sys.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
static __device__ __forceinline__ void store_to_host(int32_t *p, int32_t v) {
  __threadfence_system();
  asm volatile("st.release.sys.global.s32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
static __device__ __forceinline__ uint64_t device_clock_ns() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(ns));
  return ns;
}
static __device__ __forceinline__ void short_sleep() {
  __nanosleep(200);
}
#else
#define HFC_ON_HOST 1
#define HFC_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), hfc_launch(#kernel, (grid), (block), (shared_bytes), [&] { kernel(__VA_ARGS__); }))
#define DYNAMIC_SHARED(type, name) type *name = (type *)hfc_here.dynamic

static __forceinline__ float f32_of_f16(uint16_t h) {
  return half_from_f16(h);
}
static __forceinline__ uint16_t f16_of_f32(float f) {
  return half_to_f16(f);
}
static __forceinline__ uint32_t load_weights(const void *p) {
  return *(const uint32_t *)p;
}
static __forceinline__ int32_t load_from_host(const int32_t *p) {
  const int32_t v = *(const volatile int32_t *)p; /* a builtin's access would not be checked */
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  return v;
}
static __forceinline__ void store_to_host(int32_t *p, int32_t v) {
  __atomic_thread_fence(__ATOMIC_RELEASE);
  *(volatile int32_t *)p = v;
}
static __forceinline__ uint64_t device_clock_ns() {
  return hfc_clock_ns();
}
static __forceinline__ void short_sleep() {}
#endif

static __device__ __forceinline__ float f32_of_bf16(uint32_t h) {
  return __uint_as_float(h << 16);
}
/* Both halves of a word. */
static __device__ __forceinline__ float f32_of_bf16_low(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
static __device__ __forceinline__ float f32_of_bf16_high(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
/* Nearest even; NaN stays NaN. The bits of half_to_bf16. */
static __device__ __forceinline__ uint16_t bf16_of_f32(float f) {
  const uint32_t u = __float_as_uint(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
/* A number of E4M3, which the caller knows not to be NaN: its bits are those of an f32 that is 2^120 times too small. */
static __device__ __forceinline__ float f32_of_e4m3(uint32_t b) {
  return __uint_as_float((b & 0x80u) << 24 | (b & 0x7fu) << 20) * 0x1p120f;
}

static __device__ __forceinline__ float warp_sum(float v) {
  for (int by = WARP / 2; by > 0; by /= 2) v += __shfl_xor_sync(ALL_LANES, v, by);
  return v;
}
static __device__ __forceinline__ float warp_max(float v) {
  for (int by = WARP / 2; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, by));
  return v;
}
/* Of a block of `n_warps`, to all its threads. room: n_warps + 1 floats. */
static __device__ __forceinline__ float block_sum(float v, float *room, int n_warps) {
  v = warp_sum(v);
  if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = v;
  __syncthreads();
  if (threadIdx.x == 0) {
    float all = 0;
    for (int w = 0; w < n_warps; w++) all += room[w];
    room[n_warps] = all;
  }
  __syncthreads();
  const float sum = room[n_warps];
  __syncthreads();
  return sum;
}
#endif
