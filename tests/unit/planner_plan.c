/* Plans: what they carry recomputes their objective to the bit; what a run measured corrects the table and moves the right experts;
 * memory is accounted for and refusals say what would help. */
#include "planner/plan_make.h"
#include "planner/plan_show.h"

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

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static char path[64];
static db *database;

static int open_database(void **state) {
  (void)state;
  snprintf(path, sizeof path, "/tmp/hf-plan-test-%d.db", (int)getpid());
  return db_open(path, true, &database) == HF_OK ? 0 : -1;
}

static int close_database(void **state) {
  (void)state;
  db_close(database);
  unlink(path);
  char more[80];
  snprintf(more, sizeof more, "%s-wal", path);
  unlink(more);
  snprintf(more, sizeof more, "%s-shm", path);
  unlink(more);
  return 0;
}

static plan_request tiny(void) {
  plan_request r = {.model = "examples/tiny-moe",
                    .machine = "paced-desk",
                    .users = 5,
                    .context = 192,
                    .prompt_tokens = 64,
                    .output_tokens = 32};
  return r;
}

static void make(const plan_request *r, plan_inputs **in, planned *p) {
  ok(plan_inputs_open(database, r, in));
  ok(plan_make(*in, NULL, p));
}

static void done(plan_inputs *in, planned *p) {
  planned_free(p);
  plan_inputs_close(in);
}

/* Through JSON text and back: the same objective bits, the same feasibility. */
static void objective_survives_the_file(void **state) {
  (void)state;
  plan_request r = tiny();
  r.skew = "zipf:0.8";
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  json *doc = NULL, *back = NULL;
  char *text = NULL;
  ok(plan_to_json(p.p, &doc));
  ok(json_print(doc, true, &text));
  ok(json_parse(text, strlen(text), "plan", &back));
  plan *q = NULL;
  ok(plan_read_json(back, "plan", &q));
  plan_eval *v = NULL;
  ok(plan_eval_from_plan(q, "plan", &v));
  uint8_t *placement = NULL;
  ok(plan_placement(q, q->n_layers, q->n_experts, &placement));
  ilp_problem prob = plan_eval_problem(v, 1);
  ilp_evaluation e;
  ok(ilp_evaluate(&prob, placement, q->depth, NULL, &e));
  assert_true(e.objective_ns == p.p->ilp.objective_ns);
  assert_true(e.fits);
  assert_true(q->ilp.bound_ns <= q->ilp.objective_ns && q->ilp.gap <= 1e-3);
  for (int i = 0; i < q->n_layers * q->n_experts; i++) placement[i] = 1; /* everything on the device: too much */
  ok(ilp_evaluate(&prob, placement, q->depth, NULL, &e));
  assert_false(e.fits);
  free(placement);
  plan_eval_free(v);
  plan_free(q);
  json_free(back);
  json_free(doc);
  free(text);
  done(in, &p);
}

static void same_request_same_plan(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *a_in = NULL, *b_in = NULL;
  planned a, b;
  make(&r, &a_in, &a);
  make(&r, &b_in, &b);
  assert_string_equal(a.p->inputs_hash, b.p->inputs_hash);
  assert_true(a.p->ilp.objective_ns == b.p->ilp.objective_ns && a.p->decode_tok_per_s.low == b.p->decode_tok_per_s.low);
  for (int l = 0; l < a.p->n_layers; l++)
    if (a.p->layer[l].moe) assert_memory_equal(a.p->layer[l].device, b.p->layer[l].device, 32 * sizeof(int16_t));
  done(b_in, &b);
  r.users = 4;
  make(&r, &b_in, &b);
  assert_string_not_equal(a.p->inputs_hash, b.p->inputs_hash);
  done(a_in, &a);
  done(b_in, &b);
}

static void prediction_is_an_interval(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  const plan_range *t = &p.p->decode_tok_per_s;
  assert_true(0 < t->low && t->low < t->likely && t->likely < t->high && t->high / t->low < 2.5);
  assert_true(p.p->ttft_s.p50 <= p.p->ttft_s.p99 && p.p->tpot_s.p50 > 0);
  assert_string_equal(p.p->tag, "assumed");
  double slow = 0, fast = 0, mid = 0;
  ok(plan_step_ns(in, &p, (cost_case){-1, COST_ALL}, &slow));
  ok(plan_step_ns(in, &p, (cost_case){1, COST_ALL}, &fast));
  ok(plan_step_ns(in, &p, (cost_case){0}, &mid));
  assert_true(fast <= mid && mid <= slow);
  near(mid, p.p->ilp.objective_ns, 1e-12);
  done(in, &p);
}

/* The depth is the one that delivers most, but for the margin it must win by; gap and objective are those of that depth. */
static void depth_is_the_one_that_delivers_most(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  const json *depths = json_get(p.p->extra, "by_depth");
  int simulated = 0;
  for (const json *o = json_first(depths); o != NULL; o = json_next(o)) {
    double rate = json_number(json_get(o, "delivered_tok_per_s"), 0);
    simulated += rate > 0;
    assert_true(rate <= PLAN_DEPTH_MARGIN * PLAN_DEPTH_MARGIN * p.sustained.tok_per_s);
    if ((int)json_number(json_get(o, "depth"), 0) == p.p->depth) near(rate, p.sustained.tok_per_s, 1e-12);
  }
  assert_true(simulated >= 2);
  assert_int_equal(p.p->depth, p.ilp->depth);
  r.depth = p.p->depth;
  plan_inputs *fixed_in = NULL;
  planned fixed;
  make(&r, &fixed_in, &fixed);
  assert_true(fixed.p->ilp.objective_ns == p.p->ilp.objective_ns);
  done(fixed_in, &fixed);
  done(in, &p);
}

/* Rows of a place add up to what is needed there; with one byte less per expert than the plan uses it does not fit. */
static void memory_is_accounted_for(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  plan_sizes s;
  ok(plan_sizes_of(in, &s));
  int64_t sum = 0, resident = 0;
  for (int i = 0; i < p.p->n_budget; i++) {
    if (strcmp(p.p->budget[i].where, "gpu0") == 0) sum += p.p->budget[i].bytes;
    if (strcmp(p.p->budget[i].what, "resident experts") == 0) resident = p.p->budget[i].bytes;
  }
  int n = 0;
  for (int l = 0; l < p.p->n_layers; l++)
    for (int e = 0; e < p.p->layer[l].n_experts; e++) n += p.p->layer[l].device[e] >= 0;
  assert_int_equal(resident, n * s.expert[1]);
  assert_int_equal(s.expert[1], 3 * 64 * 128 * 2);
  assert_true(sum <= in->device_bytes);
  assert_int_equal(plan_expert_room(&s, 0, p.p->depth) + sum - resident, in->device_bytes);
  assert_int_equal(s.kv, 5 * 192 * 6 * (64 + 16) * 2 + 64 * 6);
  done(in, &p);
}

static void refusal_says_what_would_help(void **state) {
  (void)state;
  plan_request r = tiny();
  r.gpu = "virtual:1M";
  plan_inputs *in = NULL;
  planned p;
  ok(plan_inputs_open(database, &r, &in));
  assert_int_equal(plan_make(in, NULL, &p), HF_NO);
  assert_non_null(strstr(hf_error_line(), "gpu0"));
  assert_true(p.n_budget >= 4 && p.n_remedies >= 1);
  int64_t need = 0;
  assert_int_equal(sscanf(strchr(p.remedy[0], '('), "(%ld bytes)", &need), 1);
  done(in, &p);
  /* With what it asked for it fits, with a little less it does not. */
  char gpu[40];
  for (int less = 0; less < 2; less++) {
    snprintf(gpu, sizeof gpu, "virtual:%ld", (long)(less ? need - need / 20 : need + need / 20));
    r.gpu = gpu;
    r.chunk_tokens = 16;
    ok(plan_inputs_open(database, &r, &in));
    hf_status st = plan_make(in, NULL, &p);
    assert_int_equal(st, less ? HF_NO : HF_OK);
    done(in, &p);
  }
}

static void bad_requests(void **state) {
  (void)state;
  plan_inputs *in = NULL;
  plan_request r = tiny();
  r.context = 5000; /* the model can 1024 */
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "--context"));
  r = tiny();
  r.prompt_tokens = 190;
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_INPUT);
  r = tiny();
  r.depth = 6;
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_INPUT);
  r = tiny();
  r.machine = "no-such-machine";
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "--machine"));
  r = tiny();
  r.model = "no-such-model";
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "--model"));
  r = tiny();
  r.gpu = "cuda:3";
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_NOT_FOUND);
  r = tiny();
  r.format = "q99";
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_INPUT);
  assert_null(in);
}

/* ---- what a run teaches ---- */

static rec_stage row(const char *stage, int layer, int64_t steps, int64_t tokens, double ns_each) {
  rec_stage r = {.layer = layer, .steps = steps, .tokens = tokens, .ns_sum = ns_each * (double)steps};
  snprintf(r.source, sizeof r.source, "run");
  snprintf(r.phase, sizeof r.phase, "decode");
  snprintf(r.stage, sizeof r.stage, "%s", stage);
  return r;
}

/* A run whose stages took known multiples of the prediction gives exactly these factors back, and the corrected table predicts it. */
static void drift_finds_the_factors(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  const stage_table *t = p.eval->table;
  const double truth[DRIFT_N] = {1.5, 0.5, 3, 2, 1, 1.25};
  const uint8_t *dev = p.ilp->on_device;
  rec_stage rows[64];
  int n = 0;
  double step = 4 * t->step_fixed_ns + truth[DRIFT_HEAD] * stage_curve_at(&t->head, 5);
  for (int l = 0; l < t->n_layers; l++) {
    layer_times y = stage_layer_times(t, in->pop, l, 5, 80, dev + l * t->n_experts);
    rows[n++] = row("attn", l, 50, 250, truth[DRIFT_ATTN] * y.attn_ns);
    rows[n++] = row("shared", l, 50, 250, truth[DRIFT_SHARED] * y.shared_ns);
    if (y.dexp_ns > 0) rows[n++] = row("dexp", l, 50, 250, truth[DRIFT_DEXP] * y.dexp_ns);
    if (y.cexp_ns > 0) rows[n++] = row("cexp", l, 50, 250, truth[DRIFT_CEXP] * y.cexp_ns);
    step +=
        truth[DRIFT_ATTN] * y.attn_ns + fmax(truth[DRIFT_SHARED] * y.shared_ns + truth[DRIFT_DEXP] * y.dexp_ns,
                                             truth[DRIFT_CEXP] * y.cexp_ns + 4 * y.hand_ns); /* hand-over: four times, unseen */
  }
  rows[n++] = row("head", t->n_layers, 50, 250, truth[DRIFT_HEAD] * stage_curve_at(&t->head, 5));
  rows[n] = row("attn", 0, 50, 250, 1e9); /* another phase must not count */
  snprintf(rows[n++].phase, sizeof rows[0].phase, "prefill");
  rows[n++] = row("step", -1, 50, 0, step);
  plan_drift d = {.run = {.depth = 1}};
  drift_compare(t, in->pop, dev, 80, rows, n, &d);
  for (int s = 0; s < DRIFT_N; s++) {
    assert_int_equal(d.used[s], s != DRIFT_HAND);
    if (d.used[s]) near(d.factor[s], truth[s], 1e-9);
  }
  near(d.fixed_factor, 4, 1e-9);
  double hand = t->layer[2].hand_ns, cexp = stage_curve_at(&t->layer[2].cexp, 1);
  plan_drift_apply(&d, p.eval->table);
  near(p.eval->table->layer[2].hand_ns, 4 * hand, 1e-9);
  near(stage_curve_at(&p.eval->table->layer[2].cexp, 1), 2 * cexp, 1e-9);
  assert_string_equal(p.eval->table->tag, "measured");
  done(in, &p);
}

static void put_run(const plan *p, rec_run *run) {
  *run = (rec_run){.plan_id = p->id, .machine_id = p->machine_id, .users = p->users, .depth = p->depth, .output_tokens = 160};
  snprintf(run->model, sizeof run->model, "%s", p->model);
  snprintf(run->gpu, sizeof run->gpu, "%s", p->gpu);
  snprintf(run->kind, sizeof run->kind, "prompts");
  snprintf(run->status, sizeof run->status, "done");
  ok(db_run_put(database, run));
}

/* A run in which 8 known experts of each layer take nearly everything: they must come to the device, and a gain be promised. */
static void replanning_moves_the_hot_experts(void **state) {
  (void)state;
  plan_request r = tiny();
  r.depth = 1;
  r.chunk_tokens = 64; /* buffers that leave room for the hot ones, hardly more */
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  ok(db_plan_put(database, p.p));
  rec_run run;
  put_run(p.p, &run);
  for (int l = 1; l < 6; l++)
    for (int e = 0; e < 32; e++) {
      bool hot = e % 4 == l % 4;
      rec_routing c = {.run_id = run.id, .layer = l, .expert = e, .count = hot ? 480 + e : 10};
      snprintf(c.phase, sizeof c.phase, "decode");
      ok(db_routing_put(database, &c));
    }
  rec_distinct x = {.run_id = run.id, .layer = 1, .phase = "decode", .tokens = 5, .steps = 10, .sum = 70, .sum_sq = 500};
  ok(db_distinct_put(database, &x));
  done(in, &p);

  r.from_run = run.id;
  make(&r, &in, &p);
  int hot_resident = 0, cold_resident = 0;
  for (int l = 1; l < 6; l++)
    for (int e = 0; e < 32; e++) {
      bool resident = p.p->layer[l].device[e] >= 0;
      *(e % 4 == l % 4 ? &hot_resident : &cold_resident) += resident;
    }
  assert_true(hot_resident > 0);
  assert_true(8 * cold_resident < hot_resident); /* rarely chosen ones only where device and CPU tie to the last bits */
  const json *c = json_get(p.p->extra, "changes");
  assert_true(json_number(json_get(c, "moved"), 0) >= 1);
  double gain = json_number(json_get(c, "gain_expected"), -1);
  assert_true(gain > 0.02);
  assert_true(json_number(json_get(json_get(c, "distinct_experts"), "measured"), 0) == 7);
  assert_true(json_len(json_get(c, "layers")) >= 1);
  assert_string_equal(p.p->popularity, p.eval->pop->source);
  assert_non_null(strstr(p.p->popularity, "run "));
  plan_eval *read = NULL; /* what a stored plan says of prompts comes back */
  ok(plan_eval_from_plan(p.p, "plan", &read));
  assert_memory_equal(read->pop->p, p.eval->pop->p, 6 * 32 * sizeof(double));
  assert_memory_equal(read->pop->prefill, p.eval->pop->prefill, 6 * 32 * sizeof(double));
  plan_eval_free(read);
  assert_int_equal(p.p->from_run, run.id);
  /* The promise is the exact objective of the old placement over the new one. */
  ilp_problem prob = plan_eval_problem(p.eval, 1);
  ilp_evaluation old;
  ok(ilp_evaluate(&prob, p.drift->old_placement, 1, NULL, &old));
  near(json_number(json_get(c, "objective_gain"), -1), old.objective_ns / p.p->ilp.objective_ns - 1, 1e-12);
  near(gain, json_number(json_get(c, "objective_gain"), -1), 0.1); /* at depth 1 the simulation says the same */
  done(in, &p);
}

static void runs_of_other_models_are_refused(void **state) {
  (void)state;
  plan_request r = tiny();
  r.from_run = 123456;
  plan_inputs *in = NULL;
  hf_status st = plan_inputs_open(database, &r, &in);
  assert_true(st == HF_NOT_FOUND || st == HF_INPUT);
  assert_null(in);
}

static int machines_stored(void) {
  rec_machine *list = NULL;
  int n = 0;
  ok(db_machine_list(database, &list, &n));
  free(list);
  return n;
}

/* A machine of parts becomes rows only with the plan that is stored. */
static void bad_requests_leave_no_machine(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  r.machine = "cpu=xeon-6787p,gpu=rtx4090";
  int before = machines_stored();
  r.gpu = "cuda:3";
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_NOT_FOUND);
  r.gpu = "paced:xeon6-mrdimm-rtx4090";
  r.skew = "zipf:nan";
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_INPUT);
  r.skew = NULL;
  r.census = "tests/no-such-file.json";
  assert_int_not_equal(plan_inputs_open(database, &r, &in), HF_OK);
  assert_int_equal(machines_stored(), before);
  r.census = NULL;
  ok(plan_inputs_open(database, &r, &in));
  assert_int_equal(machines_stored(), before);
  ok(plan_inputs_store(in));
  assert_int_equal(machines_stored(), before + 2);
  assert_true(in->host->machine.id > 0 && in->paced->machine.id > in->host->machine.id);
  plan_inputs_close(in);
  ok(plan_inputs_open(database, &r, &in));
  ok(plan_inputs_store(in)); /* found again, not made again */
  assert_int_equal(machines_stored(), before + 2);
  plan_inputs_close(in);
}

/* Rates that no machine has would make times that no clock can count. */
static void absurd_machines_are_refused(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  static const char doc[] =
      "{\"name\":\"absurd\",\"title\":\"t\",\"source\":\"s\",\"date\":\"2025-01-01\",\"devices\":[{\"device\":\"cpu0\",\"kind\":"
      "\"cpu\",\"name\":\"c\",\"cores\":8,\"mem_bytes\":1e12}],\"figures\":[{\"device\":\"cpu\",\"what\":"
      "\"dram_read_bytes_per_s\",\"value\":1e-30,\"unit\":\"B/s\"}]}";
  char file[64];
  snprintf(file, sizeof file, "/tmp/hf-plan-test-%d.json", (int)getpid());
  ok(hf_write_file(file, doc, sizeof doc - 1));
  r.machine = file;
  int before = machines_stored();
  assert_int_equal(plan_inputs_open(database, &r, &in), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "machine absurd"));
  assert_int_equal(machines_stored(), before);
  unlink(file);
}

static void put_product(int64_t machine, const char *candidate, int rows, int tokens, int threads, double ns) {
  rec_kernel_point k = {.machine_id = machine, .n_out = rows, .n_in = 128, .tokens = tokens, .threads = threads, .n = 5};
  k.ns_low = k.ns = k.ns_high = ns;
  snprintf(k.device, sizeof k.device, "cpu");
  snprintf(k.kernel, sizeof k.kernel, "matmul");
  snprintf(k.candidate, sizeof k.candidate, "%s", candidate);
  snprintf(k.format, sizeof k.format, "bf16");
  snprintf(k.act, sizeof k.act, "bf16");
  ok(db_kernel_put(database, &k));
}

/* "wide" wins on a shape that the model has not and with threads that the plan does not use, whatever its times per weight there. */
static void kernels_are_compared_like_for_like(void **state) {
  (void)state;
  rec_machine m = {.kind = MACHINE_MEASURED, .created_ns = 1, .facts_json = "{}"};
  snprintf(m.name, sizeof m.name, "kernel-contest");
  ok(db_machine_put(database, &m));
  rec_device d = {.machine_id = m.id, .device = "cpu0", .kind = "cpu", .cores = 2, .mem_bytes = 1LL << 34};
  ok(db_device_put(database, &d));
  for (int tokens = 1; tokens <= 64; tokens *= 8) {
    bool many = tokens > 1;
    put_product(m.id, "few", 128, tokens, 2, many ? 200 * tokens : 100);
    put_product(m.id, "many", 128, tokens, 2, many ? 100 * tokens : 200);
    put_product(m.id, "wide", 128, tokens, 2, 900 * tokens);
    put_product(m.id, "wide", 4096, tokens, 2, 32 * tokens);
    put_product(m.id, "wide", 128, tokens, 1, 1 * tokens);
  }
  plan_request r = tiny();
  r.machine = "kernel-contest";
  r.gpu = "none";
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  assert_int_equal(p.p->threads, 2);
  assert_int_equal(p.p->n_kernels, 2);
  assert_string_equal(p.p->kernel[0].candidate, "few");
  assert_string_equal(p.p->kernel[1].candidate, "many");
  assert_true(p.p->kernel[0].tokens_lo == 1 && p.p->kernel[0].tokens_hi == 7);
  assert_true(p.p->kernel[1].tokens_lo == 8 && p.p->kernel[1].tokens_hi == INT32_MAX);
  done(in, &p);
}

/* 0.12^2 + 0.09^2 = 0.15^2 and 0.4^2 + 0.09^2 = 0.41^2, 0.09 being what such models miss; an effect counts on the side it acts on. */
static void doubts_add_up_as_independent_ones(void **state) {
  (void)state;
  double slower = 0, faster = 0;
  plan_combine((const double[][2]){{0.12, -0.4}, {0, 0}}, 2, &slower, &faster);
  near(slower, exp(0.15), 1e-12);
  near(faster, exp(0.41), 1e-12);
  plan_combine((const double[][2]){{-0.4, 0.12}}, 1, &slower, &faster);
  near(slower, exp(0.15), 1e-12);
  near(faster, exp(0.41), 1e-12);
  plan_combine(NULL, 0, &slower, &faster);
  near(slower, exp(0.09), 1e-12);
  near(faster, exp(0.09), 1e-12);
}

/* The largest doubt of the published case by hand: two sockets read 58 % of theoretical (at least 44 %) times 1.51 (at least 1.4), so that
 * the CPU experts take 1.42175 times as long; the rest of the step stays. */
static void interval_of_deepseek_r1(const plan_inputs *in, const planned *p) {
  double likely = 0, slow = 0, by_hand = 0, slower = 0, faster = 0, effect[COST_N_GROUPS][2];
  const stage_table *t = p->eval->table;
  ok(plan_step_ns(in, p, (cost_case){0}, &likely));
  ok(plan_step_ns(in, p, (cost_case){-1, COST_CPU_MEM}, &slow));
  for (int l = 0; l < t->n_layers; l++) {
    const layer_times *y = &p->ilp->layer[l].times;
    double experts = t->layer[l].moe ? y->cexp_ns - t->layer[l].cexp_fixed_ns : 0;
    double more = experts * (0.58 / 0.44 * 1.51 / 1.4 - 1), device = y->shared_ns + y->dexp_ns, cpu = y->hand_ns + y->cexp_ns;
    by_hand += fmax(device, cpu + more) - fmax(device, cpu);
  }
  assert_true(by_hand > 0.2 * likely);
  near(slow - likely, by_hand, 1e-9);
  for (int g = 0; g < COST_N_GROUPS; g++)
    for (int side = 0; side < 2; side++) {
      double ns = 0;
      ok(plan_step_ns(in, p, (cost_case){side == 0 ? -1 : 1, 1u << g}, &ns));
      effect[g][side] = log(ns / likely);
    }
  plan_combine(effect, COST_N_GROUPS, &slower, &faster);
  near(p->p->decode_tok_per_s.likely / p->p->decode_tok_per_s.low, slower, 1e-12);
  near(p->p->decode_tok_per_s.high / p->p->decode_tok_per_s.likely, faster, 1e-12);
}

/* The published case: proven gap, interval narrow enough to mean something. Whether the published 51 tokens/s lie inside is for the demo to
 * print, not a property of the program. */
static void deepseek_r1_from_the_catalog(void **state) {
  (void)state;
  plan_request r = {.model = "deepseek-r1",
                    .machine = "xeon6-mrdimm-rtx4090",
                    .users = 5,
                    .context = 2048,
                    .prompt_tokens = 256,
                    .output_tokens = 64,
                    .depth = 1};
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  interval_of_deepseek_r1(in, &p);
  assert_true(p.p->ilp.gap <= 1e-3);
  assert_string_equal(p.p->format, "q4_k_m");
  const plan_range *t = &p.p->decode_tok_per_s;
  assert_true(t->high / t->low < 2.5);
  assert_string_equal(p.p->binding, "DRAM bandwidth");
  assert_true(json_len(json_get(p.p->extra, "baselines")) == ILP_N_BASELINES);
  done(in, &p);
}

static void damaged_inputs_are_refused(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  json *doc = NULL;
  char *text = NULL;
  ok(plan_to_json(p.p, &doc));
  ok(json_print(doc, false, &text));
  const char *const damage[][2] = {{"\"inputs\"", "\"outputs\""},
                                   {"\"mean_context\":", "\"mean_contexts\":"},
                                   {"\"expert_bytes\":[0,", "\"expert_bytes\":["},
                                   {"\"source\":", "\"sources\":"},
                                   {"\"n_devices\":1", "\"n_devices\":7"},
                                   {"\"moe\":true", "\"moe\":7"}};
  for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
    char *inputs = strstr(text, "\"inputs\""), *at = strstr(inputs, damage[i][0]);
    assert_non_null(at);
    size_t before = (size_t)(at - text), n = strlen(text) + 32;
    char *bad = calloc(n, 1);
    assert_non_null(bad);
    snprintf(bad, n, "%.*s%s%s", (int)before, text, damage[i][1], at + strlen(damage[i][0]));
    json *o = NULL;
    plan *q = NULL;
    plan_eval *v = NULL;
    ok(json_parse(bad, strlen(bad), "bad.json", &o));
    ok(plan_read_json(o, "bad.json", &q));
    assert_int_equal(plan_eval_from_plan(q, "bad.json", &v), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), "bad.json"));
    assert_null(v);
    plan_free(q);
    json_free(o);
    free(bad);
  }
  free(text);
  json_free(doc);
  done(in, &p);
}

/* A search gives up on a plan only where its p95 is certainly over the limit: a limit just above what the whole load gives is met, whatever a step
 * of all users takes. Prompts in small chunks keep users out of the steps of those who decode, which are shorter then. */
static void giving_up_never_refuses_what_meets(void **state) {
  (void)state;
  static const struct {
    const char *gpu;
    int users, depth, prompt, output, chunk;
  } load[] = {{NULL, 16, 1, 120, 12, 4}, {NULL, 12, 2, 100, 16, 2}, {"none", 16, 1, 120, 12, 1},
              {NULL, 5, 1, 64, 32, 0},   {NULL, 8, 3, 64, 32, 0},   {"none", 1, 1, 64, 32, 0}};
  int shorter = 0, given_up = 0;
  for (size_t i = 0; i < sizeof load / sizeof *load; i++) {
    plan_request r = tiny();
    r.gpu = load[i].gpu;
    r.users = load[i].users;
    r.depth = load[i].depth;
    r.prompt_tokens = load[i].prompt;
    r.output_tokens = load[i].output;
    r.chunk_tokens = load[i].chunk;
    plan_inputs *in = NULL;
    planned p;
    sustained_result load_of;
    make(&r, &in, &p);
    double p95 = p.sustained.tpot_s.p95;
    p.slo_tpot_s = 1.0001 * p95;
    ok(plan_sustain(in, &p, p.ilp, 1, &load_of));
    if (load_of.given_up || load_of.tpot_s.p95 != p95)
      fail_msg("case %d: p95 %g s is given up at %g s: %g s", (int)i, p95, p.slo_tpot_s, load_of.tpot_s.p95);
    shorter += 1e-9 * p.ilp->objective_ns > p.slo_tpot_s;
    p.slo_tpot_s = 1e-3 * p95;
    ok(plan_sustain(in, &p, p.ilp, 1, &load_of));
    given_up += load_of.given_up && load_of.requests == 0; /* seen without simulating */
    assert_true(load_of.tpot_s.p95 > p.slo_tpot_s && load_of.tpot_s.p95 <= p95 * (1 + 1e-9));
    done(in, &p);
  }
  assert_true(shorter > 0); /* else this would show nothing */
  assert_int_equal(given_up, (int)(sizeof load / sizeof *load));
}

/* A placement that is slower and keeps the limits is not the one of the least step either. */
static void who_chose_the_placement(void **state) {
  (void)state;
  plan_request r = tiny();
  plan_inputs *in = NULL;
  planned p;
  make(&r, &in, &p);
  for (int i = 0; i < 3; i++) {
    static const double gain[] = {0, 0.02, -0.02};
    json *o = json_new_object();
    p.near = i > 0;
    p.near_gain = gain[i];
    ok(plan_extras(in, &p, o));
    assert_string_equal(json_string(json_get(o, "placement_chosen_by")), i > 0 ? "simulation" : "objective");
    assert_true(json_number(json_get(o, "placement_gain"), 0) == gain[i]);
    json_free(o);
  }
  hf_buf text;
  hf_buf_init(&text, 1 << 20);
  json_free(p.p->extra);
  p.p->extra = json_new_object();
  snprintf(p.ilp->failure, sizeof p.ilp->failure, "GLPK gave up: for a test");
  ok(plan_extras(in, &p, p.p->extra));
  ok(plan_show(p.p, &text));
  assert_non_null(strstr(text.data, "of a simple placement, without certificate: GLPK gave up: for a test"));
  assert_null(strstr(text.data, "no placement below"));
  hf_buf_free(&text);
  done(in, &p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(objective_survives_the_file),
      cmocka_unit_test(who_chose_the_placement),
      cmocka_unit_test(same_request_same_plan),
      cmocka_unit_test(prediction_is_an_interval),
      cmocka_unit_test(depth_is_the_one_that_delivers_most),
      cmocka_unit_test(memory_is_accounted_for),
      cmocka_unit_test(refusal_says_what_would_help),
      cmocka_unit_test(bad_requests),
      cmocka_unit_test(drift_finds_the_factors),
      cmocka_unit_test(replanning_moves_the_hot_experts),
      cmocka_unit_test(runs_of_other_models_are_refused),
      cmocka_unit_test(bad_requests_leave_no_machine),
      cmocka_unit_test(absurd_machines_are_refused),
      cmocka_unit_test(kernels_are_compared_like_for_like),
      cmocka_unit_test(doubts_add_up_as_independent_ones),
      cmocka_unit_test(deepseek_r1_from_the_catalog),
      cmocka_unit_test(damaged_inputs_are_refused),
      cmocka_unit_test(giving_up_never_refuses_what_meets),
  };
  return cmocka_run_group_tests(tests, open_database, close_database);
}
