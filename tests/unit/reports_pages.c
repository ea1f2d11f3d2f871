/* Every kind of report from a database whose texts are all hostile: the page is well-formed, holds no element, attribute or address
 * that a text could have brought, and CSV and JSON can be read back. */
#include <strings.h>

#include "reports/report.h"
#include "tests/unit/reports_common.h"

typedef struct {
  db_place place;
  db *d;
  int64_t machine, catalog, plan[2], run[2], whatif;
} fixture;

#define EVIL_INTO(field) snprintf(field, sizeof(field), "%.*s", (int)sizeof(field) - 1, EVIL)

/* ---- a database ---- */

static int64_t put_machine(db *d, machine_kind kind, const char *name) {
  rec_machine m;
  sample_machine(&m);
  m.kind = kind;
  snprintf(m.name, sizeof m.name, "%s", name);
  snprintf(
      m.facts_json, sizeof m.facts_json,
      "{\"title\":\"</script><img "
      "src=x>\",\"isa\":[\"<b>\",\"avx2\",7],\"mem_bytes\":1024,\"deep\":{\"<i>\":\"<u>\"},\"assumptions\":[\"</li><img>\",3]}");
  CHECK_OK(db_machine_put(d, &m));
  rec_device dev = {.machine_id = m.id, .device = "cpu0", .kind = "cpu", .cores = 8, .mem_bytes = 1 << 30};
  EVIL_INTO(dev.name);
  CHECK_OK(db_device_put(d, &dev));
  for (int i = 0; i < TAG_N; i++) {
    rec_figure f = {.machine_id = m.id,
                    .device = "cpu",
                    .what = "dram_read_bytes_per_s",
                    .unit = "B/s",
                    .low = 1e9,
                    .likely = 2e9 + i,
                    .high = 3e9,
                    .tag = (db_tag)i};
    snprintf(f.params, sizeof f.params, "threads=%d", i + 1);
    EVIL_INTO(f.source);
    CHECK_OK(db_figure_put(d, &f));
    EVIL_INTO(f.what);
    f.id = 0;
    EVIL_INTO(f.params);
    EVIL_INTO(f.unit);
    CHECK_OK(db_figure_put(d, &f));
  }
  for (int i = 0; i < 12; i++) {
    rec_kernel_point k = {.machine_id = m.id,
                          .device = "cpu",
                          .kernel = "expert_ffn",
                          .act = "f32",
                          .n_out = 64,
                          .n_in = 128,
                          .tokens = 1 << i / 2,
                          .threads = 2,
                          .ns_low = 90,
                          .ns = 100 + i,
                          .ns_high = 300,
                          .bytes = 4096};
    EVIL_INTO(k.candidate);
    EVIL_INTO(k.format);
    snprintf(k.act, sizeof k.act, "%d", i % 2);
    CHECK_OK(db_kernel_put(d, &k));
  }
  rec_link_point l = {.machine_id = m.id, .src = "<a>", .dst = "gpu0", .bytes = 4096, .ns_low = 1, .ns = 2, .ns_high = 3};
  CHECK_OK(db_link_put(d, &l));
  return m.id;
}

static json *evil_extra(void) {
  static const char text[] =
      "{\"baselines\":[{\"name\":\"<img>\",\"objective_ns\":5,\"depth\":1,\"decode_tok_per_s\":7,\"slower_by\":0.1},{\"name\":3}]"
      ","
      "\"by_depth\":[{\"depth\":1,\"state\":\"<script>\"}],\"advice\":{\"placement\":\"<script>alert(1)</script>\"},"
      "\"fallback\":{\"decode_tok_per_s\":5},\"simulation\":{\"device_busy\":0.5,\"cpu_busy\":\"<b>\"},\"certificate\":\"<img>\","
      "\"inputs\":{\"popularity\":{\"p\":[[],[[4,0.25],[4,0.5]],[[1,0.125],[7,0.75]]]}},"
      "\"changes\":{\"moved\":3,\"gain_expected\":0.05,\"old_objective_ns\":9,\"note\":\"<img>\",\"drift\":{\"<img>\":1.5},"
      "\"distinct_experts\":{\"measured\":3,\"predicted\":4},\"layers\":[{\"layer\":1,\"hit_in\":0.5,\"hit_out\":0.25,\"why\":\"<"
      "img>\"}]}}";
  json *doc;
  CHECK_OK(json_parse(text, sizeof text - 1, "extra", &doc));
  return doc;
}

static int64_t put_plan(fixture *f, int64_t machine, int64_t from_run, int first_on_device) {
  plan *p = sample_plan();
  p->machine_id = machine;
  p->from_run = from_run;
  EVIL_INTO(p->model);
  EVIL_INTO(p->family);
  EVIL_INTO(p->machine);
  EVIL_INTO(p->gpu);
  EVIL_INTO(p->binding);
  EVIL_INTO(p->popularity);
  EVIL_INTO(p->device[0].name);
  snprintf(p->device[0].spec, sizeof p->device[0].spec, "virtual:<img>");
  for (int i = 0; i < p->n_budget; i++) snprintf(p->budget[i].what, sizeof p->budget[i].what, "%d%.80s", i, EVIL);
  for (int l = 1; l < p->n_layers; l++)
    for (int e = 0; e < 8; e++) p->layer[l].device[e] = e >= first_on_device && e < first_on_device + 3 ? e % 2 : -1;
  json_free(p->extra);
  p->extra = evil_extra();
  CHECK_OK(db_plan_put(f->d, p));
  int64_t id = p->id;
  plan_free(p);
  return id;
}

static int64_t put_run(fixture *f, int64_t plan_id, double tok_per_s) {
  rec_run r;
  sample_run(&r);
  r.plan_id = plan_id;
  r.machine_id = f->machine;
  r.decode_tok_per_s = tok_per_s;
  snprintf(r.status, sizeof r.status, "done");
  EVIL_INTO(r.model);
  EVIL_INTO(r.gpu);
  CHECK_OK(db_run_put(f->d, &r));
  for (int i = 0; i < 3; i++) {
    rec_request q = {
        .run_id = r.id, .request = i, .prompt_tokens = 5, .output_tokens = i, .first_token_s = 0.5, .end_s = 1, .finish = "stop"};
    EVIL_INTO(q.ext_id);
    CHECK_OK(db_request_put(f->d, &q));
  }
  for (int l = 0; l < 3; l++) {
    rec_stage s = {.run_id = r.id,
                   .source = "run",
                   .stage = "cexp",
                   .phase = "decode",
                   .resource = "cpu",
                   .layer = l,
                   .steps = 10,
                   .ns_sum = 1000};
    CHECK_OK(db_stage_put(f->d, &s));
  }
  rec_stage step = {.run_id = r.id,
                    .source = "run",
                    .stage = "step",
                    .phase = "decode",
                    .resource = "all",
                    .layer = -1,
                    .steps = 10,
                    .ns_sum = 5000};
  CHECK_OK(db_stage_put(f->d, &step));
  for (int e = 0; e < 9; e++) { /* one expert more than the plan knows */
    rec_routing c = {.run_id = r.id, .layer = 1, .expert = e, .phase = "decode", .count = 10};
    CHECK_OK(db_routing_put(f->d, &c));
  }
  rec_distinct x = {.run_id = r.id, .layer = 1, .phase = "decode", .tokens = 5, .steps = 4, .sum = 12, .sum_sq = 40};
  CHECK_OK(db_distinct_put(f->d, &x));
  rec_event e = {.run_id = r.id, .at_ns = 5, .kind = "fault", .detail = EVIL "\xff\xfe\xc3("};
  CHECK_OK(db_event_put(f->d, &e));
  return r.id;
}

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  place_make(&f->place);
  CHECK_OK(db_open(f->place.path, true, &f->d));
  f->machine = put_machine(f->d, MACHINE_MEASURED, EVIL);
  f->catalog = put_machine(f->d, MACHINE_CATALOG, "catalog" EVIL);
  f->plan[0] = put_plan(f, f->machine, 0, 0);
  f->run[0] = put_run(f, f->plan[0], 100);
  f->plan[1] = put_plan(f, f->machine, f->run[0], 1);
  f->run[1] = put_run(f, f->plan[1], 120);
  f->whatif = put_plan(f, f->catalog, 0, 2);
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

/* ---- tests ---- */

static page *build(fixture *f, report_options o) {
  page *p;
  CHECK_OK(report_build(f->d, &o, &p));
  return p;
}

static void every_kind(void **state) {
  static const char *const kinds[] = {"machine", "plan", "run", "whatif", "loop"};
  fixture *f = *state;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    page *p = build(f, (report_options){.kind = kinds[i], .published = 51, .published_source = EVIL});
    check_page(p);
    page_free(p);
  }
}

/* The reader must see what it is there for. */
static void reader_finds(void **state) {
  (void)state;
  assert_true(listed("p", "head a p b"));
  assert_true(listed("a", "head a"));
  assert_false(listed("img", "p section"));
  assert_false(listed("ect", "p section"));
  const char *s = "a,\"b,\"\"c\n\",d\nnext";
  char first[64];
  assert_int_equal(csv_record(&s, first), 3);
  assert_string_equal(s, "next");
}

static bool has(const page *p, const char *text) {
  hf_buf b;
  hf_buf_init(&b, 1 << 28);
  CHECK_OK(page_html(p, &b));
  bool found = strstr(b.data, text) != NULL;
  hf_buf_free(&b);
  return found;
}

static void loop_chooses(void **state) {
  fixture *f = *state;
  page *p = build(f, (report_options){.kind = "loop"});
  assert_true(has(p, ">Second run: predicted against measured<"));
  assert_true(has(p, "Experts moved"));
  assert_true(has(p, "+20.0\xc2\xa0%")); /* 120 tokens/s after 100 */
  assert_false(has(p, "Not in this report"));
  page_free(p);
  p = build(f, (report_options){.kind = "loop", .plan = {f->plan[0]}, .run = {f->run[0]}});
  assert_false(has(p, ">Second run: predicted against measured<"));
  assert_true(has(p, "no re-plan"));
  page_free(p);
}

static void figures_of_a_run(void **state) {
  fixture *f = *state;
  char id[24];
  snprintf(id, sizeof id, "%lld", (long long)f->run[0]);
  page *p = build(f, (report_options){.kind = "run", .operand = id});
  assert_true(has(p, "+10.0\xc2\xa0%")); /* predicted 110, measured 100 */
  assert_true(has(p, "37.5\xc2\xa0%"));  /* 3 of the 8 known experts, equally often chosen */
  assert_true(has(p, "inside the predicted interval"));
  page_free(p);
}

static int64_t run_like(fixture *f, int requests, void (*change)(rec_run *r)) {
  rec_run r;
  CHECK_OK(db_run_get(f->d, f->run[0], &r));
  r.id = 0;
  change(&r);
  CHECK_OK(db_run_put(f->d, &r));
  for (int i = 0; i < requests; i++) {
    rec_request q = {.run_id = r.id, .request = i, .output_tokens = 2, .first_token_s = 0.5, .end_s = 1, .finish = "stop"};
    CHECK_OK(db_request_put(f->d, &q));
  }
  return r.id;
}

static void stop_it(rec_run *r) {
  snprintf(r->status, sizeof r->status, "stopped");
}

static void no_prediction(rec_run *r) {
  r->predicted_decode_tok_per_s = r->predicted_low = r->predicted_high = r->predicted_ttft_p50_s = r->predicted_tpot_p50_s = 0;
}

static void one_user(rec_run *r) {
  no_prediction(r);
  r->users = 1;
}

static void other_device(rec_run *r) {
  no_prediction(r);
  snprintf(r->gpu, sizeof r->gpu, "none");
}

static void no_interval(rec_run *r) {
  r->predicted_low = r->predicted_high = 0;
}

static void run_says(fixture *f, int64_t id, const char *fact, bool error) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)id);
  page *p = build(f, (report_options){.kind = "run", .operand = text});
  if (strstr(page_verdict_text(p), fact) == NULL) fail_msg("'%s' does not say '%s'", page_verdict_text(p), fact);
  assert_int_equal(has(p, ">not stated<"), !error);
  assert_false(strstr(page_verdict_text(p), "interval") != NULL);
  page_free(p);
}

/* No error where the run was not the planned one, and the reason at the top. */
static void runs_without_error(void **state) {
  fixture *f = *state;
  run_says(f, run_like(f, 5, stop_it), "no prediction is held against it: it was stopped before its end", false);
  run_says(f, run_like(f, 1, one_user), "it had 1 user, the plan is for", false);
  run_says(f, run_like(f, 5, other_device), "its device was none, the plan is for", false);
  run_says(f, run_like(f, 1, no_prediction), "it had 1 request, the plan is for 5 users at once", false);
  run_says(f, run_like(f, 5, no_prediction), "its load or its machine was not the planned one", false);
  run_says(f, run_like(f, 5, no_interval), "+10.0\xc2\xa0% off.", true);
}

/* Gains of runs that cannot be compared are not stated. */
static void gain_of_stopped_run(void **state) {
  fixture *f = *state;
  int64_t stopped = run_like(f, 5, stop_it);
  page *p = build(f, (report_options){.kind = "loop", .plan = {f->plan[0], f->plan[1]}, .run = {f->run[0], stopped}});
  assert_true(has(p, "the two runs cannot be compared"));
  assert_true(has(p, "not finished: no error"));
  assert_int_equal(page_verdict_count(p), 6); /* both runs are doubted: a quarter of the CPU was others' */
  assert_non_null(strstr(page_verdict_text(p), "Doubtful: measured beside other programs, which had 25"));
  page_free(p);
}

static void keys_and_words(void **state) {
  fixture *f = *state;
  page *p = build(f, (report_options){.kind = "loop"});
  hf_buf csv;
  hf_buf_init(&csv, 1 << 28);
  CHECK_OK(page_csv(p, &csv));
  assert_non_null(strstr(csv.data, "\ndecode_tok_per_s,"));
  assert_non_null(strstr(csv.data, "metric,predicted,measured,signed_error,unit\n"));
  assert_non_null(strstr(csv.data, "\ncexp,"));
  hf_buf_free(&csv);
  assert_false(has(p, ">decode_tok_per_s<"));
  assert_false(has(p, ">dram_read_bytes_per_s<"));
  assert_false(has(p, ">Unit<"));
  assert_true(has(p, ">Decode speed, all users, tokens/s<"));
  assert_true(has(p, ">Memory read bandwidth<"));
  assert_true(has(p, ">= whole step<"));
  page_free(p);
}

static void published(void **state) {
  fixture *f = *state;
  page *p = build(f, (report_options){.kind = "whatif", .published = 1e9});
  assert_true(has(p, "outside that interval"));
  page_free(p);
  p = build(f, (report_options){.kind = "whatif"});
  assert_false(has(p, "the published"));
  page_free(p);
}

static void refuses(fixture *f, report_options o, hf_status want, const char *says) {
  page *p = NULL;
  assert_int_equal(report_build(f->d, &o, &p), want);
  if (strstr(hf_error_line(), says) == NULL) fail_msg("'%s' does not say '%s'", hf_error_line(), says);
  assert_null(p);
}

static void refusals(void **state) {
  fixture *f = *state;
  refuses(f, (report_options){.kind = "poem"}, HF_INPUT, "machine, plan, run, whatif, sweep");
  refuses(f, (report_options){.kind = "plan", .operand = "x"}, HF_INPUT, "'x' is no id");
  refuses(f, (report_options){.kind = "plan", .operand = "99"}, HF_NOT_FOUND, "99");
  refuses(f, (report_options){.kind = "run", .operand = "99"}, HF_NOT_FOUND, "99");
  refuses(f, (report_options){.kind = "machine", .operand = "none"}, HF_NOT_FOUND, "none");
  refuses(f, (report_options){.kind = "loop", .operand = "1"}, HF_INPUT, "unexpected '1'");
  refuses(f, (report_options){.kind = "loop", .machine = "none"}, HF_NOT_FOUND, "none");
  refuses(f, (report_options){.kind = "loop", .whatif = 99}, HF_NOT_FOUND, "99");
}

static void empty_database(void **state) {
  fixture e = {0};
  (void)state;
  place_make(&e.place);
  CHECK_OK(db_open(e.place.path, true, &e.d));
  refuses(&e, (report_options){.kind = "machine"}, HF_NOT_FOUND, "hf-profile");
  refuses(&e, (report_options){.kind = "plan"}, HF_NOT_FOUND, "hf-plan");
  refuses(&e, (report_options){.kind = "run"}, HF_NOT_FOUND, "hf-run");
  refuses(&e, (report_options){.kind = "whatif"}, HF_NOT_FOUND, "hf-plan");
  refuses(&e, (report_options){.kind = "loop"}, HF_NOT_FOUND, "hf-profile");
  put_machine(e.d, MACHINE_MEASURED, "box");
  page *p = build(&e, (report_options){.kind = "loop"});
  assert_true(has(p, "no plan that was run"));
  page_free(p);
  db_close(e.d);
  place_remove(&e.place);
}

/* Without memory a report fails, and with one allocation more it gets further; nothing is left behind (the sanitizer looks). */
static void out_of_memory(void **state) {
  fixture *f = *state;
  report_options o = {.kind = "loop", .published = 51};
  hf_status st = HF_MACHINE;
  long failures = 0;
  for (long n = 1; st != HF_OK; n += 1 + n / 16) {
    page *p = NULL;
    hf_buf b;
    hf_buf_init(&b, 1 << 28);
    hf_fail_alloc_at(n);
    st = report_build(f->d, &o, &p);
    if (st == HF_OK) st = page_html(p, &b);
    hf_fail_alloc_at(0);
    if (st != HF_OK) assert_int_equal(st, HF_MACHINE);
    failures += st != HF_OK;
    hf_buf_free(&b);
    page_free(p);
    assert_true(n < 1000000);
  }
  assert_true(failures > 20);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_kind),       cmocka_unit_test(reader_finds),       cmocka_unit_test(loop_chooses),
      cmocka_unit_test(figures_of_a_run), cmocka_unit_test(published),          cmocka_unit_test(refusals),
      cmocka_unit_test(empty_database),   cmocka_unit_test(runs_without_error), cmocka_unit_test(gain_of_stopped_run),
      cmocka_unit_test(keys_and_words),   cmocka_unit_test(out_of_memory)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
