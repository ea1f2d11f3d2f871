/* Vector operations: RMS norm, SwiGLU (plain and clamped), axpy, dot. Two accumulators hide the latency of the addition. */
#include <math.h>

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

float kern_dot_avx512(const float *a, const float *b, int n) {
  __m512 s0 = _mm512_setzero_ps(), s1 = s0;
  int i = 0;
  for (; i + 32 <= n; i += 32) {
    s0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(b + i), s0);
    s1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(b + i + 16), s1);
  }
  for (; i < n; i += 16) {
    __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    s0 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, a + i), _mm512_maskz_loadu_ps(m, b + i), s0);
  }
  return v512_sum(_mm512_add_ps(s0, s1));
}

void kern_axpy_avx512(float a, const float *x, int n, float *y) {
  __m512 va = _mm512_set1_ps(a);
  for (int i = 0; i < n; i += 16) {
    __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    __m512 v = _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i));
    _mm512_mask_storeu_ps(y + i, m, v);
  }
}

void kern_rmsnorm_avx512(const float *x, const float *w, float eps, int n, float *y) {
  __m512 inv = _mm512_set1_ps(1.0f / sqrtf(kern_dot_avx512(x, x, n) / (float)n + eps));
  for (int i = 0; i < n; i += 16) {
    __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), inv);
    _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, w + i)));
  }
}

void kern_swiglu_avx512(const float *gate, const float *up, int n, float *out) {
  const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
  for (int i = 0; i < n; i += 16) {
    __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    __m512 g = _mm512_maskz_loadu_ps(m, gate + i);
    __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, v512_exp(_mm512_xor_ps(g, sign))));
    _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, up + i)));
  }
}

/* minps and maxps give their second operand when one is NaN: the value comes second. */
void kern_swiglu_clamped_avx512(const float *gate, const float *up, float limit, int n, float *out) {
  const __m512 one = _mm512_set1_ps(1.0f), most = _mm512_set1_ps(limit), least = _mm512_set1_ps(-limit);
  const __m512 alpha = _mm512_set1_ps(-1.702f);
  for (int i = 0; i < n; i += 16) {
    __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    __m512 g = _mm512_min_ps(most, _mm512_maskz_loadu_ps(m, gate + i));
    __m512 u = _mm512_max_ps(least, _mm512_min_ps(most, _mm512_maskz_loadu_ps(m, up + i)));
    __m512 glu = _mm512_div_ps(g, _mm512_add_ps(one, v512_exp(_mm512_mul_ps(g, alpha))));
    _mm512_mask_storeu_ps(out + i, m, _mm512_mul_ps(_mm512_add_ps(u, one), glu));
  }
}
