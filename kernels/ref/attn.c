/* attn.c: the definition of attention over a paged KV cache: one pass, softmax kept online (running maximum m, running sum
 * of exp(s - m), running weighted sum), one context row at a time. */
#include <math.h>

#include "kernels/half.h"
#include "kernels/ref/ref.h"

static float element(const kern_kv *kv, const char *row, int i) {
  switch (kv->type) {
    case KV_F16: return half_from_f16(half_load_u16(row + (size_t)i * 2));
    case KV_BF16: return half_from_bf16(half_load_u16(row + (size_t)i * 2));
    default: return half_load_f32(row + (size_t)i * 4);
  }
}

static const char *row_of(const kern_kv *kv, int i) {
  return kv->base + (size_t)kv->pages[i / kv->page_tokens] * kv->page_bytes + (size_t)(i % kv->page_tokens) * kv->row_bytes;
}

/* Keys are elements k0..k0+dk of a row, values v0..v0+dv. */
static void attend(const kern_kv *kv, const float *q, int first, int k0, int dk, int v0, int dv, float scale, const float *sink,
                   float *out) {
  float max = -INFINITY, sum = 0.0f;
  for (int j = 0; j < dv; j++) out[j] = 0.0f;
  for (int i = first; i < kv->n_ctx; i++) {
    const char *row = row_of(kv, i);
    float s[8] = {0};
    for (int j = 0; j < dk; j++) s[j % 8] += q[j] * element(kv, row, k0 + j);
    float score = scale * (((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
    if (score > max) {
      float shrink = expf(max - score);
      for (int j = 0; j < dv; j++) out[j] *= shrink;
      sum *= shrink;
      max = score;
    }
    float p = expf(score - max);
    sum += p;
    for (int j = 0; j < dv; j++) out[j] += p * element(kv, row, v0 + j);
  }
  if (sink) {
    float top = *sink > max ? *sink : max;
    float shrink = expf(max - top);
    for (int j = 0; j < dv; j++) out[j] *= shrink;
    sum = sum * shrink + expf(*sink - top);
  }
  for (int j = 0; j < dv; j++) out[j] /= sum;
}

void kern_attn_mla_ref(const kern_kv *kv, const float *q, int h0, int h1, int lora, int rope, float scale, float *out) {
  for (int h = h0; h < h1; h++) {
    attend(kv, q + (size_t)h * (size_t)(lora + rope), 0, 0, lora + rope, 0, lora, scale, NULL, out + (size_t)h * (size_t)lora);
  }
}

void kern_attn_gqa_ref(const kern_kv *kv, const float *q, int h0, int h1, int n_heads, int n_kv_heads, int hd, float scale,
                       int window, const float *sinks, float *out) {
  int first = window > 0 && kv->n_ctx > window ? kv->n_ctx - window : 0;
  for (int h = h0; h < h1; h++) {
    int g = h / (n_heads / n_kv_heads);
    attend(kv, q + (size_t)h * (size_t)hd, first, g * hd, hd, (n_kv_heads + g) * hd, hd, scale, sinks ? sinks + h : NULL,
           out + (size_t)h * (size_t)hd);
  }
}
