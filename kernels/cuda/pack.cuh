/* pack.cuh: activations packed as a weight format wants them (kernels.h): the bits of the host's packing, padding included. A warp packs 32 numbers
 * at a time. */
#ifndef HF_KERNELS_CUDA_PACK_CUH
#define HF_KERNELS_CUDA_PACK_CUH

#include "kernels/cuda/mm.cuh"

/* A warp's block of 32 as Q8B32. v: the lane's number, 0 behind the last. */
static __device__ __forceinline__ void pack_q8_block(float v, int b, int n, char *out) {
  const int lane = (int)threadIdx.x % WARP;
  const act_q8 x = act_q8::at(out, n);
  uint32_t most = __float_as_uint(v) & 0x7fffffffu; /* on the bits: a NaN is above infinity and reaches the scale */
  for (int by = WARP / 2; by > 0; by /= 2) {
    const uint32_t other = __shfl_xor_sync(ALL_LANES, most, by);
    most = other > most ? other : most;
  }
  const float d = __uint_as_float(most) / 127.0f;
  float q = d == 0.0f ? 0.0f : v / d;
  q = q > -127.0f ? q : -127.0f; /* so that a NaN is -127 */
  q = q < 127.0f ? q : 127.0f;
  const int i = __float2int_rn(q);
  int sum = i;
  for (int by = 1; by < TILE; by *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, by);
  const int all = sum + __shfl_xor_sync(ALL_LANES, sum, TILE);
  out[32 * b + lane] = (char)i;
  if (lane % TILE == 0) ((int *)x.n16)[2 * b + lane / TILE] = -sum;
  if (lane == 0) {
    ((float *)x.d)[b] = d;
    ((int *)x.n32)[b] = -all;
    ((float *)x.less)[b] = d * (float)-all;
  }
}

/* Zeros from byte `used` to `all`, by one block of threads. */
static __device__ __forceinline__ void zero_bytes(char *p, size_t used, size_t all) {
  for (size_t i = used + threadIdx.x; i < all; i += blockDim.x) p[i] = 0;
}

/* A row by one block of whole warps; read(i) gives number i. */
template <class Read> static __device__ __forceinline__ void pack_row(int act, int n, char *out, const Read &read) {
  const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, n_warps = (int)blockDim.x / WARP;
  if (act == HFC_Q8B32) {
    const int blocks = (n + 31) / 32;
    for (int b = warp; b < blocks; b += n_warps) pack_q8_block(32 * b + lane < n ? read(32 * b + lane) : 0.0f, b, n, out);
    const act_q8 x = act_q8::at(out, n);
    const size_t d = (size_t)((char *)x.d - out), n32 = (size_t)((char *)x.n32 - out), n16 = (size_t)((char *)x.n16 - out),
                 less = (size_t)((char *)x.less - out);
    zero_bytes(out, (size_t)blocks * 32, d);
    zero_bytes(out, d + (size_t)blocks * 4, n32);
    zero_bytes(out, n32 + (size_t)blocks * 4, n16);
    zero_bytes(out, n16 + (size_t)blocks * 8, less);
    zero_bytes(out, less + (size_t)blocks * 4, less + act_q8::up((size_t)blocks * 4, 64));
  } else if (act == HFC_F32) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) ((float *)out)[i] = read(i);
    zero_bytes(out, (size_t)n * 4, act_q8::up((size_t)n * 4, 64));
  } else {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
      ((uint16_t *)out)[i] = act == HFC_F16 ? f16_of_f32(read(i)) : bf16_of_f32(read(i));
    zero_bytes(out, (size_t)n * 2, act_q8::up((size_t)n * 2, 64));
  }
}
#endif
