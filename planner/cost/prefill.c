/* prefill.c: a prompt's tokens: the CPU's matrix products against sending the weights to the device. */
#include <math.h>

#include "planner/cost/cost.h"

static double layer_ns(const stage_table *t, const popularity *pop, int layer, int tokens, bool upload) {
  stage_load load = {.upload = upload};
  stage_load_add(&load, t, 0, tokens);
  layer_times r = stage_layer_times_load(t, pop, layer, &load, NULL);
  /* the link works while the device does; so does the CPU, after the hand-over */
  return upload ? fmax(r.upload_ns, r.shared_ns + r.dexp_ns) : fmax(r.shared_ns + r.dexp_ns, r.hand_ns + r.cexp_ns);
}

static bool upload_wins(const stage_table *t, const popularity *pop, int layer, int tokens) {
  return layer_ns(t, pop, layer, tokens, true) <= layer_ns(t, pop, layer, tokens, false);
}

int cost_prefill_crossing(const stage_table *t, const popularity *pop, int layer, int most) {
  if (!t->layer[layer].moe || !(t->layer[layer].upload_ns > 0)) return INT32_MAX;
  int lo = 0, hi = 1; /* upload loses at lo (or lo = 0) */
  while (hi < most && !upload_wins(t, pop, layer, hi)) {
    lo = hi;
    hi = hi < most / 2 ? 2 * hi : most;
  }
  if (!upload_wins(t, pop, layer, hi)) return INT32_MAX;
  while (hi - lo > 1) {
    int mid = lo + (hi - lo) / 2;
    if (upload_wins(t, pop, layer, mid)) hi = mid;
    else lo = mid;
  }
  return hi;
}

void cost_curve_bend(stage_curve *c, double flops_per_token, double flops_per_s) {
  double slope = 1e9 * flops_per_token / flops_per_s;
  int last = c->n - 1;
  double flat = last > 0 ? (c->ns[last] - c->ns[last - 1]) / (c->tok[last] - c->tok[last - 1]) : 0;
  if (!(slope > flat)) return;
  double cross = (c->ns[last] - flat * c->tok[last]) / (slope - flat); /* where both lines meet */
  if (cross < c->tok[last]) cross = c->tok[last];
  if (c->n > STAGE_CURVE_MAX - 2) return; /* so many measured points reach far enough */
  double at = c->ns[last] + flat * (cross - c->tok[last]);
  if (cross > c->tok[last]) {
    c->tok[c->n] = cross;
    c->ns[c->n] = at;
    c->n++;
  }
  c->tok[c->n] = 2 * cross;
  c->ns[c->n] = at + slope * cross;
  c->n++;
}
