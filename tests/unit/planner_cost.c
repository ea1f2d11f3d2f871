/* Costs: every source of a step's time against figures worked out by hand, look-ups with their tags, popularity. */
#include "planner/cost/cost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void near(double a, double b, double rel) {
  if (!(fabs(a - b) <= rel * fmax(1e-300, fmax(fabs(a), fabs(b))))) fail_msg("%.17g differs from %.17g", a, b);
}

/* ---- a machine made by hand ---- */

static rec_figure figures[40];
static rec_kernel_point kernels[64];
static rec_device devices[4];

static void figure(cost_rows *r, const char *device, const char *what, const char *params, double low, double likely, double high,
                   db_tag tag) {
  rec_figure *f = &figures[r->n_figure];
  *f = (rec_figure){.id = ++r->n_figure, .low = low, .likely = likely, .high = high, .tag = tag};
  snprintf(f->device, sizeof f->device, "%s", device);
  snprintf(f->what, sizeof f->what, "%s", what);
  snprintf(f->params, sizeof f->params, "%s", params);
}

static void point(cost_rows *r, const char *kernel, const char *format, int n_out, int n_in, int tokens, int threads, double ns) {
  rec_kernel_point *k = &kernels[r->n_kernel++];
  *k = (rec_kernel_point){.n_out = n_out,
                          .n_in = n_in,
                          .tokens = tokens,
                          .threads = threads,
                          .ns = ns,
                          .ns_low = 0.9 * ns,
                          .ns_high = 1.2 * ns,
                          .tag = TAG_MEASURED};
  snprintf(k->device, sizeof k->device, "cpu");
  snprintf(k->kernel, sizeof k->kernel, "%s", kernel);
  snprintf(k->format, sizeof k->format, "%s", format);
  snprintf(k->candidate, sizeof k->candidate, "%s.a", format);
}

static cost_rows machine(void) {
  cost_rows r = {.device = devices, .figure = figures, .kernel = kernels};
  memset(devices, 0, sizeof devices);
  devices[0] = (rec_device){.device = "cpu0", .kind = "cpu", .cores = 8, .mem_bytes = 1000};
  devices[1] = (rec_device){.device = "cpu1", .kind = "cpu", .cores = 8, .mem_bytes = 500};
  devices[2] = (rec_device){.device = "gpu0", .kind = "gpu", .mem_bytes = 77};
  r.n_device = 3;
  snprintf(r.machine.name, sizeof r.machine.name, "hand-made");
  return r;
}

static const double any[3] = {1, 2, 3};
static const cost_case likely = {0}, slow = {-1, COST_ALL}, fast = {1, COST_ALL};

static void lookups_say_how_sure_they_are(void **state) {
  (void)state;
  cost_rows r = machine();
  figure(&r, "cpu0", "dram_read_bytes_per_s", "", 90, 100, 110, TAG_MEASURED);
  figure(&r, "cpu1", "dram_read_bytes_per_s", "", 45, 50, 55, TAG_MEASURED);
  cost_figure f;
  assert_true(cost_find(&r, "cpu", "dram_read_bytes_per_s", &f));
  near(f.likely, 150, 1e-15);
  assert_int_equal(f.tag, TAG_SCALED); /* two nodes added up were not measured together */
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=16", 100, 120, 130, TAG_MEASURED);
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=1", 10, 12, 14, TAG_MEASURED);
  assert_true(cost_find(&r, "cpu", "dram_read_bytes_per_s", &f));
  near(f.likely, 120, 0);
  assert_int_equal(f.tag, TAG_MEASURED);

  db_tag tag = TAG_MEASURED;
  near(cost_cpu_rate(&r, "dram_read_bytes_per_s", 0, COST_CPU_MEM, slow, any, &tag), 100, 0);
  near(cost_cpu_rate(&r, "dram_read_bytes_per_s", 0, COST_CPU_MEM, fast, any, &tag), 130, 0);
  near(cost_cpu_rate(&r, "dram_read_bytes_per_s", 0, COST_CPU_MEM, (cost_case){-1, COST_LINK}, any, &tag), 120, 0);
  near(cost_cpu_rate(&r, "dram_read_bytes_per_s", 1, COST_CPU_MEM, likely, any, &tag), 12, 0);
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=8", 70, 80, 90, TAG_MEASURED);
  figure(&r, "cpu1", "dram_read_bytes_per_s", "threads=8", 45, 50, 55, TAG_MEASURED); /* all of one node, not 8 of the pool */
  near(cost_cpu_rate(&r, "dram_read_bytes_per_s", 8, COST_CPU_MEM, likely, any, &tag), 80, 0);
  assert_int_equal(tag, TAG_MEASURED);
  figure(&r, "", "step_fixed_ns", "", 10, 20, 40, TAG_SPEC);
  near(cost_time(&r, "cpu", "step_fixed_ns", slow, any, &tag), 40, 0);
  near(cost_time(&r, "cpu", "step_fixed_ns", fast, any, &tag), 10, 0);
  assert_int_equal(tag, TAG_SPEC);
  near(cost_time(&r, "cpu", "handover_ns", likely, any, &tag), 2, 0);
  assert_int_equal(tag, TAG_ASSUMED);
  assert_false(cost_find(&r, "gpu0", "step_fixed_ns", &f)); /* a GPU has its own rows only */
  assert_int_equal(cost_cpu_cores(&r), 16);
  assert_int_equal(cost_mem_bytes(&r, "cpu", -1), 1500);
  assert_int_equal(cost_mem_bytes(&r, "gpu", 0), 77);
  assert_null(cost_device(&r, "gpu1"));
}

static void roofline(void **state) {
  (void)state;
  near(cost_roofline_ns(1000, 10, 1e9, 1e9), 1000, 1e-15);
  near(cost_roofline_ns(1000, 4000, 1e9, 1e9), 4000, 1e-15);
  /* 1000 B at 1 GB/s against 100 FLOP a token at 1 GFLOP/s: the kink is at 10 tokens */
  stage_curve c = cost_roofline_curve(7, 1000, 100, 1e9, 1e9);
  for (double m = 1; m < 2000; m = m * 1.3 + 0.1) near(stage_curve_at(&c, m), 7 + fmax(1000, 100 * m), 1e-12);
  c = cost_roofline_curve(7, 1e6, 100, 1e9, 1e9); /* kink at 10,000 */
  for (double m = 1; m < 90000; m = m * 1.7) near(stage_curve_at(&c, m), 7 + fmax(1e6, 100 * m), 1e-12);
  c = cost_roofline_curve(0, 512, 1, 1e9, 1e9); /* kink at the last point of the flat part */
  for (int i = 1; i < c.n; i++) assert_true(c.tok[i] > c.tok[i - 1]);
  for (double m = 1; m < 9000; m = m * 1.7) near(stage_curve_at(&c, m), fmax(512, m), 1e-12);
  c = cost_roofline_curve(0, 10, 100, 1e9, 1e9); /* compute-bound from the first token */
  for (double m = 1; m < 2000; m = m * 1.7) near(stage_curve_at(&c, m), 100 * m, 1e-12);
  c = cost_roofline_curve(5, 1000, 0, 1e9, 1e9);
  near(stage_curve_at(&c, 1e5), 1005, 1e-12);
}

static void distinct_experts(void **state) {
  (void)state;
  double p[256];
  for (int i = 0; i < 256; i++) p[i] = 8.0 / 256;
  /* known values of the closed form for 256 experts, 8 chosen */
  const struct { int tokens, distinct; } known[] = {{1, 8}, {8, 57}, {16, 102}, {32, 163}, {64, 222}, {128, 252}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    assert_int_equal(lround(cost_distinct_experts(p, 256, known[i].tokens)), known[i].distinct);
  p[0] = 1;
  p[1] = 0;
  near(cost_distinct_experts(p, 2, 5), 1, 0);
}

static model *open_model(const char *path) {
  model *m = NULL;
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
  return m;
}

static void kv_and_handover(void **state) {
  (void)state;
  model *m = open_model("examples/tiny-moe");
  const model_config *c = model_get_config(m);
  assert_int_equal(model_kv_bytes_per_token(c, 1, FMT_F16), (64 + 16) * 2); /* MLA: latent and rope part, not heads */
  near(cost_handover_bytes(c), 2 * 4 * 128 + 8 * 4, 0);
  model_close(m);
}

static void measured_curves(void **state) {
  (void)state;
  cost_rows r = machine();
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=16", 90, 100, 110, TAG_MEASURED);
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=1", 20, 25, 30, TAG_MEASURED);
  const int tokens[] = {4, 1, 16};
  for (int i = 0; i < 3; i++) {
    point(&r, "expert_ffn", "q8_0", 64, 128, tokens[i], 16, 100 + 10 * tokens[i]);
    point(&r, "expert_ffn", "q8_0", 640, 128, tokens[i], 16, 1000 + 50 * tokens[i]);
  }
  point(&r, "expert_ffn", "q8_0", 64, 128, 4, 16, 120); /* a faster candidate at 4 tokens */
  cost_unit all = {.rows = &r, .cpu = true, .device = "cpu"};
  double bytes = 3 * 64 * 128 * 8.5 / 8;
  cost_shape s = {.kernel = "expert_ffn", .format = FMT_Q8_0, .n_out = 64, .n_in = 128, .bytes = bytes};
  stage_curve c;
  db_tag tag = TAG_MEASURED;
  assert_true(cost_measured_curve(&all, &s, likely, &c, &tag));
  assert_int_equal(c.n, 3);
  assert_int_equal(tag, TAG_MEASURED);
  near(stage_curve_at(&c, 1), 110, 0);
  near(stage_curve_at(&c, 4), 120, 0);
  near(stage_curve_at(&c, 16), 260, 0);
  assert_true(cost_measured_curve(&all, &s, slow, &c, &tag));
  near(stage_curve_at(&c, 1), 132, 1e-12);

  s.n_out = 700; /* nearest in bytes: 640; scaled */
  s.bytes = bytes * 700 / 64;
  assert_true(cost_measured_curve(&all, &s, likely, &c, &tag));
  assert_int_equal(tag, TAG_SCALED);
  near(stage_curve_at(&c, 1), 1050 * 700.0 / 640, 1e-12);

  tag = TAG_MEASURED; /* one thread was not measured: by bandwidth, 100 to 25 */
  cost_unit one = {.rows = &r, .cpu = true, .device = "cpu", .threads = 1};
  s.n_out = 64;
  s.bytes = bytes;
  assert_true(cost_measured_curve(&one, &s, likely, &c, &tag));
  assert_int_equal(tag, TAG_SCALED);
  near(stage_curve_at(&c, 1), 440, 1e-12);
  point(&r, "expert_ffn", "q8_0", 64, 128, 1, 1, 333);
  assert_true(cost_measured_curve(&one, &s, likely, &c, &tag));
  near(stage_curve_at(&c, 1), 333, 0);

  s.format = FMT_BF16;
  assert_false(cost_measured_curve(&all, &s, likely, &c, &tag));
  cost_unit gpu = {.rows = &r, .device = "gpu0"};
  s.format = FMT_Q8_0;
  assert_false(cost_measured_curve(&gpu, &s, likely, &c, &tag));
}

/* Points one and four tokens behind two full passes say how many tokens a pass has and what its parts cost; the line then goes through full ones. */
static void passes_of_products(void **state) {
  (void)state;
  static const struct {
    double one, four; /* ns of so many more tokens than 16; one of a full pass is 10 */
    int pass;
    double part[5];
  } cases[] = {{25, 40, 4, {0, 2.5, 3, 3.5}},
               {30, 45, 8, {0, 3, 3.5, 4, 4.5}},
               {120, 120, 16, {0, 12, 12, 12, 12}},
               {2, 40, 4, {0, 1, 2, 3}}};
  const int tokens[] = {1, 4, 5, 8, 9, 16, 17, 20, 64};
  cost_unit u = {.cpu = true, .device = "cpu"};
  cost_shape s = {.kernel = "expert_ffn", .format = FMT_Q8_0, .n_out = 64, .n_in = 128, .bytes = 3 * 64 * 128 * 8.5 / 8};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cost_rows r = machine();
    stage_curve c;
    db_tag tag = TAG_MEASURED;
    u.rows = &r;
    for (size_t k = 0; k < sizeof tokens / sizeof *tokens; k++) {
      const int n = tokens[k];
      point(&r, "expert_ffn", "q8_0", 64, 128, n, 16, n == 17 ? 160 + cases[i].one : n == 20 ? 160 + cases[i].four : 10 * n);
    }
    assert_true(cost_measured_curve(&u, &s, likely, &c, &tag));
    assert_int_equal(c.pass, cases[i].pass);
    for (int k = 1; k < c.pass && k < 5; k++) near(c.part[k], cases[i].part[k], 1e-12);
    near(stage_curve_at(&c, 96), 960, 1e-12); /* full passes are on the line */
    for (int k = 0; k < c.n; k++) assert_true(c.tok[k] <= c.pass || fmod(c.tok[k], c.pass) == 0);
    for (int n = 1; n < 200; n++) assert_true(stage_curve_at(&c, n) <= stage_curve_at(&c, n + 1));
  }
}

static void attention_point_of(cost_rows *r, const char *kv, int heads, int lora, int rope, int context, int threads, double ns) {
  point(r, "attn_mla", kv, lora, rope, 1, threads, ns);
  kernels[r->n_kernel - 1].context = context;
  snprintf(kernels[r->n_kernel - 1].act, sizeof kernels[0].act, "h%d", heads);
}

static void attention_point(cost_rows *r, int heads, int lora, int rope, int context, int threads, double ns) {
  attention_point_of(r, "f16", heads, lora, rope, context, threads, ns);
}

/* A KV cache in Q8_0 is priced by its own points, or by those of F16 where a profile has none. */
static void attention_by_kv_type(void **state) {
  (void)state;
  cost_rows r = machine();
  model *m = open_model("examples/tiny-moe");
  const model_config *c = model_get_config(m);
  cost_unit u = {.rows = &r, .cpu = true, .device = "cpu", .threads = 1};
  double work = 2.0 * 4 * (2 * 64 + 16);
  cost_attention a;
  db_tag tag = TAG_MEASURED;
  attention_point(&r, 4, 64, 16, 128, 1, 1000 + 128 * 5);
  attention_point(&r, 4, 64, 16, 8192, 1, 1000 + 8192 * 5);
  assert_true(cost_measured_attention(&u, c, FMT_Q8_0, work, likely, &a, &tag));
  near(a.ns, 5, 1e-12);
  assert_int_equal(tag, TAG_SCALED);
  attention_point_of(&r, "q8_0", 4, 64, 16, 128, 1, 500 + 128 * 3);
  attention_point_of(&r, "q8_0", 4, 64, 16, 8192, 1, 500 + 8192 * 3);
  for (int i = 0; i < 2; i++) {
    tag = TAG_MEASURED;
    assert_true(cost_measured_attention(&u, c, i ? FMT_F16 : FMT_Q8_0, work, likely, &a, &tag));
    near(a.ns, i ? 5 : 3, 1e-12);
    near(a.seq_ns, i ? 1000 : 500, 1e-9);
    assert_int_equal(tag, TAG_MEASURED);
  }
  model_close(m);
}

/* ns per token of context is the slope over context of the shape nearest in work, scaled by work. */
static void measured_attention(void **state) {
  (void)state;
  cost_rows r = machine();
  attention_point(&r, 4, 64, 16, 128, 1, 1000 + 128 * 5);
  attention_point(&r, 4, 64, 16, 8192, 1, 1000 + 8192 * 5);
  attention_point(&r, 4, 64, 16, 8192, 2, 1e9);
  attention_point(&r, 16, 512, 64, 8192, 1, 1e9);
  model *m = open_model("examples/tiny-moe");
  const model_config *c = model_get_config(m);
  cost_unit one = {.rows = &r, .cpu = true, .device = "cpu", .threads = 1};
  double work = 2.0 * 4 * (2 * 64 + 16);
  cost_attention a;
  db_tag tag = TAG_MEASURED;
  assert_true(cost_measured_attention(&one, c, FMT_F16, work, likely, &a, &tag));
  near(a.ns, 5, 1e-12);
  near(a.seq_ns, 1000, 1e-9); /* what a sequence costs beside its context */
  assert_int_equal(tag, TAG_MEASURED);
  assert_true(cost_measured_attention(&one, c, FMT_F16, 2 * work, likely, &a, &tag));
  near(a.ns, 10, 1e-12);
  near(a.seq_ns, 2000, 1e-9);
  assert_int_equal(tag, TAG_SCALED);
  cost_unit four = {.rows = &r, .cpu = true, .device = "cpu", .threads = 4}; /* not measured: from the points of most threads */
  kernels[2].ns = 1000 + 8192 * 3;
  assert_true(cost_measured_attention(&four, c, FMT_F16, work, likely, &a, &tag));
  near(a.ns, 2.0 / 4 * (1000 + 8192 * 3) / 8192, 1e-12);
  near(a.seq_ns, 0, 0); /* one point is no line */
  assert_true(a.near_tokens == 0);
  attention_point(&r, 4, 64, 16, 256, 1, 1e9);
  attention_point(&r, 4, 64, 16, 1024, 1, 1000 + 128 * 5 + 896 * 8); /* the one in the middle: what lies before it costs more */
  kernels[1].ns = 1000 + 128 * 5 + 896 * 8 + 7168 * 4;
  assert_true(cost_measured_attention(&one, c, FMT_F16, work, likely, &a, &tag));
  near(a.ns, 4, 1e-12);
  near(a.near_tokens, 1024, 0);
  near(a.near_more, 1, 1e-12);
  near(a.seq_ns, 1000 + 128 * 5 - 128 * 8, 1e-9);
  model_layer_parts p;
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 1, &p), HF_OK);
  near(p.flops_per_token_context, work, 1e-12); /* the model room counts the same work */
  model_close(m);
}

static void fixed_costs_by_threads(void **state) {
  (void)state;
  cost_rows r = machine();
  figure(&r, "cpu", "layer_fixed_ns", "threads=16", 900, 1000, 1100, TAG_MEASURED);
  figure(&r, "cpu", "layer_fixed_ns", "threads=1", 90, 100, 110, TAG_MEASURED);
  db_tag tag = TAG_MEASURED;
  near(cost_cpu_time(&r, "layer_fixed_ns", 1, likely, any, &tag), 100, 0);
  near(cost_cpu_time(&r, "layer_fixed_ns", 16, slow, any, &tag), 1100, 0);
  near(cost_cpu_time(&r, "layer_fixed_ns", 7, likely, any, &tag), 1000, 0);
  near(cost_cpu_time(&r, "layer_fixed_ns", 0, likely, any, &tag), 1000, 0);
  assert_int_equal(tag, TAG_MEASURED);
}

static void gpu_texts(void **state) {
  (void)state;
  gpu_spec g;
  assert_int_equal(gpu_spec_parse("none", &g), HF_OK);
  assert_int_equal(g.kind, GPU_NONE);
  assert_int_equal(gpu_spec_parse("virtual:1.5M", &g), HF_OK);
  assert_true(g.kind == GPU_VIRTUAL && g.size_bytes == 3 << 19);
  assert_int_equal(gpu_spec_parse("paced:some-machine:8M", &g), HF_OK);
  assert_true(g.kind == GPU_PACED && g.size_bytes == 8 << 20 && strcmp(g.machine, "some-machine") == 0);
  assert_int_equal(gpu_spec_parse("paced:some-machine", &g), HF_OK);
  assert_true(g.size_bytes == 0 && strcmp(g.machine, "some-machine") == 0);
  assert_int_equal(gpu_spec_parse("cuda:1:20G", &g), HF_OK);
  assert_true(g.kind == GPU_CUDA && g.size_bytes == 20LL << 30 && strcmp(g.device, "gpu1") == 0);
  const char *const bad[] = {
      "", "virtual", "virtual:", "virtual:0", "virtual:x", "paced:", "cuda:", "cuda:-1", "cuda:1x", "cuda:99", "rtx4090"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_int_equal(gpu_spec_parse(bad[i], &g), HF_INPUT);
}

/* ---- whole tables ---- */

static void add_rates(cost_rows *r) {
  figure(r, "cpu", "dram_read_bytes_per_s", "", 8e9, 10e9, 12e9, TAG_SPEC);
  figure(r, "cpu", "cpu_flops_bf16", "", 8e11, 1e12, 1.2e12, TAG_SPEC);
  figure(r, "cpu", "cpu_flops_f32", "", 4e11, 5e11, 6e11, TAG_SPEC);
  figure(r, "cpu", "layer_fixed_ns", "", 900, 1000, 1100, TAG_MEASURED);
  figure(r, "cpu", "handover_ns", "", 1900, 2000, 2100, TAG_MEASURED);
  figure(r, "", "step_fixed_ns", "", 4900, 5000, 5100, TAG_MEASURED);
  figure(r, "gpu0", "gpu_mem_bytes_per_s", "", 80e9, 100e9, 120e9, TAG_SPEC);
  figure(r, "gpu0", "gpu_flops_bf16", "", 8e12, 1e13, 1.2e13, TAG_SPEC);
  figure(r, "gpu0", "launch_ns", "", 300, 400, 500, TAG_SPEC);
  figure(r, "gpu0", "pcie_h2d_bytes_per_s", "", 4e9, 5e9, 6e9, TAG_SPEC);
  figure(r, "gpu0", "pcie_d2h_bytes_per_s", "", 4e9, 5e9, 6e9, TAG_SPEC);
}

static stage_table *table_of(const cost_input *in, cost_case c) {
  stage_table *t = NULL;
  if (cost_table(in, c, &t) != HF_OK) fail_msg("%s", hf_error_line());
  return t;
}

/* Tiny model on the hand-made machine: the layer's parts by hand. */
static void table_by_hand(void **state) {
  (void)state;
  cost_rows r = machine();
  add_rates(&r);
  model *m = open_model("examples/tiny-moe");
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  assert_int_equal(gpu_set_parse("cuda:0", &in.gpus), HF_OK);
  stage_table *t = table_of(&in, likely);
  assert_int_equal(t->n_layers, 6);
  assert_false(t->one_resource);
  assert_string_equal(t->tag, "spec");
  near(t->step_fixed_ns, 5000, 0);
  assert_false(t->layer[0].moe);
  double expert = 3 * 64 * 128 * 2; /* BF16 bytes */
  near(stage_curve_at(&t->layer[1].cexp, 1), 1e9 * expert / 10e9, 1e-9);
  near(stage_curve_at(&t->layer[1].cexp, 400), 1e9 * 400 * expert / 1e12, 1e-9); /* 2 FLOP per weight of 2 bytes */
  near(stage_curve_at(&t->layer[1].dexp, 1), 1e9 * expert / 100e9, 1e-9);
  near(t->layer[1].cexp_fixed_ns, 1000, 0);
  near(t->layer[1].hand_ns, 2000, 0);
  near(t->layer[1].hand_tok_ns, 1e9 * (2 * 4 * 128 + 8 * 4) / 5e9, 1e-12);
  near(t->layer[1].upload_ns, 1e9 * expert / 5e9, 1e-12);
  /* KV 160 bytes a token at 100 GB/s: 1.6 ns; the arithmetic of 4 absorbed heads at 10 TFLOP/s is less: the rest is per sequence */
  near(t->layer[1].attn_ctx_ns + t->layer[1].attn_seq_ctx_ns, fmax(1.6, t->layer[1].attn_ctx_ns), 1e-9);
  model_layer_parts p;
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 1, &p), HF_OK);
  near(stage_curve_at(&t->layer[1].attn, 1), 400 + 1e9 * (double)(p.attn.bytes + p.norms.bytes + p.router.bytes) / 100e9, 1e-9);

  stage_table *s = table_of(&in, slow), *f = table_of(&in, fast);
  for (int l = 0; l < 6; l++) {
    assert_true(stage_curve_at(&s->layer[l].attn, 5) > stage_curve_at(&t->layer[l].attn, 5));
    assert_true(stage_curve_at(&f->layer[l].attn, 5) < stage_curve_at(&t->layer[l].attn, 5));
  }
  near(stage_curve_at(&s->layer[1].cexp, 1), 1e9 * expert / 8e9, 1e-9);
  near(s->layer[1].hand_ns, 2100, 0);

  assert_int_equal(gpu_set_parse("none", &in.gpus), HF_OK);
  stage_table *none = table_of(&in, likely);
  assert_true(none->one_resource && none->layer[1].hand_ns == 0);
  near(stage_curve_at(&none->layer[1].dexp, 1), 0, 0);
  assert_true(stage_curve_at(&none->layer[1].attn, 1) > stage_curve_at(&t->layer[1].attn, 1));

  assert_int_equal(gpu_set_parse("virtual:8M", &in.gpus), HF_OK);
  stage_table *v = table_of(&in, likely);
  assert_false(v->one_resource);
  /* one thread of 16 draws at least its share, at most what a thread can: here the whole 10 GB/s; the other 15 likewise */
  near(stage_curve_at(&v->layer[1].dexp, 1), 1e9 * expert / 10e9, 1e-9);
  assert_int_equal(cost_pool_threads(&in), 15);

  assert_int_equal(gpu_set_parse("cuda:1", &in.gpus), HF_OK);
  stage_table *no = NULL;
  assert_int_equal(cost_table(&in, likely, &no), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "gpu1"));
  stage_table_free(t);
  stage_table_free(s);
  stage_table_free(f);
  stage_table_free(none);
  stage_table_free(v);
  model_close(m);
}

/* Routed experts by the curve of the experts, everything else by that of products: the code that runs. */
static void parts_use_the_kernel_that_runs(void **state) {
  (void)state;
  cost_rows r = machine();
  add_rates(&r);
  for (int threads = 15; threads <= 16; threads++)
    for (int tokens = 1; tokens <= 64; tokens *= 8) {
      point(&r, "expert_ffn", "bf16", 64, 128, tokens, threads, 7000 * tokens);
      point(&r, "matmul", "bf16", 128, 128, tokens, threads, 300 * tokens);
    }
  model *m = open_model("examples/tiny-moe");
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  assert_int_equal(gpu_set_parse("none", &in.gpus), HF_OK);
  stage_table *t = table_of(&in, likely);
  model_layer_parts p;
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 1, &p), HF_OK);
  double product = 128 * 128 * 2; /* bytes */
  near(stage_curve_at(&t->layer[1].cexp, 8), 56000, 1e-12);
  near(stage_curve_at(&t->layer[1].shared, 8), 2400 * (double)p.shared.bytes / product, 1e-9);
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 0, &p), HF_OK);
  near(stage_curve_at(&t->layer[0].shared, 8), 2400 * (double)p.dense_ffn.bytes / product, 1e-9);
  stage_table_free(t);
  model_close(m);
}

static double read_ns(double bytes) {
  return 1e9 * bytes / 10e9;
}

/* All workers walk a step together: operations and barriers instead of launches, and no wake-up within the step. */
static void host_device_by_hand(void **state) {
  (void)state;
  cost_rows r = machine();
  add_rates(&r);
  figure(&r, "cpu", "barrier_ns", "threads=16", 9, 10, 11, TAG_MEASURED);
  figure(&r, "cpu", "pool_wake_ns", "threads=16", 30, 40, 50, TAG_MEASURED);
  figure(&r, "cpu", "thread_layer_fixed_ns", "", 90, 100, 110, TAG_MEASURED);
  model *m = open_model("examples/tiny-moe");
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  assert_int_equal(gpu_set_parse("none", &in.gpus), HF_OK);
  stage_table *t = table_of(&in, likely);
  model_layer_parts dense, moe;
  model_head_parts head;
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 0, &dense), HF_OK);
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 1, &moe), HF_OK);
  assert_int_equal(model_head_parts_of(m, FMT_DEFAULT, &head), HF_OK);
  double dense_attn = (double)(dense.attn.bytes + dense.norms.bytes), moe_attn = (double)(moe.attn.bytes + moe.norms.bytes);
  /* MLA with a low-rank query: 10 barriers, the router's 2 more; 4 of a feed-forward part; 3 of the head */
  near(stage_curve_at(&t->layer[0].attn, 1), 100 + 10 * 10 + read_ns(dense_attn), 1e-9);
  near(stage_curve_at(&t->layer[1].attn, 1), 100 + 12 * 10 + read_ns(moe_attn + (double)moe.router.bytes), 1e-9);
  near(stage_curve_at(&t->layer[0].shared, 1), 4 * 10 + read_ns((double)dense.dense_ffn.bytes), 1e-9);
  near(stage_curve_at(&t->layer[1].shared, 1), 4 * 10 + read_ns((double)moe.shared.bytes), 1e-9);
  near(stage_curve_at(&t->head, 1), 3 * 10 + read_ns((double)head.output.bytes), 1e-9);
  near(t->layer[1].cexp_fixed_ns, 1000 - 40, 1e-12);
  stage_table_free(t);

  in.threads = 1; /* nobody to wait for */
  t = table_of(&in, likely);
  near(stage_curve_at(&t->layer[1].attn, 1), 100 + read_ns(moe_attn + (double)moe.router.bytes), 1e-9);
  near(stage_curve_at(&t->layer[1].shared, 1), read_ns((double)moe.shared.bytes), 1e-9);
  stage_table_free(t);

  r.n_figure -= 3; /* nothing but layer_fixed_ns: attention is assumed to cost as much, and the table says so */
  in.threads = 0;
  t = table_of(&in, likely);
  near(stage_curve_at(&t->layer[1].attn, 1), 1000 + read_ns(moe_attn + (double)moe.router.bytes), 1e-9);
  assert_string_equal(t->tag, "assumed");
  stage_table_free(t);
  model_close(m);
}

static void correlated_batches_touch_fewer(void **state) {
  (void)state;
  cost_rows r = machine();
  add_rates(&r);
  figure(&r, "", "distinct_factor", "", 0.8, 0.9, 1.0, TAG_ASSUMED);
  model *m = open_model("examples/tiny-moe");
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  assert_int_equal(gpu_set_parse("cuda:0", &in.gpus), HF_OK);
  stage_table *alone = table_of(&in, likely);
  in.correlated = true;
  stage_table *batch = table_of(&in, likely), *slower = table_of(&in, (cost_case){-1, COST_ROUTING});
  near(stage_curve_at(&batch->layer[2].cexp, 3), 0.9 * stage_curve_at(&alone->layer[2].cexp, 3), 1e-12);
  near(stage_curve_at(&slower->layer[2].cexp, 3), stage_curve_at(&alone->layer[2].cexp, 3), 1e-12);
  /* so many tokens that arithmetic decides: as much of it as before, in fewer experts */
  near(stage_curve_at(&batch->layer[2].cexp, 1e5), stage_curve_at(&alone->layer[2].cexp, 1e5), 1e-3);
  near(stage_curve_at(&batch->layer[2].attn, 3), stage_curve_at(&alone->layer[2].attn, 3), 0);
  assert_string_equal(batch->tag, "assumed");
  stage_table_free(alone);
  stage_table_free(batch);
  stage_table_free(slower);
  model_close(m);
}

/* ---- popularity ---- */

static double sum_of(const popularity *p, int l) {
  double s = 0;
  for (int e = 0; e < p->n_experts; e++) s += p->p[(size_t)l * (size_t)p->n_experts + (size_t)e];
  return s;
}

static void assumed_popularity(void **state) {
  (void)state;
  model *m = open_model("examples/tiny-moe");
  const model_config *c = model_get_config(m);
  popularity *p = NULL;
  assert_int_equal(popularity_uniform(c, &p), HF_OK);
  near(sum_of(p, 1), 4, 1e-12);
  near(sum_of(p, 0), 0, 0); /* dense */
  popularity_free(p);
  for (double s = 0; s <= 4; s += 0.5) {
    assert_int_equal(popularity_zipf(c, s, &p), HF_OK);
    for (int l = 1; l < 6; l++) {
      near(sum_of(p, l), 4, 1e-9);
      for (int e = 0; e < 32; e++) assert_true(p->p[l * 32 + e] > 0 && p->p[l * 32 + e] <= 1);
    }
    popularity_free(p);
  }
  assert_int_equal(popularity_zipf(c, -1, &p), HF_INPUT);
  model_close(m);
}

static void counted_popularity(void **state) {
  (void)state;
  model *m = open_model("examples/tiny-moe");
  const model_config *c = model_get_config(m);
  popularity *p = NULL;
  assert_int_equal(popularity_census(c, "examples/tiny-moe/census.json", "shakespeare", &p), HF_OK);
  assert_string_equal(p->source, "census:shakespeare");
  near(sum_of(p, 3), 4, 1e-9);
  near(p->p[32], (214 + 0.125) / 1561.0, 1e-12); /* first count of layer 1; one pseudo-token */
  popularity_free(p);
  assert_int_equal(popularity_census(c, "examples/tiny-moe/census.json", NULL, &p), HF_OK);
  popularity_free(p);
  assert_int_equal(popularity_census(c, "examples/tiny-moe/census.json", "klingon", &p), HF_INPUT);
  assert_int_equal(popularity_census(c, "examples/tiny-moe/config.json", NULL, &p), HF_INPUT);
  assert_int_equal(popularity_census(c, "no/such/file.json", NULL, &p), HF_NOT_FOUND);

  rec_routing rows[] = {{.layer = 1, .expert = 3, .phase = "decode", .count = 30},
                        {.layer = 1, .expert = 3, .phase = "prefill", .count = 10},
                        {.layer = 1, .expert = 5, .phase = "decode", .count = 10},
                        {.layer = 1, .expert = 6, .phase = "prefill", .count = 50}};
  assert_int_equal(popularity_run(c, rows, 4, 7, &p), HF_OK);
  assert_string_equal(p->source, "run 7");
  assert_true(p->p[32 + 3] == 1); /* more choices than tokens: clipped */
  /* 25 tokens in all, so that in both phases together an expert never chosen has 0.125 / 26, one chosen ten times 10.125 / 26 */
  near(p->p[32 + 5], (10 + 10.125 / 26) / 11, 1e-12); /* 10 tokens decoded, one of the whole run on top */
  near(p->p[32 + 4], 0.125 / 26 / 11, 1e-12);
  near(p->p[32 + 6], 1.0 / 11, 1e-12); /* chosen by prompts alone */
  near(p->prefill[32 + 5], 10.125 / 26 / 16, 1e-12);
  near(p->prefill[32 + 3], 11.0 / 16, 1e-12);
  near(p->p[2 * 32], 0.125, 1e-12); /* nothing counted: even */
  popularity *copy = NULL;
  assert_int_equal(popularity_copy(p, &copy), HF_OK);
  assert_memory_equal(copy->p, p->p, 6 * 32 * sizeof(double));
  assert_memory_equal(copy->prefill, p->prefill, 6 * 32 * sizeof(double));
  assert_int_equal(popularity_zipf_fit(c, copy), HF_OK); /* both kinds, each by its own law; then they add up to top_k again */
  double fitted = 0, counted = 0;
  for (int e = 0; e < 32; e++) {
    fitted += copy->prefill[32 + e];
    counted += p->prefill[32 + e];
  }
  near(fitted, 4, 1e-9);
  assert_true(counted < 3);
  popularity_free(copy);
  popularity_free(p);
  assert_int_equal(popularity_run(c, rows, 1, 7, &p), HF_OK); /* no prompt was counted: as the whole run */
  near(p->prefill[32 + 4], 0.125 / 8.5, 1e-12);
  near(p->p[32 + 4], 0.125 / 8.5 / 8.5, 1e-12);
  popularity_free(p);
  rows[0].layer = 0; /* dense */
  assert_int_equal(popularity_run(c, rows, 3, 7, &p), HF_INPUT);
  assert_int_equal(popularity_run(c, rows, 0, 7, &p), HF_INPUT);
  model_close(m);
}

/* p ~ rank^-s gives s back, whatever order the experts are in; a real census gives a law that touches as many experts, more or less. */
static void fitted_popularity(void **state) {
  (void)state;
  double p[64];
  for (double s = 0; s < 3; s += 0.37) {
    for (int i = 0; i < 64; i++) p[(i * 29) % 64] = 5 * pow(i + 1, -s);
    near(popularity_fit_exponent(p, 64), s, 1e-6 + (s == 0 ? 1 : 0));
    assert_true(fabs(popularity_fit_exponent(p, 64) - s) < 1e-6);
  }
  model *m = open_model("examples/tiny-moe");
  const model_config *c = model_get_config(m);
  popularity *counted = NULL, *fitted = NULL;
  assert_int_equal(popularity_census(c, "examples/tiny-moe/census.json", NULL, &counted), HF_OK);
  assert_int_equal(popularity_census(c, "examples/tiny-moe/census.json", NULL, &fitted), HF_OK);
  assert_int_equal(popularity_zipf_fit(c, fitted), HF_OK);
  assert_true(strncmp(fitted->source, "zipf ", 5) == 0 && strstr(fitted->source, "fit to census") != NULL);
  for (int l = 1; l < 6; l++) {
    near(sum_of(fitted, l), 4, 1e-9);
    double a = cost_distinct_experts(counted->p + l * 32, 32, 16), b = cost_distinct_experts(fitted->p + l * 32, 32, 16);
    near(a, b, 0.1);
    int top[2] = {0, 0};
    for (int e = 1; e < 32; e++) {
      if (counted->p[l * 32 + e] > counted->p[l * 32 + top[0]]) top[0] = e;
      if (fitted->p[l * 32 + e] > fitted->p[l * 32 + top[1]]) top[1] = e;
    }
    assert_int_equal(top[0], top[1]);
  }
  popularity_free(counted);
  popularity_free(fitted);
  model_close(m);
}

static void census_refused(const char *text, const char *says) {
  const char *path = "/tmp/hf-census-test.json";
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
  model *m = open_model("examples/tiny-moe");
  popularity *p = NULL;
  assert_int_equal(popularity_census(model_get_config(m), path, NULL, &p), HF_INPUT);
  assert_null(p);
  if (strstr(hf_error_line(), says) == NULL) fail_msg("'%s' was expected in: %s", says, hf_error_line());
  model_close(m);
  unlink(path);
}

static void hostile_censuses(void **state) {
  (void)state;
  census_refused("[]", "kinds of text");
  census_refused("{\"a\": 3}", "field counts");
  census_refused("{\"a\": {\"counts\": []}}", "field counts");
  census_refused("{\"a\": {\"counts\": {\"1\": [1, 2]}}}", "counts.1");
  char row[512] = "", text[4096];
  for (int e = 0; e < 32; e++) snprintf(row + strlen(row), sizeof row - strlen(row), "%s4", e ? "," : "");
  /* 128 choices of 4 a token are 32 tokens */
  snprintf(text, sizeof text, "{\"a\": {\"tokens\": 31, \"counts\": {\"1\": [%s]}}}", row);
  census_refused(text, "counts.1: 128 choices");
  snprintf(text, sizeof text, "{\"a\": {\"tokens\": 32, \"counts\": {\"1\": [%s]}}}", row);
  census_refused(text, "counts.2");
  snprintf(text, sizeof text, "{\"a\": {\"tokens\": -1, \"counts\": {\"1\": [%s]}}}", row);
  census_refused(text, "field tokens");
  snprintf(text, sizeof text, "{\"a\": {\"counts\": {\"1\": [-%s]}}}", row);
  census_refused(text, "counts.1[0]");
  snprintf(text, sizeof text, "{\"a\": {\"counts\": {\"1\": [1e300%s]}}}", row + 1);
  census_refused(text, "counts.1[0]");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(lookups_say_how_sure_they_are),
      cmocka_unit_test(roofline),
      cmocka_unit_test(distinct_experts),
      cmocka_unit_test(kv_and_handover),
      cmocka_unit_test(passes_of_products),
      cmocka_unit_test(measured_curves),
      cmocka_unit_test(measured_attention),
      cmocka_unit_test(attention_by_kv_type),
      cmocka_unit_test(fixed_costs_by_threads),
      cmocka_unit_test(gpu_texts),
      cmocka_unit_test(table_by_hand),
      cmocka_unit_test(parts_use_the_kernel_that_runs),
      cmocka_unit_test(host_device_by_hand),
      cmocka_unit_test(correlated_batches_touch_fewer),
      cmocka_unit_test(assumed_popularity),
      cmocka_unit_test(counted_popularity),
      cmocka_unit_test(fitted_popularity),
      cmocka_unit_test(hostile_censuses),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
