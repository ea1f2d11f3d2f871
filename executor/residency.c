/* residency.c: see residency.h. */
#include "executor/residency.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/probe.h"

enum { MATS = 3, MOST_SHAPES = RESIDENCY_SHAPES, ONLY = 0 /* device that experts leave and come to (residency_possible) */ };
/* Budget that is not used is kept for so long: the driver looks at the device only between layers. */
static const double KEPT_S = 0.01;

/* What an expert is made of; mat[].data: in the mapping of a file, where the host can use it as it is. */
typedef struct {
  kern_mat mat[MATS];
  bool bias;
} shape;

/* Memory of an expert on the host; mat NULL where it is the mapping. */
typedef struct {
  void *mat[MATS];
  float *bias;
} place;

typedef struct {
  size_t out, in; /* layer * n_experts + expert */
  int shape;
  place to, from; /* of the one that leaves the device, and where the other was */
  moe_expert host;
  dev_expert there;
} pair;

typedef struct {
  size_t at;
  int shape;
} candidate;

typedef struct {
  size_t out, in;
  int shape;
} pair_cells;

struct residency {
  int n_shapes;
  shape shape[MOST_SHAPES];
  place spare[MOST_SHAPES][RESIDENCY_WAVE], block[MOST_SHAPES][RESIDENCY_WAVE]; /* as they are, as they were allocated */
  int8_t *shape_of;                                                             /* [cells], found once; -1: it never moves */
  const void *(*mapped)[MATS]; /* [cells]: where the host can use the mapping of a file, which it has at any time */
  uint8_t *will_be;            /* [cells]: on the device once the wave at work is through */
  candidate *list;             /* [2 * cells], while an order is looked up */
  pair_cells *pair;            /* [cells]; those from next to n have not begun; noted: looked up, for engine_move_begin */
  int n, noted, next;
  pair wave[RESIDENCY_WAVE];
  int n_wave;
  enum { REST, OUT, OUT_PROBE, OUT_SEEN, IN, IN_PROBE, IN_SEEN } state;
  bool probing;   /* the pair `copy` */
  int copy, part; /* pair of the wave and part of the expert that is copied */
  size_t done;    /* bytes of it */
  double credit;
  int64_t credit_ns, copies_begun; /* of the copy queue, when all had seen that `in` is not the host's any more */
  int64_t version;                 /* of the tables; of a micro-batch: micro_batch.version */
  residency_total total;
};

static const model_tensor_id mat_id[MATS] = {MT_EXP_GATE, MT_EXP_UP, MT_EXP_DOWN};

static hf_status shape_of(const engine *e, size_t at, shape *s) {
  const int l = (int)(at / (size_t)e->c.n_experts), x = (int)(at % (size_t)e->c.n_experts);
  for (int k = 0; k < MATS; k++) {
    load_source from;
    HF_TRY(load_describe(e, mat_id[k], l, x, &from));
    s->mat[k] = from.mat;
  }
  s->bias = model_has_tensor(e->m, MT_EXP_GATE_BIAS, l);
  return HF_OK;
}

static bool same_shape(const shape *a, const shape *b) {
  for (int k = 0; k < MATS; k++) {
    const kern_mat *x = &a->mat[k], *y = &b->mat[k];
    if (x->format != y->format || x->layout != y->layout || x->n_rows != y->n_rows || x->n_cols != y->n_cols ||
        x->row_bytes != y->row_bytes || !x->data != !y->data)
      return false;
  }
  return a->bias == b->bias;
}

static int find_shape(const residency *r, const shape *s) {
  for (int i = 0; i < r->n_shapes; i++)
    if (same_shape(&r->shape[i], s)) return i;
  return -1;
}

static size_t mat_bytes(const kern_mat *m) {
  return kern_mat_bytes(m->layout, m->format, m->n_rows, m->n_cols);
}

static size_t bias_floats(const engine *e) {
  return 2 * (size_t)e->c.d_ff_expert + (size_t)e->c.d_model;
}

static hf_status spare_part(engine *e, size_t bytes, void **out) {
  HF_TRY(mem_alloc(bytes, -1, "an expert that changes its place", out));
  return own_add_on(e, *out, bytes, -1);
}

static hf_status open_spares(engine *e, residency *r, int i) {
  const shape *s = &r->shape[i];
  for (int w = 0; w < RESIDENCY_WAVE; w++) {
    place *p = &r->spare[i][w];
    for (int k = 0; k < MATS; k++)
      if (!s->mat[k].data) HF_TRY(spare_part(e, mat_bytes(&s->mat[k]), &p->mat[k]));
    void *bias = NULL;
    if (s->bias) HF_TRY(spare_part(e, bias_floats(e) * sizeof(float), &bias));
    p->bias = bias;
    r->block[i][w] = *p;
  }
  return HF_OK;
}

int64_t residency_table_bytes(const model_config *c) {
  const int64_t cell = 2 + MATS * sizeof(void *) + 2 * sizeof(candidate) + sizeof(pair_cells);
  return (int64_t)c->n_layers * c->n_experts * cell;
}

int64_t residency_spare_bytes(int64_t largest_expert_bytes) {
  return RESIDENCY_WAVE * largest_expert_bytes;
}

hf_status residency_possible(const engine *e) {
  if (!e->o.movable) return HF_OK;
  if (!engine_has_device(&e->o)) return hf_fail(HF_INPUT, "experts that change places: there is no device");
  if (e->n_devices > 1) return hf_fail(HF_UNSUPPORTED, "experts that change places: not with %d devices yet", e->n_devices);
  if (e->o.ranks) return hf_fail(HF_UNSUPPORTED, "experts that change places: not where other ranks have some");
  if (e->cut)
    return hf_fail(HF_UNSUPPORTED, "experts that change places: not where they are cut over %d NUMA nodes", e->nodes.parts.n);
  return HF_OK;
}

static hf_status open_tables(engine *e, micro_batch *mb) {
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts;
  HF_TRY(hf_alloc(&mb->host, n, sizeof *mb->host, "residency table"));
  HF_TRY(hf_alloc(&mb->device, n, sizeof *mb->device, "residency table"));
  memcpy(mb->host, e->host_experts, n * sizeof *mb->host);
  memcpy(mb->device, e->device[ONLY].ctx.experts, n * sizeof *mb->device);
  mb->ctx = e->device[ONLY].ctx;
  mb->ctx.experts = mb->device;
  if (mb->ctx.host_experts) mb->ctx.host_experts = mb->host;
  mb->version = 0;
  return HF_OK;
}

/* Of every expert: what differs from the first one of its layer never moves. */
static hf_status find_shapes(engine *e, residency *r) {
  const size_t ne = (size_t)e->c.n_experts, n = (size_t)e->c.n_layers * ne;
  HF_TRY(hf_alloc(&r->shape_of, n, sizeof *r->shape_of, "residency of experts"));
  HF_TRY(hf_alloc(&r->mapped, n, sizeof *r->mapped, "residency of experts"));
  HF_TRY(hf_alloc(&r->will_be, n, sizeof *r->will_be, "residency of experts"));
  HF_TRY(hf_alloc(&r->list, 2 * n, sizeof *r->list, "residency of experts"));
  HF_TRY(hf_alloc(&r->pair, n, sizeof *r->pair, "residency of experts"));
  memset(r->shape_of, -1, n);
  for (size_t at = 0; at < n; at++) {
    shape s;
    if (!e->c.layer_is_moe[at / ne]) continue;
    HF_TRY(shape_of(e, at, &s));
    int k = find_shape(r, &s);
    if (k < 0 && at % ne == 0) {
      if (r->n_shapes == MOST_SHAPES)
        return hf_fail(HF_UNSUPPORTED, "experts that change places: more than %d shapes of them", MOST_SHAPES);
      r->shape[k = r->n_shapes++] = s;
    }
    r->shape_of[at] = (int8_t)k;
    for (int i = 0; i < MATS; i++) r->mapped[at][i] = s.mat[i].data;
    r->will_be[at] = e->resident[at] != 0;
  }
  for (int l = 0; l < e->c.n_layers; l++) /* recorded as if it had some on the device: one may come */
    if (e->layer[l].has_host_experts) e->layer[l].has_device_experts = true;
  return HF_OK;
}

hf_status residency_open(engine *e) {
  residency *r = NULL;
  if (!e->o.movable || e->c.n_experts == 0) return HF_OK;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "residency of experts"));
  e->moves = r;
  HF_TRY(find_shapes(e, r));
  for (int i = 0; i < r->n_shapes; i++) HF_TRY(open_spares(e, r, i));
  for (int i = 0; i < e->o.depth; i++) HF_TRY(open_tables(e, &e->mb[i]));
  return HF_OK;
}

/* How many spares of a shape the wave at work has taken, the first ones. */
static int taken(const residency *r, int kind) {
  int n = 0;
  for (int i = 0; i < r->n_wave && r->state != OUT && r->state != OUT_PROBE; i++) n += r->wave[i].shape == kind;
  return n;
}

/* Whether a part's memory was allocated for moves, not as part of a layer's. */
static bool is_block(const residency *r, int kind, int part, const void *p) {
  for (int w = 0; w < RESIDENCY_WAVE; w++)
    if (r->block[kind][w].mat[part] == p) return true;
  return false;
}

static void release_block(engine *e, const void *p) {
  for (int i = 0; i < e->n_own; i++) {
    if (e->own[i].device >= 0 || e->own[i].addr != (dev_addr)(uintptr_t)p) continue;
    own_release(e, &e->own[i]);
    memmove(&e->own[i], &e->own[i + 1], (size_t)(e->n_own - i - 1) * sizeof *e->own);
    e->n_own--;
    return;
  }
}

/* The expert whose part is in a block that was allocated for moves goes to `to`, and the block is given back. */
static void take_home(engine *e, int kind, int part, void *to) {
  const residency *r = e->moves;
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts, bytes = mat_bytes(&r->shape[kind].mat[part]);
  for (size_t at = 0; at < n; at++) {
    moe_expert *h = &e->host_experts[at];
    kern_mat *const m[MATS] = {&h->gate, &h->up, &h->down};
    for (int w = 0; w < RESIDENCY_WAVE && r->shape_of[at] == kind; w++) {
      const void *block = r->block[kind][w].mat[part];
      if (!block || m[part]->data != block) continue;
      memcpy(to, block, bytes);
      m[part]->data = to;
      release_block(e, block);
      return;
    }
  }
}

/* Without a device nothing changes places any more. */
static void give_back_spares(engine *e) {
  const residency *r = e->moves;
  for (int i = 0; i < r->n_shapes; i++)
    for (int w = taken(r, i); w < RESIDENCY_WAVE; w++) {
      const place *p = &r->spare[i][w];
      for (int k = 0; k < MATS; k++)
        if (p->mat[k] && is_block(r, i, k, p->mat[k])) release_block(e, p->mat[k]);
        else if (p->mat[k]) take_home(e, i, k, p->mat[k]);
      if (p->bias) release_block(e, p->bias);
    }
}

void residency_close(engine *e) {
  residency *r = e->moves;
  if (!r) return;
  /* what the device has by now is still whole in host memory */
  for (int i = 0; i < r->n_wave && r->state == IN_SEEN; i++) {
    pair *p = &r->wave[i];
    e->host_experts[p->in] = p->host;
    e->resident[p->in] = 0;
  }
  give_back_spares(e);
  for (int i = 0; i < SCHED_MAX_DEPTH; i++) {
    free(e->mb[i].host);
    free(e->mb[i].device);
    e->mb[i].host = NULL;
    e->mb[i].device = NULL;
    e->mb[i].checks = false;
  }
  free(r->shape_of);
  free((void *)r->mapped);
  free(r->will_be);
  free(r->list);
  free(r->pair);
  free(r);
  e->moves = NULL;
}

/* ---- orders ---- */

/* An expert that leaves the device needs somebody who asks the CPU for it. */
static bool may_leave(const engine *e, size_t at) {
  return e->layer[at / (size_t)e->c.n_experts].has_host_experts;
}

/* Each of in[] with the first of out[] of its shape that is left: partners get shape -1. A shape's place in out[] only rises, so that it is one pass. */
static void match(residency *r, candidate *out, int n_out, candidate *in, int n_in) {
  int from[MOST_SHAPES] = {0};
  for (int i = 0; i < n_in; i++) {
    const int s = in[i].shape;
    if (s < 0) continue;
    while (from[s] < n_out && out[from[s]].shape != s) from[s]++;
    if (from[s] == n_out) continue;
    r->pair[r->noted++] = (pair_cells){.out = out[from[s]].at, .in = in[i].at, .shape = s};
    out[from[s]].shape = in[i].shape = -1;
  }
}

/* What has to change, in ascending order. */
static void candidates(const engine *e, const uint8_t *target, candidate *out, int *n_out, candidate *in, int *n_in, int *stay) {
  const residency *r = e->moves;
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts;
  *n_out = *n_in = *stay = 0;
  for (size_t at = 0; at < n; at++) {
    const bool is = r->will_be[at], wanted = target[at] != 0;
    if (is == wanted || !e->c.layer_is_moe[at / (size_t)e->c.n_experts]) continue;
    const int k = r->shape_of[at];
    if (k < 0 || (is && !may_leave(e, at))) ++*stay;
    else if (is) out[(*n_out)++] = (candidate){at, k};
    else in[(*n_in)++] = (candidate){at, k};
  }
}

/* Those of a layer change with each other as far as that goes; then what is left, wherever it is. */
static void match_layers(const engine *e, candidate *out, int n_out, candidate *in, int n_in) {
  const size_t ne = (size_t)e->c.n_experts;
  for (int i = 0, k = 0; i < n_in;) {
    const size_t l = in[i].at / ne;
    int i_end = i;
    while (i_end < n_in && in[i_end].at / ne == l) i_end++;
    while (k < n_out && out[k].at / ne < l) k++;
    int k_end = k;
    while (k_end < n_out && out[k_end].at / ne == l) k_end++;
    match(e->moves, out + k, k_end - k, in + i, i_end - i);
    i = i_end;
    k = k_end;
  }
  match(e->moves, out, n_out, in, n_in);
}

static int64_t shape_bytes(const engine *e, const shape *s, bool mapped) {
  int64_t bytes = s->bias ? (int64_t)(bias_floats(e) * sizeof(float)) : 0;
  for (int k = 0; k < MATS; k++) bytes += mapped || !s->mat[k].data ? (int64_t)mat_bytes(&s->mat[k]) : 0;
  return bytes;
}

static void begin_wave(engine *e) {
  residency *r = e->moves;
  int used[MOST_SHAPES] = {0};
  r->n_wave = 0;
  r->state = REST;
  while (r->n_wave < RESIDENCY_WAVE && r->next < r->n) {
    pair *p = &r->wave[r->n_wave++];
    const pair_cells *c = &r->pair[r->next++];
    *p = (pair){.out = c->out, .in = c->in, .shape = c->shape};
    r->will_be[p->out] = 0;
    r->will_be[p->in] = 1;
    p->to = r->spare[p->shape][used[p->shape]++];
  }
  if (r->n_wave == 0) return;
  r->state = OUT;
  r->copy = r->part = 0;
  r->done = 0;
}

hf_status engine_move_look(engine *e, const uint8_t *target, residency_order *order) {
  residency *r = e->moves;
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts;
  int n_out, n_in, stay;
  *order = (residency_order){0};
  if (!r || !e->o.movable) return hf_fail(HF_INPUT, "engine: experts do not change places in it");
  engine_stop_moving(e);
  candidate *out = r->list, *in = r->list + n;
  candidates(e, target, out, &n_out, in, &n_in, &stay);
  match_layers(e, out, n_out, in, n_in);
  order->pairs = r->noted;
  order->left_out = stay + n_out + n_in - 2 * r->noted;
  for (int i = 0; i < r->noted; i++)
    order->bytes += shape_bytes(e, &r->shape[r->pair[i].shape], false) + shape_bytes(e, &r->shape[r->pair[i].shape], true);
  return HF_OK;
}

void engine_move_begin(engine *e) {
  residency *r = e->moves;
  r->n = r->noted;
  r->noted = 0;
  if (r->state == REST) begin_wave(e);
}

hf_status engine_move_to(engine *e, const uint8_t *target, residency_order *order) {
  HF_TRY(engine_move_look(e, target, order));
  engine_move_begin(e);
  return HF_OK;
}

bool engine_moving(const engine *e) {
  return e->moves && (e->moves->state != REST || e->moves->next < e->moves->n);
}

void engine_stop_moving(engine *e) {
  if (e->moves) e->moves->n = e->moves->next = e->moves->noted = 0;
}

residency_total engine_moved(const engine *e) {
  return e->moves ? e->moves->total : (residency_total){0};
}

/* ---- copies ---- */

/* Part of an expert: its matrices and its biases. 0 bytes: nothing to copy. */
static size_t part_out(const engine *e, const pair *p, int part, char **to, dev_addr *from) {
  const shape *s = &e->moves->shape[p->shape];
  const dev_expert *x = &e->device[ONLY].ctx.experts[p->out];
  const dev_mat *const m[MATS] = {&x->gate, &x->up, &x->down};
  *to = part < MATS ? p->to.mat[part] : (char *)p->to.bias;
  *from = part < MATS ? m[part]->data : x->gate_bias;
  if (part < MATS) return s->mat[part].data ? 0 : mat_bytes(&s->mat[part]);
  return s->bias ? bias_floats(e) * sizeof(float) : 0;
}

static size_t part_in(const engine *e, const pair *p, int part, dev_addr *to, const char **from) {
  const shape *s = &e->moves->shape[p->shape];
  const moe_expert *x = &e->host_experts[p->in];
  const kern_mat *const m[MATS] = {&x->gate, &x->up, &x->down};
  const dev_mat *const d[MATS] = {&p->there.gate, &p->there.up, &p->there.down};
  *to = part < MATS ? d[part]->data : p->there.gate_bias;
  *from = part < MATS ? m[part]->data : (const void *)x->gate_bias;
  if (part < MATS) return mat_bytes(&s->mat[part]);
  return s->bias ? bias_floats(e) * sizeof(float) : 0;
}

/* Copies at most n bytes of the part at work; its size is *bytes. */
static hf_status copy_piece(engine *e, size_t n, size_t *bytes, size_t *copied) {
  residency *r = e->moves;
  const pair *p = &r->wave[r->copy];
  char *to = NULL;
  const char *from = NULL;
  dev_addr there = 0;
  *bytes = r->state == OUT ? part_out(e, p, r->part, &to, &there) : part_in(e, p, r->part, &there, &from);
  *copied = *bytes - r->done < n ? *bytes - r->done : n;
  if (*copied == 0) return HF_OK;
  return r->state == OUT ? dev_read_back(e->device[ONLY].d, to + r->done, there + r->done, *copied)
                         : dev_upload(e->device[ONLY].d, there + r->done, from + r->done, *copied);
}

/* True when all of the wave is copied. */
static hf_status copy_some(engine *e, bool *all) {
  residency *r = e->moves;
  const double rate = (double)e->o.move_bytes_per_s;
  const int64_t now = hf_now_ns();
  *all = false;
  if (rate > 0) {
    const double most = KEPT_S * rate > RESIDENCY_PIECE ? KEPT_S * rate : RESIDENCY_PIECE;
    r->credit += r->credit_ns ? rate * 1e-9 * (double)(now - r->credit_ns) : 0;
    if (r->credit > most) r->credit = most;
    r->credit_ns = now;
    if (r->credit < RESIDENCY_PIECE) return HF_OK;
  }
  for (size_t left = RESIDENCY_PIECE; left > 0 && r->copy < r->n_wave;) {
    size_t bytes, copied;
    HF_TRY(copy_piece(e, left, &bytes, &copied));
    r->done += copied;
    r->credit -= (double)copied;
    r->total.bytes += (int64_t)copied;
    left -= copied;
    if (r->done < bytes) break;
    r->done = 0;
    if (++r->part <= MATS) continue;
    r->part = 0;
    r->copy++;
  }
  *all = r->copy == r->n_wave;
  return HF_OK;
}

/* ---- tables ---- */

static moe_expert as_on_host(const engine *e, const pair *p) {
  const residency *r = e->moves;
  const shape *s = &r->shape[p->shape];
  moe_expert h = {0};
  kern_mat *const m[MATS] = {&h.gate, &h.up, &h.down};
  for (int k = 0; k < MATS; k++) {
    *m[k] = s->mat[k];
    m[k]->data = s->mat[k].data ? r->mapped[p->out][k] : p->to.mat[k];
  }
  if (!s->bias) return h;
  h.gate_bias = p->to.bias;
  h.up_bias = p->to.bias + e->c.d_ff_expert;
  h.down_bias = p->to.bias + 2 * (size_t)e->c.d_ff_expert;
  return h;
}

/* What the device makes of an expert that was copied, before anybody uses the copy (probe.h). */
static hf_status judge_copy(engine *e, const pair *p) {
  static const char why[] = "an expert that changed its place gives another result there";
  uint64_t *known = e->probe->known;
  moe_expert h = e->host_experts[p->in];
  if (e->moves->state == OUT_PROBE) {
    h = as_on_host(e, p);
    if (known[p->out] && known[p->out] != probe_hash(e)) return engine_found_wrong(e, why);
  }
  if (!probe_as_on_cpu(e, &h)) return engine_found_wrong(e, why);
  if (e->moves->state == IN_PROBE) known[p->in] = probe_hash(e);
  return HF_OK;
}

/* True when all of the wave are found good. */
static hf_status probe_some(engine *e, bool *all) {
  residency *r = e->moves;
  const pair *p = &r->wave[r->copy];
  bool ended;
  *all = false;
  if (!r->probing)
    return probe_begin(e, PROBE_MOVE, r->state == OUT_PROBE ? &e->device[ONLY].ctx.experts[p->out] : &p->there, &r->probing);
  HF_TRY(probe_ended(e, &ended));
  if (!ended) return HF_OK;
  r->probing = false;
  HF_TRY(judge_copy(e, p));
  *all = ++r->copy == r->n_wave;
  return HF_OK;
}

/* Those that left are the CPU's from now on, once a micro-batch has seen it. */
static void commit_out(engine *e) {
  residency *r = e->moves;
  for (int i = 0; i < r->n_wave; i++) {
    pair *p = &r->wave[i];
    p->there = e->device[ONLY].ctx.experts[p->out];
    e->host_experts[p->out] = as_on_host(e, p);
    e->device[ONLY].ctx.experts[p->out] = (dev_expert){0};
    e->resident[p->out] = 0;
    e->probe->known[p->out] = 0;
  }
  r->version++;
  r->total.changed = true;
  r->state = OUT_SEEN;
}

/* The others are the device's. */
static void commit_in(engine *e) {
  residency *r = e->moves;
  for (int i = 0; i < r->n_wave; i++) {
    pair *p = &r->wave[i];
    moe_expert *h = &e->host_experts[p->in];
    const shape *s = &r->shape[p->shape];
    const kern_mat *const m[MATS] = {&h->gate, &h->up, &h->down};
    p->host = *h;
    for (int k = 0; k < MATS; k++) p->from.mat[k] = s->mat[k].data ? NULL : (void *)(uintptr_t)m[k]->data;
    p->from.bias = (float *)(uintptr_t)h->gate_bias;
    *h = (moe_expert){0};
    e->device[ONLY].ctx.experts[p->in] = p->there;
    e->resident[p->in] = 1;
  }
  r->version++;
  r->state = IN_SEEN;
}

void residency_apply(engine *e, int i) {
  const residency *r = e->moves;
  micro_batch *mb = &e->mb[i];
  if (!r) return;
  mb->ctx.experts = mb->checks ? e->probe->none : mb->device;
  if (mb->version == r->version) return;
  for (int k = 0; k < r->n_wave; k++) {
    const size_t at[2] = {r->wave[k].out, r->wave[k].in};
    for (int s = 0; s < 2; s++) {
      mb->host[at[s]] = e->host_experts[at[s]];
      mb->device[at[s]] = e->device[ONLY].ctx.experts[at[s]];
    }
  }
  mb->version = r->version;
}

/* Nor does a check look at one that has left. */
static bool all_seen(engine *e) {
  bool all = e->probe->user != PROBE_CHECK;
  for (int i = 0; i < e->o.depth; i++) {
    if (!e->mb[i].running) residency_apply(e, i);
    all = all && e->mb[i].version == e->moves->version;
  }
  return all;
}

/* Host memory of those that are on the device now is the spare of the next wave; the copy queue may have been reading it for a prompt's step. */
static void end_wave(engine *e) {
  residency *r = e->moves;
  int used[MOST_SHAPES] = {0};
  int64_t begun, ended;
  dev_copies_count(e->device[ONLY].d, &begun, &ended);
  if (r->copies_begun < 0) r->copies_begun = begun;
  if (ended < r->copies_begun) return;
  for (int i = 0; i < r->n_wave; i++) r->spare[r->wave[i].shape][used[r->wave[i].shape]++] = r->wave[i].from;
  r->total.pairs += r->n_wave;
  begin_wave(e);
}

void residency_give_up(engine *e) {
  residency *r = e->moves;
  hf_log(HF_LOG_WARN, "experts that change places: given up: %s", hf_error_line());
  hf_clear_error();
  engine_stop_moving(e);
  for (int i = 0; i < r->n_shapes; i++) memset(r->spare[i], 0, (size_t)taken(r, i) * sizeof r->spare[i][0]);
  if (r->state == IN || r->state == IN_PROBE) e->o.movable = false; /* every step has seen what left; nothing takes its room */
  for (int i = 0; i < r->n_wave; i++) {
    r->will_be[r->wave[i].out] = e->resident[r->wave[i].out] != 0;
    r->will_be[r->wave[i].in] = 0;
  }
  r->n_wave = 0;
  r->state = REST;
}

hf_status residency_work(engine *e) {
  residency *r = e->moves;
  bool all;
  if (!r || r->state == REST) return HF_OK;
  if (r->state == OUT || r->state == IN) {
    HF_TRY(copy_some(e, &all));
    if (!all) return HF_OK;
    r->state = r->state == OUT ? OUT_PROBE : IN_PROBE;
    r->copy = 0;
    r->probing = false;
  }
  if (r->state == OUT_PROBE || r->state == IN_PROBE) {
    HF_TRY(probe_some(e, &all));
    if (!all) return HF_OK;
    r->copies_begun = -1;
    if (r->state == OUT_PROBE) commit_out(e);
    else commit_in(e);
  }
  if (!all_seen(e)) return HF_OK;
  if (r->state == IN_SEEN) {
    end_wave(e);
    return HF_OK;
  }
  r->state = IN;
  r->copy = r->part = 0;
  r->done = 0;
  return HF_OK;
}
