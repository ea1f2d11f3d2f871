#include "planner/sim/prices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"

enum { EXACT = 128, GRID = 16, SAMPLED = 64 };
/* 52 days of a layer-by-layer step: more is no time of a machine, and its sums would overflow. */
static const double MOST_NS = 0x1p52;
/* A step with a prompt in it is priced by the popularity of prompts: theirs are most of its tokens. */
typedef enum { DECODE_ROWS, PROMPT_ROWS, UPLOAD_ROWS, ROW_KINDS } row_kind;

struct sim_prices {
  const sim_options *o;
  int n_layers, n_rows;
  sim_layer_ns **row[ROW_KINDS]; /* [row_kind][row_index], owned, made when wanted */
  double *sum[2];  /* sample_routing: [n_layers][n_experts + 1] cumulated popularity of experts in drawn order; decode, prompts */
  int16_t *expert; /* [n_layers][n_experts]: which expert that is */
  int *count;      /* [n_experts] */
};

static int row_index(int tokens) {
  return tokens <= EXACT ? tokens : EXACT + (tokens - EXACT) / GRID;
}

static int row_tokens(int index) {
  return index <= EXACT ? index : EXACT + (index - EXACT) * GRID;
}

static const uint8_t *placed(const sim_options *o, int layer) {
  return o->on_device != NULL ? o->on_device + (size_t)layer * (size_t)o->table->n_experts : NULL;
}

/* One expert on the link. */
static void split_upload(const sim_options *o, int layer, const layer_times *t, sim_layer_ns *r) {
  const double each = o->table->layer[layer].upload_ns;
  const int slots = o->upload_slots > 0 ? o->upload_slots : SCHED_UPLOAD_SLOTS;
  if (r->upload == 0) return;
  r->ahead = sim_round(fmin(t->upload_ns, slots * each));
  r->tail = sim_round(t->dexp_ns * fmin(1, each / t->upload_ns));
}

static sim_layer_ns whole(const layer_times *t) {
  sim_layer_ns r = {.shared = sim_round(t->shared_ns),
                    .dexp = sim_round(t->dexp_ns),
                    .hand = sim_round(t->hand_ns),
                    .cexp = sim_round(t->cexp_ns),
                    .upload = sim_round(t->upload_ns)};
  for (int p = 1; p < STAGE_MAX_PLACES; p++) {
    r.place[p] = sim_round(t->place_ns[p]);
    r.elsewhere = r.elsewhere || r.place[p] > 0;
  }
  return r;
}

static bool uploads(const sim_options *o, int layer, bool big) {
  return big && o->prefill_upload != NULL && o->prefill_upload[layer] != 0;
}

static hf_status check_ns(double ns) {
  if (ns <= MOST_NS) return HF_OK;
  return hf_fail(HF_INPUT, "stage table: a step of %.3g s cannot be simulated, at most %.3g s; plan again, or mend its times",
                 1e-9 * ns, 1e-9 * MOST_NS);
}

static hf_status check_row(const sim_layer_ns *row, int n) {
  double sum = 0;
  for (int l = 0; l < n; l++) {
    const sim_layer_ns *r = &row[l];
    sum += (double)r->shared + (double)r->dexp + (double)r->hand + (double)r->cexp + (double)r->upload;
    for (int q = 1; r->elsewhere && q < STAGE_MAX_PLACES; q++) sum += (double)r->place[q];
  }
  return check_ns(sum);
}

static hf_status kept_row(sim_prices *p, int index, row_kind kind, const sim_layer_ns **out) {
  sim_layer_ns **at = &p->row[kind][index];
  *out = *at;
  if (*at != NULL) return HF_OK;
  sim_layer_ns *row = NULL;
  HF_TRY(hf_alloc(&row, (size_t)p->n_layers, sizeof *row, "simulated layer times"));
  popularity prompts = popularity_of_prompts(p->o->pop);
  for (int l = 0; l < p->n_layers; l++) {
    stage_load load = {.tokens = row_tokens(index), .upload = uploads(p->o, l, kind == UPLOAD_ROWS)};
    layer_times t = stage_layer_times_load(p->o->table, kind == DECODE_ROWS ? p->o->pop : &prompts, l, &load, placed(p->o, l));
    row[l] = whole(&t);
    split_upload(p->o, l, &t, &row[l]);
  }
  *at = row;
  *out = row;
  return check_row(row, p->n_layers);
}

static int64_t between(int64_t a, int64_t b, int k) {
  return a + (b - a) * k / GRID;
}

static hf_status row_for(sim_prices *p, int tokens, row_kind kind, sim_layer_ns *own, const sim_layer_ns **out) {
  int i = row_index(tokens), k = tokens - row_tokens(i);
  const sim_layer_ns *a, *b;
  HF_TRY(kept_row(p, i, kind, &a));
  *out = a;
  if (k == 0) return HF_OK;
  HF_TRY(kept_row(p, i + 1, kind, &b));
  for (int l = 0; l < p->n_layers; l++) {
    sim_layer_ns r = {.shared = between(a[l].shared, b[l].shared, k),
                      .dexp = between(a[l].dexp, b[l].dexp, k),
                      .hand = between(a[l].hand, b[l].hand, k),
                      .cexp = between(a[l].cexp, b[l].cexp, k),
                      .upload = between(a[l].upload, b[l].upload, k),
                      .ahead = between(a[l].ahead, b[l].ahead, k),
                      .tail = between(a[l].tail, b[l].tail, k),
                      .elsewhere = a[l].elsewhere};
    for (int q = 1; r.elsewhere && q < STAGE_MAX_PLACES; q++) r.place[q] = between(a[l].place[q], b[l].place[q], k);
    own[l] = r;
  }
  *out = own;
  return HF_OK;
}

/* ---- sampled routing ---- */

static void cumulate(const double *pop, const int16_t *expert, size_t n, double *sum) {
  for (size_t i = 0; i < n; i++) sum[i + 1] = sum[i] + pop[expert[i]];
}

static hf_status prepare_draws(sim_prices *p) {
  const sim_options *o = p->o;
  size_t n = (size_t)o->table->n_experts, layers = (size_t)p->n_layers;
  popularity prompts = popularity_of_prompts(o->pop);
  for (int k = 0; k < 2; k++) HF_TRY(hf_alloc(&p->sum[k], layers * (n + 1), sizeof *p->sum[k], "simulated routing"));
  HF_TRY(hf_alloc(&p->expert, layers * n + 1, sizeof *p->expert, "simulated routing"));
  HF_TRY(hf_alloc(&p->count, n + 1, sizeof *p->count, "simulated routing"));
  for (size_t l = 0; l < layers; l++) {
    sim_rng r = sim_rng_of(o->seed, UINT64_C(0x5000000000000000) + l);
    int16_t *e = p->expert + l * n;
    for (size_t i = 0; i < n; i++) {
      size_t k = (size_t)(sim_rng_next(&r) % (i + 1));
      e[i] = e[k];
      e[k] = (int16_t)i;
    }
    cumulate(o->pop->p + l * n, e, n, p->sum[0] + l * (n + 1));
    cumulate(prompts.p + l * n, e, n, p->sum[1] + l * (n + 1));
  }
  return HF_OK;
}

/* Systematic sampling: with u in [0, 1) the experts whose stretch of the cumulated popularity holds u, u+1, … Each is chosen with exactly
 * its popularity, none twice (popularities are at most 1), so that the mean over draws is the expected time. */
static void draw_token(const sim_prices *p, int layer, bool prefills, sim_rng *r) {
  int n = p->o->table->n_experts;
  const double *sum = p->sum[prefills] + (size_t)layer * (size_t)(n + 1);
  const int16_t *expert = p->expert + (size_t)layer * (size_t)n;
  for (double u = sim_uniform(r); u < sum[n]; u += 1) {
    int lo = 0, hi = n - 1; /* the last i with sum[i] <= u */
    while (lo < hi) {
      int mid = (lo + hi + 1) / 2;
      if (sum[mid] <= u) lo = mid;
      else hi = mid - 1;
    }
    p->count[expert[lo]]++;
  }
}

/* The fixed parts and hand-overs of a layer do not depend on the draw: they are what is left of the expected times without experts. */
static void drawn_layer(const sim_prices *p, int l, const sim_step_load *s, sim_rng *r, sim_layer_ns *out) {
  const stage_table *t = p->o->table;
  const stage_layer *y = &t->layer[l];
  const uint8_t *on = placed(p->o, l);
  double ns[STAGE_MAX_PLACES] = {0};
  bool used[STAGE_MAX_PLACES] = {false};
  memset(p->count, 0, (size_t)t->n_experts * sizeof *p->count);
  for (int i = 0; i < s->load.tokens; i++) draw_token(p, l, s->prefills, r);
  for (int e = 0; e < t->n_experts; e++) {
    int at = on != NULL ? on[e] : 0;
    used[at] = true;
    if (p->count[e] == 0) continue;
    const stage_curve *c = at == 0 ? &y->cexp : at == 1 + y->home ? &y->dexp : &stage_place_of(t, l, at)->exp;
    ns[at] += stage_curve_at(c, p->count[e]);
  }
  out->cexp = used[0] ? sim_round(ns[0] + y->cexp_fixed_ns) : 0;
  for (int q = 1; q < STAGE_MAX_PLACES; q++) {
    if (!used[q]) continue;
    if (q == 1 + y->home) {
      out->dexp = sim_round(ns[q] + y->dexp_fixed_ns);
    } else {
      const stage_place *place = stage_place_of(t, l, q);
      out->place[q] = sim_round(ns[q] + place->fixed_ns + place->hand_ns + place->hand_tok_ns * s->load.tokens);
    }
  }
}

/* ---- interface ---- */

hf_status sim_prices_new(const sim_options *o, sim_prices **out) {
  sim_prices *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "simulated layer times"));
  p->o = o;
  p->n_layers = o->table->n_layers;
  p->n_rows = row_index(o->chunk_tokens + SCHED_MAX_SEQS) + 2;
  hf_status st = HF_OK;
  for (int u = 0; u < ROW_KINDS; u++)
    if (st == HF_OK) st = hf_alloc(&p->row[u], (size_t)p->n_rows, sizeof *p->row[u], "simulated layer times");
  if (st == HF_OK && o->sample_routing) st = prepare_draws(p);
  if (st != HF_OK) sim_prices_free(p);
  else *out = p;
  return st;
}

void sim_prices_free(sim_prices *p) {
  if (p == NULL) return;
  for (int u = 0; u < ROW_KINDS; u++) {
    for (int i = 0; p->row[u] != NULL && i < p->n_rows; i++) free(p->row[u][i]);
    free(p->row[u]);
  }
  free(p->sum[0]);
  free(p->sum[1]);
  free(p->expert);
  free(p->count);
  free(p);
}

void sim_step_load_of(const sim_options *o, const sched_step *st, sim_step_load *out) {
  *out = (sim_step_load){0};
  for (int i = 0; i < st->n_pieces; i++) {
    const sched_piece *p = &st->piece[i];
    stage_load_add(&out->load, o->table, p->start_pos, p->n_tokens);
    out->logits += p->wants_logits;
  }
  out->prefills = st->n_decode < st->n_tokens;
  out->load.upload = o->prefill_upload != NULL && out->load.tokens >= o->upload_tokens && out->prefills;
}

hf_status sim_prices_step(sim_prices *p, const sim_step_load *s, int64_t number, int64_t *attn, sim_layer_ns *row, sim_work *w) {
  const stage_table *t = p->o->table;
  row_kind kind = s->load.upload ? UPLOAD_ROWS : s->prefills ? PROMPT_ROWS : DECODE_ROWS;
  HF_TRY(row_for(p, s->load.tokens, kind, row, &w->routed));
  if (p->expert != NULL && s->load.tokens <= SAMPLED && !s->load.upload) {
    sim_rng r = sim_rng_of(p->o->seed, UINT64_C(0x6000000000000000) + (uint64_t)number);
    if (w->routed != row) memcpy(row, w->routed, (size_t)p->n_layers * sizeof *row);
    for (int l = 0; l < p->n_layers; l++)
      if (t->layer[l].moe) drawn_layer(p, l, s, &r, &row[l]);
    HF_TRY(check_row(row, p->n_layers));
    w->routed = row;
  }
  w->fixed = sim_round(t->step_fixed_ns);
  w->head = s->logits > 0 ? sim_round(stage_curve_at(&t->head, s->logits)) : 0;
  double rest = (double)w->fixed + (double)w->head;
  for (int l = 0; l < p->n_layers; l++) {
    double ns = stage_attn_ns(t, l, &s->load);
    attn[l] = sim_round(ns);
    rest += ns;
  }
  HF_TRY(check_ns(rest));
  w->attn = attn;
  w->tokens = s->load.tokens;
  w->number = number;
  return HF_OK;
}
