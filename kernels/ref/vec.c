/* vec.c: the definition of the vector operations: RMS norm, SwiGLU (plain and clamped), axpy, dot. */
#include <math.h>

#include "kernels/ref/ref.h"

float kern_dot_ref(const float *a, const float *b, int n) {
  float s[8] = {0};
  for (int i = 0; i < n; i++) s[i % 8] += a[i] * b[i];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

void kern_axpy_ref(float a, const float *x, int n, float *y) {
  for (int i = 0; i < n; i++) y[i] += a * x[i];
}

void kern_rmsnorm_ref(const float *x, const float *w, float eps, int n, float *y) {
  float inv = 1.0f / sqrtf(kern_dot_ref(x, x, n) / (float)n + eps);
  for (int i = 0; i < n; i++) y[i] = x[i] * inv * w[i];
}

void kern_swiglu_ref(const float *gate, const float *up, int n, float *out) {
  for (int i = 0; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* Comparisons are written so that NaN stays NaN. */
void kern_swiglu_clamped_ref(const float *gate, const float *up, float limit, int n, float *out) {
  for (int i = 0; i < n; i++) {
    float g = gate[i] > limit ? limit : gate[i];
    float u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
    out[i] = (u + 1.0f) * (g / (1.0f + expf(-1.702f * g)));
  }
}
