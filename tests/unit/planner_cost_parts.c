/* Sources of a step's time that depend on how a machine is built: nodes, several threads at once, context, prompts. By hand. */
#include "planner/cost/cost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "db/catalog.h"
#include "planner/cost/remote.h"

static void near(double a, double b, double rel) {
  if (!(fabs(a - b) <= rel * fmax(1e-300, fmax(fabs(a), fabs(b))))) fail_msg("%.17g differs from %.17g", a, b);
}

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static rec_figure figures[40];
static rec_kernel_point kernels[64];
static rec_device devices[4];

static void figure(cost_rows *r, const char *device, const char *what, const char *params, double likely) {
  rec_figure *f = &figures[r->n_figure];
  *f = (rec_figure){.id = ++r->n_figure, .low = 0.5 * likely, .likely = likely, .high = 1.5 * likely, .tag = TAG_MEASURED};
  snprintf(f->device, sizeof f->device, "%s", device);
  snprintf(f->what, sizeof f->what, "%s", what);
  snprintf(f->params, sizeof f->params, "%s", params);
}

static void point(cost_rows *r, const char *format, int n_out, int tokens, int threads, double ns) {
  rec_kernel_point *k = &kernels[r->n_kernel++];
  *k = (rec_kernel_point){
      .n_out = n_out, .n_in = 128, .tokens = tokens, .threads = threads, .ns = ns, .ns_low = ns, .ns_high = ns};
  snprintf(k->device, sizeof k->device, "cpu");
  snprintf(k->kernel, sizeof k->kernel, "expert_ffn");
  snprintf(k->format, sizeof k->format, "%s", format);
}

static cost_rows machine(int cores) {
  cost_rows r = {.device = devices, .figure = figures, .kernel = kernels, .n_device = 1};
  memset(devices, 0, sizeof devices);
  devices[0] = (rec_device){.device = "cpu0", .kind = "cpu", .cores = cores, .mem_bytes = 1000};
  return r;
}

static const cost_case likely = {0};

static void numa_split(void **state) {
  (void)state;
  cost_numa s;
  const double even[2] = {100e9, 100e9}, uneven[2] = {150e9, 50e9};
  int b[3];
  cost_numa_split(even, 2, 2048, 256, 1, 1, 2048, 0, &s); /* 8 blocks: 4 and 4 */
  split_layer(&s.rule, 1, NULL, b);
  assert_true(b[1] == 1024 && b[2] == 2048 && s.used == 2);
  near(s.ns, 1e9 * 1024 / 100e9, 1e-12);
  near(s.ns, s.ideal_ns, 1e-12);
  cost_numa_split(even, 2, 768, 256, 1, 1, 768, 0, &s); /* 3 blocks cannot be halved: 2 and 1 */
  split_layer(&s.rule, 1, NULL, b);
  assert_true(b[1] == 512 && b[2] == 768);
  near(s.ns, 1e9 * 512 / 100e9, 1e-12);
  near(s.ns / s.ideal_ns, 4.0 / 3, 1e-12);
  cost_numa_split(even, 2, 768, 256, 128, 128, 768, 0, &s); /* but those of a layer can */
  near(s.ns, s.ideal_ns, 1e-12);
  cost_numa_split(uneven, 2, 2048, 256, 1, 1, 2048, 0, &s); /* 6 and 2 blocks */
  split_layer(&s.rule, 1, NULL, b);
  assert_true(b[1] == 1536);
  near(s.ns, s.ideal_ns, 1e-12);
  cost_numa_split(even, 2, 2048, 256, 8, 1, 2048, 1e6, &s); /* a split that costs more than it saves is not made */
  assert_true(s.used == 1 && s.rule.rate[0] + s.rule.rate[1] == 100e9);
  near(s.ns, 1e9 * 2048 / 100e9, 1e-12);
  cost_numa_split(even, 2, 2048, 256, 8, 1, 2048, 3, &s);
  near(s.ns, 10.24 + 3, 1e-12);
  cost_numa_split(even, 2, 256, 256, 8, 1, 256, 0, &s); /* whole experts: one alone gains nothing */
  near(s.ns / s.ideal_ns, 2, 1e-12);
  cost_numa_split(even, 2, 256, 256, 128, 64, 256, 0, &s);
  assert_true(s.used == 2 && s.ns < 1.15 * s.ideal_ns);
}

/* Whatever does not divide: many experts at a time come near what the rates allow, never below. */
static void many_experts_share_evenly(void **state) {
  (void)state;
  const double rate[3] = {70e9, 100e9, 45e9};
  for (int blocks = 1; blocks <= 12; blocks++) {
    cost_numa s;
    cost_numa_split(rate, 3, 32 * blocks, 32, 64, 64, 1000.0 * blocks, 0, &s);
    assert_int_equal(s.used, 3);
    assert_true(s.ns >= s.ideal_ns * (1 - 1e-12) && s.ns <= s.ideal_ns * (1 + 3.0 / (64 * blocks * 0.2)));
  }
}

static void remote_reads(void **state) {
  (void)state;
  cost_rows r = machine(8);
  db_tag tag = TAG_MEASURED;
  near(cost_numa_remote_rate(&r, 100e9, 0, likely, &tag), 100e9, 0);
  assert_int_equal(tag, TAG_MEASURED);
  near(cost_numa_remote_rate(&r, 100e9, 0.5, likely, &tag), 100e9 / (0.5 + 0.5 / 0.5), 1e-12);
  assert_int_equal(tag, TAG_ASSUMED);
  figure(&r, "cpu", "dram_remote_fraction", "", 0.25);
  tag = TAG_MEASURED;
  near(cost_numa_remote_rate(&r, 100e9, 1, likely, &tag), 25e9, 1e-12);
  assert_int_equal(tag, TAG_MEASURED);
}

/* A measured machine of two nodes without kernel curves: 64 of width in blocks of 1 is even; unequal nodes and reads across cost. */
/* hf-profile --ranks: latency of the smallest message, slope up to 1 MiB; the last row of a size counts, other ways do not. */
static void link_of_ranks(void **state) {
  (void)state;
  rec_link_point l[] = {
      {.src = "host", .dst = "@there", .bytes = 64, .ns_low = 1, .ns = 1, .ns_high = 1, .n = 9, .tag = TAG_MEASURED},
      {.src = "host", .dst = "@there", .bytes = 64, .ns_low = 8000, .ns = 10000, .ns_high = 12000, .n = 9, .tag = TAG_MEASURED},
      {.src = "host",
       .dst = "@there",
       .bytes = 64 + 1000000,
       .ns_low = 900e3,
       .ns = 1010e3,
       .ns_high = 2008e3,
       .n = 9,
       .tag = TAG_MEASURED},
      {.src = "host", .dst = "@there", .bytes = 4 << 20, .ns_low = 1e9, .ns = 1e9, .ns_high = 1e9, .n = 9, .tag = TAG_MEASURED},
      {.src = "host", .dst = "@other", .bytes = 64, .ns_low = 2, .ns = 2, .ns_high = 2, .n = 9, .tag = TAG_MEASURED},
      {.src = "gpu0", .dst = "@there", .bytes = 64, .ns_low = 3, .ns = 3, .ns_high = 3, .n = 9, .tag = TAG_MEASURED}};
  const cost_rows r = {.machine.name = "here", .link = l, .n_link = 6};
  cost_figure rate, latency;
  ok(cost_link_measured(&r, "there", &rate, &latency));
  assert_true(latency.low == 8000 && latency.likely == 10000 && latency.high == 12000 && latency.tag == TAG_MEASURED);
  near(rate.likely, 1e9, 1e-12); /* 1,000,000 bytes in 1,000 us */
  near(rate.low, 0.5e9, 1e-12);
  near(rate.high, 1e15 / (900e3 - 12000), 1e-12);
  snprintf(l[5].src, sizeof l[5].src,
           "host"); /* 1,000 bytes to one that has waited: 1 us for the bytes, 29 longer than the smallest to one that has not */
  snprintf(l[5].load, sizeof l[5].load, "paused");
  l[5].bytes = 1000, l[5].ns = 40e3;
  ok(cost_link_measured(&r, "there", &rate, &latency));
  near(latency.likely, 39e3, 1e-12);
  near(latency.high - latency.low, 4000, 1e-12);
  near(rate.likely, 1e9, 1e-12);
  l[5].n = 0;
  assert_int_equal(cost_link_measured(&r, "other", &rate, &latency), HF_NOT_FOUND); /* one size has no slope */
  assert_int_equal(cost_link_measured(&r, "nowhere", &rate, &latency), HF_NOT_FOUND);
  for (int i = 0; i < 4; i++) snprintf(l[i].dst, sizeof l[i].dst, "@a-machine-with-a-long-name");
  ok(cost_link_measured(&r, "a-machine-with-a-long-name", &rate, &latency));
  assert_int_equal(cost_link_measured(&r, "a-machine-with-another-name", &rate, &latency), HF_NOT_FOUND);
  for (int i = 0; i < 4; i++) snprintf(l[i].dst, sizeof l[i].dst, "@there");
  l[1].ns = l[1].ns_high = 1010e3 + 2; /* the small one beside other programs: no more than a longer one is sure */
  ok(cost_link_measured(&r, "there", &rate, &latency));
  near(latency.likely, 1010e3, 1e-12);
  near(rate.likely, 1e9 * ((4 << 20) - 64) / (1e9 - 1010e3), 1e-12); /* so only the longest tells a rate */
  l[1].ns = l[2].ns = l[3].ns = 7;                                   /* nor does this */
  assert_int_equal(cost_link_measured(&r, "there", &rate, &latency), HF_INPUT);
}

static rec_link_point message(int64_t measurement, const char *load, int64_t bytes, double ns) {
  rec_link_point p = {.src = "host",
                      .dst = "@there",
                      .bytes = bytes,
                      .ns_low = ns,
                      .ns = ns,
                      .ns_high = ns,
                      .n = 9,
                      .tag = TAG_MEASURED,
                      .measurement = measurement};
  snprintf(p.load, sizeof p.load, "%s", load);
  return p;
}

/* A fast link to 1 MiB, then one so slow that it was measured to 256 bytes only, then one size, which tells nothing: the second counts, alone. */
static void newest_measurement_of_a_link(void **state) {
  (void)state;
  rec_link_point l[] = {message(20, "", 64, 1e6),        message(10, "", 64, 100),         message(20, "", 256, 2.92e6),
                        message(10, "", 1 << 20, 9e5),   message(10, "paused", 4096, 5e4), message(30, "", 1 << 20, 7),
                        message(30, "paused", 4096, 9e9)};
  cost_rows r = {.machine.name = "here", .link = l, .n_link = 7};
  cost_figure rate, latency;
  ok(cost_link_measured(&r, "there", &rate, &latency));
  near(latency.likely, 1e6, 1e-12);
  near(rate.likely, 1e5, 1e-12);
  r.n_link = 5;
  ok(cost_link_measured(&r, "there", &rate, &latency));
  near(rate.likely, 1e5, 1e-12);
}

/* Rows of a step go to a rank that has waited: of several such sizes their own latency and rate, longer messages than a step's do not count. */
static void rows_to_one_that_waited(void **state) {
  (void)state;
  rec_link_point l[] = {message(1, "", 64, 5e3), message(1, "", 64 + 1000000, 255e3), message(1, "paused", 4096, 20e3),
                        message(1, "paused", 4096 + 60000, 80e3), message(1, "paused", 262144, 81e3)};
  const cost_rows r = {.machine.name = "here", .link = l, .n_link = 5};
  cost_figure rate, latency;
  ok(cost_link_measured(&r, "there", &rate, &latency));
  near(rate.likely, 1e9, 1e-12);
  near(latency.likely, 20e3 - 4096, 1e-12);
}

static void nodes_in_the_table(void **state) {
  (void)state;
  cost_rows r = machine(8);
  devices[1] = (rec_device){.device = "cpu1", .kind = "cpu", .cores = 8, .mem_bytes = 1000};
  r.n_device = 2;
  figure(&r, "cpu", "cpu_flops_bf16", "", 1e15);
  figure(&r, "cpu", "dram_read_bytes_per_s", "", 30e9);
  figure(&r, "cpu0", "dram_read_bytes_per_s", "", 20e9);
  figure(&r, "cpu1", "dram_read_bytes_per_s", "", 20e9);
  model *m = NULL;
  ok(model_open("examples/tiny-moe", &m));
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  stage_table *t = NULL;
  double even = 1e9 * 3 * 64 * 128 * 2 / 30e9;
  ok(cost_table(&in, likely, &t));
  near(stage_curve_at(&t->layer[1].cexp, 1), even, 1e-9);
  stage_table_free(t);
  in.remote_part = 0.5; /* each read costs 1 / (0.5 + 0.5 / 0.5) */
  ok(cost_table(&in, likely, &t));
  near(stage_curve_at(&t->layer[1].cexp, 1), 1.5 * even, 1e-4);
  assert_string_equal(t->tag, "assumed");
  stage_table_free(t);
  in.remote_part = 0;
  figure(&r, "cpu", "numa_split_ns", "", 100);
  ok(cost_table(&in, likely, &t));
  near(stage_curve_at(&t->layer[1].cexp, 1), even + 100, 1e-9);
  stage_table_free(t);
  r.machine.kind = MACHINE_CATALOG; /* its pooled rate has the split in it */
  ok(cost_table(&in, likely, &t));
  near(stage_curve_at(&t->layer[1].cexp, 1), even, 1e-9);
  stage_table_free(t);
  model_close(m);
}

static void contention(void **state) {
  (void)state;
  cost_rows r = machine(4);
  cost_input in = {.rows = &r};
  cost_shape s = {.kernel = "expert_ffn", .format = FMT_Q8_0, .bytes = 3 * 64 * 128 * 8.5 / 8};
  db_tag tag = TAG_MEASURED;
  near(cost_contend(&in, &s, &tag), 1, 0); /* nothing beside it */
  ok(gpu_set_parse("cuda:0", &in.gpus));
  near(cost_contend(&in, &s, &tag), 1, 0);
  ok(gpu_set_parse("virtual:8M", &in.gpus));
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=1", 20e9);
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=3", 28e9);
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=4", 30e9);
  near(cost_contend(&in, &s, &tag), 48.0 / 30, 1e-12);
  /* kernels measured on 1, 3 and 4 threads say it better: 1000/400 + 1000/150 to 1000/100 */
  point(&r, "q8_0", 64, 1, 4, 100);
  point(&r, "q8_0", 64, 1, 1, 400);
  near(cost_contend(&in, &s, &tag), 48.0 / 30, 1e-12); /* three threads are missing */
  point(&r, "q8_0", 64, 1, 3, 150);
  near(cost_contend(&in, &s, &tag), 100 / 400.0 + 100 / 150.0 < 1 ? 1 : 100 / 400.0 + 100 / 150.0, 1e-12);
  kernels[1].ns = 200; /* one thread does half of what four do */
  near(cost_contend(&in, &s, &tag), 100 / 200.0 + 100 / 150.0, 1e-12);
  point(&r, "q8_0", 6400, 1, 4, 100); /* another shape, farther away */
  point(&r, "q8_0", 6400, 1, 3, 100);
  point(&r, "q8_0", 6400, 1, 1, 100);
  near(cost_contend(&in, &s, &tag), 100 / 200.0 + 100 / 150.0, 1e-12);
  in.threads = 1; /* one core does both */
  near(cost_contend(&in, &s, &tag), 2, 0);
  assert_int_equal(tag, TAG_MEASURED);
}

/* An upload reads the memory that the CPU's experts are in. */
static void uploads_beside_the_cpu(void **state) {
  (void)state;
  cost_rows r = machine(4);
  cost_input in = {.rows = &r};
  cost_shape s = {.kernel = "expert_ffn", .format = FMT_Q8_0, .bytes = 3 * 64 * 128 * 8.5 / 8};
  db_tag tag = TAG_MEASURED;
  ok(gpu_set_parse("virtual:8M", &in.gpus));
  near(cost_contend_dma(&in, &s, &tag), 1, 0); /* what virtual devices run cannot be uploaded to */
  ok(gpu_set_parse("cuda:0", &in.gpus));
  figure(&r, "cpu", "dram_read_bytes_per_s", "threads=4", 100e9);
  figure(&r, "gpu0", "pcie_h2d_bytes_per_s", "", 25e9);
  near(cost_contend_dma(&in, &s, &tag), 1.25, 1e-12);
  figures[1].likely = 300e9; /* a link faster than the memory: one after the other */
  near(cost_contend_dma(&in, &s, &tag), 2, 0);
  point(&r, "q8_0", 64, 1, 4, 100);
  near(cost_contend_dma(&in, &s, &tag), 2, 0); /* alone only */
  point(&r, "q8_0", 64, 1, 4, 125);
  snprintf(kernels[1].load, sizeof kernels[1].load, "dma"); /* four fifths of the rate are left */
  near(cost_contend_dma(&in, &s, &tag), 1.2, 1e-12);
  /* beside a stand-in that read 20 GB/s: a link of 25 GB/s takes a quarter more, one of 300 all of it */
  figure(&r, "cpu", "dma_load_bytes_per_s", "threads=4", 20e9);
  figures[1].likely = 25e9;
  tag = TAG_MEASURED;
  near(cost_contend_dma(&in, &s, &tag), 1.25, 1e-12);
  assert_int_equal(tag, TAG_SCALED);
  figures[1].likely = 10e9;
  near(cost_contend_dma(&in, &s, &tag), 1.1, 1e-12);
  figures[1].likely = 300e9;
  near(cost_contend_dma(&in, &s, &tag), 2, 0);
}

static void contention_is_symmetric_overlap(void **state) {
  (void)state;
  stage_table *t = NULL;
  ok(stage_table_new(1, &t));
  t->contend = 1.5;
  near(stage_overlap_ns(t, 10, 4), 12, 1e-12);
  near(stage_overlap_ns(t, 4, 10), 12, 1e-12);
  near(stage_overlap_ns(t, 7, 0), 7, 0);
  t->contend = 2; /* as if one after the other */
  near(stage_overlap_ns(t, 10, 4), 14, 1e-12);
  stage_table_free(t);
}

static void unpacking(void **state) {
  (void)state;
  /* 1000 B at 1 GB/s: 1000 ns; unpacking 300 ns; 100 ns a token: the kink is at 7 tokens */
  stage_curve c = cost_unpack_curve(5, 1000, 300, 100, 1e9, 1e9);
  for (double m = 1; m < 2000; m = m * 1.3 + 0.1) near(stage_curve_at(&c, m), 5 + fmax(1000, 300 + 100 * m), 1e-12);
  c = cost_unpack_curve(5, 1000, 1500, 100, 1e9, 1e9);
  for (double m = 1; m < 2000; m = m * 1.3 + 0.1) near(stage_curve_at(&c, m), 5 + 1500 + 100 * m, 1e-12);
  cost_rows r = machine(8);
  cost_unit u = {.rows = &r, .cpu = true, .device = "cpu"}, gpu = {.rows = &r, .device = "gpu0"};
  db_tag tag = TAG_MEASURED;
  near(cost_unpack_ns(&u, 100, 400, likely, &tag), 0, 0);
  figure(&r, "cpu", "cpu_unpack_bytes_per_s", "", 1e9);
  near(cost_unpack_ns(&u, 100, 400, likely, &tag), 100, 1e-12);
  figure(&r, "cpu", "cpu_unpack_weights_per_s", "", 4e9);
  near(cost_unpack_ns(&u, 100, 400, likely, &tag), 50, 1e-12);
  near(cost_unpack_ns(&u, 100, 400, (cost_case){-1, COST_CPU_FLOPS}, &tag), 100, 1e-12);
  near(cost_unpack_ns(&gpu, 100, 400, likely, &tag), 0, 0);
}

static model *catalog_model(const char *name) {
  json *doc = NULL;
  model *m = NULL;
  ok(catalog_get("models", name, &doc));
  ok(model_from_config(json_get(doc, "config"), name, &m));
  json_free(doc);
  return m;
}

/* What the context of one token costs in a layer of a table made for these rates, without the part that does not depend on it. */
static double context_ns(model *m, double flops_per_s, double bytes_per_s, int layer, int64_t context) {
  cost_rows r = machine(8);
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  stage_table *t = NULL;
  stage_load load = {0};
  figure(&r, "cpu", "dram_read_bytes_per_s", "", bytes_per_s);
  figure(&r, "cpu", "cpu_flops_f32", "", flops_per_s);
  ok(cost_table(&in, likely, &t));
  stage_load_add(&load, t, context - 1, 1);
  double ns = stage_attn_ns(t, layer, &load) - stage_curve_at(&t->layer[layer].attn, 1);
  stage_table_free(t);
  return ns;
}

static void attention_by_hand(void **state) {
  (void)state;
  model *m = catalog_model("gpt-oss-120b"); /* 64 heads of 64, 8 KV heads; every second layer sees 128 tokens */
  const model_config *c = model_get_config(m);
  int slides = c->layer_slides[0] ? 0 : 1, full = 1 - slides;
  assert_true(c->layer_slides[slides] && !c->layer_slides[full]);
  /* reading decides: keys and values of 8 heads of 64, two bytes each, at 1 GB/s */
  near(context_ns(m, 1e12, 1e9, full, 1000), 2.0 * 8 * 64 * 2 * 1000, 1e-9);
  near(context_ns(m, 1e12, 1e9, slides, 1000), 2.0 * 8 * 64 * 2 * 128, 1e-9);
  near(context_ns(m, 1e12, 1e9, slides, 100), 2.0 * 8 * 64 * 2 * 100, 1e-9);
  /* arithmetic decides: 4 FLOP per head and dimension at 10 GFLOP/s */
  near(context_ns(m, 1e10, 1e12, full, 1000), 0.1 * 4 * 64 * 64 * 1000, 1e-9);
  near(context_ns(m, 1e10, 1e12, slides, 1000), 0.1 * 4 * 64 * 64 * 128, 1e-9);
  model_close(m);
  m = catalog_model("deepseek-r1"); /* 128 heads, latent 512 + 64 */
  near(context_ns(m, 1e15, 1e9, 10, 1000), (512 + 64) * 2 * 1000.0, 1e-9);
  near(context_ns(m, 1e10, 1e12, 10, 1000), 0.1 * 2 * 128 * (2 * 512 + 64) * 1000, 1e-9);
  model_close(m);
}

static void measured_curves_bend(void **state) {
  (void)state;
  stage_curve c = {.n = 2, .tok = {1, 4}, .ns = {100, 100}};
  cost_curve_bend(&c, 50, 1e9); /* 50 ns a token: from 2 tokens on arithmetic was already more than was measured at 4 */
  near(stage_curve_at(&c, 4), 100, 0);
  near(stage_curve_at(&c, 8), 300, 1e-12);
  c = (stage_curve){.n = 2, .tok = {1, 4}, .ns = {100, 103}};
  cost_curve_bend(&c, 10, 1e9); /* 99 + M against 10 M: 11 tokens */
  near(stage_curve_at(&c, 11), 110, 1e-12);
  near(stage_curve_at(&c, 8), 107, 1e-12);
  near(stage_curve_at(&c, 1000), 10000, 1e-12);
  c = (stage_curve){.n = 2, .tok = {1, 4}, .ns = {100, 130}}; /* slope 10 is more than arithmetic's 5 */
  stage_curve before = c;
  cost_curve_bend(&c, 5, 1e9);
  assert_memory_equal(&c, &before, sizeof c);
  cost_curve_bend(&c, 5, INFINITY);
  assert_memory_equal(&c, &before, sizeof c);
}

static void curves_take_lines(void **state) {
  (void)state;
  stage_curve c = {.n = 1, .tok = {1}, .ns = {7}};
  cost_curve_add(&c, 3, 2);
  near(stage_curve_at(&c, 1), 12, 0);
  near(stage_curve_at(&c, 100), 10 + 200, 1e-12);
  c = (stage_curve){.n = 2, .tok = {1, 8}, .ns = {10, 24}};
  cost_curve_add(&c, 1, 3);
  near(stage_curve_at(&c, 20), 1 + 60 + 48, 1e-12);
}

static void row_work(void **state) {
  (void)state;
  cost_rows r = machine(4);
  cost_unit u = {.rows = &r, .cpu = true, .device = "cpu", .threads = 1};
  model *m = NULL;
  model_layer_parts p;
  db_tag tag = TAG_MEASURED;
  ok(model_open("examples/tiny-moe", &m));
  const model_config *c = model_get_config(m);
  ok(model_layer_parts_of(m, FMT_DEFAULT, 1, &p));
  near(cost_row_work_ns(&u, c, &p.norms, FMT_Q8_0, true, &tag), 0, 0);
  for (int i = 0; i < 2; i++) {
    point(&r, "f32", i == 0 ? 2048 : 128, 1, 1, i == 0 ? 400 : 32);
    snprintf(kernels[i].kernel, sizeof kernels[i].kernel, "rmsnorm");
    kernels[i].n_in = kernels[i].n_out;
  }
  /* d_model 128: a quarter of a ns a value; norms, then what is packed, rotated, written to the cache, copied and added */
  double norms = 2.0 * 128 + c->q_lora_rank + c->kv_lora_rank, heads = c->n_heads;
  double values = norms + 3 * 128 + heads * (c->nope_dim + c->rope_dim + c->v_dim + c->kv_lora_rank) + c->kv_lora_rank +
                  c->rope_dim + c->q_lora_rank;
  near(cost_row_work_ns(&u, c, &p.norms, FMT_Q8_0, true, &tag), 0.25 * (values + 3 * 128), 1e-12);
  near(cost_row_work_ns(&u, c, &p.norms, FMT_Q8_0, false, &tag), 0.25 * values, 1e-12);
  assert_int_equal(tag, TAG_MEASURED);
  point(&r, "f32", 64, 1, 1, 800); /* a choice among 64 experts: 12.5 ns each */
  snprintf(kernels[2].kernel, sizeof kernels[2].kernel, "route");
  kernels[2].n_in = 8;
  near(cost_row_work_ns(&u, c, &p.norms, FMT_Q8_0, true, &tag), 0.25 * (values + 3 * 128) + 12.5 * c->n_experts, 1e-9);
  near(cost_row_work_ns(&u, c, &p.norms, FMT_Q8_0, false, &tag), 0.25 * values, 1e-12);
  near(cost_ffn_row_work_ns(&u, c, 96, FMT_Q8_0, &tag), 0.25 * (128 + 3 * 96), 1e-12);
  near(cost_ffn_row_work_ns(&u, c, 0, FMT_Q8_0, &tag), 0, 0);
  for (int i = 0; i < 2; i++) { /* packing: 2 ns a value, other activations 1 */
    point(&r, "f32", 128, 1, 1, i == 0 ? 128 : 256);
    snprintf(kernels[3 + i].kernel, sizeof kernels[3 + i].kernel, "pack");
    snprintf(kernels[3 + i].act, sizeof kernels[3 + i].act, i == 0 ? "bf16" : "q8b32");
    kernels[3 + i].n_in = 128;
  }
  const double packed = 128 + heads * c->v_dim;
  near(cost_row_work_ns(&u, c, &p.norms, FMT_Q8_0, false, &tag), 0.25 * (values - packed) + 2 * packed, 1e-12);
  near(cost_row_work_ns(&u, c, &p.norms, FMT_BF16, false, &tag), 0.25 * (values - packed) + packed, 1e-12);
  near(cost_ffn_row_work_ns(&u, c, 96, FMT_Q8_0, &tag), 2 * (128 + 96) + 0.25 * 2 * 96, 1e-12);
  model_close(m);
}

static void prompt_row(cost_rows *r, int at, const char *kernel, const model_config *c, int tokens, int context, double ns) {
  point(r, "f16", c->kv_lora_rank, tokens, 1, ns);
  snprintf(kernels[at].kernel, sizeof kernels[at].kernel, "%s", kernel);
  snprintf(kernels[at].act, sizeof kernels[at].act, "h%d", 2 * c->n_heads);
  kernels[at].n_in = c->rope_dim;
  kernels[at].context = context;
}

/* Points made of known costs give these back: 3 ns a pair and 50 a query; the plain form 2 and 0.5 ns a unit of its works and, where a point lies
 * behind others, 7 of what is turned. Points have twice the model's heads. */
static void prompts(void **state) {
  (void)state;
  cost_rows r = machine(4);
  cost_unit u = {.rows = &r, .cpu = true, .device = "cpu", .threads = 1};
  model *m = NULL;
  stage_prompt p;
  db_tag tag = TAG_MEASURED;
  ok(model_open("examples/tiny-moe", &m));
  const model_config *c = model_get_config(m);
  cost_prompt_attention(&u, c, FMT_F16, 6, 30, &p, &tag); /* nothing measured: as decode, absorbed */
  near(p.pair, 1, 0);
  near(p.query, 0, 0);
  assert_int_equal(p.mla.lora, 0);
  const mla_shape shape = {.lora = c->kv_lora_rank, .nope = c->nope_dim, .rope = c->rope_dim, .v = c->v_dim};
  const double near_pairs = 128 * 129 / 2.0, far_pairs = near_pairs + 128 * 896;
  prompt_row(&r, 0, "prompt_mla", c, 128, 128, 2 * (3 * near_pairs + 50 * 128));
  prompt_row(&r, 1, "prompt_mla", c, 128, 1024, 2 * (3 * far_pairs + 50 * 128));
  for (int i = 0; i < 2; i++) {
    const int n = i == 0 ? 128 : 512;
    const mla_work w = mla_plain_work(&shape, 0, n);
    prompt_row(&r, 2 + i, "prompt_plain", c, n, n, 2 * (2 * w.attend + 0.5 * (w.expand + w.turn)));
  }
  cost_prompt_attention(&u, c, FMT_F16, 6, 30, &p, &tag);
  near(p.pair, 0.5, 1e-9);
  near(p.query, 50.0 / 6, 1e-9);
  near(p.plain_attend, 2.0 / 6, 1e-6);
  near(p.plain_expand, 0.5 / 6, 1e-6);
  near(p.plain_turn, 0.5 / 6, 1e-6);
  near(p.plain_query, -5, 1e-12);
  r.n_kernel = 2;
  for (int i = 0; i < 3; i++) {
    const int n = i == 1 ? 512 : 128, start = i == 2 ? 384 : 0;
    const mla_work w = mla_plain_work(&shape, start, n);
    prompt_row(&r, 2 + i, "prompt_plain", c, n, start + n, 2 * (2 * w.attend + 0.5 * w.expand + 7 * w.turn));
  }
  cost_prompt_attention(&u, c, FMT_F16, 6, 30, &p, &tag);
  near(p.plain_attend, 2.0 / 6, 1e-6);
  near(p.plain_expand, 0.5 / 6, 1e-6);
  near(p.plain_turn, 7.0 / 6, 1e-6);
  assert_memory_equal(&p.mla, &shape, sizeof shape);
  assert_int_equal(tag, TAG_MEASURED);
  model_close(m);
}

/* Two experts, both always chosen: CPU 30 ns a token each and 100 fixed; upload 1000 each, device 10 a token. */
static void prefill_crossing(void **state) {
  (void)state;
  stage_table *t = NULL;
  popularity *p = NULL;
  ok(stage_table_new(2, &t));
  ok(popularity_new(2, 2, &p));
  for (int i = 0; i < 4; i++) p->p[i] = 1;
  t->n_experts = t->top_k = 2;
  stage_layer *y = &t->layer[1];
  y->moe = true;
  y->cexp = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {30, 60}};
  y->dexp = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {10, 20}};
  y->cexp_fixed_ns = 100;
  y->upload_ns = 1000;
  /* 2000 <= 100 + 60 M from M = 31.67 */
  assert_int_equal(cost_prefill_crossing(t, p, 1, 4096), 32);
  assert_int_equal(cost_prefill_crossing(t, p, 1, 32), 32);
  assert_int_equal(cost_prefill_crossing(t, p, 1, 31), INT32_MAX);
  y->upload_ns = 0;
  assert_int_equal(cost_prefill_crossing(t, p, 1, 4096), INT32_MAX);
  assert_int_equal(cost_prefill_crossing(t, p, 0, 4096), INT32_MAX);
  y->upload_ns = 1;
  assert_int_equal(cost_prefill_crossing(t, p, 1, 4096), 1);
  y->dexp.ns[0] = 300; /* a device slower than the CPU is never worth the way, however long the prompt */
  y->dexp.ns[1] = 600;
  assert_int_equal(cost_prefill_crossing(t, p, 1, 4096), INT32_MAX);
  stage_table_free(t);
  popularity_free(p);
}

static void rows_made_in_memory(void **state) {
  (void)state;
  rec_machine m = {.id = 0};
  cost_rows *r = NULL;
  cost_rows from = machine(8);
  figure(&from, "cpu", "dram_read_bytes_per_s", "", 20e9);
  ok(cost_rows_from_arrays(&m, devices, 1, figures, 1, NULL, 0, NULL, 0, &r));
  assert_int_equal(cost_cpu_cores(r), 8);
  assert_ptr_not_equal(r->figure, figures);
  cost_figure f;
  assert_true(cost_find(r, "cpu", "dram_read_bytes_per_s", &f));
  near(f.likely, 20e9, 0);
  cost_rows_free(r);
  const double bad[][3] = {{NAN, 1, 2}, {2, 1, 3}, {1, 2, INFINITY}, {-1, 1, 1}, {1, 3, 2}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    figures[0].low = bad[i][0];
    figures[0].likely = bad[i][1];
    figures[0].high = bad[i][2];
    r = NULL;
    assert_int_equal(cost_rows_from_arrays(&m, devices, 1, figures, 1, NULL, 0, NULL, 0, &r), HF_INPUT);
    assert_null(r);
  }
  point(&from, "q8_0", 64, 1, 1, -5);
  assert_int_equal(cost_rows_from_arrays(&m, devices, 1, NULL, 0, kernels, 1, NULL, 0, &r), HF_INPUT);
}

/* A source of 4 cores at 10 GB/s and 100 GFLOP/s; a target of 8 cores at 40 GB/s and 200: what is bound by memory gets 4 times as fast, what is
 * bound by arithmetic twice. */
static void curves_of_another_machine(void **state) {
  (void)state;
  rec_machine ma = {.id = 1}, mb = {.id = 2};
  snprintf(ma.name, sizeof ma.name, "measured");
  snprintf(mb.name, sizeof mb.name, "wanted");
  cost_rows *from = NULL, *to = NULL, *scaled = NULL;
  cost_rows r = machine(4);
  figure(&r, "cpu", "dram_read_bytes_per_s", "", 10e9);
  figure(&r, "cpu", "cpu_flops_int8", "", 100e9);
  /* an expert of 64 x 128: 26,112 B, 49,152 FLOP a token; arithmetic binds from 5.3 tokens on */
  point(&r, "q8_0", 64, 1, 4, 3000);
  point(&r, "q8_0", 64, 64, 4, 40000);
  point(&r, "q8_0", 64, 1, 1, 9000); /* one thread: says nothing about the whole of another machine */
  kernels[0].ns_low = 2700;
  ok(cost_rows_from_arrays(&ma, devices, 1, figures, r.n_figure, kernels, r.n_kernel, NULL, 0, &from));
  r = machine(8);
  figure(&r, "cpu", "dram_read_bytes_per_s", "", 40e9);
  figure(&r, "cpu", "cpu_flops_int8", "", 200e9);
  ok(cost_rows_from_arrays(&mb, devices, 1, figures, r.n_figure, NULL, 0, NULL, 0, &to));
  ok(cost_rows_scaled(to, from, &scaled));
  assert_int_equal(scaled->n_kernel, 2);
  assert_int_equal(scaled->kernel[0].threads, 8);
  assert_int_equal(scaled->kernel[0].tag, TAG_SCALED);
  near(scaled->kernel[0].ns, 3000 / 4.0, 1e-12);
  near(scaled->kernel[1].ns, 40000 / 2.0, 1e-12);
  near(scaled->kernel[0].ns_low, 2700 / 4.0 / 1.5, 1e-12);
  near(scaled->kernel[0].ns_high, 3000 / 4.0 / 0.5, 1e-12);
  cost_unit all = {.rows = scaled, .cpu = true, .device = "cpu"};
  cost_shape s = {.kernel = "expert_ffn", .format = FMT_Q8_0, .n_out = 64, .n_in = 128, .bytes = 26112};
  stage_curve c;
  db_tag tag = TAG_MEASURED;
  assert_true(cost_measured_curve(&all, &s, likely, &c, &tag));
  assert_int_equal(tag, TAG_SCALED);
  near(stage_curve_at(&c, 1), 750, 1e-12);
  cost_rows *again = NULL;
  assert_int_equal(cost_rows_scaled(scaled, from, &again), HF_INPUT); /* has them all */
  assert_int_equal(cost_rows_scaled(from, to, &again), HF_INPUT);     /* has none */
  cost_rows_free(from);
  cost_rows_free(to);
  cost_rows_free(scaled);
}

/* Every entry has a name, a tag, a source and an interval that holds its likely value; what no row has is assumed and says so. */
static void figures_have_an_origin(void **state) {
  (void)state;
  cost_rows r = machine(8);
  figure(&r, "cpu", "dram_read_bytes_per_s", "", 20e9);
  snprintf(figures[0].source, sizeof figures[0].source, "hf-profile: loads");
  snprintf(figures[0].unit, sizeof figures[0].unit, "B/s");
  model *m = NULL;
  ok(model_open("examples/tiny-moe", &m));
  cost_input in = {.m = m, .format = FMT_DEFAULT, .rows = &r, .kv = FMT_F16};
  const char *const devices_of[] = {"none", "virtual:8M"};
  for (int i = 0; i < 2; i++) {
    ok(gpu_set_parse(devices_of[i], &in.gpus));
    json *list = json_new_array();
    ok(cost_provenance(&in, list));
    bool dram = false, assumed = false;
    for (const json *o = json_first(list); o != NULL; o = json_next(o)) {
      double low = json_number(json_get(o, "low"), -1), mid = json_number(json_get(o, "likely"), -1);
      assert_true(low >= 0 && low <= mid && mid <= json_number(json_get(o, "high"), -1));
      const char *name = json_string(json_get(o, "name")), *tag = json_string(json_get(o, "tag"));
      assert_true(strlen(name) > 0 && strlen(json_string(json_get(o, "source"))) > 0);
      if (strcmp(name, "dram_read_bytes_per_s") == 0 && strcmp(json_string(json_get(o, "device")), "cpu") == 0)
        dram =
            mid == 20e9 && strcmp(tag, "measured") == 0 && strcmp(json_string(json_get(o, "source")), "hf-profile: loads") == 0;
      if (strcmp(name, "layer_fixed_ns") == 0) assumed = strcmp(tag, "assumed") == 0;
    }
    assert_true(dram && assumed);
    json_free(list);
  }
  model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(numa_split),
      cmocka_unit_test(many_experts_share_evenly),
      cmocka_unit_test(remote_reads),
      cmocka_unit_test(link_of_ranks),
      cmocka_unit_test(newest_measurement_of_a_link),
      cmocka_unit_test(rows_to_one_that_waited),
      cmocka_unit_test(nodes_in_the_table),
      cmocka_unit_test(contention),
      cmocka_unit_test(uploads_beside_the_cpu),
      cmocka_unit_test(contention_is_symmetric_overlap),
      cmocka_unit_test(unpacking),
      cmocka_unit_test(attention_by_hand),
      cmocka_unit_test(measured_curves_bend),
      cmocka_unit_test(curves_take_lines),
      cmocka_unit_test(row_work),
      cmocka_unit_test(prompts),
      cmocka_unit_test(prefill_crossing),
      cmocka_unit_test(rows_made_in_memory),
      cmocka_unit_test(curves_of_another_machine),
      cmocka_unit_test(figures_have_an_origin),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
