/* attention.c: measured rows of attention: its row work, and what a token of context costs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost_int.h"

double cost_row_work_ns(const cost_unit *u, const model_config *c, const model_part *norms, db_tag *tag) {
  const rec_kernel_point *near = NULL;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, "rmsnorm") != 0 || !(k->ns > 0) || k->n_in < 1) continue;
    if (near == NULL || abs(k->n_in - c->d_model) < abs(near->n_in - c->d_model)) near = k;
  }
  if (near == NULL) return 0;
  cost_weaken(tag, near->n_in == c->d_model ? near->tag : TAG_SCALED);
  return (norms->flops_per_token + 4.0 * c->d_model) * near->ns / near->n_in;
}

/* FLOPs per token of context of a measured attention point: `act` says how many heads ("h16"). MLA: n_out = lora, n_in = rope; GQA: n_out =
 * head_dim. */
static double point_work(const rec_kernel_point *k, attn_kind kind) {
  int heads = k->act[0] == 'h' ? atoi(k->act + 1) : 0;
  return 2.0 * heads * (kind == ATTN_MLA ? 2.0 * k->n_out + k->n_in : 2.0 * k->n_out);
}

static bool attention_point(const cost_unit *u, const rec_kernel_point *k, attn_kind kind, int threads) {
  if (!cost_on_unit(k, u) || strcmp(k->kernel, kind == ATTN_MLA ? "attn_mla" : "attn_gqa") != 0 || !(k->ns > 0)) return false;
  return k->tokens == 1 && k->context > 0 && point_work(k, kind) > 0 && (!u->cpu || threads == 0 || k->threads == threads);
}

bool cost_measured_attention(const cost_unit *u, const model_config *m, double work, cost_case c, double *ns, db_tag *tag) {
  const rec_kernel_point *near = NULL, *lo = NULL, *hi = NULL;
  double best = INFINITY;
  int threads = u->cpu ? cost_usable_threads(u, m->attn == ATTN_MLA ? "attn_mla" : "attn_gqa", "f16") : 0;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!attention_point(u, k, m->attn, threads)) continue;
    double far = fabs(log(point_work(k, m->attn) / work));
    if (far >= best) continue;
    best = far;
    near = k;
  }
  for (int i = 0; near != NULL && i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!attention_point(u, k, m->attn, threads) || k->n_out != near->n_out || k->n_in != near->n_in) continue;
    if (strcmp(k->act, near->act) != 0) continue;
    if (lo == NULL || k->context < lo->context) lo = k;
    if (hi == NULL || k->context > hi->context) hi = k;
  }
  if (near == NULL) return false;
  int side = (c.groups & (u->cpu ? COST_CPU_FLOPS : COST_GPU_FLOPS)) != 0 ? c.side : 0;
  double spread = side < 0 && hi->ns_high > hi->ns ? hi->ns_high / hi->ns : side > 0 && hi->ns_low > 0 ? hi->ns_low / hi->ns : 1;
  double slope = hi->context > lo->context ? (hi->ns - lo->ns) / (hi->context - lo->context) : 0;
  if (!(slope > 0)) slope = hi->ns / hi->context;
  *ns = slope * spread * work / point_work(hi, m->attn);
  if (u->cpu && u->threads > 0) *ns *= (double)threads / u->threads; /* arithmetic, split evenly over tokens and heads */
  cost_weaken(tag, hi->tag);
  if (best > 1e-9 || (u->threads > 0 && threads != u->threads)) cost_weaken(tag, TAG_SCALED);
  return true;
}
