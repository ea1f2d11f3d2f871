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

/* Values that a token of a layer packs, or copies, into rows which all workers then read, beside those of its shared or dense part: for the projections
 * and the output projection; for the router and the experts. */
static double packed_values(const model_config *c, bool moe) {
  return (moe ? 3.0 : 1.0) * c->d_model + (double)c->n_heads * (c->attn == ATTN_MLA ? c->v_dim : c->head_dim);
}

/* Values that operations of a recording (executor/graph.c) pass over for a token, beside those and the norms. */
static double row_values(const model_config *c, bool moe) {
  const double d = c->d_model;
  double n = d;         /* residual */
  n += moe ? 2 * d : d; /* packed at the experts, and back; the dense part's residual */
  if (c->attn == ATTN_GQA) {
    n += (double)(c->n_heads + c->n_kv_heads) * c->rope.dim; /* rotated */
    return n + 2.0 * c->n_kv_heads * c->head_dim;            /* written to the cache */
  }
  n += (double)c->n_heads * (c->nope_dim + c->rope_dim); /* queries packed and rotated */
  n += (double)c->n_heads * c->kv_lora_rank;             /* latent sums packed */
  return n + c->kv_lora_rank + c->rope_dim + c->q_lora_rank;
}

/* Products of a format want activations packed as this. */
static const char *packed_as(fmt f) {
  switch (f) {
    case FMT_F32: return "f32";
    case FMT_F16: return "f16";
    case FMT_BF16:
    case FMT_FP8_E4M3: return "bf16";
    default: return "q8b32";
  }
}

/* ns of a packed value, of the norm's where packing was not measured. */
static double pack_ns(const cost_unit *u, const rec_kernel_point *norm, fmt f) {
  const rec_kernel_point *best = NULL;
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, "pack") != 0 || !(k->ns > 0) || k->n_in != norm->n_in) continue;
    if (k->threads != norm->threads) continue;
    if (best == NULL || strcmp(k->act, packed_as(f)) == 0) best = k;
  }
  return best != NULL ? best->ns / best->n_in : norm->ns / norm->n_in;
}

double cost_row_work_ns(const cost_unit *u, const model_config *c, const model_part *norms, fmt f, bool moe, db_tag *tag) {
  const rec_kernel_point *norm = measured_near(u, "rmsnorm", c->d_model), *route = measured_near(u, "route", c->top_k);
  if (norm == NULL) return 0;
  cost_weaken(tag, norm->n_in == c->d_model ? norm->tag : TAG_SCALED);
  double ns = (norms->flops_per_token + row_values(c, moe)) * norm->ns / norm->n_in + packed_values(c, moe) * pack_ns(u, norm, f);
  if (moe && route != NULL && route->n_out > 0) ns += route->ns * c->n_experts / route->n_out;
  return ns;
}

double cost_ffn_row_work_ns(const cost_unit *u, const model_config *c, int width, fmt f, db_tag *tag) {
  const rec_kernel_point *norm = measured_near(u, "rmsnorm", c->d_model);
  if (norm == NULL || width <= 0) return 0;
  cost_weaken(tag, norm->n_in == c->d_model ? norm->tag : TAG_SCALED);
  return (c->d_model + width) * pack_ns(u, norm, f) + 2.0 * width * norm->ns / norm->n_in;
}

/* Values of a token that products and attention of a layer write, column by column, into rows that others have treated; where they add to the row it is
 * read as well. And the sums of its experts. */
static double result_values(const model_config *c, bool moe) {
  const double d = c->d_model, out = (double)c->n_heads * (c->attn == ATTN_MLA ? c->v_dim : c->head_dim);
  double n = out + 2 * d;
  if (c->attn == ATTN_GQA) n += (double)(c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
  else n += (double)c->n_heads * (c->nope_dim + c->rope_dim) + c->q_lora_rank + c->kv_lora_rank + c->rope_dim;
  return moe ? n + c->n_experts + d : n;
}

static double results_ns(const cost_unit *u, const model_config *c, double values) {
  const rec_kernel_point *k = measured_near(u, "results", c->d_model);
  return k != NULL ? values * k->ns / k->n_in : 0;
}

double cost_results_ns(const cost_unit *u, const model_config *c, bool moe) {
  return results_ns(u, c, result_values(c, moe));
}

double cost_ffn_results_ns(const cost_unit *u, const model_config *c, int width) {
  return width > 0 ? results_ns(u, c, 2.0 * width + 2.0 * c->d_model) : 0;
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

static const char *attention_kernel(const model_config *m) {
  return m->attn == ATTN_MLA ? "attn_mla" : "attn_gqa";
}

/* The type of KV cache whose points stand for kv: its own or, in a profile without them, F16. */
static const char *points_of_kv(const cost_unit *u, const char *kernel, fmt kv, db_tag *tag) {
  const char *name = fmt_get(kv)->name;
  if (kv == FMT_F16 || cost_usable_threads(u, kernel, name) > 0) return name;
  cost_weaken(tag, TAG_SCALED);
  return "f16";
}

static bool attention_point(const cost_unit *u, const rec_kernel_point *k, attn_kind kind, const char *kv, int threads) {
  if (strcmp(k->format, kv) != 0 || !cost_on_unit(k, u) || strcmp(k->kernel, kind == ATTN_MLA ? "attn_mla" : "attn_gqa") != 0 ||
      !(k->ns > 0))
    return false;
  return k->tokens == 1 && k->context > 0 && point_work(k, kind) > 0 && (!u->cpu || threads == 0 || k->threads == threads);
}

/* A point is one pool_run; in a step the workers are awake. */
static double wake_ns(const cost_unit *u, int threads) {
  static const double none[3] = {0, 0, 0};
  db_tag tag = TAG_MEASURED;
  return u->cpu ? cost_cpu_time(u->rows, "pool_wake_ns", threads, (cost_case){0}, none, &tag) : 0;
}

/* Points of one query token over context, of the measured shape whose work is nearest. */
typedef struct {
  const rec_kernel_point *lo, *mid, *hi; /* mid NULL: there are no three */
  double far;                            /* log of work over the model's */
} context_points;

static context_points points_over_context(const cost_unit *u, const model_config *m, const char *kv, int threads, double work) {
  const rec_kernel_point *near = NULL;
  context_points p = {.far = INFINITY};
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!attention_point(u, k, m->attn, kv, threads)) continue;
    const double far = fabs(log(point_work(k, m->attn) / work));
    if (far >= p.far) continue;
    p.far = far;
    near = k;
  }
  double middle = 0; /* of the logarithms of lo's and hi's context */
  for (int pass = 0; near != NULL && pass < 2; pass++) {
    for (int i = 0; i < u->rows->n_kernel; i++) {
      const rec_kernel_point *k = &u->rows->kernel[i];
      if (!attention_point(u, k, m->attn, kv, threads) || k->n_out != near->n_out || k->n_in != near->n_in) continue;
      if (strcmp(k->act, near->act) != 0) continue;
      if (p.lo == NULL || k->context < p.lo->context) p.lo = k;
      if (p.hi == NULL || k->context > p.hi->context) p.hi = k;
      if (pass == 0 || k->context <= p.lo->context || k->context >= p.hi->context) continue;
      if (p.mid == NULL || fabs(log(k->context) - middle) < fabs(log(p.mid->context) - middle)) p.mid = k;
    }
    middle = (log(p.lo->context) + log(p.hi->context)) / 2;
  }
  return p;
}

static double slope_ns(const rec_kernel_point *a, const rec_kernel_point *b) {
  return b->context > a->context ? (b->ns - a->ns) / (b->context - a->context) : 0;
}

bool cost_measured_attention(const cost_unit *u, const model_config *m, fmt kv_type, double work, cost_case c,
                             cost_attention *out, db_tag *tag) {
  db_tag other = TAG_MEASURED;
  const char *kv = points_of_kv(u, attention_kernel(m), kv_type, &other);
  const int threads = u->cpu ? cost_usable_threads(u, attention_kernel(m), kv) : 0;
  const context_points p = points_over_context(u, m, kv, threads, work);
  *out = (cost_attention){0};
  if (p.lo == NULL) return false;
  const rec_kernel_point *hi = p.hi;
  int side = (c.groups & (u->cpu ? COST_CPU_FLOPS : COST_GPU_FLOPS)) != 0 ? c.side : 0;
  double spread = side < 0 && hi->ns_high > hi->ns ? hi->ns_high / hi->ns : side > 0 && hi->ns_low > 0 ? hi->ns_low / hi->ns : 1;
  double whole = slope_ns(p.lo, hi), begin = p.mid != NULL ? slope_ns(p.lo, p.mid) : 0,
         end = p.mid != NULL ? slope_ns(p.mid, hi) : 0;
  const bool line = !(begin > 0) || !(end > 0); /* two points, or a bad moment of one */
  if (line) begin = end = whole > 0 ? whole : hi->ns / hi->context;
  double factor = spread * work / point_work(hi, m->attn);
  if (u->cpu && u->threads > 0) factor *= (double)threads / u->threads; /* arithmetic, split evenly over tokens and heads */
  out->ns = end * factor;
  if (!line) out->near_tokens = p.mid->context, out->near_more = begin / end - 1;
  if (whole > 0) out->seq_ns = fmax(0, p.lo->ns - begin * p.lo->context - wake_ns(u, threads)) * factor / spread;
  cost_weaken(tag, hi->tag);
  cost_weaken(tag, other);
  if (p.far > 1e-9 || (u->threads > 0 && threads != u->threads)) cost_weaken(tag, TAG_SCALED);
  return true;
}

/* Of the model's own width, on the threads that the unit's decode was taken from. */
static const rec_kernel_point *prompt_point(const cost_unit *u, const char *kernel, const char *kv, const model_config *m,
                                            int tokens, int context) {
  const int n_out = m->attn == ATTN_MLA ? m->kv_lora_rank : m->head_dim, n_in = m->attn == ATTN_MLA ? m->rope_dim : m->n_kv_heads;
  const int threads = cost_usable_threads(u, kernel, kv);
  for (int i = 0; i < u->rows->n_kernel; i++) {
    const rec_kernel_point *k = &u->rows->kernel[i];
    if (!cost_on_unit(k, u) || strcmp(k->kernel, kernel) != 0 || !(k->ns > 0) || k->threads != threads) continue;
    if (strcmp(k->format, kv) != 0) continue;
    if (k->n_out == n_out && k->n_in == n_in && k->tokens == tokens && k->context == context) return k;
  }
  return NULL;
}

/* A point of all heads on its threads, for the model's heads on the unit's. */
static double prompt_ns(const cost_unit *u, const model_config *m, const rec_kernel_point *k) {
  const int heads = k->act[0] == 'h' ? atoi(k->act + 1) : m->n_heads;
  const double threads = u->threads > 0 ? (double)k->threads / u->threads : 1;
  return k->ns * m->n_heads / (heads > 0 ? heads : m->n_heads) * threads;
}

enum { PIECE = 128, FAR = 8 * PIECE, LONG_PIECE = 512 };

/* Pairs and queries of ordinary and absorbed attention: two pieces of the same length, one of them further on. */
static void prompt_pairs(const cost_unit *u, const model_config *m, fmt kv_type, double ctx_ns, stage_prompt *out, db_tag *tag) {
  const char *kernel = m->attn == ATTN_MLA ? "prompt_mla" : "prompt_gqa", *kv = points_of_kv(u, kernel, kv_type, tag);
  const rec_kernel_point *near = prompt_point(u, kernel, kv, m, PIECE, PIECE), *far = prompt_point(u, kernel, kv, m, PIECE, FAR);
  if (near == NULL || far == NULL || !(far->ns > near->ns)) return;
  const double pairs = 0.5 * PIECE * (PIECE + 1), more = (double)PIECE * (FAR - PIECE);
  const double pair_ns = (prompt_ns(u, m, far) - prompt_ns(u, m, near)) / more;
  out->pair = pair_ns / ctx_ns;
  out->query = fmax(0, prompt_ns(u, m, near) - pairs * pair_ns) / PIECE / ctx_ns;
  cost_weaken(tag, near->tag);
}

/* The plain form, whose rows are read once for many queries, whatever their type. A short and a long piece at the beginning of a sequence and one far
 * behind it are three equations for the three parts of its work: the long one has the far one's rows and more pairs, the far one has the short one's
 * queries and more of everything else. */
static void prompt_plain(const cost_unit *u, const model_config *m, double ctx_ns, double latent_ns, stage_prompt *out,
                         db_tag *tag) {
  const rec_kernel_point *a = prompt_point(u, "prompt_plain", "f16", m, PIECE, PIECE),
                         *b = prompt_point(u, "prompt_plain", "f16", m, LONG_PIECE, LONG_PIECE),
                         *c = prompt_point(u, "prompt_plain", "f16", m, PIECE, LONG_PIECE);
  if (a == NULL || b == NULL) return;
  out->mla = (mla_shape){.lora = m->kv_lora_rank, .nope = m->nope_dim, .rope = m->rope_dim, .v = m->v_dim};
  const mla_work x = mla_plain_work(&out->mla, 0, PIECE), y = mla_plain_work(&out->mla, 0, LONG_PIECE),
                 z = mla_plain_work(&out->mla, LONG_PIECE - PIECE, PIECE);
  const double na = prompt_ns(u, m, a), nb = prompt_ns(u, m, b), nc = c != NULL ? prompt_ns(u, m, c) : 0;
  double attend = (nb - nc) / (y.attend - z.attend), expand = (nc - na - attend * (z.attend - x.attend)) / (z.expand - x.expand);
  double turn = (na - attend * x.attend - expand * x.expand) / x.turn;
  if (c == NULL || !(attend > 0) || !(expand > 0) || !(turn >= 0)) { /* two equations: what is turned costs as what is expanded */
    const double xe = x.expand + x.turn, ye = y.expand + y.turn, det = xe * y.attend - ye * x.attend;
    expand = (na * y.attend - nb * x.attend) / det, attend = (xe * nb - ye * na) / det;
    if (!(expand > 0) || !(attend > 0)) expand = attend = nb / (ye + y.attend);
    turn = expand;
  }
  out->plain_expand = expand / ctx_ns;
  out->plain_attend = attend / ctx_ns;
  out->plain_turn = turn / ctx_ns;
  out->plain_query = -latent_ns / ctx_ns;
  cost_weaken(tag, a->tag);
}

void cost_prompt_attention(const cost_unit *u, const model_config *m, fmt kv, double ctx_ns, double latent_ns, stage_prompt *out,
                           db_tag *tag) {
  *out = (stage_prompt){.pair = 1};
  if (!u->cpu || !(ctx_ns > 0)) return;
  prompt_pairs(u, m, kv, ctx_ns, out, tag);
  if (m->attn == ATTN_MLA) prompt_plain(u, m, ctx_ns, latent_ns, out, tag);
}
