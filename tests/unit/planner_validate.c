/* Published cases: the CSV reader and what it refuses, the rules that resolve rows, engines as figures, predictions, fits, groups and gates. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "planner/ilp/ilp.h"
#include "planner/plan_inputs.h"
#include "planner/validate/compare.h"
#include "planner/validate/scenario.h"

#define HEADER                                                                                                            \
  "id,source,model,params_total,weights_format,gpu,cpu,memory,engine,placement,concurrency,prompt_tokens,context_tokens," \
  "prefill_tok_s,"                                                                                                        \
  "decode_tok_s,notes\n"
static const char CSV[] = "tests/validation/published-cases.csv";

/* ---- the reader ---- */

static void refused(const char *text, const char *line) {
  published_cases c;
  assert_int_equal(published_cases_parse(text, strlen(text), "f.csv", &c), HF_INPUT);
  if (strstr(hf_error_line(), line) == NULL) fail_msg("'%s' does not say '%s'", hf_error_line(), line);
  assert_null(c.row);
}

static void hostile_csv(void **state) {
  (void)state;
  refused("", "line 1, column id");
  refused("id,id\n", "line 1, column id: named twice");
  refused("id,colour\n", "line 1, column colour: unknown");
  refused("id,source\n", "line 1, column model: missing");
  refused(HEADER, "line 2, column id: there is no row");
  refused(HEADER "a,,m,,,,,,,,1,,,,1\n", "line 2, column notes: the record ends after 15 of 16 fields");
  refused(HEADER "a,,m,,,,,,,,1,,,,1,,x\n", "line 2, column after the last");
  refused(HEADER "a,,m,,,,,,,,1,,,,inf,\n", "line 2, column decode_tok_s: 'inf'");
  refused(HEADER "a,,m,,,,,,,,1,,,,-3,\n", "line 2, column decode_tok_s: '-3'");
  refused(HEADER "a,,m,,,,,,,,1,,,,1e3,\n", "line 2, column decode_tok_s: '1e3'");
  refused(HEADER "a,,m,,,,,,,,1,,,,,\n", "line 2, column decode_tok_s: is empty");
  refused(HEADER "a,,m,,,,,,,,1.5,,,,1,\n", "line 2, column concurrency");
  refused(HEADER "a,,m,,,,,,,,1,,9..3,,1,\n", "line 2, column context_tokens");
  refused(HEADER "a,,m,,,,,,,,1,,,,1,\na,,m,,,,,,,,1,,,,1,\n", "line 3, column id: a is also on line 2");
  refused(HEADER ",,m,,,,,,,,1,,,,1,\n", "line 2, column id: is empty");
  refused(HEADER "\"a,,m\n", "line 2, column id: the closing quote is missing");
  refused(HEADER "\"a\"b,,m,,,,,,,,1,,,,1,\n", "line 2, column id: text after the closing quote");
  refused(HEADER "a\"b,,m,,,,,,,,1,,,,1,\n", "line 2, column id: a quote inside");
  refused(HEADER "a,\xff\xfe,m,,,,,,,,1,,,,1,\n", "line 2, column source: is not UTF-8");
  char *wide = malloc(sizeof HEADER + 4000);
  memcpy(wide, HEADER, sizeof HEADER);
  memset(wide + sizeof HEADER - 1, 'x', 3000);
  memcpy(wide + sizeof HEADER - 1 + 3000, "\n", 2);
  refused(wide, "line 2, column id: longer than 2048 bytes");
  free(wide);
}

static void quotes_and_line_ends(void **state) {
  (void)state;
  static const char text[] =
      "\xef\xbb\xbf" HEADER "\r\n\"a \"\"b\"\"\",\"x\ny\",m,,,,,,,\"p, q\",2,10,1024..2048,3.5,7.25,\r\n\r\nz,,m,,,,,,,,,,0,,1,n";
  published_cases c;
  assert_int_equal(published_cases_parse(text, sizeof text - 1, "f.csv", &c), HF_OK);
  assert_int_equal(c.n, 2);
  assert_string_equal(c.row[0].id, "a \"b\"");
  assert_string_equal(c.row[0].source, "x y");
  assert_string_equal(c.row[0].placement, "p, q");
  assert_int_equal(c.row[0].concurrency, 2);
  assert_true(c.row[0].context_from == 1024 && c.row[0].context_to == 2048 && c.row[0].decode_tok_s == 7.25);
  assert_int_equal(c.row[0].line, 3);
  assert_true(c.row[1].has_context && c.row[1].context_to == 0 && c.row[1].concurrency == 0);
  published_cases_free(&c);
}

/* ---- rules ---- */

static resolver names;

static published_case row(const char *name, const char *format, const char *gpu, const char *cpu, const char *memory,
                          const char *program, const char *placement) {
  return (published_case){.id = "t",
                          .source = "",
                          .model = name,
                          .params_total = "",
                          .weights_format = format,
                          .gpu = gpu,
                          .cpu = cpu,
                          .memory = memory,
                          .engine = program,
                          .placement = placement,
                          .notes = "",
                          .concurrency = 1,
                          .prompt_tokens = 700,
                          .prefill_tok_s = 50,
                          .decode_tok_s = 10};
}

static resolved_case resolved(const published_case *c) {
  resolved_case r;
  assert_int_equal(resolve_case(&names, c, &r), HF_OK);
  return r;
}

static void names_in_text(void **state) {
  (void)state;
  assert_string_equal(resolve_name(names.gpus, "RTX 4090D 24GB x1"), "rtx4090d");
  assert_string_equal(resolve_name(names.gpus, "one RTX4090, 24GB"), "rtx4090");
  assert_string_equal(resolve_name(names.gpus, "RTX 3090 Ti 24GB x1"), "rtx3090ti");
  assert_string_equal(resolve_name(names.cpus, "2x Xeon 6980P (128c each)"), "xeon-6980p");
  assert_string_equal(resolve_name(names.models, "Qwen3-235B-A22B (235B)"), "qwen3-235b-a22b");
  assert_null(resolve_name(names.models, "DeepSeek (model not named in that sentence)"));
  assert_null(resolve_name(names.cpus, "(24 threads)"));
}

static void machines_and_engines(void **state) {
  (void)state;
  published_case c = row("DeepSeek-R1", "UD-Q4_K_XL (CPU buffer 343168 MiB)", "RTX 5090 32GB", "2x EPYC 9355 (32c)",
                         "DDR5-6000, 24 modules", "ik_llama.cpp x", "experts of layers 3-4 on GPU, rest CPU; rtr; ub 4096");
  resolved_case r = resolved(&c);
  assert_true(r.used);
  assert_string_equal(r.parts, "cpu=epyc-9355,sockets=2,memory=ddr5-6000,gpu=rtx5090");
  assert_string_equal(r.engine, "ik-llama-cpp");
  assert_int_equal(r.gpu_first, 3);
  assert_int_equal(r.gpu_layers, 2);
  assert_true(fabs(r.expert_bytes - 343168.0 * 1048576 / 56 / 256) < 1);
  assert_true(r.chunk == 4096 && r.context == 700 && r.prefill_start == 0 && !r.can_upload && r.experts_on_cpu);
  assert_true(r.em.fast_simd && r.em.sockets == 2 && r.em.cores_per_socket == 32 && r.em.read_bytes_per_s == 0);

  c.placement = "2 instances, 1 per socket, 20 threads";
  c.memory = "12x DDR5-6400; 598 GB/s read";
  c.notes = "sweep-bench; context_tokens = N_KV depth";
  c.has_context = true;
  c.context_from = c.context_to = 9000;
  r = resolved(&c);
  assert_string_equal(r.parts, "cpu=epyc-9355,sockets=1,gpu=rtx5090"); /* a measured rate goes before modules */
  assert_true(r.em.read_bytes_per_s == 598e9 && r.em.threads == 20);
  assert_string_equal(r.engine, "ik-llama-cpp-no-rtr");
  assert_true(r.prefill_start == 9000 && r.chunk == 700 && r.can_upload);
  c.weights_format = "IQ4_K_R4";
  assert_true(resolved(&c).can_upload);
  assert_string_equal(resolved(&c).engine, "ik-llama-cpp");
  c.weights_format = "Q2_K_R4";
  assert_false(resolved(&c).can_upload);
  c.engine = "ktransformers 0.2";
  c.placement = "2 expert layers offloaded to GPU, no cuda graph";
  assert_string_equal(resolved(&c).engine, "ktransformers-no-graph");
  assert_int_equal(resolved(&c).gpu_layers, 2);
}

/* Numbers that no row of an honest table has: declined, never an error that ends the run, and never more than an int holds. */
static void absurd_numbers_are_declined(void **state) {
  (void)state;
  static const char *const placements[] = {"--n-cpu-moe 99999999999999999999", "experts of layers 1-99999999999 on GPU",
                                           "9999999999999999 expert layers on GPU", "experts of layer 1e30 on GPU"};
  static const char *const memories[] = {"0.0000001 GB/s", "99999999999999999999999999999999999999999 GB/s", "0 GB/s"};
  const published_case good = row("DeepSeek-R1 671B", "Q4_K_M", "RTX 4090", "EPYC 9355", "", "llama.cpp", "");
  assert_true(resolved(&good).used);
  for (size_t i = 0; i < 4; i++) {
    published_case c = good;
    c.placement = placements[i];
    resolved_case r = resolved(&c);
    assert_int_equal(r.used, i == 3); /* digits end at the letter: layer 1 */
    if (i < 3) assert_non_null(strstr(r.why_not, "placement"));
  }
  for (size_t i = 0; i < 3; i++) {
    published_case c = good;
    c.memory = memories[i];
    resolved_case r = resolved(&c);
    assert_false(r.used);
    assert_non_null(strstr(r.why_not, "memory"));
  }
  published_case c = good;
  c.weights_format = "Q4_K_M (CPU buffer 999999999999999999 MiB)";
  assert_false(resolved(&c).used);
  c = good;
  c.cpu = "99999999999x EPYC 9355";
  assert_false(resolved(&c).used);
}

static void declined(void **state) {
  (void)state;
  const published_case good = row("DeepSeek-R1 671B", "Q4_K_M", "none", "EPYC 9355", "", "llama.cpp", "");
  assert_true(resolved(&good).used);
  struct {
    published_case c;
    const char *why;
  } bad[] = {{good, "model"},  {good, "size"},      {good, "cpu"},          {good, "gpu"},         {good, "weights_format"},
             {good, "engine"}, {good, "placement"}, {good, "several GPUs"}, {good, "two sockets"}, {good, "experts per token"}};
  bad[0].c.model = "a model";
  bad[1].c.model = "DeepSeek-R1 70B";
  bad[2].c.cpu = "a CPU";
  bad[3].c.gpu = "a GPU";
  bad[4].c.weights_format = "Q9";
  bad[5].c.engine = "HeteroFlow";
  bad[6].c.placement = "experts of layer 7 on GPU";
  bad[7].c.gpu = "RTX 4090 24GB x2 (PCIe 4.0 x16)";
  bad[8].c.cpu = "4x EPYC 9355";
  bad[9].c.notes = "6 experts; fewer than trained";
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    resolved_case r = resolved(&bad[i].c);
    if (r.used || strstr(r.why_not, bad[i].why) == NULL) fail_msg("%zu: '%s' does not say %s", i, r.why_not, bad[i].why);
  }
  published_case c = good;
  c.memory = "DDR4-2666"; /* that CPU takes DDR5 */
  prepared_case p;
  resolved_case r = resolved(&c);
  assert_int_equal(prepare_case(&r, &p), HF_OK);
  assert_false(p.r.used);
  assert_non_null(strstr(p.r.why_not, "ddr4-2666"));
  prepared_case_free(&p);
}

/* ---- predictions ---- */

static void prepared(const published_case *c, prepared_case *p, engine *e) {
  resolved_case r = resolved(c);
  assert_true(r.used);
  assert_int_equal(prepare_case(&r, p), HF_OK);
  assert_true(p->r.used);
  assert_int_equal(engine_load(p->r.engine, e), HF_OK);
}

/* The same step as for plans: ilp_evaluate of the same table and placement, for an engine whose two sides overlap. */
static void step_is_that_of_plans(void **state) {
  (void)state;
  published_case c =
      row("DeepSeek-V3", "Q4_K_M", "RTX 4090", "2x Xeon 6454S", "DDR5-4800", "ktransformers 0.2", "3 expert layers on GPU");
  prepared_case p;
  engine e;
  predicted_rates rates;
  prepared(&c, &p, &e);
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &rates), HF_OK);
  cost_input in = {.m = p.m, .format = p.r.format, .rows = p.rows, .kv = FMT_F16};
  stage_table *t = NULL;
  assert_int_equal(gpu_set_parse("cuda:0", &in.gpus), HF_OK);
  assert_int_equal(cost_table(&in, (cost_case){0}, &t), HF_OK);
  int64_t bytes[128];
  uint8_t *on = calloc((size_t)t->n_layers * (size_t)t->n_experts, 1);
  for (int l = 0; l < t->n_layers; l++) bytes[l] = 1;
  for (int l = 3; l < 6; l++) memset(on + (size_t)l * (size_t)t->n_experts, 1, (size_t)t->n_experts);
  ilp_problem prob = {.table = t, .pop = p.pop, .users = 1, .context = 701, .depths = 1, .expert_bytes = bytes, .n_devices = 1};
  ilp_evaluation ev;
  assert_int_equal(ilp_evaluate(&prob, on, 1, NULL, &ev), HF_OK);
  if (fabs(ev.tok_per_s / rates.decode - 1) > 1e-9) fail_msg("%.12g and %.12g tokens/s", ev.tok_per_s, rates.decode);
  free(on);
  stage_table_free(t);
  prepared_case_free(&p);
}

/* What must make a prediction faster does; what the row published changes nothing. */
static void directions(void **state) {
  (void)state;
  published_case c = row("DeepSeek-R1", "IQ4_K_R4", "RTX 4090", "EPYC 9355", "598 GB/s", "ik_llama.cpp", "-ot exps=CPU, ub 512");
  prepared_case p;
  engine e;
  predicted_rates base, other;
  prepared(&c, &p, &e);
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &base), HF_OK);
  static const engine_fact faster[] = {ENGINE_UNPACK_WEIGHTS, ENGINE_GPU_KV};
  for (int i = 0; i < 2; i++) {
    engine x = e;
    x.fact[faster[i]].likely = x.fact[faster[i]].high = 2 * e.fact[faster[i]].likely;
    assert_int_equal(predict_case(&p, &x, (cost_case){0}, &other), HF_OK);
    assert_true(other.decode > base.decode);
  }
  engine x = e;
  x.fact[ENGINE_GEMM].likely = x.fact[ENGINE_GEMM].high = 2 * e.fact[ENGINE_GEMM].likely;
  assert_int_equal(predict_case(&p, &x, (cost_case){0}, &other), HF_OK);
  assert_true(other.prefill > 1.2 * base.prefill);
  p.r.context = 30000;
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &other), HF_OK);
  assert_true(other.decode < base.decode && other.prefill == base.prefill);
  prepared_case_free(&p);
  c.decode_tok_s *= 3;
  c.prefill_tok_s *= 3;
  prepared(&c, &p, &e);
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &other), HF_OK);
  assert_true(other.decode == base.decode && other.prefill == base.prefill);
  predicted_range d, f;
  assert_int_equal(predict_interval(&p, &e, &d, &f), HF_OK);
  assert_true(d.low < d.likely && d.likely < d.high && f.low < f.likely && f.likely < f.high && d.likely == base.decode);
  prepared_case_free(&p);
}

/* ---- fits ---- */

/* Rows made by an engine with known facts give those facts back. */
static void fit_finds_what_made_the_rows(void **state) {
  (void)state;
  published_case c[6];
  prepared_case p[6];
  engine e;
  static const char *const cpu[] = {"EPYC 9355", "Threadripper PRO 7965WX", "2x Xeon 6454S"};
  for (int i = 0; i < 6; i++) {
    predicted_rates rates;
    c[i] = row("DeepSeek-R1", i % 2 == 0 ? "Q4_K_M" : "UD-Q2_K_XL", "RTX 4090", cpu[i / 2], "", "ktransformers 0.2", "");
    prepared(&c[i], &p[i], &e);
    e.fact[ENGINE_UNPACK_BYTES].likely = 1.2;
    e.fact[ENGINE_GEMM].likely = 33;
    assert_int_equal(predict_case(&p[i], &e, (cost_case){0}, &rates), HF_OK);
    c[i].decode_tok_s = rates.decode;
    c[i].prefill_tok_s = rates.prefill;
  }
  engine_set *s = calloc(1, sizeof *s), *again = calloc(1, sizeof *s);
  assert_int_equal(fit_engines(p, 6, NULL, s), HF_OK);
  const engine *f = engine_set_find(s, "ktransformers");
  if (fabs(f->fact[ENGINE_UNPACK_BYTES].likely / 1.2 - 1) > 0.03 || fabs(f->fact[ENGINE_GEMM].likely / 33 - 1) > 0.06)
    fail_msg("fitted %g and %g", f->fact[ENGINE_UNPACK_BYTES].likely, f->fact[ENGINE_GEMM].likely);
  assert_int_equal(fit_engines(p, 6, NULL, again), HF_OK);
  assert_memory_equal(s, again, sizeof *s);
  /* one wild row does not pull the others, and without its machine the rest gives the same */
  c[0].decode_tok_s *= 5;
  assert_int_equal(fit_engines(p, 6, NULL, again), HF_OK);
  f = engine_set_find(again, "ktransformers");
  assert_true(fabs(f->fact[ENGINE_UNPACK_BYTES].likely / 1.2 - 1) < 0.1);
  assert_int_equal(fit_engines(p, 6, "epyc-9355", again), HF_OK);
  f = engine_set_find(again, "ktransformers");
  assert_true(fabs(f->fact[ENGINE_UNPACK_BYTES].likely / 1.2 - 1) < 0.03);
  free(s);
  free(again);
  for (int i = 0; i < 6; i++) prepared_case_free(&p[i]);
}

/* FP8 weights become bf16 first; the barriers of a layer are those of one rank's pool. */
static void formats_and_ranks(void **state) {
  (void)state;
  published_case c =
      row("DeepSeek-R1", "FP8", "none", "2x Xeon 6980P", "MRDIMM 8800", "SGLang CPU backend (AMX)", "all on CPU; TP6");
  prepared_case p;
  engine e;
  predicted_rates with, without;
  prepared(&c, &p, &e);
  assert_true(p.r.em.fp8 && p.r.em.ranks == 6);
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &with), HF_OK);
  p.r.em.fp8 = false;
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &without), HF_OK);
  assert_true(with.decode < without.decode && with.prefill < without.prefill);
  /* both halves of 58 layers and the one of 3 dense ones, 256 threads: five sixths of the barriers more */
  p.r.em.ranks = 0;
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &with), HF_OK);
  double more_ns = 1e9 / with.decode - 1e9 / without.decode, barriers = e.fact[ENGINE_THREAD_LAYER].likely * 256 * 5 / 6;
  if (fabs(more_ns / barriers - 119) > 1e-6) fail_msg("%.9f halves' worth of barriers", more_ns / barriers);
  prepared_case_free(&p);
  c.weights_format = "INT8 (w8a8)";
  c.placement = "all on CPU";
  prepared(&c, &p, &e);
  assert_true(!p.r.em.fp8 && p.r.em.ranks == 0);
  prepared_case_free(&p);
}

/* With everything on the CPU barriers outweigh more cores: one Xeon 6980P, R1 in Q4_K_M, 10.0 tokens/s with 64 threads and 9.1 with 128 (pull
 * request 259 of ik_llama.cpp; no row of the table, since it does not state the memory). With the experts alone there they are few. */
static void more_threads_can_be_slower(void **state) {
  (void)state;
  published_case c =
      row("DeepSeek-R1", "Q4_K_M", "none", "Xeon 6980P", "MRDIMM-8800", "ik_llama.cpp", "rtr, CPU only, 64 threads");
  prepared_case p;
  engine e;
  predicted_rates few, many;
  prepared(&c, &p, &e);
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &few), HF_OK);
  p.r.em.threads = 128;
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &many), HF_OK);
  assert_true(many.decode < few.decode && few.decode < 1.25 * 10.02 && many.decode < 1.25 * 9.07 && many.decode > 0.75 * 9.07);
  prepared_case_free(&p);
  c.gpu = "RTX 4090";
  c.placement = "rtr, -ot exps=CPU, 64 threads";
  prepared(&c, &p, &e);
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &few), HF_OK);
  e.fact[ENGINE_THREAD_LAYER].likely *= 2;
  e.fact[ENGINE_THREAD_LAYER].high *= 2;
  assert_int_equal(predict_case(&p, &e, (cost_case){0}, &many), HF_OK);
  assert_true(few.decode == many.decode);
  prepared_case_free(&p);
}

/* ---- the committed table ---- */

typedef struct {
  published_cases rows;
  comparison *c;
  engine_set *engines;
} whole;

static void load_whole(whole *w) {
  w->c = calloc(1, sizeof *w->c);
  w->engines = calloc(1, sizeof *w->engines);
  assert_int_equal(published_cases_read(CSV, &w->rows), HF_OK);
  assert_int_equal(comparison_new(&w->rows, w->c), HF_OK);
  assert_int_equal(engine_set_load(w->engines), HF_OK);
}

static void free_whole(whole *w) {
  comparison_free(w->c);
  published_cases_free(&w->rows);
  free(w->c);
  free(w->engines);
}

static void published_rows_meet_the_bars(void **state) {
  (void)state;
  whole w;
  load_whole(&w);
  comparison_bars bars = {0.15, 0.35, 0.25, 0.75, 0.95, 1.8};
  assert_int_equal(comparison_run(w.c, w.engines, false, false, NULL, NULL), HF_OK);
  if (comparison_gate(w.c, &bars) != HF_OK) fail_msg("%s", hf_error_line());
  assert_true(w.c->used >= 60);
  assert_true(4 * w.c->parameters < w.c->used); /* few numbers for many rows */
  bars.max_median = 0.001;
  assert_int_equal(comparison_gate(w.c, &bars), HF_NO);
  assert_non_null(strstr(hf_error_line(), "decode: median"));
  json *earlier = NULL;
  assert_int_equal(json_read_file("tests/validation/expected.json", 1 << 24, &earlier), HF_OK);
  if (comparison_not_worse(w.c, earlier, "expected.json") != HF_OK) fail_msg("%s", hf_error_line());
  w.c->group[0].inside--;
  assert_int_equal(comparison_not_worse(w.c, earlier, "expected.json"), HF_NO);
  assert_non_null(strstr(hf_error_line(), "inside"));
  w.c->group[0].inside++;
  for (int i = 0; i < w.c->n_groups; i++) w.c->group[i].p90 += 0.01;
  assert_int_equal(comparison_not_worse(w.c, earlier, "expected.json"), HF_NO);
  json_free(earlier);
  free_whole(&w);
}

/* The priors in the catalog are what the method gives for these rows. */
static void committed_priors_are_fitted(void **state) {
  (void)state;
  whole w;
  load_whole(&w);
  engine_set *fitted = calloc(1, sizeof *fitted);
  assert_int_equal(fit_engines(w.c->row, w.c->n, NULL, fitted), HF_OK);
  for (int e = 0; e < fitted->n; e++)
    for (int i = 0; i < fit_plans[e].n; i++) {
      engine_fact f = fit_plans[e].fact[i];
      double now = fitted->e[e].fact[f].likely, was = w.engines->e[e].fact[f].likely;
      if (fabs(now / was - 1) > 0.03)
        fail_msg("%s %s: the catalog says %g, the fit %g: run hf-plan validate --fit", fitted->e[e].name, engine_fact_name[f],
                 was, now);
    }
  free(fitted);
  free_whole(&w);
}

/* Nothing left that speaks of a fact: it is what the engine's class says, not what a search drifts to. */
static void facts_without_rows_rest(void **state) {
  (void)state;
  whole w;
  load_whole(&w);
  engine_set *s = calloc(1, sizeof *s);
  *s = *w.engines;
  assert_int_equal(fit_engines(w.c->row, w.c->n, "xeon-6980p", s),
                   HF_OK); /* llama.cpp's only prompts, and its only rows without a GPU */
  const engine *l = engine_set_find(s, "llama-cpp"), *g = engine_set_find(s, "sglang-cpu");
  assert_true(fabs(l->fact[ENGINE_GEMM].likely / (2 * l->fact[ENGINE_UNPACK_WEIGHTS].likely) - 1) < 0.01);
  assert_true(fabs(l->fact[ENGINE_THREAD_LAYER].likely / (41 * BARRIER_NS) - 1) < 0.01);
  assert_true(fabs(g->fact[ENGINE_THREAD_LAYER].likely / (12.5 * BARRIER_NS) - 1) < 0.01);
  assert_true(fabs(l->fact[ENGINE_UNPACK_WEIGHTS].likely / 3 - 1) > 0.01); /* of this the other machines' rows do speak */
  *s = *w.engines;
  assert_int_equal(fit_engines(w.c->row, w.c->n, "threadripper-pro-7965wx", s), HF_OK);
  const engine *k = engine_set_find(s, "ktransformers-no-graph");
  assert_true(k->fact[ENGINE_LAUNCH].likely == k->fact[ENGINE_EAGER].likely);
  /* An engine known from one machine is in more doubt: at least half-way to its class. */
  assert_int_equal(fit_engines(w.c->row, w.c->n, NULL, s), HF_OK);
  assert_int_equal(fit_spreads(w.c->row, w.c->n, s), HF_OK);
  g = engine_set_find(s, "sglang-cpu");
  const catalog_value *u = &g->fact[ENGINE_UNPACK_BYTES];
  assert_true(u->high >= 0.99 * sqrt(u->likely * 3 * 4.5 / 8));
  free(s);
  free_whole(&w);
}

/* A machine left out costs less than it did before engines known from one machine had a class to lean on: 13 and 70 %, 11 and 113 %. */
static void machines_left_out(void **state) {
  (void)state;
  whole w;
  load_whole(&w);
  assert_int_equal(comparison_run(w.c, w.engines, true, false, NULL, NULL), HF_OK);
  const case_group *d = comparison_group(w.c, METRIC_DECODE, "all", "experts on the CPU"),
                   *f = comparison_group(w.c, METRIC_PREFILL, "all", "every row");
  if (d->left_out_median > 0.115 || d->left_out_p90 > 0.40 || f->left_out_median > 0.115 || f->left_out_p90 > 0.40)
    fail_msg("decode %.3f %.3f, prefill %.3f %.3f", d->left_out_median, d->left_out_p90, f->left_out_median, f->left_out_p90);
  free_whole(&w);
}

static void half_declined_is_no_answer(void **state) {
  (void)state;
  static const char text[] =
      HEADER "a,,a model,,Q4_K_M,none,EPYC 9355,,llama.cpp,,1,9,,5,1,\nb,,a model,,Q4_K_M,none,EPYC 9355,,llama.cpp,,1,9,,5,1,\n"
             "c,,DeepSeek-R1,,Q4_K_M,none,EPYC 9355,,llama.cpp,,1,9,,5,1,\n";
  published_cases rows;
  comparison c;
  engine_set *s = calloc(1, sizeof *s);
  const comparison_bars any = {1e9, 1e9, 1e9, 0, 1, 1e9};
  assert_int_equal(published_cases_parse(text, sizeof text - 1, "f.csv", &rows), HF_OK);
  assert_int_equal(comparison_new(&rows, &c), HF_OK);
  assert_int_equal(c.used, 1);
  assert_int_equal(engine_set_load(s), HF_OK);
  assert_int_equal(comparison_run(&c, s, true, true, NULL, NULL), HF_OK);
  assert_int_equal(comparison_gate(&c, &any), HF_NO);
  assert_non_null(strstr(hf_error_line(), "2 of 3 rows were declined"));
  assert_true(c.figure[2][METRIC_DECODE].used && c.figure[2][METRIC_DECODE].left_out > 0);
  assert_true(c.figure[2][METRIC_DECODE].alone > 0 &&
              !(c.figure[0][METRIC_DECODE].alone > 0)); /* from the start values: it is the only row */
  comparison_free(&c);
  published_cases_free(&rows);
  free(s);
}

static int start(void **state) {
  (void)state;
  plan_use_catalog();
  return resolver_new(&names) == HF_OK ? 0 : -1;
}

static int end(void **state) {
  (void)state;
  resolver_free(&names);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(hostile_csv),
                                     cmocka_unit_test(quotes_and_line_ends),
                                     cmocka_unit_test(names_in_text),
                                     cmocka_unit_test(machines_and_engines),
                                     cmocka_unit_test(absurd_numbers_are_declined),
                                     cmocka_unit_test(declined),
                                     cmocka_unit_test(step_is_that_of_plans),
                                     cmocka_unit_test(directions),
                                     cmocka_unit_test(fit_finds_what_made_the_rows),
                                     cmocka_unit_test(published_rows_meet_the_bars),
                                     cmocka_unit_test(committed_priors_are_fitted),
                                     cmocka_unit_test(formats_and_ranks),
                                     cmocka_unit_test(more_threads_can_be_slower),
                                     cmocka_unit_test(facts_without_rows_rest),
                                     cmocka_unit_test(machines_left_out),
                                     cmocka_unit_test(half_declined_is_no_answer)};
  return cmocka_run_group_tests(tests, start, end);
}
