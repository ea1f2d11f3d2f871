/* shim.cuh: the part of CUDA C that the kernels use, for the host compiler; kernels/cuda/cuda.cuh includes it where nvcc does not compile.
 * Included by code that is instrumented (host.h), so what is here is checked as kernels are. */
#ifndef HF_KERNELS_CUDA_HOST_SHIM_CUH
#define HF_KERNELS_CUDA_HOST_SHIM_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/half.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct __align__(16) uint4 {
  unsigned x, y, z, w;
};
struct __align__(8) uint2 {
  unsigned x, y;
};
struct __align__(16) float4 {
  float x, y, z, w;
};

/* What a thread can ask for. */
struct hfc_place {
  dim3 thread, block, block_dim, grid_dim;
  void *dynamic;
};
extern hfc_place hfc_here;
#define threadIdx hfc_here.thread
#define blockIdx hfc_here.block
#define blockDim hfc_here.block_dim
#define gridDim hfc_here.grid_dim

enum hfc_kind { HFC_SHUFFLE, HFC_BALLOT, HFC_SYNCWARP };
uint64_t hfc_warp(hfc_kind kind, unsigned mask, uint64_t value, int from, int line);
void hfc_barrier(int line);
void hfc_atomic(bool begins); /* accesses in between are no races */
int hfc_run(const char *name, dim3 grid, dim3 block, size_t shared_bytes, void (*thread)(const void *), const void *args);
uint64_t hfc_clock_ns();
/* The kernel's arguments stay on the launcher's stack, where threads may read them. */
template <class K> static inline int hfc_launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const K &kernel) {
  return hfc_run(
      name, grid, block, shared_bytes, [](const void *k) { (*(const K *)k)(); }, &kernel);
}

static inline void __syncthreads(int line = __builtin_LINE()) {
  hfc_barrier(line);
}
static inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) {
  hfc_warp(HFC_SYNCWARP, mask, 0, 0, line);
}
static inline unsigned __ballot_sync(unsigned mask, int yes, int line = __builtin_LINE()) {
  return (unsigned)hfc_warp(HFC_BALLOT, mask, yes != 0, 0, line);
}
static inline int __any_sync(unsigned mask, int yes, int line = __builtin_LINE()) {
  return __ballot_sync(mask, yes, line) != 0;
}

static inline int hfc_lane() {
  return (int)(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}
template <class T> static inline T hfc_shuffle(unsigned mask, T v, int from, int line) {
  static_assert(sizeof(T) <= 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &v, sizeof v);
  bits = hfc_warp(HFC_SHUFFLE, mask, bits, from, line);
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int from, int width = 32, int line = __builtin_LINE()) {
  const int lane = hfc_lane();
  return hfc_shuffle(mask, v, (lane & ~(width - 1)) + (from & (width - 1)), line);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, int line = __builtin_LINE()) {
  const int lane = hfc_lane(), from = lane ^ with;
  return hfc_shuffle(mask, v, (from & ~(width - 1)) > (lane & ~(width - 1)) ? lane : from, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, int line = __builtin_LINE()) {
  const int lane = hfc_lane(), from = lane + (int)by;
  return hfc_shuffle(mask, v, from <= (lane | (width - 1)) ? from : lane, line);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, int line = __builtin_LINE()) {
  const int lane = hfc_lane(), from = lane - (int)by;
  return hfc_shuffle(mask, v, from >= (lane & ~(width - 1)) ? from : lane, line);
}

template <class T> static inline T atomicAdd(T *at, T v) {
  hfc_atomic(true);
  T old = *at;
  *at = old + v;
  hfc_atomic(false);
  return old;
}
template <class T> static inline T atomicMax(T *at, T v) {
  hfc_atomic(true);
  T old = *at;
  if (v > old) *at = v;
  hfc_atomic(false);
  return old;
}

static inline unsigned __float_as_uint(float f) {
  return half_bits_of(f);
}
static inline float __uint_as_float(unsigned u) {
  return half_float_of(u);
}
static inline int __float2int_rn(float f) {
  return (int)lrintf(f);
}
static inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += (int)(int8_t)((unsigned)a >> i) * (int)(int8_t)((unsigned)b >> i);
  return c;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned which) {
  const uint64_t all = (uint64_t)b << 32 | a;
  unsigned out = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned s = which >> 4 * i & 15;
    unsigned byte = (unsigned)(all >> 8 * (s & 7)) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    out |= byte << 8 * i;
  }
  return out;
}
#endif
