/* spread.c: form P: times of every expert in every place, and exact values of sets and placements. */
#include "planner/ilp/spread.h"

#include <math.h>
#include <string.h>

enum { MOST_CLASSES = 8192 }; /* of all groups: memory */

/* Of each ns over a limit: more than anything else is worth. */
static const double PENALTY = 1e6;

/* ---- tables ---- */

typedef struct {
  spread *m;
  stage_load step[2]; /* largest and smallest micro-batch; the second has no tokens when all are alike */
  int times[2];       /* micro-batches of each */
} builder;

static stage_load load_of(const ilp_problem *p, int tokens) {
  double seen = p->table->window > 0 ? fmin(p->context, p->table->window) : p->context;
  return (stage_load){.tokens = tokens,
                      .seqs = tokens,
                      .query_context = tokens * stage_context(p->table, p->context),
                      .seq_context = tokens * p->context,
                      .query_window = tokens * stage_context(p->table, seen),
                      .seq_window = tokens * seen};
}

static const stage_curve *curve_of(const spread *m, int layer, int home, int q) {
  const stage_layer *y = &m->p->table->layer[layer];
  if (q == 0) return &y->cexp;
  return q == home ? &y->dexp : &stage_place_of(m->p->table, layer, q)->exp;
}

/* How often the experts of a layer are chosen, by tokens that are decoded or by those of prompts. */
static const double *chosen(const spread *m, int layer, bool prompts) {
  const popularity *pop = m->p->pop;
  return (prompts && pop->prefill != NULL ? pop->prefill : pop->p) + (size_t)layer * (size_t)m->n_experts;
}

/* Expected times of all experts in all places for so many tokens, `times` over, added to t. */
static void add_times(spread *m, int layer, int home, const double *pop, int tokens, int times, double *t) {
  int E = m->n_experts, P = m->n_places;
  for (int q = 0; q < P; q++) {
    const stage_curve *c = curve_of(m, layer, home, q);
    double last = -1, ns = 0;
    for (int e = 0; e < E; e++) {
      if (pop[e] != last) {
        last = pop[e];
        ns = expert_time_ns(c, last, tokens);
        m->count->expert_times++;
      }
      t[(size_t)e * (size_t)P + (size_t)q] += times * ns;
    }
  }
}

/* Of machines that are alike only as much counts as one of them has at least (alike.h). */
static double share_of_place(const spread *m, int q) {
  const int first = 1 + (m->p->table->one_resource ? 0 : m->p->table->n_devices), many = q >= first ? m->p->alike[q - first] : 0;
  return many > 1 ? 1.0 / many : 1;
}

static void fixed_of(const spread *m, int layer, int home, int tokens, bool hand, double *fixed) {
  const stage_layer *y = &m->p->table->layer[layer];
  bool alone = m->p->table->one_resource;
  for (int q = 0; q < m->n_places; q++) {
    if (q == 0) {
      fixed[q] = y->cexp_fixed_ns + (hand && !alone ? y->hand_ns + y->hand_tok_ns * tokens : 0);
    } else if (q == home) {
      fixed[q] = y->dexp_fixed_ns;
    } else {
      const stage_place *s = stage_place_of(m->p->table, layer, q);
      fixed[q] = s->fixed_ns + s->hand_ns + s->hand_tok_ns * tokens;
    }
  }
}

static hf_status term_of(spread *m, int layer, int home, const double *pop, const stage_load *load, spread_term *out) {
  const stage_table *t = m->p->table;
  double *times;
  HF_TRY(hf_arena_get(m->mem, &times, (size_t)m->n_experts * (size_t)m->n_places + 1, sizeof *times));
  add_times(m, layer, home, pop, load->tokens, 1, times);
  double attn = stage_attn_ns(t, layer, load);
  *out = (spread_term){.t = times, .kappa = t->one_resource ? 0 : t->contend - 1};
  for (int q = 0; q < m->n_places; q++) out->lead[q] = attn;
  out->base[home] = stage_curve_at(&t->layer[layer].shared, load->tokens);
  fixed_of(m, layer, home, load->tokens, true, out->fixed);
  return HF_OK;
}

/* More than any step takes: a layer with experts on another machine sends none (stages.h). */
static const double NOT_SENT_NS = 1e15;

/* The CPU's experts over the link to the home device: part 0 is the link, which waits for nothing. */
static hf_status upload_of(spread *m, int layer, int home, const stage_load *load, const spread_term *cpu, spread_term *out) {
  int E = m->n_experts, P = m->n_places;
  double *times, *cross, up = m->p->table->layer[layer].upload_ns;
  const double *pop = chosen(m, layer, true);
  HF_TRY(hf_arena_get(m->mem, &times, (size_t)E * (size_t)P + 1, sizeof *times));
  HF_TRY(hf_arena_get(m->mem, &cross, (size_t)E + 1, sizeof *cross));
  memcpy(times, cpu->t, (size_t)E * (size_t)P * sizeof *times);
  for (int e = 0; e < E; e++) {
    times[(size_t)e * (size_t)P] = expert_hit(pop[e], load->tokens) * up;
    cross[e] = cpu->t[(size_t)e * (size_t)P + (size_t)home];
  }
  *out = *cpu;
  out->t = times;
  out->cross = cross;
  out->kappa = 0;
  out->lead[0] = out->fixed[0] = 0;
  for (int q = 1 + m->p->table->n_devices; q < P && !m->p->table->one_resource; q++) out->fixed[q] = NOT_SENT_NS;
  return HF_OK;
}

static hf_status open_places(spread *m, spread_group *g) {
  const ilp_problem *p = m->p;
  const uint8_t *pin = p->pin != NULL ? p->pin + (size_t)g->layer * (size_t)m->n_experts : NULL;
  uint16_t room = 1, devices = 0;
  HF_TRY(hf_arena_get(m->mem, &g->open, (size_t)m->n_experts + 1, sizeof *g->open));
  for (int q = 1; q < m->n_places; q++) {
    if (m->room[q] >= g->bytes) room |= (uint16_t)(1u << q);
    if (!p->table->one_resource && q <= p->table->n_devices) devices |= (uint16_t)(1u << q);
  }
  for (int e = 0; e < m->n_experts; e++) {
    int how = pin != NULL ? pin[e] : ILP_FREE;
    g->open[e] = how == ILP_PIN_CPU ? 1 : how == ILP_PIN_DEVICE ? room & devices : room;
  }
  return HF_OK;
}

static hf_status fill_group(builder *b, int layer, spread_group *g) {
  spread *m = b->m;
  const ilp_problem *p = m->p;
  int home = p->table->one_resource ? 0 : 1 + p->table->layer[layer].home, E = m->n_experts;
  *g = (spread_group){.layer = layer, .n_same = 1, .home = home, .bytes = p->expert_bytes[layer]};
  HF_TRY(open_places(m, g));
  HF_TRY(term_of(m, layer, home, chosen(m, layer, false), &b->step[0], &g->way));
  if (m->chunks) {
    stage_load load = p->prefill.load;
    HF_TRY(term_of(m, layer, home, chosen(m, layer, true), &load, &g->chunk));
    if (p->prefill.upload && p->table->layer[layer].upload_ns > 0 && !p->table->one_resource)
      HF_TRY(upload_of(m, layer, home, &load, &g->chunk, &g->upload));
  }
  if (m->depth > 1) {
    double *work;
    HF_TRY(hf_arena_get(m->mem, &work, (size_t)E * (size_t)m->n_places + 1, sizeof *work));
    for (int i = 0; i < 2; i++) {
      if (b->step[i].tokens == 0) continue;
      double fixed[SPREAD_P];
      if (i == 0)
        for (int x = 0; x < E * m->n_places; x++) work[x] = b->times[0] * g->way.t[x];
      else add_times(m, layer, home, chosen(m, layer, false), b->step[i].tokens, b->times[i], work);
      fixed_of(m, layer, home, b->step[i].tokens, false, fixed);
      for (int q = 0; q < m->n_places; q++) g->work_fixed[q] += b->times[i] * fixed[q] * share_of_place(m, q);
    }
    g->work = work;
  }
  g->nested = m->depth > 1 && m->n_places == 2 && !m->chunks;
  g->alike = true;
  const double *pop = chosen(m, layer, false), *prompts = chosen(m, layer, m->chunks);
  for (int e = 1; e < E; e++) g->alike = g->alike && pop[e] == pop[0] && prompts[e] == prompts[0] && g->open[e] == g->open[0];
  g->whole = g->alike && m->depth == 1 && !m->chunks && !(m->kappa > 0);
  g->n_classes = g->upload.t != NULL ? 2 : 1;
  g->class[1].upload = true;
  for (int q = 1 + p->table->n_devices; q < m->n_places && g->n_classes == 2; q++) g->class[1].never |= (uint16_t)(1u << q);
  return HF_OK;
}

/* Alike in everything that goes into a group. */
static bool same_layer(const spread *m, int a, int b) {
  const ilp_problem *p = m->p;
  const stage_table *t = p->table;
  const stage_layer *x = &t->layer[a], *y = &t->layer[b];
  size_t E = (size_t)m->n_experts;
  if (p->expert_bytes[a] != p->expert_bytes[b] || x->home != y->home || x->slides != y->slides ||
      x->attn_seq_ns != y->attn_seq_ns || x->attn_ctx_ns != y->attn_ctx_ns || x->attn_seq_ctx_ns != y->attn_seq_ctx_ns ||
      x->cexp_fixed_ns != y->cexp_fixed_ns || x->dexp_fixed_ns != y->dexp_fixed_ns || x->hand_ns != y->hand_ns ||
      x->hand_tok_ns != y->hand_tok_ns || x->upload_ns != y->upload_ns)
    return false;
  if (!stage_curve_same(&x->attn, &y->attn) || !stage_curve_same(&x->shared, &y->shared) ||
      !stage_curve_same(&x->dexp, &y->dexp) || !stage_curve_same(&x->cexp, &y->cexp))
    return false;
  for (int q = 1; q < m->n_places && m->n_places > 2; q++) {
    if (!t->one_resource && q == 1 + x->home) continue;
    if (!stage_place_same(stage_place_of(t, a, q), stage_place_of(t, b, q))) return false;
  }
  if (p->pin != NULL && memcmp(p->pin + (size_t)a * E, p->pin + (size_t)b * E, E) != 0) return false;
  return memcmp(chosen(m, a, false), chosen(m, b, false), E * sizeof(double)) == 0 &&
         memcmp(chosen(m, a, m->chunks), chosen(m, b, m->chunks), E * sizeof(double)) == 0;
}

double spread_coef(const spread *m, const spread_row *r, const spread_group *g, int q) {
  if (r->kind == ROW_LOAD) return q == r->place ? 1 : 0;
  bool home = g == NULL || q == g->home;
  if (r->kind == ROW_DEVICE) return q == r->place && home ? 1 : q == 0 ? m->kappa : 0;
  return q == 0 ? 1 : q == r->place && home ? m->kappa : 0;
}

static void fill_rows(spread *m) {
  int devices = m->p->table->one_resource ? 0 : m->p->table->n_devices;
  if (m->depth == 1) return;
  for (int q = 0; q < m->n_places; q++) m->row[m->n_rows++] = (spread_row){ROW_LOAD, q};
  for (int q = 1; q <= devices && m->kappa > 0; q++) {
    m->row[m->n_rows++] = (spread_row){ROW_DEVICE, q};
    m->row[m->n_rows++] = (spread_row){ROW_CPU, q};
  }
}

/* What a layer asks of its home device whatever its experts do. */
static void add_home_load(builder *b, int layer) {
  spread *m = b->m;
  const stage_table *t = m->p->table;
  for (int i = 0; i < 2; i++) {
    if (b->step[i].tokens == 0) continue;
    double ns = stage_attn_ns(t, layer, &b->step[i]) + stage_curve_at(&t->layer[layer].shared, b->step[i].tokens);
    for (int r = 0; r < m->n_rows; r++)
      m->row0[r] += b->times[i] * ns * spread_coef(m, &m->row[r], NULL, 1 + t->layer[layer].home);
  }
}

static void add_constants(builder *b) {
  spread *m = b->m;
  const stage_table *t = m->p->table;
  int last = 1 + t->layer[t->n_layers - 1].home;
  m->path0 = t->step_fixed_ns + stage_curve_at(&t->head, b->step[0].tokens);
  if (m->chunks) m->chunk0 = t->step_fixed_ns + stage_curve_at(&t->head, 1);
  for (int i = 0; i < 2 && m->depth > 1; i++)
    for (int r = 0; b->step[i].tokens > 0 && r < m->n_rows; r++)
      m->row0[r] += b->times[i] * stage_curve_at(&t->head, b->step[i].tokens) * spread_coef(m, &m->row[r], NULL, last);
  for (int l = 0; l < t->n_layers; l++) {
    if (m->depth > 1) add_home_load(b, l);
    if (t->layer[l].moe) continue;
    m->path0 += stage_attn_ns(t, l, &b->step[0]) + stage_curve_at(&t->layer[l].shared, b->step[0].tokens);
    if (m->chunks)
      m->chunk0 += stage_attn_ns(t, l, &m->p->prefill.load) + stage_curve_at(&t->layer[l].shared, m->p->prefill.load.tokens);
  }
}

static hf_status build(spread *m) {
  const ilp_problem *p = m->p;
  const stage_table *t = p->table;
  int most = (p->users + m->depth - 1) / m->depth, least = p->users / m->depth;
  int n_most = most == least ? m->depth : p->users - m->depth * least;
  builder b = {.m = m, .times = {n_most, m->depth - n_most}};
  b.step[0] = load_of(p, most);
  b.step[1] = load_of(p, n_most < m->depth ? least : 0);
  for (int q = 0; q < m->n_places; q++) m->room[q] = ilp_place_room(p, q, m->depth);
  HF_TRY(hf_arena_get(m->mem, &m->group, (size_t)t->n_layers, sizeof *m->group));
  HF_TRY(hf_arena_get(m->mem, &m->group_of, (size_t)t->n_layers, sizeof *m->group_of));
  fill_rows(m);
  add_constants(&b);
  for (int l = 0; l < t->n_layers; l++) {
    m->group_of[l] = -1;
    for (int g = m->n_groups - 1; t->layer[l].moe && g >= 0 && m->group_of[l] < 0; g--)
      if (same_layer(m, m->group[g].layer, l)) m->group_of[l] = g;
    if (!t->layer[l].moe) continue;
    if (m->group_of[l] >= 0) {
      m->group[m->group_of[l]].n_same++;
      continue;
    }
    HF_TRY(fill_group(&b, l, &m->group[m->n_groups]));
    m->group_of[l] = m->n_groups++;
  }
  m->cap_classes = m->n_groups * SPREAD_CLASSES <= MOST_CLASSES ? SPREAD_CLASSES : MOST_CLASSES / m->n_groups;
  if (m->cap_classes < 2) m->cap_classes = 2;
  return HF_OK;
}

hf_status spread_new(const ilp_problem *p, int depth, const spread_goal *goal, ilp_counters *count, spread **out) {
  double limit = ilp_chunk_limit(p);
  bool limits = goal == NULL;
  hf_arena *mem;
  spread *m;
  size_t cells = ((size_t)p->table->n_layers + 2) * ((size_t)p->table->n_experts + 16), P = (size_t)ilp_n_places(p->table);
  HF_TRY(hf_arena_new(&mem, cells * (P + 1) * 48 + ((size_t)8 << 20), "placement tables"));
  hf_status st = hf_arena_get(mem, &m, 1, sizeof *m);
  if (st == HF_OK) {
    *m = (spread){.p = p,
                  .mem = mem,
                  .count = count,
                  .depth = depth,
                  .n_places = (int)P,
                  .n_experts = p->table->n_experts,
                  .step_weight = limits ? 1 : goal->step,
                  .weight = limits ? p->prefill.weight : goal->chunk,
                  .limit_step = limits && p->limit.step_ns > 0 ? p->limit.step_ns : INFINITY,
                  .limit_chunk = limits && limit > 0 ? limit : INFINITY,
                  .kappa = p->table->one_resource ? 0 : p->table->contend - 1};
    m->chunks = m->weight > 0 || isfinite(m->limit_chunk);
    st = build(m);
  }
  if (st != HF_OK) {
    hf_arena_free(mem);
    return st;
  }
  *out = m;
  return HF_OK;
}

void spread_free(spread *m) {
  if (m != NULL) hf_arena_free(m->mem);
}

/* ---- values ---- */

size_t spread_at(const spread *m, int group, int class) {
  return ((size_t)group * (size_t)m->cap_classes + (size_t) class) * (size_t)m->n_places;
}

int spread_class_of(const spread *m, const spread_set *s) {
  const spread_group *g = &m->group[s->group];
  unsigned used = 0;
  for (int q = 0; q < SPREAD_P; q++) used |= (s->count[q] > 0 ? 1u : 0u) << q; /* none beyond n_places */
  for (int k = 0; k < g->n_classes; k++)
    if (g->class[k].upload == s->upload && (used & g->class[k].must) == g->class[k].must && (used & g->class[k].never) == 0)
      return k;
  return 0;
}

static void parts_of(const spread *m, const spread_group *g, const spread_term *t, const spread_set *s, double *part) {
  double raw[SPREAD_P];
  int P = m->n_places;
  bool home_used = s->count[g->home] > 0 || (t->cross != NULL && s->count[0] > 0);
  for (int q = 0; q < P; q++) {
    bool used = q == g->home ? home_used : s->count[q] > 0;
    raw[q] = t->base[q] + (used ? t->fixed[q] : 0);
  }
  for (int e = 0; e < m->n_experts; e++) {
    raw[s->place[e]] += t->t[(size_t)e * (size_t)P + s->place[e]];
    if (t->cross != NULL && s->place[e] == 0) raw[g->home] += t->cross[e];
  }
  for (int q = 0; q < P; q++) part[q] = t->lead[q] + raw[q];
  if (t->kappa > 0 && g->home > 0) {
    part[0] += t->kappa * raw[g->home];
    part[g->home] += t->kappa * raw[0];
  }
}

void spread_value(const spread *m, spread_set *s) {
  const spread_group *g = &m->group[s->group];
  int P = m->n_places;
  memset(s->count, 0, sizeof s->count);
  memset(s->load, 0, sizeof s->load);
  memset(s->chunk, 0, sizeof s->chunk);
  for (int e = 0; e < m->n_experts; e++) s->count[s->place[e]]++;
  s->class = spread_class_of(m, s);
  parts_of(m, g, &g->way, s, s->part);
  if (m->chunks) parts_of(m, g, s->upload ? &g->upload : &g->chunk, s, s->chunk);
  if (g->work == NULL) return;
  for (int q = 0; q < P; q++) s->load[q] = s->count[q] > 0 ? g->work_fixed[q] : 0;
  for (int e = 0; e < m->n_experts; e++) s->load[s->place[e]] += g->work[(size_t)e * (size_t)P + s->place[e]];
}

static double largest(const spread *m, const double *part) {
  double most = part[0];
  for (int q = 1; q < m->n_places; q++) most = part[q] > most ? part[q] : most;
  return most;
}

double spread_way(const spread *m, const spread_set *s) {
  return largest(m, s->part);
}

double spread_chunk(const spread *m, const spread_set *s) {
  return m->chunks ? largest(m, s->chunk) : 0;
}

double spread_total(const spread *m, const double *row, double way, double chunk) {
  double step = m->path0 + way;
  for (int r = 0; r < m->n_rows; r++) step = fmax(step, m->row0[r] + row[r]);
  double total = m->step_weight * step + m->weight * (m->chunk0 + chunk);
  if (isfinite(m->limit_step)) total += PENALTY * fmax(0, step - m->limit_step);
  if (isfinite(m->limit_chunk)) total += PENALTY * fmax(0, m->chunk0 + chunk - m->limit_chunk);
  return total;
}

double spread_evaluate(const spread *m, const uint8_t *placement) {
  double row[SPREAD_MAX_ROWS] = {0}, way = 0, chunk = 0;
  int64_t used[SPREAD_P] = {0};
  for (int l = 0; l < m->p->table->n_layers; l++) {
    if (m->group_of[l] < 0) continue;
    const spread_group *g = &m->group[m->group_of[l]];
    spread_set s = {.group = m->group_of[l], .place = placement + (size_t)l * (size_t)m->n_experts};
    spread_value(m, &s);
    double pre = spread_chunk(m, &s);
    if (g->upload.t != NULL) {
      s.upload = true;
      spread_value(m, &s);
      pre = fmin(pre, spread_chunk(m, &s));
    }
    way += spread_way(m, &s);
    chunk += pre;
    for (int r = 0; r < m->n_rows; r++)
      for (int q = 0; q < m->n_places; q++) row[r] += spread_coef(m, &m->row[r], g, q) * s.load[q];
    for (int q = 0; q < m->n_places; q++) used[q] += s.count[q] * g->bytes;
  }
  for (int q = 0; q < m->n_places; q++)
    if (used[q] > m->room[q]) return INFINITY;
  return spread_total(m, row, way, chunk);
}

double spread_plain(const spread *m, const uint8_t *placement) {
  spread free = *m;
  free.limit_step = free.limit_chunk = INFINITY;
  return spread_evaluate(&free, placement);
}
