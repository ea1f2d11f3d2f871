/* probe.c: see probe.h. */
#include "executor/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { MAX_OPS = 3 };
#define LEARN_LIMIT_NS INT64_C(30000000000)

static size_t row_floats(const model_config *c) {
  return (size_t)PROBE_ROWS * (size_t)c->d_model;
}

static size_t cells(const engine *e) {
  return (size_t)e->c.n_layers * (size_t)e->c.n_experts;
}

int64_t probe_ram_bytes(const model_config *c) {
  const int64_t n = (int64_t)c->n_layers * c->n_experts;
  const moe_shape shape = {
      .n_experts = c->n_experts, .top_k = c->top_k, .d_model = c->d_model, .d_ff = c->d_ff_expert, .max_tok = PROBE_ROWS};
  return n * (int64_t)(sizeof(dev_expert) + sizeof(uint64_t)) + 3 * (int64_t)(row_floats(c) * sizeof(float)) +
         moe_scratch_bytes(&shape, NULL, 1);
}

int64_t probe_device_bytes(const model_config *c) {
  return 2 * (int64_t)((row_floats(c) * sizeof(float) + 63) & ~(size_t)63);
}

/* Values of a normalised row's size, the same in every run. */
static void fill_rows(float *x, size_t n) {
  uint32_t seed = 20260101;
  for (size_t i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)((double)(seed >> 8) / (1 << 23) - 1) * 1.7320508f; /* evenly in +-sqrt 3: of RMS 1 */
  }
}

static hf_status record(engine *e, probe *p) {
  const int d = e->c.d_model;
  const size_t bytes = (size_t)probe_device_bytes(&e->c);
  dev_addr rows;
  HF_TRY(dev_alloc(e->device[0].d, bytes, "rows of the device's check", &rows));
  HF_TRY(own_add_at(e, 0, rows, bytes));
  const dev_addr out = rows + bytes / 2;
  const dev_op op[MAX_OPS] = {
      {.kind = DOP_COPY_IN, .out = rows, .out_stride = d, .n = d},
      {.kind = DOP_EXPERTS, .layer = DEV_LAYER_OF_STEP, .in = rows, .in_stride = d, .out = out, .out_stride = d, .n = d},
      {.kind = DOP_COPY_OUT, .in = out, .in_stride = d, .n = d}};
  return dev_record(e->device[0].d, op, MAX_OPS, &p->ctx, PROBE_ROWS, 1, &p->rec);
}

static hf_status open_step(engine *e, probe *p) {
  const size_t k = (size_t)e->c.top_k;
  dev_step *s = &p->step;
  *s = (dev_step){.stream = e->o.depth, .n_tok = PROBE_ROWS, .n_seq = 1, .max_tok = PROBE_ROWS, .max_logits = 1};
  HF_TRY(hf_alloc(&s->route_ids, PROBE_ROWS * k, sizeof *s->route_ids, "step"));
  HF_TRY(hf_alloc(&s->route_weights, PROBE_ROWS * k, sizeof *s->route_weights, "step"));
  HF_TRY(hf_alloc(&s->host_x, row_floats(&e->c), sizeof(float), "step"));
  for (size_t i = 0; i < PROBE_ROWS * k; i++) {
    s->route_ids[i] = (int32_t)(i % k); /* of these only the first is there */
    s->route_weights[i] = 1;
  }
  return HF_OK;
}

hf_status probe_open(engine *e) {
  probe *p = NULL;
  if (!e->moves) return HF_OK;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "the device's check"));
  e->probe = p;
  HF_TRY(hf_alloc(&p->table, (size_t)e->c.n_experts, sizeof *p->table, "the device's check"));
  HF_TRY(hf_alloc(&p->host, (size_t)e->c.n_experts, sizeof *p->host, "the device's check"));
  HF_TRY(hf_alloc(&p->none, cells(e), sizeof *p->none, "the device's check"));
  HF_TRY(hf_alloc(&p->known, cells(e), sizeof *p->known, "the device's check"));
  HF_TRY(hf_alloc(&p->x, row_floats(&e->c), sizeof *p->x, "the device's check"));
  HF_TRY(hf_alloc(&p->y, row_floats(&e->c), sizeof *p->y, "the device's check"));
  fill_rows(p->x, row_floats(&e->c));
  p->ctx = e->device[0].ctx;
  p->ctx.n_layers = 1;
  p->ctx.experts = p->table;
  p->ctx.host_experts = NULL;
  HF_TRY(open_step(e, p));
  return record(e, p);
}

void probe_close(engine *e) {
  probe *p = e->probe;
  if (!p) return;
  dev_recording_free(p->rec);
  free(p->step.route_ids);
  free(p->step.route_weights);
  free(p->step.host_x);
  free(p->table);
  free(p->host);
  free(p->none);
  free(p->known);
  free(p->x);
  free(p->y);
  free(p);
  e->probe = NULL;
}

hf_status probe_begin(engine *e, probe_user user, const dev_expert *x, bool *begun) {
  probe *p = e->probe;
  *begun = p->user == PROBE_NOBODY;
  if (!*begun) return HF_OK;
  p->table[0] = *x;
  memcpy(p->step.host_x, p->x, row_floats(&e->c) * sizeof(float));
  HF_TRY(dev_launch(e->device[0].d, p->rec, &p->step));
  p->user = user;
  return HF_OK;
}

hf_status probe_ended(engine *e, bool *ended) {
  *ended = dev_finished(e->device[0].d, e->probe->step.stream);
  if (!*ended) return HF_OK;
  if (dev_lost(e->device[0].d)) return engine_lost(e);
  e->probe->user = PROBE_NOBODY;
  return HF_OK;
}

uint64_t probe_hash_of(const float *x, size_t n) {
  const unsigned char *b = (const unsigned char *)x;
  uint64_t h = UINT64_C(14695981039346656037);
  for (size_t i = 0; i < n * sizeof *x; i++) h = (h ^ b[i]) * UINT64_C(1099511628211);
  return h | 1;
}

uint64_t probe_hash(const engine *e) {
  return probe_hash_of(e->probe->step.host_x, row_floats(&e->c));
}

typedef struct {
  engine *e;
  moe_job job;
} cpu_probe;

static void on_cpu(void *arg, int thread, int n_threads) {
  cpu_probe *c = arg;
  moe_run(c->e->cpu_moe, &c->job, c->e->p, thread, n_threads);
}

bool probe_as_on_cpu(engine *e, const moe_expert *x) {
  probe *p = e->probe;
  double apart = 0, all = 0;
  p->host[0] = *x;
  cpu_probe c = {.e = e,
                 .job = {.experts = p->host,
                         .n_tok = PROBE_ROWS,
                         .x = p->x,
                         .x_stride = e->c.d_model,
                         .ids = p->step.route_ids,
                         .weights = p->step.route_weights,
                         .y = p->y,
                         .y_stride = e->c.d_model}};
  pool_run(e->p, on_cpu, &c);
  for (size_t i = 0; i < row_floats(&e->c); i++) {
    const double d = (double)p->step.host_x[i] - (double)p->y[i];
    apart += d * d;
    all += (double)p->y[i] * (double)p->y[i];
  }
  return apart <= PROBE_TOLERANCE * PROBE_TOLERANCE * all; /* not of a NaN */
}

hf_status probe_learn(engine *e) {
  probe *p = e->probe;
  for (size_t at = 0; p && at < cells(e); at++) {
    bool begun;
    if (!e->resident[at] || !e->device[0].ctx.experts[at].gate.data) continue;
    HF_TRY(probe_begin(e, PROBE_CHECK, &e->device[0].ctx.experts[at], &begun));
    p->user = PROBE_NOBODY;
    const hf_status st = dev_sync(e->device[0].d, p->step.stream, e->o.deadline_ns > 0 ? e->o.deadline_ns : LEARN_LIMIT_NS);
    if (st == HF_TIMEOUT) {
      hf_clear_error();
      dev_give_up(e->device[0].d, "no sign of life while it computed experts");
    }
    if (st == HF_TIMEOUT || st == HF_LOST) return engine_lost(e);
    HF_TRY(st);
    p->known[at] = probe_hash(e);
  }
  return HF_OK;
}

/* ---- of a check ---- */

/* The next one on the device that is known, from p->first on. False: there is none. */
static bool find_known(engine *e) {
  probe *p = e->probe;
  for (size_t i = 0; i < cells(e); i++) {
    const size_t at = (p->first + i) % cells(e);
    if (!p->known[at] || !e->device[0].ctx.experts[at].gate.data) continue;
    p->at = at;
    p->first = (at + 1) % cells(e);
    return true;
  }
  return false;
}

void probe_check_begin(engine *e) {
  if (e->probe) e->probe->left = PROBE_EXPERTS;
}

bool probe_checking(const engine *e) {
  return e->probe && (e->probe->left > 0 || e->probe->user == PROBE_CHECK);
}

hf_status probe_check_work(engine *e) {
  probe *p = e->probe;
  bool ended, begun;
  if (!probe_checking(e)) return HF_OK;
  if (p->user == PROBE_CHECK) {
    HF_TRY(probe_ended(e, &ended));
    if (!ended) return HF_OK;
    if (probe_hash(e) != p->want) return engine_found_wrong(e, "an expert gave another result than at first");
  }
  if (p->left == 0 || p->user != PROBE_NOBODY) return HF_OK;
  if (!find_known(e)) {
    p->left = 0;
    return HF_OK;
  }
  p->left--;
  p->want = p->known[p->at];
  const hf_status st = probe_begin(e, PROBE_CHECK, &e->device[0].ctx.experts[p->at], &begun);
  return st == HF_LOST ? engine_lost(e) : st;
}
