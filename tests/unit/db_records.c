/* Every record: what is written comes back, and what breaks a rule is refused. */
#include <math.h>

#include "tests/unit/db_common.h"

enum { THE_MACHINE = 1, THE_RUN = 1 }; /* the first ids of a fresh file */

typedef struct {
  db_place place;
  db *d;
  rec_machine m;
  rec_run run;
} fixture;

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  place_make(&f->place);
  CHECK_OK(db_open(f->place.path, true, &f->d));
  sample_machine(&f->m);
  CHECK_OK(db_machine_put(f->d, &f->m));
  sample_run(&f->run);
  f->run.machine_id = f->m.id;
  CHECK_OK(db_run_put(f->d, &f->run));
  assert_int_equal(f->m.id, THE_MACHINE);
  assert_int_equal(f->run.id, THE_RUN);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  db_close(f->d);
  place_remove(&f->place);
  free(f);
  return 0;
}

static void machines(void **state) {
  fixture *f = *state;
  rec_machine got, newer, *list;
  int n;
  memset(&got, 0, sizeof got);
  sample_machine(&newer);
  assert_true(f->m.id > 0);
  CHECK_OK(db_machine_find(f->d, "box", &got));
  assert_memory_equal(&got, &f->m, sizeof got);
  CHECK_OK(db_machine_put(f->d, &newer));
  assert_true(newer.id > f->m.id);
  CHECK_OK(db_machine_find(f->d, "box", &got));
  assert_int_equal(got.id, newer.id);
  CHECK_OK(db_machine_find(f->d, "1", &got));
  assert_int_equal(got.id, 1);
  rec_machine whatif = {.name = "9", .kind = MACHINE_WHATIF, .facts_json = "{}"};
  CHECK_OK(db_machine_put(f->d, &whatif));
  CHECK_OK(db_machine_find(f->d, "9", &got)); /* a name that looks like an id is still a name */
  assert_int_equal(got.kind, MACHINE_WHATIF);
  CHECK_OK(db_machine_latest(f->d, MACHINE_MEASURED, &got));
  assert_int_equal(got.id, newer.id);
  assert_int_equal(db_machine_latest(f->d, MACHINE_CATALOG, &got), HF_NOT_FOUND);
  CHECK_OK(db_machine_get(f->d, 1, &got));
  assert_memory_equal(&got, &f->m, sizeof got);
  assert_int_equal(db_machine_get(f->d, 4711, &got), HF_NOT_FOUND);
  assert_int_equal(db_machine_find(f->d, "nobody", &got), HF_NOT_FOUND);
  assert_int_equal(db_machine_find(f->d, "99999999999999999999999", &got), HF_NOT_FOUND);
  assert_int_equal(db_machine_find(f->d, "", &got), HF_NOT_FOUND);
  strcpy(newer.name, "renamed");
  CHECK_OK(db_machine_put(f->d, &newer));
  CHECK_OK(db_machine_list(f->d, &list, &n));
  assert_int_equal(n, 3);
  assert_string_equal(list[1].name, "renamed");
  free(list);
  newer.id = 4711;
  assert_int_equal(db_machine_put(f->d, &newer), HF_NOT_FOUND);
}

static void devices(void **state) {
  fixture *f = *state;
  static rec_device r = {THE_MACHINE, "gpu0", "gpu", "NVIDIA \xc3\xbc", 128, INT64_C(24) << 30};
  rec_device *list;
  int n;
  CHECK_OK(db_device_put(f->d, &r));
  CHECK_OK(db_device_list(f->d, f->m.id, &list, &n));
  assert_int_equal(n, 1);
  assert_memory_equal(&list[0], &r, sizeof r);
  free(list);
  assert_int_equal(db_device_put(f->d, &r), HF_INPUT); /* twice */
  strcpy(r.device, "tpu0");
  strcpy(r.kind, "tpu");
  assert_int_equal(db_device_put(f->d, &r), HF_INPUT);
  strcpy(r.kind, "cpu");
  r.machine_id = 99;
  assert_int_equal(db_device_put(f->d, &r), HF_INPUT);
  r.machine_id = f->m.id;
  r.mem_bytes = -1;
  assert_int_equal(db_device_put(f->d, &r), HF_INPUT);
  CHECK_OK(db_device_list(f->d, 12345, &list, &n));
  assert_int_equal(n, 0);
  assert_null(list);
}

static void figures(void **state) {
  fixture *f = *state;
  rec_figure *list;
  int n;
  for (int t = 0; t < TAG_N; t++) {
    static rec_figure r = {.machine_id = THE_MACHINE,
                           .device = "cpu0",
                           .what = "dram_read_bytes_per_s",
                           .params = "threads=2",
                           .unit = "B/s",
                           .low = 1e10,
                           .likely = 1.0 / 3 * 1e11,
                           .high = 5e10,
                           .spread = 0.01,
                           .n = 15,
                           .source = "self"};
    r.id = 0;
    r.tag = (db_tag)t;
    CHECK_OK(db_figure_put(f->d, &r));
    CHECK_OK(db_figure_list(f->d, f->m.id, &list, &n));
    assert_int_equal(n, t + 1);
    assert_memory_equal(&list[t], &r, sizeof r);
    free(list);
  }
  rec_figure good = {.machine_id = f->m.id, .what = "x", .low = 1, .likely = 2, .high = 3}, bad = good;
  bad.low = 2.5;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  bad = good, bad.high = 1.5;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  bad = good, bad.low = -1;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  bad = good, bad.likely = NAN;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "likely"));
  bad = good, bad.high = INFINITY;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  bad = good, bad.tag = (db_tag)77;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  bad = good, bad.what[0] = 0;
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  bad = good, memset(bad.unit, 'x', sizeof bad.unit); /* no end */
  assert_int_equal(db_figure_put(f->d, &bad), HF_INPUT);
  assert_int_equal(bad.id, 0);
  CHECK_OK(db_figure_list(f->d, f->m.id, &list, &n));
  assert_int_equal(n, TAG_N);
  free(list);
}

static void curves(void **state) {
  fixture *f = *state;
  static rec_kernel_point k = {THE_MACHINE, "cpu", "expert_ffn", "avx2",  "q8_0", "q8", 128,  64, 4,         2048,
                               2,           "dma", 900.5,        1000.25, 1100,   0.1,  8704, 15, TAG_SCALED};
  rec_kernel_point *kernels;
  static rec_link_point l = {THE_MACHINE, "host", "gpu0", true, "", 1 << 20, 90, 100, 110, 9, TAG_SPEC, 1764500000123456789};
  rec_link_point *links;
  int n;
  CHECK_OK(db_kernel_put(f->d, &k));
  CHECK_OK(db_kernel_put(f->d, &k)); /* measured again: both points stay */
  CHECK_OK(db_kernel_list(f->d, f->m.id, &kernels, &n));
  assert_int_equal(n, 2);
  assert_memory_equal(&kernels[1], &k, sizeof k);
  free(kernels);
  k.ns_high = 999;
  assert_int_equal(db_kernel_put(f->d, &k), HF_INPUT);
  CHECK_OK(db_link_put(f->d, &l));
  CHECK_OK(db_link_list(f->d, f->m.id, &links, &n));
  assert_int_equal(n, 1);
  assert_memory_equal(&links[0], &l, sizeof l);
  free(links);
  l.ns_low = -5;
  assert_int_equal(db_link_put(f->d, &l), HF_INPUT);
}

static void runs(void **state) {
  fixture *f = *state;
  rec_run got, bad, *list;
  int n;
  memset(&got, 0, sizeof got);
  sample_run(&bad);
  CHECK_OK(db_run_get(f->d, f->run.id, &got));
  assert_memory_equal(&got, &f->run, sizeof got);
  strcpy(f->run.status, "done");
  f->run.steps = 99;
  CHECK_OK(db_run_put(f->d, &f->run));
  CHECK_OK(db_run_get(f->d, f->run.id, &got));
  assert_memory_equal(&got, &f->run, sizeof got);
  strcpy(bad.kind, "party");
  assert_int_equal(db_run_put(f->d, &bad), HF_INPUT);
  assert_int_equal(bad.id, 0);
  sample_run(&bad), strcpy(bad.status, "fine");
  assert_int_equal(db_run_put(f->d, &bad), HF_INPUT);
  sample_run(&bad), bad.plan_id = 4711;
  assert_int_equal(db_run_put(f->d, &bad), HF_INPUT);
  sample_run(&bad), bad.wall_s = -0.1;
  assert_int_equal(db_run_put(f->d, &bad), HF_INPUT);
  sample_run(&bad), bad.model[0] = 0;
  assert_int_equal(db_run_put(f->d, &bad), HF_INPUT);
  sample_run(&bad), bad.id = 4711;
  assert_int_equal(db_run_put(f->d, &bad), HF_NOT_FOUND);
  assert_int_equal(db_run_get(f->d, 4711, &got), HF_NOT_FOUND);
  rec_run second;
  sample_run(&second);
  CHECK_OK(db_run_put(f->d, &second));
  CHECK_OK(db_run_list(f->d, &list, &n));
  assert_int_equal(n, 2);
  assert_int_equal(list[0].id, second.id);
  free(list);
}

static void requests_and_events(void **state) {
  fixture *f = *state;
  static rec_request r = {THE_RUN, 3, "user \"3\"", 20, 40, 0.5, 1.25, 3.5, "length"};
  rec_request *requests;
  static rec_event e = {.run_id = THE_RUN, .at_ns = 10, .recovery_ns = 20, .kind = "fault", .detail = "gpu0 lost"};
  rec_event *events;
  int n;
  CHECK_OK(db_request_put(f->d, &r));
  assert_int_equal(db_request_put(f->d, &r), HF_INPUT);
  CHECK_OK(db_request_list(f->d, f->run.id, &requests, &n));
  assert_int_equal(n, 1);
  assert_memory_equal(&requests[0], &r, sizeof r);
  free(requests);
  r.request = 4;
  strcpy(r.finish, "bored");
  assert_int_equal(db_request_put(f->d, &r), HF_INPUT);
  CHECK_OK(db_event_put(f->d, &e));
  CHECK_OK(db_event_list(f->d, f->run.id, &events, &n));
  assert_int_equal(n, 1);
  e.id = events[0].id;
  assert_memory_equal(&events[0], &e, sizeof e);
  free(events);
  e.id = 0;
  strcpy(e.kind, "party");
  assert_int_equal(db_event_put(f->d, &e), HF_INPUT);
}

static void counts_add_up(void **state) {
  fixture *f = *state;
  static rec_stage s = {THE_RUN, "run", "cexp", "decode", "cpu", 3, 10, 50, 70, 1000.5, 2e6};
  rec_stage *stages;
  static rec_routing r = {THE_RUN, 3, 17, "prefill", 5};
  rec_routing *routing;
  static rec_distinct x = {THE_RUN, 3, "decode", 5, 2, 30, 500};
  rec_distinct *distinct;
  int n;
  for (int i = 0; i < 3; i++) {
    CHECK_OK(db_stage_put(f->d, &s));
    CHECK_OK(db_routing_put(f->d, &r));
    CHECK_OK(db_distinct_put(f->d, &x));
  }
  s.layer = -1;
  CHECK_OK(db_stage_put(f->d, &s));
  CHECK_OK(db_stage_list(f->d, f->run.id, &stages, &n));
  assert_int_equal(n, 2);
  assert_int_equal(stages[0].layer, -1);
  static rec_stage want = {THE_RUN, "run", "cexp", "decode", "cpu", 3, 30, 150, 210, 3001.5, 6e6};
  assert_memory_equal(&stages[1], &want, sizeof want);
  free(stages);
  CHECK_OK(db_routing_list(f->d, f->run.id, &routing, &n));
  assert_int_equal(n, 1);
  assert_int_equal(routing[0].count, 15);
  assert_int_equal(routing[0].expert, 17);
  free(routing);
  CHECK_OK(db_distinct_list(f->d, f->run.id, &distinct, &n));
  assert_int_equal(n, 1);
  assert_int_equal(distinct[0].steps, 6);
  assert_int_equal(distinct[0].sum, 90);
  assert_int_equal(distinct[0].sum_sq, 1500);
  free(distinct);
  r.count = -1;
  assert_int_equal(db_routing_put(f->d, &r), HF_INPUT);
  strcpy(s.phase, "lunch");
  assert_int_equal(db_stage_put(f->d, &s), HF_INPUT);
  x.run_id = 999;
  assert_int_equal(db_distinct_put(f->d, &x), HF_INPUT);
}

static void traces(void **state) {
  fixture *f = *state;
  static rec_trace t = {.source = "run",
                        .stage = "attn",
                        .resource = "gpu0",
                        .step = 4,
                        .micro_batch = 1,
                        .layer = 2,
                        .start_ns = 100,
                        .end_ns = 150,
                        .bytes = 64,
                        .flops = 1e6,
                        .tokens = 5,
                        .distinct = 3};
  rec_trace *list;
  int n;
  CHECK_OK(db_trace_put(f->d, f->run.id, 0, &t));
  t.start_ns = 50;
  CHECK_OK(db_trace_put(f->d, f->run.id, 0, &t));
  CHECK_OK(db_trace_list(f->d, f->run.id, 0, &list, &n));
  assert_int_equal(n, 2);
  assert_memory_equal(&list[0], &t, sizeof t);
  free(list);
  assert_int_equal(db_trace_put(f->d, 0, 0, &t), HF_INPUT); /* of nothing */
  t.end_ns = 49;
  assert_int_equal(db_trace_put(f->d, f->run.id, 0, &t), HF_INPUT);
}

static void signed_errors(void **state) {
  fixture *f = *state;
  rec_signed_error *e;
  int n;
  CHECK_OK(db_signed_errors(f->d, 0, &e, &n)); /* still running: its figures mean nothing yet */
  assert_int_equal(n, 0);
  free(e);
  strcpy(f->run.status, "done");
  CHECK_OK(db_run_put(f->d, &f->run));
  rec_run second;
  sample_run(&second);
  strcpy(second.status, "done");
  second.predicted_ttft_p50_s = second.predicted_tpot_p50_s = 0;
  second.predicted_decode_tok_per_s = 75;
  CHECK_OK(db_run_put(f->d, &second));
  CHECK_OK(db_signed_errors(f->d, f->run.id, &e, &n));
  assert_int_equal(n, 3);
  assert_string_equal(e[0].metric, "decode_tok_per_s");
  assert_true(fabs(e[0].signed_error - 0.1) < 1e-12);
  assert_string_equal(e[1].metric, "tpot_p50_s");
  assert_true(e[1].signed_error == 0);
  assert_string_equal(e[2].metric, "ttft_p50_s");
  assert_true(fabs(e[2].signed_error + 0.2) < 1e-12);
  assert_string_equal(e[2].model, "tiny-moe");
  free(e);
  CHECK_OK(db_signed_errors(f->d, 0, &e, &n));
  assert_int_equal(n, 4);
  assert_int_equal(e[0].run_id, second.id);
  assert_true(fabs(e[0].signed_error + 0.25) < 1e-12);
  free(e);
}

static void transactions(void **state) {
  fixture *f = *state;
  rec_run r, *list;
  plan *p = sample_plan();
  int n;
  sample_run(&r);
  CHECK_OK(db_begin(f->d));
  CHECK_OK(db_run_put(f->d, &r));
  CHECK_OK(db_plan_put(f->d, p));
  db_rollback(f->d);
  CHECK_OK(db_run_list(f->d, &list, &n));
  assert_int_equal(n, 1);
  free(list);
  plan *gone;
  assert_int_equal(db_plan_get(f->d, p->id, &gone), HF_NOT_FOUND);
  /* A call that fails inside takes back only itself. */
  CHECK_OK(db_begin(f->d));
  r.id = 0;
  CHECK_OK(db_run_put(f->d, &r));
  rec_run bad;
  sample_run(&bad);
  strcpy(bad.kind, "party");
  assert_int_equal(db_run_put(f->d, &bad), HF_INPUT);
  p->machine_id = 4711;
  assert_int_equal(db_plan_put(f->d, p), HF_INPUT);
  CHECK_OK(db_commit(f->d));
  CHECK_OK(db_run_list(f->d, &list, &n));
  assert_int_equal(n, 2);
  free(list);
  assert_int_equal(db_commit(f->d), HF_INPUT); /* nothing open */
  plan_free(p);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(machines),      TEST(devices), TEST(figures),       TEST(curves),       TEST(runs), TEST(requests_and_events),
      TEST(counts_add_up), TEST(traces),  TEST(signed_errors), TEST(transactions),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
