/* rope.c: rotary position embedding in place; cos and sin come with every scaling (YaRN) already inside. */
#include "kernels/kernels.h"

void kern_rope(float *x, int n_heads, int head_stride, int offset, int dim, const float *cos, const float *sin, bool pairs) {
  int half = dim / 2, step = pairs ? 2 : 1, other = pairs ? 1 : half;
  for (int h = 0; h < n_heads; h++) {
    float *v = x + (size_t)h * (size_t)head_stride + offset;
    for (int i = 0; i < half; i++) {
      float a = v[i * step], b = v[i * step + other];
      v[i * step] = a * cos[i] - b * sin[i];
      v[i * step + other] = a * sin[i] + b * cos[i];
    }
  }
}
