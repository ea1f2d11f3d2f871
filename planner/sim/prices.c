#include "planner/sim/prices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"

enum { EXACT = 128, GRID = 16, SAMPLED = 64 };

struct sim_prices {
  const sim_options *o;
  int n_layers, n_rows;
  sim_layer_ns **row[2]; /* [upload][row_index], owned, made when wanted */
  double *sum;           /* sample_routing: [n_layers][n_experts + 1] cumulated popularity of experts in drawn order */
  int16_t *expert;       /* [n_layers][n_experts]: which expert that is */
  int *count;            /* [n_experts] */
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

static hf_status kept_row(sim_prices *p, int index, bool upload, const sim_layer_ns **out) {
  sim_layer_ns **at = &p->row[upload][index];
  *out = *at;
  if (*at != NULL) return HF_OK;
  sim_layer_ns *row = NULL;
  HF_TRY(hf_alloc(&row, (size_t)p->n_layers, sizeof *row, "simulated layer times"));
  for (int l = 0; l < p->n_layers; l++) {
    stage_load load = {.tokens = row_tokens(index), .upload = uploads(p->o, l, upload)};
    layer_times t = stage_layer_times_load(p->o->table, p->o->pop, l, &load, placed(p->o, l));
    row[l] = whole(&t);
  }
  *at = row;
  *out = row;
  return HF_OK;
}

static int64_t between(int64_t a, int64_t b, int k) {
  return a + (b - a) * k / GRID;
}

static hf_status row_for(sim_prices *p, int tokens, bool upload, sim_layer_ns *own, const sim_layer_ns **out) {
  int i = row_index(tokens), k = tokens - row_tokens(i);
  const sim_layer_ns *a, *b;
  HF_TRY(kept_row(p, i, upload, &a));
  *out = a;
  if (k == 0) return HF_OK;
  HF_TRY(kept_row(p, i + 1, upload, &b));
  for (int l = 0; l < p->n_layers; l++) {
    sim_layer_ns r = {.shared = between(a[l].shared, b[l].shared, k),
                      .dexp = between(a[l].dexp, b[l].dexp, k),
                      .hand = between(a[l].hand, b[l].hand, k),
                      .cexp = between(a[l].cexp, b[l].cexp, k),
                      .upload = between(a[l].upload, b[l].upload, k),
                      .elsewhere = a[l].elsewhere};
    for (int q = 1; r.elsewhere && q < STAGE_MAX_PLACES; q++) r.place[q] = between(a[l].place[q], b[l].place[q], k);
    own[l] = r;
  }
  *out = own;
  return HF_OK;
}

/* ---- sampled routing ---- */

static hf_status prepare_draws(sim_prices *p) {
  const sim_options *o = p->o;
  size_t n = (size_t)o->table->n_experts, layers = (size_t)p->n_layers;
  HF_TRY(hf_alloc(&p->sum, layers * (n + 1), sizeof *p->sum, "simulated routing"));
  HF_TRY(hf_alloc(&p->expert, layers * n + 1, sizeof *p->expert, "simulated routing"));
  HF_TRY(hf_alloc(&p->count, n + 1, sizeof *p->count, "simulated routing"));
  for (size_t l = 0; l < layers; l++) {
    sim_rng r = sim_rng_of(o->seed, UINT64_C(0x5000000000000000) + l);
    int16_t *e = p->expert + l * n;
    double *sum = p->sum + l * (n + 1);
    for (size_t i = 0; i < n; i++) {
      size_t k = (size_t)(sim_rng_next(&r) % (i + 1));
      e[i] = e[k];
      e[k] = (int16_t)i;
    }
    for (size_t i = 0; i < n; i++) sum[i + 1] = sum[i] + o->pop->p[l * n + (size_t)e[i]];
  }
  return HF_OK;
}

/* Systematic sampling: with u in [0, 1) the experts whose stretch of the cumulated popularity holds u, u+1, … Each is chosen with exactly
 * its popularity, none twice (popularities are at most 1), so that the mean over draws is the expected time. */
static void draw_token(const sim_prices *p, int layer, sim_rng *r) {
  int n = p->o->table->n_experts;
  const double *sum = p->sum + (size_t)layer * (size_t)(n + 1);
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
static void drawn_layer(const sim_prices *p, int l, int tokens, sim_rng *r, sim_layer_ns *out) {
  const stage_table *t = p->o->table;
  const stage_layer *y = &t->layer[l];
  const uint8_t *on = placed(p->o, l);
  double ns[STAGE_MAX_PLACES] = {0};
  bool used[STAGE_MAX_PLACES] = {false};
  memset(p->count, 0, (size_t)t->n_experts * sizeof *p->count);
  for (int i = 0; i < tokens; i++) draw_token(p, l, r);
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
      const stage_place *s = stage_place_of(t, l, q);
      out->place[q] = sim_round(ns[q] + s->fixed_ns + s->hand_ns + s->hand_tok_ns * tokens);
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
  for (int u = 0; u < 2; u++)
    if (st == HF_OK) st = hf_alloc(&p->row[u], (size_t)p->n_rows, sizeof *p->row[u], "simulated layer times");
  if (st == HF_OK && o->sample_routing) st = prepare_draws(p);
  if (st != HF_OK) sim_prices_free(p);
  else *out = p;
  return st;
}

void sim_prices_free(sim_prices *p) {
  if (p == NULL) return;
  for (int u = 0; u < 2; u++) {
    for (int i = 0; p->row[u] != NULL && i < p->n_rows; i++) free(p->row[u][i]);
    free(p->row[u]);
  }
  free(p->sum);
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
  out->load.upload = o->prefill_upload != NULL && out->load.tokens >= o->upload_tokens && st->n_decode < st->n_tokens;
}

hf_status sim_prices_step(sim_prices *p, const sim_step_load *s, int64_t number, int64_t *attn, sim_layer_ns *row, sim_work *w) {
  const stage_table *t = p->o->table;
  HF_TRY(row_for(p, s->load.tokens, s->load.upload, row, &w->routed));
  if (p->sum != NULL && s->load.tokens <= SAMPLED && !s->load.upload) {
    sim_rng r = sim_rng_of(p->o->seed, UINT64_C(0x6000000000000000) + (uint64_t)number);
    if (w->routed != row) memcpy(row, w->routed, (size_t)p->n_layers * sizeof *row);
    for (int l = 0; l < p->n_layers; l++)
      if (t->layer[l].moe) drawn_layer(p, l, s->load.tokens, &r, &row[l]);
    w->routed = row;
  }
  for (int l = 0; l < p->n_layers; l++) attn[l] = sim_round(stage_attn_ns(t, l, &s->load));
  w->attn = attn;
  w->fixed = sim_round(t->step_fixed_ns);
  w->head = s->logits > 0 ? sim_round(stage_curve_at(&t->head, s->logits)) : 0;
  w->tokens = s->load.tokens;
  w->number = number;
  return HF_OK;
}
