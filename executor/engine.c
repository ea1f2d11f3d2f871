/* engine.c: life of an engine and its steps. The driver's loop is engine_launch for idle micro-batches and engine_poll for the
 * rest; while the driver computes CPU experts of one micro-batch the device goes on with another. */
#include "executor/engine.h"

#include <sched.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/devices.h"
#include "executor/probe.h"
#include "executor/rejoin.h"
#include "executor/residency.h"
#include "kernels/attn.h"
#include "kernels/mla.h"
#include "sched/footprint.h"
#include "sched/mla.h"

_Static_assert((int)WATCH_STEPS >= (int)SCHED_MAX_DEPTH && (int)WATCH_STEPS >= (int)ENGINE_DEVICES,
               "every micro-batch and device is watched");

static int64_t align_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}
void engine_without_device(engine_options *o) {
  snprintf(o->gpu, sizeof o->gpu, "none");
  o->pace = NULL;
  o->fault = (dev_fault){0};
  o->check_every_ns = 0;
  o->depth = 1; /* nothing is at work beside the CPU */
  o->movable = false;
  o->upload_tokens = 0;
  o->lost_devices = 0;
}
static bool paced(const engine_options *o) {
  return o->pace != NULL;
}

int check_pages(const engine_options *o) {
  return o->check_every_ns > 0 && engine_has_device(o) ? (CHECK_TOKENS + o->page_tokens - 1) / o->page_tokens : 0;
}

size_t kv_row_bytes(const model_config *c, const engine_options *o) {
  const kern_kv_shape s = c->attn == ATTN_MLA ? (kern_kv_shape){.k = c->kv_lora_rank, .v = c->rope_dim}
                                              : (kern_kv_shape){.n_heads = c->n_kv_heads, .k = c->head_dim, .v = c->head_dim};
  return kern_kv_row_bytes(o->exact ? KV_F32 : o->kv_type, &s);
}

static size_t kv_layer_bytes(const model_config *c, const engine_options *o) {
  return (size_t)(o->n_pages + check_pages(o)) * (size_t)o->page_tokens * kv_row_bytes(c, o);
}

bool placed_on_device(const model_config *c, const engine_options *o, int l, int x) {
  return device_of_expert(c, o, l, x) >= 0;
}

bool expert_away(const engine_options *o, int n_experts, int l, int x) {
  return o->owner && o->owner[(size_t)l * (size_t)n_experts + (size_t)x] != o->rank;
}

hf_status engine_can_run(const model_config *c) {
  if (c->n_experts == 0)
    return hf_fail(HF_UNSUPPORTED, "%s models have no experts: they can be planned as helpers of a larger one, not executed",
                   model_family_name(c->family));
  if (c->n_experts > 1024 || c->top_k > 64)
    return hf_fail(HF_UNSUPPORTED, "%d experts, top %d: at most 1024 and 64 can be executed", c->n_experts, c->top_k);
  return HF_OK;
}

typedef struct {
  plan_budget *rows;
  int n, max;
} table;

static void row(table *t, const char *where, const char *what, int64_t bytes, int64_t limit) {
  if (t->n == t->max || bytes == 0) return;
  plan_budget *r = &t->rows[t->n++];
  snprintf(r->where, sizeof r->where, "%s", where);
  snprintf(r->what, sizeof r->what, "%s", what);
  r->bytes = bytes;
  r->limit_bytes = limit;
}

typedef struct {
  int64_t dense[ENGINE_DEVICES], dev_experts[ENGINE_DEVICES], ram_experts;
  int64_t slot[ENGINE_DEVICES]; /* for the largest expert that is sent to the device */
  /* Of the largest tensor that is not taken from a mapping: as it was read, and as numbers where it is dequantised. Experts on the CPU are read by
   * all threads at once, others one at a time. */
  int64_t scratch, expert_scratch;
  int n_sizes; /* different shapes of experts, as far as residency.h takes them; for those that change places */
  int64_t size[RESIDENCY_SHAPES];
  uint64_t shape[RESIDENCY_SHAPES];
  bool cut; /* experts over nodes: what is read goes through memory whatever its layout */
} weight_bytes;

static hf_status add_bytes(const model *m, const engine_options *o, model_tensor_id id, int layer, int expert, weight_bytes *w,
                           int64_t *sum) {
  int64_t bytes, scratch;
  if (!model_has_tensor(m, id, layer)) return HF_OK;
  HF_TRY(loaded_bytes(m, o, id, layer, expert, &bytes, &scratch));
  if (w->cut && sum == &w->ram_experts && scratch == 0) {
    model_tensor_info info;
    bool convert;
    HF_TRY(loaded_tensor(m, o, id, layer, expert, &info, &convert));
    scratch = info.derived ? (int64_t)info.bytes : 0;
  }
  int64_t *most = sum == &w->ram_experts ? &w->expert_scratch : &w->scratch;
  if (scratch > *most) *most = scratch;
  *sum += align_up(bytes, 64);
  return HF_OK;
}

static hf_status sum_dense(const model *m, const engine_options *o, weight_bytes *w) {
  const model_config *c = model_get_config(m);
  const int first = device_of_layer(c, o, 0), last = device_of_layer(c, o, c->n_layers - 1);
  HF_TRY(add_bytes(m, o, MT_EMBED, -1, -1, w, &w->dense[first]));
  HF_TRY(add_bytes(m, o, MT_OUT_NORM, -1, -1, w, &w->dense[last]));
  if (!c->tied_embeddings || first != last)
    HF_TRY(add_bytes(m, o, c->tied_embeddings ? MT_EMBED : MT_OUTPUT, -1, -1, w, &w->dense[last]));
  for (int l = 0; l < c->n_layers; l++) {
    int64_t *to = &w->dense[device_of_layer(c, o, l)];
    for (int id = MT_ATTN_NORM; id < MT_N; id++)
      if (!model_tensor_is_expert((model_tensor_id)id)) HF_TRY(add_bytes(m, o, (model_tensor_id)id, l, -1, w, to));
  }
  return HF_OK;
}

/* An expert whose matrices have other formats than those before needs room of its own, be it as large. */
static hf_status note_shape(const model *m, const engine_options *o, int l, int x, int64_t bytes, weight_bytes *w) {
  uint64_t shape = (uint64_t)bytes;
  int i = 0;
  for (int id = MT_EXP_GATE; id <= MT_EXP_DOWN; id++) {
    model_tensor_info info;
    bool convert;
    HF_TRY(loaded_tensor(m, o, (model_tensor_id)id, l, x, &info, &convert));
    shape = (shape * 1024 + (uint64_t)info.format) * UINT64_C(1099511628211) + (uint64_t)info.rows;
  }
  while (i < w->n_sizes && w->shape[i] != shape) i++;
  if (i < w->n_sizes || i == RESIDENCY_SHAPES) return HF_OK;
  w->shape[i] = shape;
  w->size[w->n_sizes++] = bytes;
  return HF_OK;
}

/* RAM of experts that change places and of the tables that say where they are. */
static int64_t moving_bytes(const model_config *c, const engine_options *o, const weight_bytes *w) {
  const int64_t cell = sizeof(moe_expert) + sizeof(dev_expert);
  int64_t sum =
      o->movable ? (int64_t)o->depth * c->n_layers * c->n_experts * cell + residency_table_bytes(c) + probe_ram_bytes(c) : 0;
  for (int i = 0; i < w->n_sizes && o->movable; i++) sum += residency_spare_bytes(w->size[i]);
  return sum;
}

static hf_status sum_weights(const model *m, const engine_options *o, weight_bytes *w) {
  const model_config *c = model_get_config(m);
  if (o->rank == 0) HF_TRY(sum_dense(m, o, w));
  for (int l = 0; l < c->n_layers; l++)
    for (int x = 0; c->layer_is_moe[l] && x < c->n_experts; x++) {
      const int k = device_of_expert(c, o, l, x);
      int64_t *to = k >= 0 ? &w->dev_experts[k] : &w->ram_experts, before = *to;
      for (int id = MT_EXP_GATE; id < MT_N && !expert_away(o, c->n_experts, l, x); id++)
        if (model_tensor_is_expert((model_tensor_id)id)) HF_TRY(add_bytes(m, o, (model_tensor_id)id, l, x, w, to));
      if (o->movable && !expert_away(o, c->n_experts, l, x)) HF_TRY(note_shape(m, o, l, x, *to - before, w));
      const int64_t slot = footprint_slot_bytes(*to - before, c->d_ff_expert, c->d_model);
      const int home = device_of_layer(c, o, l);
      int64_t *most = &w->slot[home];
      if (to == &w->ram_experts && !device_on_host(o, home) && !w->cut && layer_uploads(o, c, l) && slot > *most) *most = slot;
    }
  return HF_OK;
}

static int threads_of(const engine_options *o) {
  int64_t n = o->threads ? o->threads : sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int)n : 1;
}

/* Of a thread that expands keys and values: as much as weights of any format need. */
static int64_t plain_scratch_bytes(const model_config *c, const engine_options *o) {
  const mla_dims d = {.n_heads = c->n_heads, .lora = c->kv_lora_rank, .nope = c->nope_dim, .rope = c->rope_dim, .dv = c->v_dim};
  return c->attn == ATTN_MLA ? (int64_t)mla_scratch_bytes(&d, KF_F32, o->max_tok, o->exact) : 0;
}

/* Of all recordings; a device's own thread is one. */
static int64_t attention_scratch_bytes(const model_config *c, const engine_options *o) {
  const bool mla = c->attn == ATTN_MLA;
  const int dv = mla ? c->kv_lora_rank : c->head_dim;
  const size_t each = kern_attn_scratch_bytes(mla ? dv + c->rope_dim : dv, dv);
  int64_t sum = 0;
  for (int k = 0; k < devices_of(o); k++) {
    const int threads = device_on_host(o, k) ? threads_of(o) : 1;
    const size_t part = sizeof(float) * attn_part_floats(c->n_heads, mla ? 1 : c->n_kv_heads, dv, o->context, threads);
    sum += (int64_t)o->depth * parts_on(c, o, k) *
           ((int64_t)threads * (align_up((int64_t)each, 64) + plain_scratch_bytes(c, o)) + (int64_t)part);
  }
  return sum;
}

/* What is in the memory of a device, or for want of one in this machine's. */
static void device_rows(table *t, const model_config *c, const engine_options *o, const weight_bytes *w, int k) {
  char where[GPU_NAME] = "ram";
  const bool host = device_on_host(o, k);
  const int64_t limit = host ? o->ram_limit_bytes : device_size(o, k);
  int64_t kv = 0;
  if (host && parts_on(c, o, k) == 0) return; /* lost, and everything of it is elsewhere */
  for (int l = 0; l < c->n_layers; l++)
    if (device_of_layer(c, o, l) == k) kv += align_up((int64_t)kv_layer_bytes(c, o), 64);
  int64_t act = (int64_t)o->depth * (int64_t)graph_buffer_bytes(c, o);
  if (o->movable) act += probe_device_bytes(c);
  int64_t rope = 2 * (int64_t)o->context * (c->rope.dim / 2) * 4 + 64;
  if (!host) gpu_name(k, where);
  row(t, where, "attention, dense and shared weights", w->dense[k], limit);
  row(t, where, "resident experts", w->dev_experts[k], limit);
  row(t, where, "KV cache", kv, limit);
  row(t, where, "activation buffers and rotary table", act + rope, limit);
  row(t, where, "slots for experts that are sent", w->slot[k] * o->upload_slots * o->depth, limit);
}

/* Bytes that the rows of a place take together beyond its limit; at most 0: they fit. */
static int64_t over_limit(const plan_budget *rows, int n, const char *where) {
  int64_t sum = 0, limit = 0;
  for (int i = 0; i < n; i++) {
    if (strcmp(rows[i].where, where) != 0) continue;
    sum += rows[i].bytes;
    limit = rows[i].limit_bytes;
  }
  return limit > 0 ? sum - limit : 0;
}

static hf_status budget_on(const nodes *n, const model *m, const engine_options *o, plan_budget *rows, int max_rows, int *n_rows,
                           bool *fits) {
  const model_config *c = model_get_config(m);
  table t = {.rows = rows, .max = max_rows};
  weight_bytes w = {.cut = n->parts.n > 1};
  HF_TRY(hf_note(sum_weights(m, o, &w), "%s", model_path(m)));
  for (int k = 0; k < devices_of(o); k++) device_rows(&t, c, o, &w, k);
  row(&t, "ram", "experts on the CPU", w.ram_experts, o->ram_limit_bytes);
  int rows_away = 0; /* of guests */
  for (int k = 0; k < devices_of(o); k++) rows_away += device_has_guests(c, o, k);
  if (rows_away > 0) rows_away++; /* and their sums */
  int64_t steps =
      (int64_t)o->depth * ((2LL + rows_away) * o->max_tok * c->d_model * 4 + (int64_t)o->max_logits * c->vocab_size * 4);
  row(&t, "ram", "step contexts and logits", steps, o->ram_limit_bytes);
  moe_shape scratch = {
      .n_experts = c->n_experts, .top_k = c->top_k, .d_model = c->d_model, .d_ff = c->d_ff_expert, .max_tok = o->max_tok};
  if (c->n_experts)
    row(&t, "ram", "scratch of the experts", moe_scratch_bytes(&scratch, &n->parts, threads_of(o)), o->ram_limit_bytes);
  int with_experts = 0; /* recordings of virtual devices */
  for (int k = 0; engine_has_device(o) && k < devices_of(o); k++)
    if (!device_on_host(o, k))
      with_experts += (w.dev_experts[k] || w.slot[k] ? parts_on(c, o, k) : 0) + device_has_guests(c, o, k);
  row(&t, "ram", "scratch of the device's experts", o->depth * with_experts * moe_scratch_bytes(&scratch, NULL, 1),
      o->ram_limit_bytes);
  row(&t, "ram", "experts that change places", moving_bytes(c, o, &w), o->ram_limit_bytes);
  row(&t, "ram", "KV mirror", o->standby_bytes, o->ram_limit_bytes);
  row(&t, "ram", "rows for other ranks", ranks_of(o) * footprint_rank_bytes(o->max_tok, c->top_k, c->d_model),
      o->ram_limit_bytes);
  row(&t, "ram", "scratch of the attention", attention_scratch_bytes(c, o), o->ram_limit_bytes);
  int64_t reading = w.expert_scratch * threads_of(o);
  row(&t, "ram", "scratch of loading", reading > w.scratch ? reading : w.scratch, o->ram_limit_bytes);
  *n_rows = t.n;
  *fits = true;
  for (int i = 0; i < t.n; i++) *fits = *fits && over_limit(rows, t.n, rows[i].where) <= 0;
  return HF_OK;
}

hf_status engine_budget(const model *m, const engine_options *o, plan_budget *rows, int max_rows, int *n_rows, bool *fits) {
  HF_TRY(engine_can_run(model_get_config(m))); /* before tensors are asked for that this family may have in another form */
  HF_TRY(devices_check(model_get_config(m), o));
  topology *t = NULL;
  nodes n;
  HF_TRY(hf_alloc(&t, 1, sizeof *t, "topology"));
  hf_status st = topo_get(t);
  if (st == HF_OK) st = nodes_find(m, o, t, &n, NULL);
  if (st == HF_OK) st = budget_on(&n, m, o, rows, max_rows, n_rows, fits);
  free(t);
  return st;
}

/* Of a layer's first expert that is here, all its slices. */
static size_t expert_bytes(const engine *e, const moe_expert *x) {
  size_t bytes = 0;
  for (int i = 0; i < e->c.n_experts && !bytes; i++)
    for (int p = 0; p < e->nodes.parts.n; p++) {
      const moe_expert *s = &x[p * e->c.n_experts + i];
      if (s->gate.data) bytes += 2 * (size_t)s->gate.n_rows * s->gate.row_bytes + (size_t)s->down.n_rows * s->down.row_bytes;
    }
  return bytes;
}

/* Whether anything is done about steps of other micro-batches while experts of one are computed. */
static bool listens(const engine *e) {
  return e->over || e->n_parts > 1;
}

/* A part on the host, which ends in its launch, is no silence of a device. */
static void watch_part(engine *e, int i) {
  if (!dev_is_host(device_at_work(e, i)->d)) watch_begin(&e->watch, i, e->mb[i].step.n_tok);
}

/* A device has ended the part of the step that it was at: the next one begins, if there is one. True: the step is through. */
static bool go_on(engine *e, int i, hf_status *st) {
  if (part_end(e, i)) return true;
  watch_end(&e->watch, i);
  *st = part_launch(e, i);
  if (*st == HF_OK) watch_part(e, i);
  return false;
}

/* The last device has ended the micro-batch's step. */
static void end_step(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  mb->running = mb->checks = false;
  watch_end(&e->watch, i);
  mb->over_ns = hf_now_ns();
  e->traffic.sent_bytes += mb->step.sent_bytes;
  e->traffic.unused_bytes += mb->step.unused_bytes;
}

/* A rank was lost: steps of any micro-batch may lack what it had to add. */
static bool lacks_rank(const engine *e, char why[static sizeof e->lost_reason]) {
  return e->o.ranks && ranks_lost(e->o.ranks, why, sizeof e->lost_reason);
}

/* Experts that a check looks at are not through yet. */
static bool check_goes_on(const engine *e, int i) {
  return e->mb[i].checks && probe_checking(e) && !dev_lost(e->device[0].d);
}

/* In the middle of experts for another micro-batch (moe_job.breathe, and while rows of it are with other ranks), whose own step waits for them and cannot
 * have ended but with the device. Nothing here touches the pool or the ranks: both are at work for that layer. */
static void look_aside(void *user) {
  engine *e = user;
  char why[sizeof e->lost_reason];
  e->aside_now = true;
  for (int i = 0; i < e->o.depth && listens(e) && e->aside == HF_OK; i++) {
    micro_batch *mb = &e->mb[i];
    dev *d = device_at_work(e, i)->d;
    if (&mb->step == e->cpu_step || !mb->running || mb->held || !dev_finished(d, i) || check_goes_on(e, i)) continue;
    if (dev_lost(d) || lacks_rank(e, why)) break; /* engine_poll will find out */
    if (!go_on(e, i, &e->aside) || !e->over) continue;
    end_step(e, i);
    pool_outside(e->p, true); /* whoever reads the answers may be slow */
    e->aside = e->over(e->over_user, i);
    pool_outside(e->p, e->cpu_away);
    mb->over_ns = 0;
  }
  e->aside_now = false;
}

/* What the experts that are here add to so many rows, one behind the other. */
static moe_job job_of(const engine *e, const moe_expert *experts, int layer, int n_tok, const float *x, const int32_t *ids,
                      const float *weights, float *y) {
  return (moe_job){.experts = experts + (size_t)layer * (size_t)(e->nodes.parts.n * e->c.n_experts),
                   .n_tok = n_tok,
                   .x = x,
                   .x_stride = e->c.d_model,
                   .ids = ids,
                   .weights = weights,
                   .y = y,
                   .y_stride = e->c.d_model};
}

static void nothing_aside(void *user) {
  (void)user;
}

/* In the middle of the host's own part, by the driver: its layer's experts on devices; they compute beside the CPU's. */
static void begin_guests(engine *e, micro_batch *mb, int layer) {
  if (e->in_line == HF_OK) e->in_line = guests_launch(e, mb, layer);
}

static void end_guests(engine *e, micro_batch *mb, int layer) {
  pool_outside(e->p, true);
  if (e->in_line == HF_OK) e->in_line = guests_collect(e, mb, layer, nothing_aside);
  pool_outside(e->p, false);
}

/* The host's experts of a layer: all threads of the pool together. */
static void host_experts(void *user, int layer, dev_step *s, int thread, int n_threads) {
  engine *e = user;
  size_t at = (size_t)layer * (size_t)s->max_tok * (size_t)e->c.top_k;
  const moe_expert *own = e->mb[s->stream].host;
  const bool in_line = dev_is_host(device_at_work(e, s->stream)->d); /* in the middle of the host's part of the step */
  const bool guests = in_line && e->layer[layer].has_guests;
  moe_job job =
      job_of(e, own ? own : e->host_experts, layer, s->n_tok, s->host_x, s->route_ids + at, s->route_weights + at, s->host_y);
  job.breathe = in_line || !listens(e) ? NULL : look_aside;
  job.user = e;
  int64_t start = thread == 0 ? hf_now_ns() : 0;
  if (guests && thread == 0) begin_guests(e, &e->mb[s->stream], layer);
  if (e->o.ranks && thread == 0) ranks_post(e->o.ranks, layer, s, job.ids, job.weights);
  moe_run(e->cpu_moe, &job, e->p, thread, n_threads);
  if (e->o.ranks) {
    if (thread == 0) {
      pool_outside(e->p, e->cpu_away = true);
      ranks_collect(e->o.ranks, job.breathe, e);
      pool_outside(e->p, e->cpu_away = false);
    }
    pool_barrier(e->p, thread);
    ranks_add(e->o.ranks, s->host_y, thread, n_threads);
    pool_barrier(e->p, thread);
  }
  if (guests) {
    if (thread == 0) end_guests(e, &e->mb[s->stream], layer);
    pool_barrier(e->p, thread);
  }
  if (thread == 0) {
    int n = moe_last_distinct(e->cpu_moe);
    if (in_line && s->trace && s->n_trace < s->max_trace) /* another device appends to the trace itself meanwhile */
      s->trace[s->n_trace++] = (dev_trace){start, hf_now_ns(), layer, DEV_STAGE_CEXP, s->n_tok, n};
    const size_t bytes = expert_bytes(e, job.experts);
    e->traffic.cpu_expert_bytes += (int64_t)bytes * n;
  }
}

static void host_experts_job(void *arg, int thread, int n_threads) {
  engine *e = arg;
  host_experts(e, e->cpu_layer, e->cpu_step, thread, n_threads);
}

/* Tokens of each expert of a layer; returns the first that lives on the host and is chosen, -1: none. */
static int count_tokens(const engine *e, const dev_step *s, const dev_context *ctx, int layer, int count[1024]) {
  const int32_t *ids = s->route_ids + (size_t)layer * (size_t)s->max_tok * (size_t)ctx->top_k;
  const size_t first = (size_t)layer * (size_t)ctx->n_experts;
  const moe_expert *own = e->mb[s->stream].host; /* as the step has them: the driver may be changing places */
  memset(count, 0, 1024 * sizeof *count);
  for (int i = 0; i < s->n_tok * ctx->top_k; i++) count[ids[i]]++;
  for (size_t x = 0; x < (size_t)ctx->n_experts; x++)
    if (count[x] && (own ? own[first + x].gate.data != NULL : !e->resident[first + x])) return (int)x;
  return -1;
}

/* One that was sent; the layer's fixed part goes with the first, where no stage of resident ones has it. */
static double sent_expert_ns(const engine *e, int layer, int expert, const dev_step *s, const dev_context *ctx) {
  const stage_layer *sl = &e->o.pace->layer[layer];
  int count[1024];
  const bool first = count_tokens(e, s, ctx, layer, count) == expert && !e->layer[layer].has_device_experts;
  return stage_curve_at(&sl->dexp, count[expert]) + (first ? sl->dexp_fixed_ns : 0);
}

/* Whose experts a recording with this context has: a guest's has its device's own, a micro-batch's may have tables of its own (residency.h), of the home. */
static int device_of_context(const engine *e, int layer, const dev_context *ctx) {
  for (int k = 0; k < e->n_devices; k++)
    if (ctx == &e->device[k].ctx) return k;
  return e->home[layer];
}

/* Experts on device k, where the layer is not at home, the way there and back included (sched/stages.h). */
static int64_t guest_pace_ns(const engine *e, int layer, int k, const dev_step *s, const dev_context *ctx) {
  int count[1024];
  double ns = 0;
  if (!e->o.pace->place) return 0;
  const stage_place *p = stage_place_of(e->o.pace, layer, 1 + k);
  (void)count_tokens(e, s, ctx, layer, count);
  for (int x = 0; x < ctx->n_experts; x++)
    if (count[x] && ctx->experts[(size_t)layer * (size_t)ctx->n_experts + (size_t)x].gate.data)
      ns += stage_curve_at(&p->exp, count[x]);
  return (int64_t)(ns + p->fixed_ns + p->hand_ns + p->hand_tok_ns * s->n_tok);
}

static int64_t pace_device(void *user, dev_stage st, int layer, int expert, const dev_step *s, const dev_context *ctx) {
  const engine *e = user;
  const stage_table *t = e->o.pace;
  double ns = 0;
  if (st == DEV_STAGE_HEAD) return (int64_t)stage_curve_at(&t->head, s->n_logits);
  const stage_layer *sl = &t->layer[layer];
  if (st == DEV_STAGE_UPLOAD) return (int64_t)sl->upload_ns;
  if (expert >= 0) return (int64_t)sent_expert_ns(e, layer, expert, s, ctx);
  if (st == DEV_STAGE_ATTN) {
    stage_load load = {0};
    for (int i = 0, n; i < s->n_tok; i += n) {
      n = attn_run_of(s->pos, s->seq, NULL, s->n_tok, i);
      stage_load_add(&load, t, s->pos[i], n);
    }
    ns = stage_attn_ns(t, layer, &load);
  } else if (st == DEV_STAGE_SHARED) {
    ns = stage_curve_at(&sl->shared, s->n_tok);
  } else if (st == DEV_STAGE_DEXP) {
    int count[1024];
    const int k = device_of_context(e, layer, ctx);
    if (k != e->home[layer]) return guest_pace_ns(e, layer, k, s, ctx);
    bool any = count_tokens(e, s, ctx, layer, count) >= 0 && s->upload && e->layer[layer].uploads;
    for (int x = 0; x < ctx->n_experts; x++)
      if (count[x] && ctx->experts[(size_t)layer * (size_t)ctx->n_experts + (size_t)x].gate.data) {
        ns += stage_curve_at(&sl->dexp, count[x]);
        any = true;
      }
    if (any) ns += sl->dexp_fixed_ns;
  }
  return (int64_t)ns;
}

int64_t engine_pace_cpu_ns(const engine *e, int layer) {
  const stage_layer *sl = &e->o.pace->layer[layer];
  int n = moe_last_distinct(e->cpu_moe);
  double ns = n ? sl->cexp_fixed_ns : 0;
  for (int i = 0; i < n; i++) ns += stage_curve_at(&sl->cexp, moe_last_expert_tokens(e->cpu_moe, i));
  return (int64_t)ns;
}

hf_status device_context(const engine *e, dev_context *x) {
  const model_config *c = &e->c;
  size_t nl = (size_t)c->n_layers, ne = (size_t)c->n_experts;
  HF_TRY(hf_alloc(&x->experts, nl * ne + 1, sizeof *x->experts, "expert table"));
  HF_TRY(hf_alloc(&x->kv, nl, sizeof *x->kv, "KV table"));
  HF_TRY(hf_alloc(&x->router_bias, nl, sizeof *x->router_bias, "router table"));
  x->n_layers = c->n_layers;
  x->n_experts = c->n_experts;
  x->top_k = c->top_k;
  x->d_model = c->d_model;
  x->d_ff_expert = c->d_ff_expert;
  x->router = (kern_router){.n_experts = c->n_experts,
                            .top_k = c->top_k,
                            .n_group = c->n_group,
                            .topk_group = c->topk_group,
                            .score = c->route == ROUTE_SIGMOID        ? 1
                                     : c->route == ROUTE_SOFTMAX_TOPK ? 2
                                                                      : 0,
                            .group = c->group == GROUP_TOP2SUM ? 1
                                     : c->group == GROUP_MAX   ? 2
                                                               : 0,
                            .norm = c->norm_topk,
                            .scale = (float)c->routed_scale};
  x->rope_dim = c->rope.dim;
  x->rope_pairs = c->rope.kind == ROPE_PAIRS;
  x->kv_type = e->o.exact ? KV_F32 : e->o.kv_type;
  x->kv_row_bytes = kv_row_bytes(c, &e->o);
  x->kv_page_bytes = x->kv_row_bytes * (size_t)e->o.page_tokens;
  x->kv_page_tokens = e->o.page_tokens;
  x->max_context = e->o.context;
  x->exact = e->o.exact;
  x->swiglu_limit = c->swiglu_clamped ? (float)c->swiglu_limit : 0;
  return HF_OK;
}

static hf_status open_context(engine *e) {
  const model_config *c = &e->c;
  size_t nl = (size_t)c->n_layers, ne = (size_t)c->n_experts;
  HF_TRY(devices_share(e));
  HF_TRY(hf_alloc(&e->layer, nl, sizeof *e->layer, "layers"));
  HF_TRY(hf_alloc(&e->host_experts, nl * ne * (size_t)e->nodes.parts.n + 1, sizeof *e->host_experts, "expert table"));
  HF_TRY(hf_alloc(&e->resident, nl * ne + 1, 1, "expert table"));
  for (int l = 0; l < c->n_layers; l++)
    for (int k = 0; c->layer_is_moe[l] && k < c->n_experts; k++)
      e->resident[(size_t)l * ne + (size_t)k] = (uint8_t)(1 + device_of_expert(c, &e->o, l, k));
  for (int k = 0; k < e->n_devices; k++) HF_TRY(device_context(e, &e->device[k].ctx));
  e->kv_layer_bytes = kv_layer_bytes(c, &e->o);
  return HF_OK;
}

static hf_status open_micro_batch(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  dev_step *s = &mb->step;
  const model_config *c = &e->c;
  size_t nt = (size_t)e->o.max_tok, routed = (size_t)c->n_layers * nt * (size_t)(c->top_k > 0 ? c->top_k : 1);
  s->stream = i;
  s->max_tok = e->o.max_tok;
  s->max_logits = e->o.max_logits;
  s->page_table = e->page_table;
  s->pages_per_seq = e->pages_per_seq;
  s->max_trace = (6 + e->n_devices) * c->n_layers + 8;
  for (int l = 0; l < c->n_layers; l++)
    s->max_trace += e->layer[l].uploads ? 2 * c->n_experts : 0; /* copies and products, with pauses */
  HF_TRY(hf_alloc(&s->ids, nt, sizeof *s->ids, "step"));
  HF_TRY(hf_alloc(&s->pos, nt, sizeof *s->pos, "step"));
  HF_TRY(hf_alloc(&s->seq, nt, sizeof *s->seq, "step"));
  if (c->attn == ATTN_MLA) HF_TRY(hf_alloc(&s->plain, nt, sizeof *s->plain, "step"));
  HF_TRY(hf_alloc(&s->logit_rows, (size_t)e->o.max_logits, sizeof *s->logit_rows, "step"));
  HF_TRY(hf_alloc(&s->route_ids, routed, sizeof *s->route_ids, "step"));
  HF_TRY(hf_alloc(&s->route_weights, routed, sizeof *s->route_weights, "step"));
  HF_TRY(hf_alloc(&s->host_x, nt * (size_t)c->d_model, sizeof(float), "step"));
  HF_TRY(hf_alloc(&s->host_y, nt * (size_t)c->d_model, sizeof(float), "step"));
  HF_TRY(hf_alloc(&s->logits, (size_t)e->o.max_logits * (size_t)c->vocab_size, sizeof(float), "logits"));
  HF_TRY(hf_alloc(&s->trace, (size_t)s->max_trace, sizeof *s->trace, "trace"));
  return hf_alloc(&mb->trace, (size_t)c->n_layers * (size_t)(1 + e->n_devices), sizeof *mb->trace, "trace");
}

static void close_micro_batch(micro_batch *mb) {
  dev_step *s = &mb->step;
  for (int p = 0; p < ENGINE_PARTS; p++) dev_recording_free(mb->rec[p]);
  guests_close(mb);
  free(s->ids);
  free(s->pos);
  free(s->seq);
  free(s->plain);
  free(s->logit_rows);
  free(s->route_ids);
  free(s->route_weights);
  free(s->host_x);
  free(s->host_y);
  free(s->logits);
  free(s->trace);
  free(mb->trace);
}

hf_status open_virtual(engine *e, const engine_options *o, int k, dev **out) {
  return dev_virtual_new(device_size(o, k), o->depth + o->movable, paced(o) ? pace_device : NULL, e, out);
}

hf_status open_device(engine *e) {
  int threads = e->o.threads;
  if (threads == 0) {
    for (int i = 0; i < e->topo->n_nodes; i++) threads += e->topo->node[i].n_cores;
    for (int k = devices_left(&e->o); k > 0 && threads > 1; k--) threads--; /* a virtual device computes on a core, too */
  }
  HF_TRY(pool_new(e->topo, threads, &e->p));
  for (int k = 0; k < e->n_devices; k++) {
    dev *d = e->device[k].d;
    if (device_on_host(&e->o, k)) {
      HF_TRY(dev_host_new(e->p, host_experts, e, &e->device[k].d));
      continue;
    }
    if (d) dev_keep_beside(d, e->p); /* one that stayed */
    if (d) continue;
    HF_TRY(open_virtual(e, &e->o, k, &d));
    e->device[k].d = d;
    dev_keep_beside(d, e->p);
    if (e->o.fault.kind != DEV_FAULT_NONE && k == e->o.fault_device) HF_TRY(dev_inject(d, &e->o.fault));
  }
  e->watch.limit_ns = e->guest_watch.limit_ns = e->o.deadline_ns;
  return HF_OK;
}

hf_status open_steps(engine *e) {
  moe_shape shape = {.n_experts = e->c.n_experts,
                     .top_k = e->c.top_k,
                     .d_model = e->c.d_model,
                     .d_ff = e->c.d_ff_expert,
                     .max_tok = e->o.max_tok,
                     .exact = e->o.exact,
                     .swiglu_limit = common_context(e)->swiglu_limit};
  if (e->cut) HF_TRY(moe_new_parts(&shape, &e->nodes.parts, e->p, &e->cpu_moe));
  else if (e->c.n_experts > 0) HF_TRY(moe_new(&shape, pool_threads(e->p), &e->cpu_moe));
  for (int i = 0; i < e->o.depth; i++) {
    HF_TRY(graph_record(e, &e->mb[i]));
    HF_TRY(guests_open(e, &e->mb[i]));
  }
  return HF_OK;
}

hf_status engine_must_fit(const engine *e, const engine_options *o) {
  plan_budget rows[PLAN_MAX_BUDGET];
  int n, at = 0;
  bool fits;
  HF_TRY(budget_on(&e->nodes, e->m, o, rows, PLAN_MAX_BUDGET, &n, &fits));
  if (fits) return HF_OK;
  while (over_limit(rows, n, rows[at].where) <= 0) at++;
  const plan_budget *r = &rows[at];
  const char *place = !strcmp(r->where, "ram") ? "memory" : devices_of(o) == 1 ? "the device" : r->where;
  return hf_fail(HF_NO,
                 "does not fit: %s needs %.1f MiB and has %.1f MiB; fewer experts there, less context or fewer users would help",
                 place, (double)(r->limit_bytes + over_limit(rows, n, r->where)) / 1048576.0, (double)r->limit_bytes / 1048576.0);
}

static hf_status check_options(const engine_options *o) {
  const struct {
    const char *what;
    int64_t v, lo, hi;
  } limit[] = {{"depth", o->depth, 1, SCHED_MAX_DEPTH},
               {"sequences", o->max_seqs, 1, SCHED_MAX_SEQS},
               {"context", o->context, 1, 1 << 24},
               {"page tokens", o->page_tokens, 1, 1 << 24},
               {"pages", o->n_pages, 1, 1 << 30},
               {"tokens a step", o->max_tok, 1, 1 << 20},
               {"logit rows a step", o->max_logits, 1, 1 << 20},
               {"slots for experts that are sent", o->upload_slots, o->upload_tokens > 0 ? 2 : 0, DEV_MAX_SLOTS}};
  for (size_t i = 0; i < sizeof limit / sizeof *limit; i++)
    if (limit[i].v < limit[i].lo || limit[i].v > limit[i].hi)
      return hf_fail(HF_INPUT, "engine: %s: %lld is not between %lld and %lld", limit[i].what, (long long)limit[i].v,
                     (long long)limit[i].lo, (long long)limit[i].hi);
  if (o->page_tokens & (o->page_tokens - 1))
    return hf_fail(HF_INPUT, "engine: pages of %d tokens: needs a power of two", o->page_tokens);
  if (!o->exact && o->kv_type == KV_Q8_0 && o->page_tokens < KERN_KV_GROUP)
    return hf_fail(HF_INPUT, "engine: pages of %d tokens: a KV cache in q8_0 needs %d at least", o->page_tokens, KERN_KV_GROUP);
  return HF_OK;
}

/* What an engine of any rank has before its weights. On failure, too, *out is to be closed. */
static hf_status open_machine(const model *m, const engine_options *o, engine **out) {
  engine *e = NULL;
  HF_TRY(engine_can_run(model_get_config(m))); /* before tensors are asked for that this family may have in another form */
  HF_TRY(devices_check(model_get_config(m), o));
  HF_TRY(hf_alloc(&e, 1, sizeof *e, "engine"));
  *out = e;
  e->m = m;
  e->c = *model_get_config(m);
  e->o = e->asked = *o;
  HF_TRY(hf_alloc(&e->topo, 1, sizeof *e->topo, "topology"));
  HF_TRY(topo_get(e->topo));
  HF_TRY(nodes_find(m, o, e->topo, &e->nodes, &e->cut));
  HF_TRY(engine_must_fit(e, &e->o));
  uploads_need_whole_experts(e);
  HF_TRY(open_context(e));
  return open_device(e);
}

static hf_status begin_ranks(engine *e) {
  return e->o.ranks ? ranks_load(e->o.ranks, e->m, &e->o) : HF_OK;
}

static hf_status end_ranks(engine *e) {
  return e->o.ranks ? ranks_ready(e->o.ranks) : HF_OK;
}

/* A rank that is lost by the first step of all is no reason to do without the device. */
static hf_status learn(engine *e) {
  hf_status st = check_learn(e);
  if (st != HF_LOST || !e->lost_rank) return st;
  hf_log(HF_LOG_WARN, "another machine was lost before the first request (%s): its experts are read here", e->lost_reason);
  hf_clear_error();
  return engine_fail_over(e);
}

static hf_status open_as_asked(const model *m, const engine_options *o, engine **out) {
  hf_status st = HF_OK;
  engine *e = NULL;
  HF_TRY(check_options(o));
  if (o->ranks) ranks_forget(o->ranks);
  HF_GO(fail, open_machine(m, o, &e));
  e->pages_per_seq = (o->context + o->page_tokens - 1) / o->page_tokens;
  HF_GO(fail, hf_alloc(&e->page_table, ((size_t)o->max_seqs + 1) * (size_t)e->pages_per_seq, sizeof(int32_t), "page table"));
  HF_GO(fail, residency_possible(e));
  HF_GO(fail, begin_ranks(e));
  HF_GO(fail, load_weights(e));
  HF_GO(fail, end_ranks(e));
  HF_GO(fail, open_uploads(e));
  e->kv_link_ns = kv_link_ns(e);
  HF_GO(fail, residency_open(e));
  for (int i = 0; i < o->depth; i++) HF_GO(fail, open_micro_batch(e, i));
  HF_GO(fail, open_steps(e));
  HF_GO(fail, probe_open(e));
  HF_GO(fail, learn(e));
  *out = e;
  return HF_OK;
fail:
  engine_close(e);
  return st;
}

hf_status engine_open_rank(const model *m, const engine_options *o, void (*tell)(void *user), void *user, engine **out) {
  hf_status st = HF_OK;
  engine *e = NULL;
  HF_GO(fail, open_machine(m, o, &e));
  HF_GO(fail, load_experts_alone(e, tell, user));
  HF_GO(fail, open_steps(e));
  *out = e;
  return HF_OK;
fail:
  engine_close(e);
  return st;
}

typedef struct {
  engine *e;
  moe_job job;
} rank_job;

static void rank_job_run(void *arg, int thread, int n_threads) {
  rank_job *j = arg;
  moe_run(j->e->cpu_moe, &j->job, j->e->p, thread, n_threads);
}

void engine_rank_job(engine *e, int layer, int n_tok, const float *x, const int32_t *ids, const float *weights, float *y) {
  rank_job j = {.e = e, .job = job_of(e, e->host_experts, layer, n_tok, x, ids, weights, y)};
  pool_run(e->p, rank_job_run, &j);
}

/* A device that fails while it is filled is done without, if memory has room for all. */
hf_status engine_open(const model *m, const engine_options *o, engine **out) {
  engine_options without = *o;
  char why[512];
  hf_status st = open_as_asked(m, o, out);
  if (st != HF_LOST) return st;
  snprintf(why, sizeof why, "%s", hf_error_line());
  hf_clear_error();
  engine_without_device(&without);
  st = open_as_asked(m, &without, out);
  if (st == HF_NO) return hf_fail(HF_LOST, "%s; memory has no room to do without the device", why);
  HF_TRY(st);
  hf_log(HF_LOG_WARN, "the device cannot be used (%s): all of the model is on the CPU", why);
  return HF_OK;
}

void engine_on_over(engine *e, engine_over_fn *fn, void *user) {
  e->over = fn;
  e->over_user = user;
}

void engine_drain(engine *e) {
  engine_on_over(e, NULL, NULL);
  for (bool running = true; running;) {
    int m;
    running = false;
    for (int i = 0; i < e->o.depth; i++) running = running || e->mb[i].running;
    if (running && engine_poll(e, &m) != HF_OK) {
      for (int k = 0; k < e->n_devices; k++) dev_quit(e->device[k].d); /* lost: whatever it is at may use them still */
      return;
    }
  }
}

void engine_close(engine *e) {
  if (!e) return;
  rejoin_stop(e);
  engine_drain(e);
  for (int k = 0; k < e->n_devices; k++) dev_quit(e->device[k].d);
  if (e->o.ranks) ranks_unload(e->o.ranks);
  probe_close(e);
  residency_close(e);
  for (int i = 0; i < SCHED_MAX_DEPTH; i++) close_micro_batch(&e->mb[i]);
  for (int i = e->n_own - 1; i >= 0; i--) own_release(e, &e->own[i]);
  for (int k = 0; k < ENGINE_DEVICES; k++) dev_free(e->device[k].d);
  moe_free(e->cpu_moe);
  if (e->p) pool_free(e->p);
  free(e->topo);
  free(e->own);
  free(e->layer);
  free(e->host_experts);
  free(e->cut);
  free(e->resident);
  for (int k = 0; k < ENGINE_DEVICES; k++) {
    free(e->device[k].ctx.experts);
    free(e->device[k].ctx.kv);
    free(e->device[k].ctx.router_bias);
    free(e->device[k].ctx.likely);
  }
  free(e->home);
  free(e->page_table);
  free(e->check_logits);
  free(e);
}

const model_config *engine_config(const engine *e) {
  return &e->c;
}
const engine_options *engine_opts(const engine *e) {
  return &e->o;
}
int engine_threads(const engine *e) {
  return pool_threads(e->p);
}
dev_step *engine_step(engine *e, int mb) {
  return &e->mb[mb].step;
}
const char *engine_lost_reason(const engine *e) {
  return e->lost_reason;
}
bool engine_lost_wrong(const engine *e) {
  return e->lost_wrong;
}
bool engine_lost_rank(const engine *e) {
  return e->lost_rank;
}
int engine_lost_device(const engine *e) {
  return e->lost_device;
}
int engine_devices_left(const engine *e) {
  return devices_left(&e->o);
}
int engine_not_uploaded(const engine *e) {
  return e->not_uploaded;
}
const uint8_t *engine_residency(const engine *e, int layer) {
  return e->resident + (size_t)layer * (size_t)e->c.n_experts;
}
engine_traffic engine_get_traffic(const engine *e) {
  return e->traffic;
}

int32_t *engine_page_row(engine *e, int seq, int *n) {
  *n = e->pages_per_seq;
  return e->page_table + (size_t)seq * (size_t)e->pages_per_seq;
}

bool engine_plain(const engine *e, int pos, int prompt, int chunk) {
  const model_config *c = &e->c;
  const mla_shape shape = {.lora = c->kv_lora_rank, .nope = c->nope_dim, .rope = c->rope_dim, .v = c->v_dim};
  if (c->attn != ATTN_MLA || e->o.mla == ENGINE_MLA_ABSORBED || pos >= prompt) return false;
  return e->o.mla == ENGINE_MLA_PLAIN || mla_plain_token(&shape, pos, prompt, chunk);
}

hf_status engine_lost(engine *e) {
  int k = 0;
  while (k + 1 < e->n_devices && !dev_lost(e->device[k].d)) k++;
  char name[GPU_NAME];
  rejoin_stop(e);
  e->lost_device = k;
  gpu_name(k, name);
  snprintf(e->lost_reason, sizeof e->lost_reason, "%s%s%s", e->n_devices > 1 ? name : "", e->n_devices > 1 ? ": " : "",
           dev_lost_reason(e->device[k].d));
  e->lost_rank = false;
  watch_reset(&e->watch);
  watch_reset(&e->guest_watch);
  return hf_fail(HF_LOST, "the device was lost: %s", e->lost_reason);
}

/* Paced: the fixed part of a step is the host's (sampling, scheduling, launch; sched/stages.h): it counts from the end of the step before,
 * with what the host has done since, and the device is free for other micro-batches meanwhile. */
hf_status engine_launch(engine *e, int i) {
  micro_batch *mb = &e->mb[i];
  int64_t begin = mb->over_ns > 0 ? mb->over_ns : hf_now_ns();
  mb->part = 0;
  residency_apply(e, i);
  if (paced(&e->o)) atomic_store(&mb->step.start_at_ns, begin + (int64_t)e->o.pace->step_fixed_ns);
  HF_TRY(part_launch(e, i));
  if (paced(&e->o)) mb->step.launched_ns = begin;
  mb->running = true;
  watch_part(e, i);
  e->traffic.steps++;
  return HF_OK;
}

static double hand_over_ns(const engine *e, const dev_step *s, int layer) {
  if (!paced(&e->o) || !e->layer[layer].has_cpu_experts) return 0; /* of guests it is in their own times */
  const stage_layer *sl = &e->o.pace->layer[layer];
  return sl->hand_ns + sl->hand_tok_ns * s->n_tok;
}

/* Paced: half of the hand-over passes before the CPU sees the signal, half before the device sees the answer. */
static bool signal_arrived(const engine *e, const dev_step *s, int layer) {
  double hand = hand_over_ns(e, s, layer);
  return hand == 0 || hf_now_ns() >= atomic_load(&s->ready_at_ns) + (int64_t)(hand / 2);
}

static void rest_until(engine *e, int64_t ns) {
  enum { LOOK_NS = 100000 };
  for (int64_t now = hf_now_ns(); now < ns; now = hf_now_ns()) {
    look_aside(e);
    hf_sleep_until_ns(listens(e) && ns - now > LOOK_NS ? now + LOOK_NS : ns);
  }
}

/* The CPU experts of a layer; paced: the CPU is busy for the modelled time at least. */
static void compute(engine *e, micro_batch *mb, int layer) {
  dev_step *s = &mb->step;
  int64_t start = hf_now_ns();
  e->cpu_layer = layer;
  e->cpu_step = s;
  pool_run(e->p, host_experts_job, e);
  if (paced(&e->o)) rest_until(e, start + engine_pace_cpu_ns(e, layer));
  /* the device appends to step.trace meanwhile, so the CPU's records wait in a list of their own until the step is finished */
  mb->trace[layer] = (dev_trace){start, hf_now_ns(), layer, DEV_STAGE_CEXP, s->n_tok, moe_last_distinct(e->cpu_moe)};
}

/* A check without experts: what was handed over comes back, scaled, so that all of the way there and back has a part in the result. */
static void answer_check(const engine *e, dev_step *s) {
  for (size_t i = 0; i < (size_t)s->n_tok * (size_t)e->c.d_model; i++) s->host_y[i] = s->host_x[i] * 0x1p-6f;
}

/* Answers the signal of a layer: with its experts on the CPU, unless they are sent, and those on devices where it is not at home. */
static hf_status answer(engine *e, micro_batch *mb, int layer) {
  dev_step *s = &mb->step;
  const layer_weights *w = &e->layer[layer];
  e->cpu_step = s;
  if (w->has_guests) HF_TRY(guests_launch(e, mb, layer));
  if (mb->checks) answer_check(e, s);
  else if (w->has_cpu_experts && !(s->upload && w->uploads)) compute(e, mb, layer);
  const int64_t end = hf_now_ns() + (int64_t)(hand_over_ns(e, s, layer) / 2);
  if (w->has_guests) HF_TRY(guests_collect(e, mb, layer, look_aside));
  dev_host_done(s, layer, paced(&e->o) ? end : 0);
  return HF_OK;
}

static hf_status look_at_device(engine *e) {
  const int hung = watch_look(&e->watch, hf_now_ns());
  if (hung < 0) return HF_OK;
  char why[96];
  snprintf(why, sizeof why, "no sign of life for %.2g s", (double)e->watch.step[hung].silent_ns * 1e-9);
  dev_give_up(device_at_work(e, hung)->d, why);
  return engine_lost(e);
}

/* Steps that a lost rank had a part in come to their ends, unseen; the last one's says so. *dropped: this was one of them. */
static hf_status end_without_rank(engine *e, int i, bool *dropped) {
  char why[sizeof e->lost_reason];
  *dropped = lacks_rank(e, why);
  if (!*dropped) return HF_OK;
  (void)part_end(e, i);
  end_step(e, i);
  e->mb[i].over_ns = 0;
  for (int k = 0; k < e->o.depth; k++)
    if (e->mb[k].running) return HF_OK;
  memcpy(e->lost_reason, why, sizeof why);
  e->lost_rank = true;
  watch_reset(&e->watch);
  return hf_fail(HF_LOST, "%s", why);
}

hf_status engine_poll(engine *e, int *finished) {
  *finished = -1;
  const hf_status moved = residency_work(e);
  if (moved == HF_LOST) return engine_lost(e);
  if (moved != HF_OK) residency_give_up(e);
  HF_TRY(probe_check_work(e));
  for (int i = 0; i < e->o.depth; i++) e->mb[i].over_ns = 0;
  bool worked = false, dropped;
  for (int i = 0; i < e->o.depth; i++) {
    micro_batch *mb = &e->mb[i];
    if (!mb->running) continue;
    if (mb->held) {
      HF_TRY(part_launch(e, i));
      worked = true;
    }
    int ready = atomic_load_explicit(&mb->step.ready, memory_order_acquire);
    const int beats = atomic_load_explicit(&mb->step.beats, memory_order_relaxed);
    if (beats != mb->beats) watch_alive(&e->watch, i);
    mb->beats = beats;
    dev *d = device_at_work(e, i)->d;
    if (ready > mb->answered && !dev_is_host(d)) {
      if (!signal_arrived(e, &mb->step, ready - 1)) continue;
      const hf_status answered = answer(e, mb, ready - 1), aside = e->aside;
      e->aside = HF_OK;
      if (aside != HF_OK && aside != HF_LOST) return aside; /* a loss comes again, this not */
      HF_TRY(answered);
      watch_alive(&e->watch, i);
      mb->answered = ready;
      worked = true;
      if (aside != HF_OK) return aside;
    } else if (dev_finished(d, i) && !check_goes_on(e, i)) {
      if (dev_lost(d)) return engine_lost(e);
      HF_TRY(end_without_rank(e, i, &dropped));
      if (dropped) continue;
      hf_status st = HF_OK;
      if (!go_on(e, i, &st)) {
        HF_TRY(st);
        worked = true;
        continue;
      }
      end_step(e, i);
      *finished = i;
      return HF_OK;
    }
  }
  if (worked) return HF_OK;
  if (engine_has_device(&e->o)) HF_TRY(look_at_device(e));
  sched_yield();
  return HF_OK;
}
