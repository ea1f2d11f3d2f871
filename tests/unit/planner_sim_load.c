/* What arrives at the simulator: draws that are the same on every machine, their moments, traces from files, percentiles of many. */
#include "planner/sim/random.h"
#include "planner/sim/sketch.h"
#include "planner/sim/trace_read.h"
#include "planner/sim/workload.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/stats.h"
#include "base/mem.h"

static uint64_t fnv(uint64_t h, int64_t v) {
  for (int i = 0; i < 8; i++) h = (h ^ (uint64_t)(v >> (8 * i) & 255)) * 0x100000001b3u;
  return h;
}

/* Own logarithm and exponential: right to about 3 units in the last place, over the range that draws use. */
static void own_functions(void **state) {
  (void)state;
  sim_rng r = sim_rng_of(3, 1);
  for (int i = 0; i < 100000; i++) {
    double x = sim_uniform(&r) * 600 - 300, y = exp(x), l = log(y);
    assert_true(fabs(sim_exp(x) / y - 1) < 1e-15 * (4 + fabs(x)));
    assert_true(fabs(sim_log(y) - l) <= 1e-15 * (fabs(l) + 0.01));
    double u = 1 - sim_uniform(&r);
    assert_true(fabs(sim_log(u) - log(u)) <= 1e-15 * (fabs(log(u)) + 0.01));
  }
  assert_true(sim_exp(0) == 1 && sim_log(1) == 0);
  assert_true(sim_round(2.5) == 3 && sim_round(0.49) == 0 && sim_round(1e30) == (int64_t)1 << 62);
}

static void moments(void **state) {
  (void)state;
  const int n = 200000;
  for (int kind = 0; kind < 5; kind++) {
    sim_rng r = sim_rng_of(11, (uint64_t)kind);
    double sum = 0, square = 0, shape[5] = {0, 0, 0.25, 1, 6};
    for (int i = 0; i < n; i++) {
      double x = kind == 0 ? sim_normal(&r) : kind == 1 ? sim_exponential(&r) : sim_gamma(&r, shape[kind]);
      sum += x;
      square += x * x;
    }
    double mean = sum / n, variance = square / n - mean * mean, want = kind < 2 ? 1 : 1 / shape[kind];
    assert_true(fabs(mean - (kind == 0 ? 0 : 1)) < 0.02);
    assert_true(fabs(variance / want - 1) < 0.05);
  }
}

static sim_options load(sim_arrivals kind) {
  return (sim_options){.users = 3,
                       .requests_per_user = 2000,
                       .prompt_tokens = 1000,
                       .output_tokens = 200,
                       .seed = 5,
                       .arrivals = kind,
                       .rate_per_s = 2,
                       .cv = 2.5,
                       .burst_on_s = 10,
                       .burst_off_s = 30,
                       .requests = 20000,
                       .lengths = SIM_LENGTHS_LOGNORMAL,
                       .length_cv = 1.2,
                       .think_s = 3,
                       .think_exponential = true};
}

/* These numbers must never change: they are what an equal seed means on another machine. */
static void golden_hashes(void **state) {
  (void)state;
  static const uint64_t want[4] = {0x601109befbf5a9a7, 0x5d7183a0318ac15d, 0x88d279348578339b, 0x17bf90c6eab98862};
  for (int kind = SIM_CLOSED; kind <= SIM_BURSTY; kind++) {
    sim_options o = load((sim_arrivals)kind);
    sim_source *s = NULL;
    uint64_t h = 0xcbf29ce484222325u;
    assert_int_equal(sim_source_new(&o, &s), HF_OK);
    for (int n = 0; sim_source_peek(s) < INT64_MAX; n++) {
      sim_demand d;
      assert_int_equal(sim_source_pop(s, &d), HF_OK);
      h = fnv(fnv(fnv(fnv(h, d.number), d.arrival_ns), d.prompt), d.output);
      sim_source_ended(s, d.number, d.arrival_ns + 1000000 * (n % 17));
    }
    sim_source_free(s);
    if (h != want[kind]) print_error("kind %d: 0x%016llx\n", kind, (unsigned long long)h);
    assert_true(h == want[kind]);
  }
}

/* Rate and spread of the gaps, mean and spread of lengths. */
static void arrivals_have_their_moments(void **state) {
  (void)state;
  for (int kind = SIM_POISSON; kind <= SIM_BURSTY; kind++) {
    sim_options o = load((sim_arrivals)kind);
    sim_source *s = NULL;
    int64_t last = 0;
    double sum = 0, square = 0, prompt = 0, prompt_square = 0;
    o.requests = 100000;
    assert_int_equal(sim_source_new(&o, &s), HF_OK);
    while (sim_source_peek(s) < INT64_MAX) {
      sim_demand d;
      assert_int_equal(sim_source_pop(s, &d), HF_OK);
      double gap = 1e-9 * (double)(d.arrival_ns - last);
      assert_true(d.arrival_ns >= last && d.prompt >= 1 && d.output >= 1);
      last = d.arrival_ns;
      sum += gap;
      square += gap * gap;
      prompt += d.prompt;
      prompt_square += (double)d.prompt * d.prompt;
    }
    sim_source_free(s);
    double mean = sum / 1e5, cv = sqrt(square / 1e5 / (mean * mean) - 1), p = prompt / 1e5;
    assert_true(fabs(mean - 0.5) < (kind == SIM_BURSTY ? 0.04 : 0.02));
    if (kind == SIM_POISSON) assert_true(fabs(cv - 1) < 0.03);
    if (kind == SIM_GAMMA) assert_true(fabs(cv - 2.5) < 0.1);
    if (kind == SIM_BURSTY) assert_true(cv > 3);
    assert_true(fabs(p / 1000 - 1) < 0.02);
    assert_true(fabs(sqrt(prompt_square / 1e5 / (p * p) - 1) - 1.2) < 0.08);
  }
}

/* ---- traces ---- */

static char path[64];

static void put(const char *text) {
  snprintf(path, sizeof path, "/tmp/hf-test-trace-%d", (int)getpid());
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

/* Reads all; -1 when it fails with HF_INPUT and `error` in its line. */
static int read_all(const char *text, sim_trace_line *out, int most, const char *error) {
  sim_trace *t = NULL;
  int n = 0;
  bool any = true;
  put(text);
  assert_int_equal(sim_trace_open(path, &t), HF_OK);
  while (any) {
    sim_trace_line line;
    hf_status st = sim_trace_next(t, &line, &any);
    if (st != HF_OK) {
      assert_int_equal(st, HF_INPUT);
      if (error == NULL || strstr(hf_error_line(), error) == NULL) print_error("%s\n", hf_error_line());
      assert_non_null(error);
      assert_non_null(strstr(hf_error_line(), error));
      n = -1;
      break;
    }
    if (any && n < most) out[n] = line;
    n += any;
  }
  sim_trace_close(t);
  unlink(path);
  return n;
}

static void trace_formats(void **state) {
  (void)state;
  sim_trace_line r[4];
  /* Azure: dates, seven digits of a second; across midnight and a leap day */
  assert_int_equal(read_all("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 23:59:59.9999999,4808,10\n"
                            "2024-02-29 00:00:00.0000001,3180,8\r\n2024-03-01 00:00:00.009930+00:00,110,27\n",
                            r, 4, NULL),
                   3);
  assert_true(r[0].arrival_ns == 0 && r[0].prompt == 4808 && r[0].output == 10);
  assert_true(r[1].arrival_ns == 200 && r[2].arrival_ns == 86400000000000 + 9930000 + 100);
  /* Mooncake: milliseconds, hash_ids left alone */
  assert_int_equal(read_all("{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n"
                            "{\"timestamp\": 30535, \"input_length\": 6472, \"output_length\": 26, \"hash_ids\": [46]}\n",
                            r, 4, NULL),
                   2);
  assert_true(r[0].arrival_ns == 0 && r[0].prompt == 6955 && r[1].arrival_ns == 3053000000 && r[1].output == 26);
  /* what hf-run writes; arrival_s counts from the start */
  assert_int_equal(
      read_all("\n{\"id\":\"a\",\"prompt_tokens\":5,\"output_tokens\":7,\"text\":\"x\",\"arrival_s\":0.25,\"ttft_s\":1}\n", r, 4,
               NULL),
      1);
  assert_true(r[0].arrival_ns == 250000000 && r[0].prompt == 5 && r[0].output == 7 && r[0].cached == 0);
  /* own CSV: any order, quotes, more columns, cached tokens; a request without tokens is left out */
  assert_int_equal(
      read_all(
          "who,output_tokens,cached_tokens,arrival_s,prompt_tokens\nme,3,90,1.5,100\nyou,0,,2,9\n\"he\", 4,500,2.000000001,50\n",
          r, 4, NULL),
      2);
  assert_true(r[0].arrival_ns == 1500000000 && r[0].cached == 90 && r[1].arrival_ns == 2000000001 && r[1].cached == 49);
  /* nothing at all: said what is missing */
  assert_int_equal(read_all("", r, 4, "empty: no requests; wanted are JSON Lines"), -1);
  assert_int_equal(read_all(" \n\n", r, 4, "empty: no requests"), -1);
  assert_int_equal(read_all("arrival_s,prompt_tokens,output_tokens\n", r, 4, "no request follows the names"), -1);
  assert_int_equal(read_all("{\"arrival_s\":1,\"prompt_tokens\":0,\"output_tokens\":7}\n", r, 4, "none of its 1 requests"), -1);
}

static void bad_traces(void **state) {
  (void)state;
  static const char *const bad[][2] = {
      {"a,b,c\n1,2,3\n", "needs columns"},
      {"arrival_s,prompt_tokens,output_tokens\n1,2\n", "line 2: 2 columns"},
      {"arrival_s,prompt_tokens,output_tokens\n-1,2,3\n", "arrival_s"},
      {"arrival_s,prompt_tokens,output_tokens\n1e3,2,3\n", "arrival_s"},
      {"arrival_s,prompt_tokens,output_tokens\n1,2.5,3\n", "prompt"},
      {"arrival_s,prompt_tokens,output_tokens\n1,2,99999999999\n", "output"},
      {"arrival_s,prompt_tokens,output_tokens\n2,2,3\n1,2,3\n", "line 3: field arrival"},
      {"arrival_s,prompt_tokens,ContextTokens,output_tokens\n", "two columns"},
      {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:15:46,1,1\n", "timestamp"},
      {"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", "timestamp"},
      {"arrival_s,prompt_tokens,output_tokens\n99999999999999999999,2,3\n", "arrival_s"},
      {"{\"timestamp\":1,\"input_length\":2}\n", "output"},
      {"{\"input_length\":2,\"output_length\":2}\n", "timestamp"},
      {"{\"timestamp\":-1,\"input_length\":2,\"output_length\":2}\n", "timestamp"},
      {"{\"timestamp\":1,\"input_length\":\"2\",\"output_length\":2}\n", "input_length"},
      {"{\"timestamp\":1,\"input_length\":2,\"output_length\":2}\n[1]\n", "line 2: expected an object"},
      {"{\"timestamp\":1,\n", "line 1"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_int_equal(read_all(bad[i][0], NULL, 0, bad[i][1]), -1);
  sim_trace *t = NULL;
  assert_int_equal(sim_trace_open("/nowhere/at-all.csv", &t), HF_NOT_FOUND);
  /* a line that never ends */
  char *text = malloc(SIM_TRACE_LINE + 100);
  memset(text, 'x', SIM_TRACE_LINE + 99);
  text[SIM_TRACE_LINE + 99] = 0;
  assert_int_equal(read_all(text, NULL, 0, "longer than"), -1);
  free(text);
}

/* ---- percentiles of many ---- */

static void sketch_error(void **state) {
  (void)state;
  const int n = 300000;
  sim_sketch *all = NULL, *part[2] = {NULL, NULL};
  double *v = malloc(n * sizeof *v);
  sim_rng r = sim_rng_of(1, 9);
  assert_int_equal(sim_sketch_new(&all), HF_OK);
  for (int i = 0; i < 2; i++) assert_int_equal(sim_sketch_new(&part[i]), HF_OK);
  for (int i = 0; i < n; i++) {
    v[i] = 1e-6 * sim_exp(6 * sim_normal(&r));
    sim_sketch_add(all, v[i]);
    sim_sketch_add(part[i % 2], v[i]);
  }
  sim_sketch_merge(part[0], part[1]);
  hf_percentiles exact = hf_percentiles_of(v, (size_t)n);
  plan_percentiles p = sim_sketch_percentiles(all), q = sim_sketch_percentiles(part[0]);
  assert_true(fabs(p.p50 / exact.p50 - 1) <= SIM_SKETCH_ERROR && fabs(p.p90 / exact.p90 - 1) <= SIM_SKETCH_ERROR);
  assert_true(fabs(p.p95 / exact.p95 - 1) <= SIM_SKETCH_ERROR && fabs(p.p99 / exact.p99 - 1) <= SIM_SKETCH_ERROR);
  assert_memory_equal(&p, &q, sizeof p);
  assert_true(fabs(sim_sketch_mean(all) / sim_sketch_mean(part[0]) - 1) < 1e-12);
  sim_sketch_free(all);
  for (int i = 0; i < 2; i++) sim_sketch_free(part[i]);
  /* few values: exact, merged or not */
  sim_sketch *a = NULL, *b = NULL;
  assert_int_equal(sim_sketch_new(&a), HF_OK);
  assert_int_equal(sim_sketch_new(&b), HF_OK);
  for (int i = 1; i <= 100; i++) sim_sketch_add(i % 2 ? a : b, 0.1 * i);
  sim_sketch_merge(a, b);
  p = sim_sketch_percentiles(a);
  assert_true(p.p50 == 0.1 * 50 && p.p90 == 0.1 * 90 && p.p95 == 0.1 * 95 && p.p99 == 0.1 * 99);
  sim_sketch_free(a);
  sim_sketch_free(b);
  free(v);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(own_functions), cmocka_unit_test(moments),
      cmocka_unit_test(golden_hashes), cmocka_unit_test(arrivals_have_their_moments),
      cmocka_unit_test(trace_formats), cmocka_unit_test(bad_traces),
      cmocka_unit_test(sketch_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
