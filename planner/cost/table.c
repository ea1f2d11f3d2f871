/* table.c: the stage table of a model on a machine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "planner/cost/cost.h"

/* Used where a machine has no row; fastest, likely, slowest. */
static const double CPU_LAYER[3] = {3e3, 10e3, 30e3}, THREAD_LAYER[3] = {1e3, 3e3, 10e3}, HANDOVER[3] = {4e3, 12e3, 40e3},
                    LAUNCH[3] = {8e3, 20e3, 50e3}, STEP[3] = {20e3, 60e3, 300e3}, PCIE[3] = {8e9, 20e9, 26e9};

static hf_status size_suffix(const char *text, const char *from, gpu_spec *g) {
  HF_TRY(cli_parse_size(from, "--gpu", &g->size_bytes));
  if (g->size_bytes <= 0) return hf_fail(HF_INPUT, "option --gpu: '%s': the size must be above 0", text);
  return HF_OK;
}

static hf_status copy_machine(const char *text, const char *from, size_t n, gpu_spec *g) {
  if (n == 0 || n >= sizeof g->machine) return hf_fail(HF_INPUT, "option --gpu: '%s': name a machine after paced:", text);
  memcpy(g->machine, from, n);
  g->machine[n] = '\0';
  return HF_OK;
}

hf_status gpu_spec_parse(const char *text, gpu_spec *out) {
  gpu_spec g = {0};
  if (strlen(text) >= sizeof g.text) return hf_fail(HF_INPUT, "option --gpu: longer than %zu bytes", sizeof g.text - 1);
  snprintf(g.text, sizeof g.text, "%s", text);
  if (strcmp(text, "none") == 0) {
    g.kind = GPU_NONE;
  } else if (strncmp(text, "virtual:", 8) == 0) {
    g.kind = GPU_VIRTUAL;
    HF_TRY(size_suffix(text, text + 8, &g));
  } else if (strncmp(text, "paced:", 6) == 0) {
    g.kind = GPU_PACED;
    snprintf(g.device, sizeof g.device, "gpu0");
    const char *colon = strrchr(text + 6, ':');
    int64_t size = 0;
    bool sized = colon != NULL && cli_parse_size(colon + 1, "--gpu", &size) == HF_OK && size > 0;
    if (colon != NULL && !sized) hf_clear_error(); /* a machine file with a colon in its name */
    if (sized) g.size_bytes = size;
    HF_TRY(copy_machine(text, text + 6, sized ? (size_t)(colon - text - 6) : strlen(text + 6), &g));
  } else if (strncmp(text, "cuda:", 5) == 0) {
    g.kind = GPU_CUDA;
    char *end = NULL;
    long n = strtol(text + 5, &end, 10);
    if (end == text + 5 || n < 0 || n > 63 || (*end != '\0' && *end != ':'))
      return hf_fail(HF_INPUT, "option --gpu: '%s': cuda: takes a device number, and a size after a second colon", text);
    snprintf(g.device, sizeof g.device, "gpu%ld", n);
    if (*end == ':') HF_TRY(size_suffix(text, end + 1, &g));
  } else {
    return hf_fail(HF_INPUT, "option --gpu: '%s': needs none, virtual:SIZE, paced:MACHINE[:SIZE] or cuda:N[:SIZE]", text);
  }
  *out = g;
  return HF_OK;
}

int cost_pool_threads(const cost_input *in) {
  int all = in->threads > 0 ? in->threads : cost_cpu_cores(in->rows);
  if (in->gpu.kind != GPU_VIRTUAL) return all;
  return all > 1 ? all - 1 : 1;
}

cost_unit cost_pool_unit(const cost_input *in) {
  cost_unit u = {.rows = in->rows, .cpu = true, .device = "cpu", .threads = cost_pool_threads(in)};
  return u;
}

cost_unit cost_device_unit(const cost_input *in) {
  if (in->gpu.kind == GPU_NONE) return cost_pool_unit(in);
  cost_unit u = {.rows = in->rows, .cpu = in->gpu.kind == GPU_VIRTUAL, .device = "cpu", .threads = 1};
  if (!u.cpu) {
    snprintf(u.device, sizeof u.device, "%s", in->gpu.device);
    u.threads = 0;
  }
  return u;
}

/* Everything of the machine that does not depend on the layer, looked up once. launch_ns is that of a whole layer on the device. */
typedef struct {
  const cost_input *in;
  cost_case c;
  cost_unit dev, pool;
  db_tag tag;
  double attn_fixed, shared_fixed, cexp_fixed, head_fixed, hand_fixed, h2d, d2h, distinct;
  double barrier; /* of all workers, when they do everything together; else 0 */
} builder;

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
  if (b->in->gpu.kind == GPU_NONE && cost_find(r, "cpu", "pool_wake_ns", &f)) {
    /* measured as one pool_run, but here the workers are awake: the whole step is one */
    double wake = cost_cpu_time(r, "pool_wake_ns", threads, b->c, THREAD_LAYER, &b->tag);
    b->cexp_fixed = fmax(0, b->cexp_fixed - wake);
  }
  bool together = b->in->gpu.kind == GPU_NONE && threads > 1;
  if (together && !cost_find(r, "cpu", "barrier_ns", &f)) {
    b->attn_fixed = b->cexp_fixed; /* as many barriers, roughly */
    cost_weaken(&b->tag, TAG_ASSUMED);
    return;
  }
  b->attn_fixed = cost_time(r, "cpu", "thread_layer_fixed_ns", b->c, THREAD_LAYER, &b->tag);
  if (together) b->barrier = cost_cpu_time(r, "barrier_ns", threads, b->c, THREAD_LAYER, &b->tag);
  b->shared_fixed = FFN_BARRIERS * b->barrier;
}

static void find_fixed(builder *b) {
  const cost_rows *r = b->in->rows;
  bool real = !b->dev.cpu;
  b->distinct = b->in->correlated ? cost_distinct_factor(r, b->c, &b->tag) : 1;
  b->cexp_fixed = cost_cpu_time(r, "layer_fixed_ns", b->pool.threads, b->c, CPU_LAYER, &b->tag);
  if (real) b->attn_fixed = cost_time(r, b->dev.device, "launch_ns", b->c, LAUNCH, &b->tag);
  else find_cpu_fixed(b);
  b->head_fixed = b->dev.cpu ? HEAD_BARRIERS * b->barrier : b->attn_fixed;
  if (b->in->gpu.kind == GPU_NONE) return;
  cost_figure f;
  const char *from = real && cost_find(r, b->dev.device, "handover_ns", &f) ? b->dev.device : "cpu";
  b->hand_fixed = cost_time(r, from, "handover_ns", b->c, HANDOVER, &b->tag);
  if (real) {
    b->h2d = cost_rate(r, b->dev.device, "pcie_h2d_bytes_per_s", COST_LINK, b->c, PCIE, &b->tag);
    b->d2h = cost_rate(r, b->dev.device, "pcie_d2h_bytes_per_s", COST_LINK, b->c, PCIE, &b->tag);
  } else {
    b->h2d = b->d2h = cost_unit_bytes_per_s(&b->dev, b->c, &b->tag);
  }
}

static void curve_shift(stage_curve *c, double ns) {
  for (int i = 0; i < c->n; i++) c->ns[i] += ns;
}

static void curve_scale(stage_curve *c, double factor) {
  for (int i = 0; i < c->n; i++) c->ns[i] *= factor;
}

/* One part: measured if the kernel was, else by figures. n_out = 0: a group of products, never an exact shape. */
static stage_curve part_curve(builder *b, const cost_unit *u, const char *kernel, fmt f, int n_out, int n_in, const model_part *p,
                              double fixed_ns) {
  stage_curve c = {.n = 1, .tok = {1}};
  if (p->bytes <= 0) return c;
  cost_shape s = {.kernel = kernel, .format = f, .n_out = n_out, .n_in = n_in, .bytes = (double)p->bytes};
  if (cost_measured_curve(u, &s, b->c, &c, &b->tag)) {
    curve_shift(&c, fixed_ns);
    return c;
  }
  double bytes_per_s = cost_unit_bytes_per_s(u, b->c, &b->tag), flops = cost_unit_flops(u, f, b->c, &b->tag);
  return cost_roofline_curve(fixed_ns, (double)p->bytes, p->flops_per_token, bytes_per_s, flops);
}

/* Attention over context: arithmetic per query token; where reading the KV cache takes longer, the rest is charged per sequence, so
 * that one token of a sequence costs the larger of the two. */
static void context_cost(builder *b, int layer, double work, stage_layer *y) {
  const model_config *m = model_get_config(b->in->m);
  if (!(b->dev.cpu && cost_measured_attention(&b->dev, m, work, b->c, &y->attn_ctx_ns, &b->tag)))
    y->attn_ctx_ns = 1e9 * work / cost_unit_flops(&b->dev, b->dev.cpu ? FMT_F32 : FMT_F16, b->c, &b->tag);
  double kv_bytes = (double)model_kv_bytes_per_token(m, layer, b->in->kv_elem_bytes);
  double read = 1e9 * kv_bytes / cost_unit_bytes_per_s(&b->dev, b->c, &b->tag);
  y->attn_seq_ctx_ns = fmax(0, read - y->attn_ctx_ns);
}

static hf_status layer_cost(builder *b, int l, stage_layer *y) {
  const model_config *m = model_get_config(b->in->m);
  model_layer_parts p;
  HF_TRY(model_layer_parts_of(b->in->m, b->in->format, l, &p));
  y->moe = m->layer_is_moe[l];
  model_part attn = p.attn;
  attn.bytes += p.norms.bytes + p.router.bytes;
  attn.flops_per_token += p.norms.flops_per_token + p.router.flops_per_token;
  double fixed = b->attn_fixed + attention_barriers(m, y->moe) * b->barrier;
  y->attn = part_curve(b, &b->dev, "matmul", p.attn_fmt, 0, m->d_model, &attn, fixed);
  context_cost(b, l, p.flops_per_token_context, y);
  if (!y->moe) {
    y->shared = part_curve(b, &b->dev, "matmul", p.ffn_fmt, 0, m->d_model, &p.dense_ffn, b->shared_fixed);
    return HF_OK;
  }
  /* dense and shared parts are three products of the recording; only routed experts run by kernels/moe.h */
  y->shared = part_curve(b, &b->dev, "matmul", p.shared_fmt, 0, m->d_model, &p.shared, b->shared_fixed);
  y->cexp = part_curve(b, &b->pool, "expert_ffn", p.expert_fmt, m->d_ff_expert, m->d_model, &p.expert, 0);
  curve_scale(&y->cexp, b->distinct);
  y->cexp_fixed_ns = b->cexp_fixed;
  if (b->in->gpu.kind == GPU_NONE) return HF_OK;
  y->dexp = part_curve(b, &b->dev, "expert_ffn", p.expert_fmt, m->d_ff_expert, m->d_model, &p.expert, 0);
  curve_scale(&y->dexp, b->distinct);
  y->hand_ns = b->hand_fixed;
  y->hand_tok_ns = 1e9 * cost_handover_bytes(m) / 2 * (1 / b->h2d + 1 / b->d2h);
  y->upload_ns = 1e9 * (double)p.expert.bytes / b->h2d;
  return HF_OK;
}

hf_status cost_table(const cost_input *in, cost_case c, stage_table **out) {
  const model_config *m = model_get_config(in->m);
  if (in->gpu.kind != GPU_NONE && in->gpu.kind != GPU_VIRTUAL && cost_device(in->rows, in->gpu.device) == NULL)
    return hf_fail(HF_NOT_FOUND,
                   "option --gpu: machine %s has no %s in the database: measure it with hf-profile on that machine, or plan with "
                   "--gpu none",
                   in->rows->machine.name, in->gpu.device);
  stage_table *t = NULL;
  builder b = {.in = in, .c = c, .dev = cost_device_unit(in), .pool = cost_pool_unit(in), .tag = TAG_MEASURED};
  hf_status st = HF_OK;
  HF_TRY(stage_table_new(m->n_layers, &t));
  t->n_experts = m->n_experts;
  t->top_k = m->top_k;
  t->one_resource = in->gpu.kind == GPU_NONE;
  find_fixed(&b);
  for (int l = 0; l < m->n_layers; l++) HF_GO(fail, layer_cost(&b, l, &t->layer[l]));
  model_head_parts h;
  HF_GO(fail, model_head_parts_of(in->m, in->format, &h));
  fmt head_fmt = FMT_F16;
  model_tensor_info info;
  if (model_has_weights(in->m) && model_tensor(in->m, MT_OUTPUT, -1, -1, &info) == HF_OK) head_fmt = info.format;
  hf_clear_error();
  t->head = part_curve(&b, &b.dev, "matmul", head_fmt, m->vocab_size, m->d_model, &h.output, b.head_fixed);
  t->step_fixed_ns = cost_time(in->rows, "cpu", "step_fixed_ns", c, STEP, &b.tag);
  snprintf(t->tag, sizeof t->tag, "%s", db_tag_name(b.tag));
  *out = t;
  return HF_OK;
fail:
  stage_table_free(t);
  return st;
}
