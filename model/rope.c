/* rope.c: rotary constants, plain, linear and YaRN (arXiv:2309.00071), resolved once for all families. */
#include <math.h>
#include <stdlib.h>

#include "model/internal.h"

void rope_spec_init(rope_spec *r) {
  *r = (rope_spec){.theta = 10000, .factor = 1, .beta_fast = 32, .beta_slow = 1, .truncate = true};
}

/* YaRN's attention temperature: 0.1 m ln(factor) + 1. */
static double yarn_mscale(double factor, double m) {
  return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

/* The (fractional) dimension whose wave turns `rotations` times within the original context. */
static double correction_dim(double rotations, int dim, double theta, double orig_context) {
  return dim * log(orig_context / (rotations * 2 * M_PI)) / (2 * log(theta));
}

static void yarn_frequencies(const rope_spec *r, int dim, double *inv_freq) {
  double low = correction_dim(r->beta_fast, dim, r->theta, r->orig_context);
  double high = correction_dim(r->beta_slow, dim, r->theta, r->orig_context);
  if (r->truncate) {
    low = floor(low);
    high = ceil(high);
  }
  if (low < 0) low = 0;
  if (high > dim - 1) high = dim - 1;
  if (low == high) high += 0.001; /* the published implementations' guard against 0/0 */
  for (int i = 0; i < dim / 2; i++) {
    double ramp = (i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    double keep = 1 - ramp; /* fast waves keep their frequency, slow ones are interpolated */
    inv_freq[i] = inv_freq[i] / r->factor * (1 - keep) + inv_freq[i] * keep;
  }
}

hf_status config_resolve_rope(model_config *c, const rope_spec *r) {
  int dim = c->rope.dim;
  c->rope.theta = r->theta;
  c->rope.mscale = 1;
  HF_TRY(hf_alloc(&c->rope.inv_freq, (size_t)dim / 2 + 1, sizeof *c->rope.inv_freq, "rotary frequencies"));
  for (int i = 0; i < dim / 2; i++) c->rope.inv_freq[i] = 1 / pow(r->theta, 2.0 * i / dim);
  double head = c->attn == ATTN_MLA ? c->nope_dim + c->rope_dim : c->head_dim;
  c->attn_scale = 1 / sqrt(head);
  if (!r->yarn) {
    for (int i = 0; i < dim / 2; i++) c->rope.inv_freq[i] /= r->factor;
    return HF_OK;
  }
  yarn_frequencies(r, dim, c->rope.inv_freq);
  if (r->attention_factor > 0) c->rope.mscale = r->attention_factor;
  else if (r->mscale > 0 && r->mscale_all_dim > 0)
    c->rope.mscale = yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
  else c->rope.mscale = yarn_mscale(r->factor, 1);
  if (c->attn == ATTN_MLA && r->mscale_all_dim > 0) {
    double m = yarn_mscale(r->factor, r->mscale_all_dim);
    c->attn_scale *= m * m;
  }
  return HF_OK;
}
