/* table.c: the stage table of a model on a machine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost_int.h"

/* The fallback of a figure. */
static const double *prior(const char *what) {
  return cost_prior_of(what)->value;
}

int cost_pool_threads(const cost_input *in) {
  int all = in->threads > 0 ? in->threads : cost_cpu_cores(in->rows);
  if (gpu_set_kind(&in->gpus) != GPU_VIRTUAL) return all;
  return all > in->gpus.n ? all - in->gpus.n : 1;
}

cost_unit cost_pool_unit(const cost_input *in) {
  cost_unit u = {.rows = in->rows, .cpu = true, .device = "cpu", .threads = cost_pool_threads(in)};
  return u;
}

cost_unit cost_device_unit(const cost_input *in, int device) {
  if (in->gpus.n == 0) return cost_pool_unit(in);
  const gpu_spec *g = &in->gpus.g[device];
  cost_unit u = {.rows = in->rows, .cpu = g->kind == GPU_VIRTUAL, .device = "cpu", .threads = 1};
  if (!u.cpu) {
    snprintf(u.device, sizeof u.device, "%s", g->device);
    u.threads = 0;
  }
  return u;
}

cost_unit cost_remote_unit(const cost_remote *r) {
  cost_unit u = {.rows = r->rows, .cpu = true, .device = "cpu"};
  return u;
}

int cost_ranks_here(const cost_input *in) {
  int n = 1;
  for (int r = 0; r < in->n_remotes; r++) n += in->remote[r].here;
  return n;
}

cost_unit cost_crowd_unit(const cost_input *in) {
  cost_unit u = cost_pool_unit(in);
  const int64_t all = (int64_t)u.threads * cost_ranks_here(in);
  u.threads = all < cost_cpu_cores(in->rows) ? (int)all : cost_cpu_cores(in->rows);
  return u;
}

/* A device as seen by every layer. launch_ns is that of a whole layer there; hand_ns that of a hand-over to the host and back. */
typedef struct {
  cost_unit unit;
  double launch_ns, hand_ns, h2d, d2h;
} device_rates;

/* Everything of the machine that does not depend on the layer, looked up once. Without a device dev[0] is the pool. */
typedef struct {
  const cost_input *in;
  cost_case c;
  cost_unit pool;
  db_tag tag;
  device_rates dev[STAGE_MAX_DEVICES];
  double shared_fixed, cexp_fixed, distinct;
  double barrier; /* of all workers, when they do everything together; else 0 */
} builder;

static bool no_device(const builder *b) {
  return b->in->gpus.n == 0;
}

/* Barriers of a layer when all workers walk its operations together, counted from what a step records (executor/graph.c) by the host
 * device's rule (needs_barrier in kernels/dev/host.c). Attention up to the norm before the feed-forward part; then the router, or the wait
 * for the experts where nothing is shared; then gate and up, SwiGLU, down. Those inside the experts are in layer_fixed_ns. */
enum {
  MLA_BARRIERS = 8,
  MLA_LOW_RANK_QUERY_BARRIERS = 10,
  GQA_BARRIERS = 6,
  ROUTER_BARRIERS = 2,
  FFN_BARRIERS = 4,
  HEAD_BARRIERS = 3
};

static int attention_barriers(const model_config *m, bool moe) {
  int n = m->attn == ATTN_GQA ? GQA_BARRIERS : m->q_lora_rank > 0 ? MLA_LOW_RANK_QUERY_BARRIERS : MLA_BARRIERS;
  return n + (moe ? ROUTER_BARRIERS : 0) + (moe && m->d_ff_shared == 0);
}

static void find_cpu_fixed(builder *b) {
  const cost_rows *r = b->in->rows;
  cost_figure f;
  int threads = b->pool.threads;
  if (no_device(b) && cost_find(r, "cpu", "pool_wake_ns", &f)) {
    /* measured as one pool_run, but here the workers are awake: the whole step is one */
    double wake = cost_cpu_time(r, "pool_wake_ns", threads, b->c, prior("pool_wake_ns"), &b->tag);
    b->cexp_fixed = fmax(0, b->cexp_fixed - wake);
  }
  bool together = no_device(b) && threads > 1;
  if (together && !cost_find(r, "cpu", "barrier_ns", &f)) {
    b->dev[0].launch_ns = b->cexp_fixed; /* as many barriers, roughly */
    cost_weaken(&b->tag, TAG_ASSUMED);
    return;
  }
  b->dev[0].launch_ns = cost_time(r, "cpu", "thread_layer_fixed_ns", b->c, prior("thread_layer_fixed_ns"), &b->tag);
  if (together) b->barrier = cost_cpu_time(r, "barrier_ns", threads, b->c, prior("barrier_ns"), &b->tag);
  b->shared_fixed = FFN_BARRIERS * b->barrier;
}

static void find_device(builder *b, int d) {
  const cost_rows *r = b->in->rows;
  device_rates *v = &b->dev[d];
  bool real = !v->unit.cpu;
  cost_figure f;
  if (real) v->launch_ns = cost_time(r, v->unit.device, "launch_ns", b->c, prior("launch_ns"), &b->tag);
  else if (d == 0) find_cpu_fixed(b);
  else v->launch_ns = b->dev[0].launch_ns; /* another thread of the same CPU */
  if (no_device(b)) return;
  const char *from = real && cost_find(r, v->unit.device, "handover_ns", &f) ? v->unit.device : "cpu";
  v->hand_ns = cost_time(r, from, "handover_ns", b->c, prior("handover_ns"), &b->tag);
  if (real) {
    v->h2d = cost_rate(r, v->unit.device, "pcie_h2d_bytes_per_s", COST_LINK, b->c, prior("pcie_h2d_bytes_per_s"), &b->tag);
    v->d2h = cost_rate(r, v->unit.device, "pcie_d2h_bytes_per_s", COST_LINK, b->c, prior("pcie_d2h_bytes_per_s"), &b->tag);
  } else {
    v->h2d = v->d2h = cost_unit_bytes_per_s(&v->unit, b->c, &b->tag);
  }
}

static void find_rates(builder *b) {
  const cost_rows *r = b->in->rows;
  b->distinct = b->in->correlated ? cost_distinct_factor(r, b->c, &b->tag) : 1;
  b->cexp_fixed = cost_cpu_time(r, "layer_fixed_ns", b->pool.threads, b->c, prior("layer_fixed_ns"), &b->tag);
  for (int d = 0; d == 0 || d < b->in->gpus.n; d++) {
    b->dev[d].unit = cost_device_unit(b->in, d);
    find_device(b, d);
  }
}

void cost_curve_add(stage_curve *c, double fixed_ns, double ns_per_token) {
  if (c->n == 1 && ns_per_token > 0) { /* a constant becomes a line */
    c->tok[1] = c->tok[0] + 511;
    c->ns[1] = c->ns[0];
    c->n = 2;
  }
  for (int i = 0; i < c->n; i++) c->ns[i] += fixed_ns + ns_per_token * c->tok[i];
}

/* Passes that are not full, in the mean of how many tokens the last one has. */
static void forget_passes(stage_curve *c) {
  double more = 0;
  for (int r = 1; r < c->pass; r++) more += (c->part[r] - r) / c->pass;
  for (int i = 0; i < c->n; i++)
    if (c->tok[i] > c->pass) c->tok[i] -= more;
  c->pass = 0;
}

/* Real gates touch `factor` times the experts that assumed popularity says, each with 1 / factor times the tokens: fewer weights are read, the
 * arithmetic stays. */
static void fewer_experts(stage_curve *c, double factor) {
  if (factor != 1) forget_passes(c);
  for (int i = 0; i < c->n; i++) {
    c->tok[i] *= factor;
    c->ns[i] *= factor;
  }
}

/* The unit's arithmetic where its rows say something about it, else without limit. */
static double known_flops(const cost_unit *u, fmt f, cost_case c) {
  db_tag tag = TAG_MEASURED;
  double rate = cost_unit_flops(u, f, c, &tag);
  return tag == TAG_ASSUMED && !(cost_measured_flops(u, f) > 0) ? INFINITY : rate;
}

/* One part: measured if the kernel was, else by figures. n_out = 0: a group of products, never an exact shape. */
static stage_curve part_curve(builder *b, const cost_unit *u, const char *kernel, fmt f, int n_out, int n_in, const model_part *p,
                              double fixed_ns) {
  stage_curve c = {.n = 1, .tok = {1}};
  if (p->bytes <= 0) return c;
  cost_shape s = {.kernel = kernel, .format = f, .n_out = n_out, .n_in = n_in, .bytes = (double)p->bytes};
  if (cost_measured_curve(u, &s, b->c, &c, &b->tag)) {
    cost_curve_bend(&c, p->flops_per_token, known_flops(u, f, b->c));
    cost_curve_add(&c, fixed_ns, 0);
    return c;
  }
  double bytes_per_s = cost_unit_bytes_per_s(u, b->c, &b->tag), flops = cost_unit_flops(u, f, b->c, &b->tag);
  double unpack = cost_unpack_ns(u, (double)p->bytes, p->flops_per_token, b->c, &b->tag);
  return cost_unpack_curve(fixed_ns, (double)p->bytes, unpack, p->flops_per_token, bytes_per_s, flops);
}

/* An expert on this machine's CPU, also one of another rank here. */
static stage_curve host_expert(builder *b, fmt f, const model_part *expert, double fixed_ns) {
  const model_config *m = model_get_config(b->in->m);
  const int ranks = cost_ranks_here(b->in);
  const cost_unit u = ranks > 1 ? cost_crowd_unit(b->in) : b->pool;
  stage_curve c = part_curve(b, &u, "expert_ffn", f, m->d_ff_expert, m->d_model, expert, fixed_ns);
  for (int i = 0; i < c.n; i++) c.ns[i] *= ranks;
  fewer_experts(&c, b->distinct);
  return c;
}

/* Attention over context: arithmetic per query token; where reading the KV cache takes longer, the rest is charged per sequence, so
 * that one token of a sequence costs the larger of the two. */
static void context_cost(builder *b, const cost_unit *dev, int layer, double work, stage_table *t, stage_layer *y) {
  const model_config *m = model_get_config(b->in->m);
  cost_attention a;
  if (dev->cpu && cost_measured_attention(dev, m, b->in->kv, work, b->c, &a, &b->tag)) {
    y->attn_ctx_ns = a.ns;
    y->attn_seq_ns = a.seq_ns;
    t->near_tokens = a.near_tokens; /* of one shape, hence the same for every layer */
    t->near_more = a.near_more;
  } else {
    y->attn_ctx_ns = 1e9 * work / cost_unit_flops(dev, dev->cpu ? FMT_F32 : FMT_F16, b->c, &b->tag);
  }
  double kv_bytes = (double)model_kv_bytes_per_token(m, layer, b->in->kv);
  double read = 1e9 * kv_bytes / cost_unit_kv_bytes_per_s(dev, b->c, &b->tag);
  y->attn_seq_ctx_ns = fmax(0, read - y->attn_ctx_ns);
}

/* The way of a token's activations from the home device to a place and of its result back, half of the hand-over's bytes each way. */
static double way_ns(const cost_input *in, const double *rates, int n) {
  double ns = 0, bytes = cost_handover_bytes(model_get_config(in->m)) / 2;
  for (int i = 0; i < n; i++) ns += 1e9 * bytes / rates[i];
  return ns;
}

/* Experts on another device: home -> host -> device and back, over each one's link. */
static void device_place(builder *b, int d, const device_rates *home, const model_layer_parts *p, stage_place *out) {
  const model_config *m = model_get_config(b->in->m);
  const device_rates *v = &b->dev[d];
  out->exp = part_curve(b, &v->unit, "expert_ffn", p->expert_fmt, m->d_ff_expert, m->d_model, &p->expert, 0);
  fewer_experts(&out->exp, b->distinct);
  out->fixed_ns = v->launch_ns;
  out->hand_ns = home->hand_ns + v->hand_ns;
  out->hand_tok_ns = way_ns(b->in, (double[]){home->d2h, v->h2d, v->d2h, home->h2d}, 4);
}

/* Experts on the CPU of another machine: home -> host -> link -> its CPU and back. Its own fixed cost per layer comes on top. */
static void remote_place(builder *b, const cost_remote *r, const device_rates *home, const model_layer_parts *p,
                         stage_place *out) {
  const model_config *m = model_get_config(b->in->m);
  cost_unit u = cost_remote_unit(r);
  int side = (b->c.groups & COST_LINK) != 0 ? b->c.side : 0;
  double rate = side < 0 ? r->bytes_per_s.low : side > 0 ? r->bytes_per_s.high : r->bytes_per_s.likely;
  double latency = side < 0 ? r->latency_ns.high : side > 0 ? r->latency_ns.low : r->latency_ns.likely;
  cost_weaken(&b->tag, r->bytes_per_s.tag);
  cost_weaken(&b->tag, r->latency_ns.tag);
  if (r->here) {
    out->exp = host_expert(b, p->expert_fmt, &p->expert, 0);
  } else {
    out->exp = part_curve(b, &u, "expert_ffn", p->expert_fmt, m->d_ff_expert, m->d_model, &p->expert, 0);
    fewer_experts(&out->exp, b->distinct);
  }
  out->fixed_ns = cost_cpu_time(r->rows, "layer_fixed_ns", r->here ? b->pool.threads : 0, b->c, prior("layer_fixed_ns"), &b->tag);
  out->hand_ns = home->hand_ns + 2 * latency;
  out->hand_tok_ns = way_ns(b->in, (double[]){rate, rate}, 2);
  if (!no_device(b)) out->hand_tok_ns += way_ns(b->in, (double[]){home->d2h, home->h2d}, 2);
}

static void fill_places(builder *b, stage_table *t, int l, const model_layer_parts *p) {
  const device_rates *home = &b->dev[t->layer[l].home];
  if (t->place == NULL) return;
  for (int d = 0; d < t->n_devices; d++)
    if (d != t->layer[l].home) device_place(b, d, home, p, stage_place_of(t, l, 1 + d));
  for (int r = 0; r < t->n_remotes; r++) remote_place(b, &b->in->remote[r], home, p, stage_place_of(t, l, 1 + t->n_devices + r));
}

/* What the residual stream pays where the next layer has another home: to the host and to the other device. */
static void change_home(builder *b, const stage_table *t, int l) {
  if (l == 0 || t->layer[l].home == t->layer[l - 1].home) return;
  const device_rates *from = &b->dev[t->layer[l - 1].home], *to = &b->dev[t->layer[l].home];
  double bytes = 4.0 * model_get_config(b->in->m)->d_model;
  cost_curve_add(&t->layer[l].attn, 0.5 * (from->hand_ns + to->hand_ns), 1e9 * bytes * (1 / from->d2h + 1 / to->h2d));
}

/* What nodes add to reading an expert: shares in whole blocks, reads across, and the cost of a split. Only where each node was measured alone
 * and the kernel was not: a measured kernel has it all, and a catalog machine's pooled rate was derived from engines that split. */
static void numa_cost(builder *b, const model_layer_parts *p, model_part *expert, double *fixed_ns) {
  cost_numa s;
  db_tag tag = TAG_MEASURED;
  if (b->in->rows->machine.kind != MACHINE_MEASURED || !cost_numa_of_expert(b->in, p, b->c, &s, &tag)) return;
  double split_ns = (s.used - 1) * cost_numa_split_ns(b->in->rows, b->c, &tag), slower = (s.ns - split_ns) / s.ideal_ns;
  slower /= cost_numa_remote_rate(b->in->rows, 1, b->in->remote_part, b->c, &tag);
  cost_weaken(&b->tag, tag);
  expert->bytes = (int64_t)((double)expert->bytes * slower);
  *fixed_ns += split_ns;
}

static void expert_cost(builder *b, const model_layer_parts *p, stage_layer *y) {
  const model_config *m = model_get_config(b->in->m);
  const device_rates *home = &b->dev[y->home];
  model_part expert = p->expert;
  double split_ns = 0;
  stage_curve measured;
  db_tag ignored = TAG_MEASURED;
  cost_shape s = {.kernel = "expert_ffn", .format = p->expert_fmt, .bytes = (double)p->expert.bytes};
  if (!cost_measured_curve(&b->pool, &s, b->c, &measured, &ignored)) numa_cost(b, p, &expert, &split_ns);
  y->cexp = host_expert(b, p->expert_fmt, &expert, split_ns);
  y->cexp_fixed_ns = b->cexp_fixed;
  if (no_device(b)) return;
  y->dexp = part_curve(b, &home->unit, "expert_ffn", p->expert_fmt, m->d_ff_expert, m->d_model, &p->expert, 0);
  fewer_experts(&y->dexp, b->distinct);
  y->hand_ns = home->hand_ns;
  y->hand_tok_ns = way_ns(b->in, (double[]){home->h2d, home->d2h}, 2);
  y->upload_ns = 1e9 * (double)p->expert.bytes / home->h2d;
}

/* On a CPU whole tokens are dealt out to the threads, results by columns; a GPU's row work is part of launch_ns. */
static void add_row_work(const builder *b, const device_rates *dev, double each, double results, stage_curve *c) {
  int threads = dev->unit.threads > 0 ? dev->unit.threads : cost_cpu_cores(b->in->rows);
  if (each > 0) cost_curve_add(c, each * (1 - 1.0 / threads), (each + results) / threads);
}

static void row_work(builder *b, const device_rates *dev, const model_layer_parts *p, stage_layer *y) {
  const model_config *m = model_get_config(b->in->m);
  if (!dev->unit.cpu) return;
  add_row_work(b, dev, cost_row_work_ns(&dev->unit, m, &p->norms, p->attn_fmt, y->moe, &b->tag),
               cost_results_ns(&dev->unit, m, y->moe), &y->attn);
  int width = y->moe ? m->d_ff_shared : m->d_ff_dense;
  add_row_work(b, dev, cost_ffn_row_work_ns(&dev->unit, m, width, y->moe ? p->shared_fmt : p->ffn_fmt, &b->tag),
               cost_ffn_results_ns(&dev->unit, m, width), &y->shared);
}

/* What of a token's products in a long piece turns queries into latents and sums back; 0 where attention is not over latents. */
static double latent_ns(const model_config *m, const model_part *attn, const stage_curve *c) {
  enum { LONG = 512 };
  if (m->attn != ATTN_MLA) return 0;
  const double weights = (double)m->n_heads * m->kv_lora_rank * (m->nope_dim + m->v_dim);
  return (stage_curve_at(c, 2 * LONG) - stage_curve_at(c, LONG)) / LONG * 2 * weights / attn->flops_per_token;
}

static hf_status layer_cost(builder *b, stage_table *t, int l) {
  const model_config *m = model_get_config(b->in->m);
  stage_layer *y = &t->layer[l];
  model_layer_parts p;
  HF_TRY(model_layer_parts_of(b->in->m, b->in->format, l, &p));
  if (b->in->expert_bytes > 0) p.expert.bytes = (int64_t)b->in->expert_bytes;
  y->moe = m->layer_is_moe[l];
  y->home = b->in->home != NULL ? b->in->home[l] : 0;
  y->slides = t->window > 0 && (m->layer_slides == NULL || m->layer_slides[l]);
  const device_rates *dev = &b->dev[y->home];
  model_part attn = p.attn;
  attn.bytes += p.norms.bytes + p.router.bytes;
  attn.flops_per_token += p.norms.flops_per_token + p.router.flops_per_token;
  double fixed = dev->launch_ns + attention_barriers(m, y->moe) * b->barrier;
  y->attn = part_curve(b, &dev->unit, "matmul", p.attn_fmt, 0, m->d_model, &attn, fixed);
  const double latent = latent_ns(m, &attn, &y->attn);
  change_home(b, t, l);
  context_cost(b, &dev->unit, l, p.flops_per_token_context, t, y);
  if (l == 0) cost_prompt_attention(&dev->unit, m, b->in->kv, y->attn_ctx_ns, latent, &t->prompt, &b->tag);
  /* dense and shared parts are three products of the recording; only routed experts run by kernels/moe.h */
  const model_part *ffn = y->moe ? &p.shared : &p.dense_ffn;
  y->shared = part_curve(b, &dev->unit, "matmul", y->moe ? p.shared_fmt : p.ffn_fmt, 0, m->d_model, ffn, b->shared_fixed);
  row_work(b, dev, &p, y);
  if (!y->moe) return HF_OK;
  expert_cost(b, &p, y);
  fill_places(b, t, l, &p);
  return HF_OK;
}

static hf_status head_cost(builder *b, stage_table *t) {
  const cost_input *in = b->in;
  const model_config *m = model_get_config(in->m);
  const device_rates *last = &b->dev[t->layer[t->n_layers - 1].home];
  model_head_parts h;
  HF_TRY(model_head_parts_of(in->m, in->format, &h));
  fmt head_fmt = FMT_F16;
  model_tensor_info info;
  if (model_has_weights(in->m) && model_tensor(in->m, MT_OUTPUT, -1, -1, &info) == HF_OK) head_fmt = info.format;
  hf_clear_error();
  double fixed = last->unit.cpu ? HEAD_BARRIERS * b->barrier : last->launch_ns;
  t->head = part_curve(b, &last->unit, "matmul", head_fmt, m->vocab_size, m->d_model, &h.output, fixed);
  /* then tokens are chosen, one after another; the first of them is in step_fixed_ns, as far as it goes */
  const double choice = last->unit.cpu ? cost_choice_ns(in->rows, b->c, &b->tag) : 0;
  const int in_step = m->vocab_size < COST_CHOICE_OF_STEP ? m->vocab_size : COST_CHOICE_OF_STEP;
  if (choice > 0) cost_curve_add(&t->head, -choice * in_step, choice * m->vocab_size);
  return HF_OK;
}

/* Of the first MoE layer's experts: they are what the CPU does meanwhile. */
static hf_status find_contend(builder *b, stage_table *t) {
  const model_config *m = model_get_config(b->in->m);
  for (int l = 0; l < m->n_layers; l++) {
    model_layer_parts p;
    if (!m->layer_is_moe[l]) continue;
    HF_TRY(model_layer_parts_of(b->in->m, b->in->format, l, &p));
    cost_shape s = {.kernel = "expert_ffn", .format = p.expert_fmt, .bytes = (double)p.expert.bytes};
    t->contend = cost_contend(b->in, &s, &b->tag);
    t->contend_dma = cost_contend_dma(b->in, &s, &b->tag);
    break;
  }
  return HF_OK;
}

/* The longest that a stage may last for 512 tokens, and that one query may take over one token of context. What a step adds up and the
 * simulator counts in whole nanoseconds then stays far from overflowing; whoever states a machine that slow mistook a unit. */
static const double LONGEST_NS = 900e9, LONGEST_CONTEXT_NS = 1e6;

static bool bearable(const stage_curve *c) {
  return stage_curve_at(c, 512) <= LONGEST_NS; /* false for NaN */
}

/* What of a layer lasts too long; NULL when nothing does. */
static const char *unbearable(const stage_table *t, int l) {
  const stage_layer *y = &t->layer[l];
  if (!bearable(&y->attn)) return "attention";
  if (!(y->attn_ctx_ns + y->attn_seq_ctx_ns <= LONGEST_CONTEXT_NS) || !(y->attn_seq_ns <= LONGEST_NS))
    return "reading the KV cache";
  if (!bearable(&y->shared)) return "the shared or dense part";
  if (!bearable(&y->dexp)) return "an expert on the device";
  if (!bearable(&y->cexp) || !(y->cexp_fixed_ns <= LONGEST_NS)) return "an expert on the CPU";
  if (!(y->hand_ns + 512 * y->hand_tok_ns <= LONGEST_NS)) return "handing activations over";
  if (!(y->upload_ns <= LONGEST_NS)) return "sending an expert to the device";
  for (int q = 1; t->place != NULL && q <= t->n_devices + t->n_remotes; q++) {
    const stage_place *s = stage_place_of(t, l, q);
    if (!bearable(&s->exp) || !(s->fixed_ns + s->hand_ns + 512 * s->hand_tok_ns <= LONGEST_NS)) return "an expert elsewhere";
  }
  return NULL;
}

static hf_status check_times(const cost_input *in, const stage_table *t) {
  const char *what = !bearable(&t->head) ? "the output matrix" : !(t->step_fixed_ns <= LONGEST_NS) ? "step_fixed_ns" : NULL;
  for (int l = 0; what == NULL && l < t->n_layers; l++) what = unbearable(t, l);
  if (what == NULL) return HF_OK;
  return hf_fail(
      HF_INPUT,
      "machine %s: %s would last longer than a quarter of an hour: one of the machine's rates or times is absurd; are their "
      "units right?",
      in->rows->machine.name, what);
}

static hf_status check_devices(const cost_input *in) {
  for (int d = 0; d < in->gpus.n; d++)
    if (in->gpus.g[d].kind != GPU_VIRTUAL && cost_device(in->rows, in->gpus.g[d].device) == NULL)
      return hf_fail(
          HF_NOT_FOUND,
          "option --gpu: machine %s has no %s in the database: measure it with hf-profile on that machine, or plan with "
          "--gpu none",
          in->rows->machine.name, in->gpus.g[d].device);
  return HF_OK;
}

hf_status cost_table(const cost_input *in, cost_case c, stage_table **out) {
  const model_config *m = model_get_config(in->m);
  HF_TRY(check_devices(in));
  stage_table *t = NULL;
  builder b = {.in = in, .c = c, .pool = cost_pool_unit(in), .tag = TAG_MEASURED};
  hf_status st = HF_OK;
  HF_TRY(stage_table_new(m->n_layers, &t));
  t->n_experts = m->n_experts;
  t->top_k = m->top_k;
  t->one_resource = in->gpus.n == 0;
  t->window = m->sliding_window;
  HF_GO(fail, stage_table_places(t, in->gpus.n, in->n_remotes));
  find_rates(&b);
  for (int l = 0; l < m->n_layers; l++) HF_GO(fail, layer_cost(&b, t, l));
  HF_GO(fail, head_cost(&b, t));
  HF_GO(fail, find_contend(&b, t));
  t->step_fixed_ns = cost_time(in->rows, "cpu", "step_fixed_ns", c, prior("step_fixed_ns"), &b.tag);
  HF_GO(fail, check_times(in, t));
  snprintf(t->tag, sizeof t->tag, "%s", db_tag_name(b.tag));
  *out = t;
  return HF_OK;
fail:
  stage_table_free(t);
  return st;
}
