/* attention.c: measured rows of attention: its row work, and what a token of context costs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost_int.h"

/* Of the kernel's points the one nearest in width; among those of that width, of the unit's number of threads. */
static const rec_kernel_point *measured_near(const cost_unit *u, const char *kernel, int n_in) {
  const rec_kernel_point *near = NULL;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, kernel) != 0 || !(k->ns > 0) || k->n_in < 1) continue;
    const int far = abs(k->n_in - n_in), best = near == NULL ? INT32_MAX : abs(near->n_in - n_in);
    if (far < best || (far == best && k->threads == u->threads)) near = k;
  }
  return near;
}

/* Values that operations of a recording (executor/graph.c) pass over for a token, beside the norms. */
static double row_values(const model_config *c, bool moe) {
  const double d = c->d_model;
  double n = 3 * d;     /* packed for the projections and for the router or the dense part; residual */
  n += moe ? 3 * d : d; /* to the experts, packed there, and back; the dense part's residual */
  if (c->attn == ATTN_GQA) {
    n += (double)c->n_heads * c->head_dim;                   /* packed for the output projection */
    n += (double)(c->n_heads + c->n_kv_heads) * c->rope.dim; /* rotated */
    return n + 2.0 * c->n_kv_heads * c->head_dim;            /* written to the cache */
  }
  n += (double)c->n_heads * (c->nope_dim + c->rope_dim + c->v_dim); /* queries packed and rotated, values packed */
  n += (double)c->n_heads * c->kv_lora_rank;                        /* latent sums packed */
  return n + c->kv_lora_rank + c->rope_dim + c->q_lora_rank;
}

double cost_row_work_ns(const cost_unit *u, const model_config *c, const model_part *norms, bool moe, db_tag *tag) {
  const rec_kernel_point *norm = measured_near(u, "rmsnorm", c->d_model), *route = measured_near(u, "route", c->top_k);
  if (norm == NULL) return 0;
  cost_weaken(tag, norm->n_in == c->d_model ? norm->tag : TAG_SCALED);
  double ns = (norms->flops_per_token + row_values(c, moe)) * norm->ns / norm->n_in;
  if (moe && route != NULL && route->n_out > 0) ns += route->ns * c->n_experts / route->n_out;
  return ns;
}

double cost_choice_ns(const cost_rows *r, cost_case c, db_tag *tag) {
  cost_figure f;
  if (!cost_find(r, "cpu", "sample_logits_per_s", &f)) return 0;
  const double none[3] = {1, 1, 1};
  return 1e9 / cost_rate(r, "cpu", "sample_logits_per_s", COST_FIXED, c, none, tag);
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

/* A point is one pool_run; in a step the workers are awake. */
static double wake_ns(const cost_unit *u, int threads) {
  static const double none[3] = {0, 0, 0};
  db_tag tag = TAG_MEASURED;
  return u->cpu ? cost_cpu_time(u->rows, "pool_wake_ns", threads, (cost_case){0}, none, &tag) : 0;
}

bool cost_measured_attention(const cost_unit *u, const model_config *m, double work, cost_case c, double *ns, double *seq_ns,
                             db_tag *tag) {
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
  *seq_ns = fmax(0, lo->ns - (hi->ns - lo->ns) / fmax(1, hi->context - lo->context) * lo->context - wake_ns(u, threads));
  *seq_ns = hi->context > lo->context ? *seq_ns * *ns / slope / spread : 0;
  cost_weaken(tag, hi->tag);
  if (best > 1e-9 || (u->threads > 0 && threads != u->threads)) cost_weaken(tag, TAG_SCALED);
  return true;
}
