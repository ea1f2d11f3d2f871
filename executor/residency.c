/* residency.c: see residency.h. */
#include "executor/residency.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/engine_int.h"

enum { MATS = 3, MOST_SHAPES = 16, ONLY = 0 /* device that experts leave and come to (residency_possible) */ };
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

struct residency {
  int n_shapes;
  shape shape[MOST_SHAPES];
  place spare[MOST_SHAPES][RESIDENCY_WAVE];
  pair *pair; /* [cap]; those from next to n have not begun */
  int n, cap, next;
  pair wave[RESIDENCY_WAVE];
  int n_wave;
  enum { REST, OUT, OUT_SEEN, IN, IN_SEEN } state;
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
  }
  return HF_OK;
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

hf_status residency_open(engine *e) {
  residency *r = NULL;
  if (!e->o.movable || e->c.n_experts == 0) return HF_OK;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "residency of experts"));
  e->moves = r;
  for (int l = 0; l < e->c.n_layers; l++) {
    shape s;
    if (!e->c.layer_is_moe[l]) continue;
    if (e->layer[l].has_host_experts) e->layer[l].has_device_experts = true; /* recorded as if it had some: one may come */
    HF_TRY(shape_of(e, (size_t)l * (size_t)e->c.n_experts, &s));
    if (find_shape(r, &s) >= 0) continue;
    if (r->n_shapes == MOST_SHAPES)
      return hf_fail(HF_UNSUPPORTED, "experts that change places: more than %d shapes of them", MOST_SHAPES);
    r->shape[r->n_shapes++] = s;
  }
  for (int i = 0; i < r->n_shapes; i++) HF_TRY(open_spares(e, r, i));
  for (int i = 0; i < e->o.depth; i++) HF_TRY(open_tables(e, &e->mb[i]));
  return HF_OK;
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
  for (int i = 0; i < SCHED_MAX_DEPTH; i++) {
    free(e->mb[i].host);
    free(e->mb[i].device);
    e->mb[i].host = NULL;
    e->mb[i].device = NULL;
  }
  free(r->pair);
  free(r);
  e->moves = NULL;
}

/* ---- orders ---- */

/* As it will be when the wave at work is through. */
static bool will_be_resident(const engine *e, size_t at) {
  const residency *r = e->moves;
  for (int i = 0; i < r->n_wave; i++) {
    if (r->wave[i].out == at) return false;
    if (r->wave[i].in == at) return true;
  }
  return e->resident[at] != 0;
}

/* An expert of the layer's like that leaves the device needs somebody who asks the CPU for it. */
static bool may_leave(const engine *e, size_t at) {
  return e->layer[at / (size_t)e->c.n_experts].has_host_experts;
}

typedef struct {
  size_t at;
  int shape;
} candidate;

static hf_status note_pair(residency *r, const candidate *out, const candidate *in) {
  if (r->n == r->cap) {
    const int cap = r->cap ? 2 * r->cap : 64;
    HF_TRY(hf_realloc(&r->pair, (size_t)cap, sizeof *r->pair, "experts that change places"));
    r->cap = cap;
  }
  r->pair[r->n++] = (pair){.out = out->at, .in = in->at, .shape = out->shape};
  return HF_OK;
}

/* Those of a layer change with each other as far as that goes; same_layer false: what is left, wherever it is. Partners get shape -1. */
static hf_status match(engine *e, candidate *out, int n_out, candidate *in, int n_in, bool same_layer) {
  const size_t ne = (size_t)e->c.n_experts;
  for (int i = 0, from = 0; i < n_in; i++) {
    if (in[i].shape < 0) continue;
    for (; same_layer && from < n_out && out[from].at / ne < in[i].at / ne; from++) {}
    for (int k = same_layer ? from : 0; k < n_out && (!same_layer || out[k].at / ne == in[i].at / ne); k++) {
      if (out[k].shape != in[i].shape) continue;
      HF_TRY(note_pair(e->moves, &out[k], &in[i]));
      out[k].shape = in[i].shape = -1;
      break;
    }
  }
  return HF_OK;
}

/* What has to change, in ascending order. */
static hf_status candidates(const engine *e, const uint8_t *target, candidate *out, int *n_out, candidate *in, int *n_in,
                            int *stay) {
  const size_t ne = (size_t)e->c.n_experts, n = (size_t)e->c.n_layers * ne;
  *n_out = *n_in = *stay = 0;
  for (size_t at = 0; at < n; at++) {
    const bool is = will_be_resident(e, at), wanted = target[at] != 0;
    if (is == wanted || !e->c.layer_is_moe[at / ne]) continue;
    shape s;
    HF_TRY(shape_of(e, at, &s));
    const int k = find_shape(e->moves, &s);
    if (k < 0 || (is && !may_leave(e, at))) ++*stay;
    else if (is) out[(*n_out)++] = (candidate){at, k};
    else in[(*n_in)++] = (candidate){at, k};
  }
  return HF_OK;
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
    *p = r->pair[r->next++];
    p->to = r->spare[p->shape][used[p->shape]++];
  }
  if (r->n_wave == 0) return;
  r->state = OUT;
  r->copy = r->part = 0;
  r->done = 0;
}

static hf_status take_order(engine *e, const uint8_t *target, residency_order *order, bool begin) {
  residency *r = e->moves;
  const size_t n = (size_t)e->c.n_layers * (size_t)e->c.n_experts;
  candidate *list = NULL;
  int n_out, n_in, stay;
  hf_status st;
  *order = (residency_order){0};
  if (!r) return hf_fail(HF_INPUT, "engine: it was not opened for experts that change places");
  engine_stop_moving(e);
  HF_TRY(hf_alloc(&list, 2 * n + 1, sizeof *list, "experts that change places"));
  HF_GO(end, candidates(e, target, list, &n_out, list + n, &n_in, &stay));
  HF_GO(end, match(e, list, n_out, list + n, n_in, true));
  HF_GO(end, match(e, list, n_out, list + n, n_in, false));
  order->pairs = r->n - r->next;
  order->left_out = stay + n_out + n_in - 2 * order->pairs;
  for (int i = r->next; i < r->n; i++)
    order->bytes += shape_bytes(e, &r->shape[r->pair[i].shape], false) + shape_bytes(e, &r->shape[r->pair[i].shape], true);
  if (begin && r->state == REST) begin_wave(e);
end:
  if (st != HF_OK || !begin) engine_stop_moving(e);
  free(list);
  return st;
}

hf_status engine_move_to(engine *e, const uint8_t *target, residency_order *order) {
  return take_order(e, target, order, true);
}

hf_status engine_move_look(engine *e, const uint8_t *target, residency_order *order) {
  return take_order(e, target, order, false);
}

bool engine_moving(const engine *e) {
  return e->moves && (e->moves->state != REST || e->moves->next < e->moves->n);
}

void engine_stop_moving(engine *e) {
  if (e->moves) e->moves->n = e->moves->next = 0;
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

static hf_status as_on_host(const engine *e, const pair *p, moe_expert *h) {
  shape s;
  HF_TRY(shape_of(e, p->out, &s));
  kern_mat *const m[MATS] = {&h->gate, &h->up, &h->down};
  *h = (moe_expert){0};
  for (int k = 0; k < MATS; k++) {
    *m[k] = s.mat[k];
    if (!m[k]->data) m[k]->data = p->to.mat[k];
  }
  if (!s.bias) return HF_OK;
  h->gate_bias = p->to.bias;
  h->up_bias = p->to.bias + e->c.d_ff_expert;
  h->down_bias = p->to.bias + 2 * (size_t)e->c.d_ff_expert;
  return HF_OK;
}

/* Those that left are the CPU's from now on, once a micro-batch has seen it. */
static hf_status commit_out(engine *e) {
  residency *r = e->moves;
  moe_expert h[RESIDENCY_WAVE];
  for (int i = 0; i < r->n_wave; i++) HF_TRY(as_on_host(e, &r->wave[i], &h[i]));
  for (int i = 0; i < r->n_wave; i++) {
    pair *p = &r->wave[i];
    p->there = e->device[ONLY].ctx.experts[p->out];
    e->host_experts[p->out] = h[i];
    e->device[ONLY].ctx.experts[p->out] = (dev_expert){0};
    e->resident[p->out] = 0;
  }
  r->version++;
  r->total.changed = true;
  r->state = OUT_SEEN;
  return HF_OK;
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
  if (!r || mb->version == r->version) return;
  for (int k = 0; k < r->n_wave; k++) {
    const size_t at[2] = {r->wave[k].out, r->wave[k].in};
    for (int s = 0; s < 2; s++) {
      mb->host[at[s]] = e->host_experts[at[s]];
      mb->device[at[s]] = e->device[ONLY].ctx.experts[at[s]];
    }
  }
  mb->version = r->version;
}

static bool all_seen(engine *e) {
  bool all = true;
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

hf_status residency_work(engine *e) {
  residency *r = e->moves;
  bool all;
  if (!r || r->state == REST) return HF_OK;
  if (r->state == OUT || r->state == IN) {
    HF_TRY(copy_some(e, &all));
    if (!all) return HF_OK;
    r->copies_begun = -1;
    if (r->state == OUT) HF_TRY(commit_out(e));
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
