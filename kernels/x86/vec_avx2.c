/* Vector operations: RMS norm, SwiGLU (plain and clamped), axpy, dot. Two accumulators hide the latency of the addition. */
#include <math.h>

#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

static inline __m256 load_up_to_8(const float *p, int n) {
  return n >= 8 ? _mm256_loadu_ps(p) : v256_load_tail(p, n);
}

static inline void store_up_to_8(float *p, int n, __m256 v) {
  if (n >= 8) _mm256_storeu_ps(p, v);
  else _mm256_maskstore_ps(p, v256_mask(n), v);
}

float kern_dot_avx2(const float *a, const float *b, int n) {
  __m256 s0 = _mm256_setzero_ps(), s1 = s0;
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
    s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
  }
  for (; i < n; i += 8) s0 = _mm256_fmadd_ps(load_up_to_8(a + i, n - i), load_up_to_8(b + i, n - i), s0);
  return v256_sum(_mm256_add_ps(s0, s1));
}

void kern_axpy_avx2(float a, const float *x, int n, float *y) {
  __m256 va = _mm256_set1_ps(a);
  for (int i = 0; i < n; i += 8) {
    store_up_to_8(y + i, n - i, _mm256_fmadd_ps(va, load_up_to_8(x + i, n - i), load_up_to_8(y + i, n - i)));
  }
}

void kern_rmsnorm_avx2(const float *x, const float *w, float eps, int n, float *y) {
  __m256 inv = _mm256_set1_ps(1.0f / sqrtf(kern_dot_avx2(x, x, n) / (float)n + eps));
  for (int i = 0; i < n; i += 8) {
    __m256 v = _mm256_mul_ps(load_up_to_8(x + i, n - i), inv);
    store_up_to_8(y + i, n - i, _mm256_mul_ps(v, load_up_to_8(w + i, n - i)));
  }
}

void kern_swiglu_avx2(const float *gate, const float *up, int n, float *out) {
  const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
  for (int i = 0; i < n; i += 8) {
    __m256 g = load_up_to_8(gate + i, n - i);
    __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, v256_exp(_mm256_xor_ps(g, sign))));
    store_up_to_8(out + i, n - i, _mm256_mul_ps(silu, load_up_to_8(up + i, n - i)));
  }
}

/* minps and maxps give their second operand when one is NaN: the value comes second. */
void kern_swiglu_clamped_avx2(const float *gate, const float *up, float limit, int n, float *out) {
  const __m256 one = _mm256_set1_ps(1.0f), most = _mm256_set1_ps(limit), least = _mm256_set1_ps(-limit);
  const __m256 alpha = _mm256_set1_ps(-1.702f);
  for (int i = 0; i < n; i += 8) {
    __m256 g = _mm256_min_ps(most, load_up_to_8(gate + i, n - i));
    __m256 u = _mm256_max_ps(least, _mm256_min_ps(most, load_up_to_8(up + i, n - i)));
    __m256 glu = _mm256_div_ps(g, _mm256_add_ps(one, v256_exp(_mm256_mul_ps(g, alpha))));
    store_up_to_8(out + i, n - i, _mm256_mul_ps(_mm256_add_ps(u, one), glu));
  }
}
