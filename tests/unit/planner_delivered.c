/* Depth, chunk and uploads are chosen by what is delivered: no combination that could have been asked for delivers clearly more. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "planner/plan_make.h"

static char path[64];
static db *database;

static int open_database(void **state) {
  (void)state;
  snprintf(path, sizeof path, "/tmp/hf-delivered-test-%d.db", (int)getpid());
  return db_open(path, true, &database) == HF_OK ? 0 : -1;
}

static int close_database(void **state) {
  (void)state;
  static const char *const ends[] = {"", "-wal", "-shm"};
  char name[80];
  db_close(database);
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s%s", path, ends[i]);
    unlink(name);
  }
  return 0;
}

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

/* Delivered tokens/s; 0: no such plan fits. */
static double delivered(const plan_request *r, int *depth, int *chunk) {
  static const planned_options o = {.quick = true, .compare_depths = true, .no_interval = true};
  plan_inputs *in = NULL;
  planned p;
  double rate = 0;
  ok(plan_inputs_open(database, r, &in));
  hf_status st = plan_make(in, &o, &p);
  if (st == HF_NO) hf_clear_error();
  else ok(st);
  if (st == HF_OK) {
    rate = p.sustained.tok_per_s;
    *depth = p.ilp->depth;
    *chunk = in->chunk_tokens;
  }
  planned_free(&p);
  plan_inputs_close(in);
  return rate;
}

static void nothing_delivers_clearly_more(void **state) {
  (void)state;
  static const struct {
    const char *model, *format, *machine;
    int users, context;
  } load[] = {{"deepseek-r1", "iq4_xs", "cpu=epyc-9355p,memory=ddr5-6400,dimm=32G,gpu=rtx-pro-4000", 5, 8192},
              {"deepseek-r1", "iq4_xs", "cpu=epyc-9355p,memory=ddr5-6400,dimm=32G,gpu=rtx-pro-6000", 10, 2048},
              {"deepseek-r1", "q4_k_m", "xeon6-mrdimm-rtx4090", 1, 8192},
              {"qwen3-235b-a22b", "q4_k_m", "cpu=xeon-6960p,memory=ddr5-6400,dimm=16G,gpu=h200-nvl", 10, 16384},
              {"deepseek-r1", "q4_k_m", "xeon6-mrdimm-rtx4090", 5, 2048}, /* a chunk with which not every depth has room */
              {"gpt-oss-120b", "mxfp4", "cpu=epyc-9355p,memory=ddr5-6400,dimm=16G,gpu=none", 4, 4096}};
  static const int chunks[] = {512, 1024, 2048, 4096};
  double gain = 1;
  for (size_t i = 0; i < sizeof load / sizeof *load; i++) {
    plan_request r = {.model = load[i].model,
                      .format = load[i].format,
                      .machine = load[i].machine,
                      .users = load[i].users,
                      .context = load[i].context};
    int depth = 0, chunk = 0, d, c;
    double own = delivered(&r, &depth, &chunk), first = 0;
    assert_true(own > 0);
    for (r.depth = 1; r.depth <= 4 && r.depth <= r.users && (r.depth == 1 || strstr(r.machine, "gpu=none") == NULL); r.depth++)
      for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        r.chunk_tokens = chunks[k];
        double rate = delivered(&r, &d, &c);
        if (first == 0) first = rate;
        if (rate > 1.04 * own)
          fail_msg("%s: %.2f tokens/s at depth %d with chunks of %d, chosen were %d and %d: %.2f", r.machine, rate, (int)r.depth,
                   chunks[k], depth, chunk, own);
      }
    gain = fmax(gain, own / first);
  }
  assert_true(gain > 1.3); /* else there was nothing to choose */
}

static int marked(const ilp_layer *layer, int n) {
  int sum = 0;
  for (int l = 0; l < n; l++) sum += layer[l].upload;
  return sum;
}

/* Layers of a model are much alike: from where uploads pay for all together on, they pay for most, and well below for few. */
static void uploads_begin_where_they_pay(void **state) {
  (void)state;
  plan_request r = {.model = "deepseek-r1",
                    .format = "iq4_xs",
                    .machine = "cpu=epyc-9355p,memory=ddr5-6400,dimm=32G,gpu=rtx-pro-6000",
                    .users = 1,
                    .context = 8192,
                    .chunk_tokens = 4096};
  static const planned_options o = {.quick = true, .no_interval = true};
  static ilp_layer layer[PLAN_MAX_LAYERS];
  uint8_t upload[PLAN_MAX_LAYERS];
  plan_inputs *in = NULL;
  planned p;
  ok(plan_inputs_open(database, &r, &in));
  ok(plan_make(in, &o, &p));
  int n = p.eval->table->n_layers, from = plan_uploads(&p, p.ilp->layer, p.ilp->on_device, 1, upload);
  int deep = plan_uploads(&p, p.ilp->layer, p.ilp->on_device, 2, upload), all = marked(p.ilp->layer, n);
  assert_true(all > 0 && from > 100 && from < 4096);
  assert_int_equal(deep, from / 2);
  for (int above = 0; above < 2; above++) {
    ilp_problem prob = plan_eval_problem(p.eval, 1);
    ilp_evaluation e;
    prob.prefill.load = (stage_load){0};
    stage_load_add(&prob.prefill.load, prob.table, 2000, above ? from + from / 5 : from - from / 5);
    ok(ilp_evaluate(&prob, p.ilp->on_device, 1, layer, &e));
    if (above) assert_true(marked(layer, n) > 0.9 * all);
    else assert_true(marked(layer, n) < 0.5 * all);
  }
  planned_free(&p);
  plan_inputs_close(in);
}

int main(void) {
  plan_use_catalog();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_delivers_clearly_more),
      cmocka_unit_test(uploads_begin_where_they_pay),
  };
  return cmocka_run_group_tests(tests, open_database, close_database);
}
