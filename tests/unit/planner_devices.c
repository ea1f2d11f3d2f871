/* Several devices and other machines: which are taken, which layers each is home of, what an expert elsewhere costs, what needs how much where. */
#include "planner/plan_inputs.h"
#include "planner/plan_make.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "planner/cost/remote.h"

static void near(double a, double b, double rel) {
  if (!(fabs(a - b) <= rel * fmax(1e-300, fmax(fabs(a), fabs(b))))) fail_msg("%.17g differs from %.17g", a, b);
}

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static rec_figure figures[40];
static int n_figures;

static void figure(const char *device, const char *what, double likely) {
  rec_figure *f = &figures[n_figures++];
  *f = (rec_figure){.id = n_figures, .low = 0.8 * likely, .likely = likely, .high = 1.25 * likely, .tag = TAG_SPEC};
  snprintf(f->device, sizeof f->device, "%s", device);
  snprintf(f->what, sizeof f->what, "%s", what);
}

static void gpu_figures(const char *device, double scale) {
  figure(device, "gpu_mem_bytes_per_s", scale * 100e9);
  figure(device, "gpu_flops_bf16", scale * 1e13);
  figure(device, "launch_ns", 400);
  figure(device, "handover_ns", 2000 * scale);
  figure(device, "pcie_h2d_bytes_per_s", scale * 5e9);
  figure(device, "pcie_d2h_bytes_per_s", scale * 4e9);
}

/* A CPU and two GPUs, the second half as fast; memory as given. */
static cost_rows *machine(int64_t mem0, int64_t mem1) {
  rec_machine m = {.id = 0};
  rec_device dev[3] = {{.device = "cpu0", .kind = "cpu", .cores = 8, .mem_bytes = 1 << 30},
                       {.device = "gpu0", .kind = "gpu", .name = "fast", .mem_bytes = mem0},
                       {.device = "gpu1", .kind = "gpu", .name = "slow", .mem_bytes = mem1}};
  cost_rows *r = NULL;
  snprintf(m.name, sizeof m.name, "two-gpus");
  n_figures = 0;
  figure("cpu", "dram_read_bytes_per_s", 10e9);
  figure("cpu", "cpu_flops_bf16", 1e12);
  figure("cpu", "layer_fixed_ns", 1000);
  figure("", "step_fixed_ns", 5000);
  gpu_figures("gpu0", 1);
  gpu_figures("gpu1", 0.5);
  ok(cost_rows_from_arrays(&m, dev, 3, figures, n_figures, NULL, 0, NULL, 0, &r));
  return r;
}

static void sets_of_gpus(void **state) {
  (void)state;
  gpu_set s;
  ok(gpu_set_parse("none", &s));
  assert_true(s.n == 0 && gpu_set_kind(&s) == GPU_NONE);
  ok(gpu_set_parse("virtual:8M", &s));
  assert_true(s.n == 1 && gpu_set_kind(&s) == GPU_VIRTUAL);
  ok(gpu_set_parse("cuda:0+cuda:2:16G", &s));
  assert_true(s.n == 2 && strcmp(s.g[0].device, "gpu0") == 0 && strcmp(s.g[1].device, "gpu2") == 0);
  assert_true(s.g[0].size_bytes == 0 && s.g[1].size_bytes == 16LL << 30);
  assert_string_equal(s.text, "cuda:0+cuda:2:16G");
  ok(gpu_set_parse("paced:odd+name:8M", &s)); /* a machine may be called so */
  assert_true(s.n == 1 && strcmp(s.g[0].machine, "odd+name") == 0);
  const char *const bad[] = {
      "cuda:0+", "cuda:0+cuda:0",  "cuda:0+virtual:8M", "cuda:0+none",
      "+cuda:0", "cuda:0++cuda:1", "cuda:0 cuda:1",     "cuda:0+cuda:1+cuda:2+cuda:3+cuda:4+cuda:5+cuda:6+cuda:7+cuda:8"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_int_equal(gpu_set_parse(bad[i], &s), HF_INPUT);
  cost_rows *r = machine(1 << 20, 1 << 20);
  ok(gpu_set_default(r, 8, &s));
  assert_string_equal(s.text, "cuda:0+cuda:1");
  ok(gpu_set_default(r, 1, &s));
  assert_string_equal(s.text, "cuda:0");
  r->n_device = 1;
  ok(gpu_set_default(r, 8, &s));
  assert_string_equal(s.text, "none");
  cost_rows_free(r);
}

static void layers_by_speed_and_memory(void **state) {
  (void)state;
  double cost[12];
  int64_t bytes[12];
  uint8_t home[12];
  const double speed[3] = {2, 1, 1};
  const int64_t much[3] = {1000, 1000, 1000};
  for (int i = 0; i < 12; i++) {
    cost[i] = 10;
    bytes[i] = 10;
  }
  cost_split_layers(cost, bytes, 12, speed, much, 3, home);
  const uint8_t fair[12] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2};
  assert_memory_equal(home, fair, 12);
  const int64_t small_first[3] = {20, 1000, 1000};
  cost_split_layers(cost, bytes, 12, speed, small_first, 3, home);
  int count[3] = {0};
  for (int i = 0; i < 12; i++) {
    count[home[i]]++;
    assert_true(i == 0 || home[i] >= home[i - 1]); /* contiguous */
  }
  assert_int_equal(count[0], 2);
  const int64_t small_last[3] = {1000, 40, 10};
  memset(count, 0, sizeof count);
  cost_split_layers(cost, bytes, 12, speed, small_last, 3, home);
  for (int i = 0; i < 12; i++) count[home[i]]++;
  assert_true(count[1] <= 4 && count[2] <= 1 && count[0] >= 7);
  const int64_t too_small[3] = {10, 10, 10}; /* nothing fits: fair shares, the budget will tell */
  cost_split_layers(cost, bytes, 12, speed, too_small, 3, home);
  assert_memory_equal(home, fair, 12);
  cost_split_layers(cost, bytes, 12, speed, much, 1, home);
  assert_true(home[0] == 0 && home[11] == 0);
}

static plan_inputs *open_plan(const cost_rows *r, const char *gpu, int64_t context) {
  plan_request q = {.model = "examples/tiny-moe",
                    .host_rows = r,
                    .gpu = gpu,
                    .users = 5,
                    .context = context,
                    .prompt_tokens = 64,
                    .output_tokens = 32,
                    .chunk_tokens = 64};
  plan_inputs *in = NULL;
  ok(plan_inputs_open(NULL, &q, &in));
  return in;
}

/* Six layers, the second device half as fast: four and two. Hand-overs cross both devices' links, half of the bytes each way. */
static void table_of_two_devices(void **state) {
  (void)state;
  cost_rows *r = machine(64 << 20, 64 << 20);
  plan_inputs *in = open_plan(r, "cuda:0+cuda:1", 192), *one = open_plan(r, "cuda:0", 192);
  stage_table *t = NULL, *u = NULL;
  cost_input ci = plan_cost_input(in), ci1 = plan_cost_input(one);
  ok(cost_table(&ci, (cost_case){0}, &t));
  ok(cost_table(&ci1, (cost_case){0}, &u));
  assert_int_equal(t->n_devices, 2);
  const int home[6] = {0, 0, 0, 0, 1, 1};
  for (int l = 0; l < 6; l++) assert_int_equal(t->layer[l].home, home[l]);
  assert_null(u->place);
  double expert = 3 * 64 * 128 * 2, half = (2 * 4 * 128 + 8 * 4) / 2.0;
  near(stage_curve_at(&t->layer[1].dexp, 1), 1e9 * expert / 100e9, 1e-9);
  near(stage_curve_at(&t->layer[5].dexp, 1), 1e9 * expert / 50e9, 1e-9);
  const stage_place *p = stage_place_of(t, 1, 2); /* layer 1, experts on the second device */
  near(stage_curve_at(&p->exp, 1), 1e9 * expert / 50e9, 1e-9);
  near(p->fixed_ns, 400, 1e-12);
  near(p->hand_ns, 2000 + 1000, 1e-12);
  near(p->hand_tok_ns, 1e9 * half * (1 / 4e9 + 1 / 2.5e9 + 1 / 2e9 + 1 / 5e9), 1e-12);
  near(t->layer[5].hand_tok_ns, 1e9 * half * (1 / 2.5e9 + 1 / 2e9), 1e-12);
  near(t->layer[5].upload_ns, 1e9 * expert / 2.5e9, 1e-12);
  /* layer 4 has another home than layer 3: the residual stream goes 0 -> host -> 1 */
  double hop = 0.5 * (2000 + 1000) + 4.0 * 128 * 1e9 * (1 / 4e9 + 1 / 2.5e9) * 7;
  near(stage_curve_at(&t->layer[4].attn, 7) - stage_curve_at(&t->layer[5].attn, 7), hop, 1e-9);
  near(stage_curve_at(&t->layer[2].attn, 7), stage_curve_at(&u->layer[2].attn, 7), 0);
  /* both ways through JSON */
  json *o = json_new_object();
  stage_table *back = NULL;
  ok(stage_table_to_json(t, o));
  ok(stage_table_from_json(o, "table", &back));
  json *again = json_new_object();
  char *text[2] = {NULL};
  ok(stage_table_to_json(back, again));
  ok(json_print(o, false, &text[0]));
  ok(json_print(again, false, &text[1]));
  assert_string_equal(text[0], text[1]);
  for (int i = 0; i < 2; i++) free(text[i]);
  json_free(again);
  for (int l = 0; l < 6; l++) assert_int_equal(back->layer[l].home, home[l]);
  json_free(o);
  stage_table_free(back);
  stage_table_free(t);
  stage_table_free(u);
  plan_inputs_close(in);
  plan_inputs_close(one);
  cost_rows_free(r);
}

/* What one device would hold is what two hold together, but for what each has for itself. */
static void sizes_by_device(void **state) {
  (void)state;
  cost_rows *r = machine(64 << 20, 32 << 20);
  plan_inputs *in = open_plan(r, "cuda:0+cuda:1:16M", 192), *one = open_plan(r, "cuda:0", 192);
  plan_sizes s, u;
  ok(plan_sizes_of(in, &s));
  ok(plan_sizes_of(one, &u));
  assert_int_equal(s.device[0].dense + s.device[1].dense, u.dense);
  assert_int_equal(s.device[0].kv + s.device[1].kv, u.kv);
  assert_int_equal(u.kv, 5 * 192 * 6 * (64 + 16) * 2 + 64 * 6);
  assert_int_equal(s.device[1].kv, u.kv / 3);
  assert_int_equal(s.device[0].head + s.device[1].head, u.head * (in->c->tied_embeddings ? 2 : 1));
  assert_int_equal(s.device[1].limit, 16 << 20);
  assert_int_equal(plan_expert_room(&u, 0, 2) - plan_expert_room(&u, 0, 3), u.activations + u.slots);
  assert_true(u.slots > 0 && u.device[0].slots == u.slots && s.device[1].slots == u.slots);
  plan_resident resident = {.device = {1000, 2000}};
  plan_budget rows[PLAN_MAX_BUDGET];
  int n = plan_budget_rows(in, &s, 1, &resident, rows);
  int64_t sum[2] = {0}, cpu = 0;
  for (int i = 0; i < n; i++) {
    for (int d = 0; d < 2; d++) sum[d] += strcmp(rows[i].where, d ? "gpu1" : "gpu0") == 0 ? rows[i].bytes : 0;
    if (strcmp(rows[i].what, "experts on the CPU") == 0) cpu = rows[i].bytes;
  }
  for (int d = 0; d < 2; d++) assert_int_equal(sum[d] + plan_expert_room(&s, d, 1) - resident.device[d], s.device[d].limit);
  assert_int_equal(cpu, s.all_experts - 3000);
  assert_null(plan_budget_over(rows, n));
  resident.device[1] = plan_expert_room(&s, 1, 1) + 1;
  n = plan_budget_rows(in, &s, 1, &resident, rows);
  assert_string_equal(plan_budget_over(rows, n), "gpu1");
  plan_inputs_close(in);
  plan_inputs_close(one);
  cost_rows_free(r);
}

static void a_small_second_device_gets_fewer_layers(void **state) {
  (void)state;
  cost_rows *r = machine(64 << 20, 64 << 20);
  plan_inputs *wide = open_plan(r, "cuda:0+cuda:1", 1024);
  plan_sizes s;
  ok(plan_sizes_of(wide, &s));
  assert_int_equal(wide->home[4], 1);
  /* room for one layer only */
  int64_t used = s.device[1].limit - plan_expert_room(&s, 1, 1) - s.device[1].margin,
          layer = (s.device[1].dense + s.device[1].kv) / 2;
  int64_t one = (int64_t)((double)(used - layer / 2) / (1 - 1 / 16.0 - 1 / 50.0)); /* the margin is a share of the memory */
  char gpu[64];
  snprintf(gpu, sizeof gpu, "cuda:0+cuda:1:%lld", (long long)one);
  plan_inputs *tight = open_plan(r, gpu, 1024);
  assert_true(tight->home[4] == 0 && tight->home[5] == 1);
  ok(plan_sizes_of(tight, &s));
  assert_true(plan_expert_room(&s, 1, 1) >= 0);
  plan_inputs_close(wide);
  plan_inputs_close(tight);
  cost_rows_free(r);
}

/* A device that is too small for a layer has none, nor embedding or output: they are where the first and the last layer are, as in hf-run. */
static void a_device_without_layers(void **state) {
  (void)state;
  cost_rows *r = machine(64 << 20, 64 << 20);
  plan_inputs *wide = open_plan(r, "cuda:0+cuda:1", 1024);
  plan_sizes s;
  ok(plan_sizes_of(wide, &s));
  const int64_t head = s.device[0].head + s.device[1].head, buffers = s.activations + s.slots + s.rope + 4096;
  const int64_t bare = (int64_t)((double)buffers / (1 - 1 / 16.0 - 1 / 50.0)); /* the margin is a share of the memory */
  for (int tiny = 0; tiny < 2; tiny++) {
    char gpu[64];
    snprintf(gpu, sizeof gpu, tiny ? "cuda:0+cuda:1:%lld" : "cuda:0:%lld+cuda:1", (long long)bare);
    plan_inputs *in = open_plan(r, gpu, 1024);
    for (int l = 0; l < in->c->n_layers; l++) assert_int_equal(in->home[l], 1 - tiny);
    ok(plan_sizes_of(in, &s));
    assert_int_equal(s.device[tiny].head + s.device[tiny].dense + s.device[tiny].kv, 0);
    assert_int_equal(s.device[1 - tiny].head, in->c->tied_embeddings ? head / 2 : head);
    assert_true(plan_expert_room(&s, 0, 1) >= 0 && plan_expert_room(&s, 1, 1) >= 0);
    plan_inputs_close(in);
  }
  plan_inputs_close(wide);
  plan_request q = {.model = "examples/tiny-moe", .host_rows = r, .gpu = "cuda:0+cuda:1", .users = 5, .homes = "0,1,0,0,1,1"};
  ok(plan_inputs_open(NULL, &q, &wide));
  const uint8_t asked[6] = {0, 1, 0, 0, 1, 1};
  assert_memory_equal(wide->home, asked, 6);
  plan_inputs_close(wide);
  static const char *const bad[] = {
      "", "0", "0,0,0,0,0,", "0,0,0,0,0,0,0", "0,0,0,0,0,2", "0,0,0,0,0,-1", "0;0;0;0;0;0", "0,0,0,0,0,x"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    q.homes = bad[i];
    assert_int_equal(plan_inputs_open(NULL, &q, &wide), HF_INPUT);
  }
  cost_rows_free(r);
}

/* Two ranks of two threads here: each takes for an expert what one alone takes on four threads for two of them, here and there. */
static void ranks_of_one_machine(cost_input ci, cost_rows *r) {
  cost_remote rank = ci.remote[0];
  stage_table *alone = NULL, *crowd = NULL;
  ci.n_remotes = 0;
  ci.threads = 4;
  ok(cost_table(&ci, (cost_case){0}, &alone));
  rank.here = true;
  rank.rows = r;
  ci.n_remotes = 1;
  ci.remote = &rank;
  ci.threads = 2;
  ok(cost_table(&ci, (cost_case){0}, &crowd));
  for (int tokens = 1; tokens < 200; tokens *= 7) {
    const double two = 2 * stage_curve_at(&alone->layer[1].cexp, tokens);
    near(stage_curve_at(&crowd->layer[1].cexp, tokens), two, 1e-12);
    near(stage_curve_at(&stage_place_of(crowd, 1, 1)->exp, tokens), two, 1e-12);
  }
  ci.threads = 6; /* twelve threads on eight cores */
  stage_table_free(alone);
  stage_table_free(crowd);
  alone = crowd = NULL;
  ok(cost_table(&ci, (cost_case){0}, &crowd));
  ci.n_remotes = 0;
  ci.threads = 8;
  ok(cost_table(&ci, (cost_case){0}, &alone));
  near(stage_curve_at(&crowd->layer[1].cexp, 5), 2 * stage_curve_at(&alone->layer[1].cexp, 5), 1e-12);
  stage_table_free(alone);
  stage_table_free(crowd);
}

/* A rank on this machine has none of its memory again: its experts and rows are in the budget of the one there is. */
static void memory_of_ranks_here(plan_inputs *in) {
  static plan_sizes apart, here;
  plan_budget rows[PLAN_MAX_BUDGET];
  const plan_resident resident = {.remote = {4096}};
  int64_t of_apart = 0, of_here = 0;
  ok(plan_sizes_of(in, &apart));
  in->remote[0].here = true;
  ok(plan_sizes_of(in, &here));
  assert_int_equal(plan_remote_room(&here, 0), 0);
  for (int i = plan_budget_rows(in, &apart, 1, &resident, rows); i-- > 0;)
    of_apart += strcmp(rows[i].where, "ram") == 0 ? rows[i].bytes : 0;
  for (int i = plan_budget_rows(in, &here, 1, &resident, rows); i-- > 0;)
    of_here += strcmp(rows[i].where, "ram") == 0 ? rows[i].bytes : 0;
  assert_int_equal(of_here, of_apart + 4096 + here.rank_rows);
  apart.ram_limit = here.ram_limit = of_here - 4096; /* by a page too little for all experts */
  assert_true(plan_can_fit(in, &apart, 1));
  assert_false(plan_can_fit(in, &here, 1));
  here.ram_limit += 4096;
  assert_true(plan_can_fit(in, &here, 1));
  apart.remote_limit[0] = apart.rank_rows / 2; /* not even room for its rows: nothing, and nothing less */
  assert_int_equal(plan_remote_room(&apart, 0), 0);
}

/* Where memory does not hold all experts, the device having the others, a rank here and the first one have half of it each. */
static void shares_of_ranks_here(plan_inputs *in, cost_rows *r) {
  static plan_sizes s;
  planned p;
  int cpu = 0;
  while (strcmp(r->device[cpu].kind, "cpu") != 0) cpu++;
  const int64_t had = r->device[cpu].mem_bytes;
  in->remote[0].here = true;
  in->req.chunk_tokens = in->chunk_tokens = PLAN_CHUNK_LEAST; /* nothing to choose */
  ok(plan_sizes_of(in, &s));
  r->device[cpu].mem_bytes += s.all_experts * 3 / 4 - plan_ram_room(in, &s, PLAN_DEPTHS);
  ok(plan_sizes_of(in, &s));
  const int64_t room = plan_ram_room(in, &s, PLAN_DEPTHS);
  assert_true(room > 0 && room < s.all_experts);
  ok(plan_make(in, NULL, &p));
  assert_int_equal(p.eval->cpu_room, (room + 1) / 2);
  assert_int_equal(p.eval->remote_room[0], (room + 1) / 2);
  const ilp_evaluation *e = &p.ilp->evaluation;
  assert_true(e->fits && e->place_bytes[0] + e->place_bytes[2] <= room);
  planned_free(&p);
  r->device[cpu].mem_bytes = had;
  in->remote[0].here = false;
}

static void other_machines(void **state) {
  (void)state;
  cost_remote_name name[STAGE_MAX_REMOTES];
  int n = 0;
  ok(cost_remote_parse("paced-desk:10gbe,a:b:25gbe", name, &n));
  assert_int_equal(n, 2);
  assert_string_equal(name[1].machine, "a:b");
  assert_string_equal(name[1].link, "25gbe");
  const char *const bad[] = {"", "x", ":l", "m:", "m:l,", "a:b,c:d,e:f,g:h,i:j,k:l,m:n,o:p"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_int_equal(cost_remote_parse(bad[i], name, &n), HF_INPUT);
  cost_figure rate, latency;
  ok(cost_link_read("10gbe", &rate, &latency));
  assert_true(rate.likely > 0.8e9 && rate.likely < 1.26e9 && latency.likely > 1e3);
  assert_int_equal(cost_link_read("carrier-pigeon", &rate, &latency), HF_NOT_FOUND);

  char path[64];
  db *d = NULL;
  snprintf(path, sizeof path, "/tmp/hf-devices-test-%d.db", (int)getpid());
  ok(db_open(path, true, &d));
  cost_rows *r = machine(64 << 20, 64 << 20);
  plan_request q = {
      .model = "examples/tiny-moe", .host_rows = r, .gpu = "cuda:0", .remotes = "paced-desk:10gbe", .users = 5, .context = 192};
  plan_inputs *in = NULL;
  stage_table *t = NULL;
  plan_sizes s;
  ok(plan_inputs_open(d, &q, &in));
  cost_input ci = plan_cost_input(in);
  ok(cost_table(&ci, (cost_case){0}, &t));
  assert_true(t->n_devices == 1 && t->n_remotes == 1 && t->place != NULL);
  const stage_place *p = stage_place_of(t, 1, 2);
  double half = (2 * 4 * 128 + 8 * 4) / 2.0;
  ok(cost_link_read("10gbe", &rate, &latency));
  near(p->hand_ns, 2000 + 2 * latency.likely, 1e-12);
  near(p->hand_tok_ns, 1e9 * half * (1 / 4e9 + 1 / 5e9 + 2 / rate.likely), 1e-12);
  near(p->fixed_ns, 100000, 1e-12);                                        /* paced-desk's layer_fixed_ns */
  near(stage_curve_at(&p->exp, 10), 0.95 * 10 * 49152 / 400e6 * 1e9, 0.1); /* its 0.4 GFLOP/s; distinct_factor may be there */
  ok(plan_sizes_of(in, &s));
  assert_true(s.rank_rows > 0); /* hf-run's rank has as many bytes of rows in its budget */
  assert_int_equal(plan_remote_room(&s, 0), 4294967296 - s.rank_rows);
  plan_resident resident = {.remote = {4096}};
  plan_budget rows[PLAN_MAX_BUDGET];
  n = plan_budget_rows(in, &s, 1, &resident, rows);
  int64_t there = 0;
  for (int i = 0; i < n; i++) there += strcmp(rows[i].where, "remote0") == 0 ? rows[i].bytes : 0;
  assert_int_equal(there, 4096 + s.rank_rows);
  shares_of_ranks_here(in, r);
  stage_table_free(t);
  plan_inputs_close(in);
  q.gpu = "none"; /* a machine without a device may send experts away, too */
  ok(plan_inputs_open(d, &q, &in));
  ci = plan_cost_input(in);
  ok(cost_table(&ci, (cost_case){0}, &t));
  assert_true(t->n_devices == 0 && t->one_resource && t->place != NULL);
  near(stage_place_of(t, 1, 1)->hand_tok_ns, 1e9 * half * 2 / rate.likely, 1e-12);
  popularity *pop = NULL;
  ok(popularity_uniform(in->c, &pop));
  uint8_t away[32];
  memset(away, 1, sizeof away);
  layer_times times = stage_layer_times(t, pop, 1, 5, 64, away);
  assert_true(times.place_ns[1] > 0 && times.dexp_ns == 0 && times.cexp_ns == 0);
  popularity_free(pop);
  stage_table_free(t);
  ranks_of_one_machine(ci, r);
  memory_of_ranks_here(in);
  plan_inputs_close(in);
  cost_rows_free(r);
  db_close(d);
  unlink(path);
  char more[80];
  snprintf(more, sizeof more, "%s-wal", path);
  unlink(more);
  snprintf(more, sizeof more, "%s-shm", path);
  unlink(more);
}

/* More bandwidth or a bigger share of the machine never makes any stage slower. */
static void faster_is_never_slower(void **state) {
  (void)state;
  cost_rows *r = machine(64 << 20, 64 << 20);
  for (int i = 0; i < r->n_figure; i++) {
    rec_figure *f = &r->figure[i];
    size_t n = strlen(f->what);
    plan_inputs *in = open_plan(r, "cuda:0+cuda:1", 192);
    uint8_t home[6] = {0, 0, 0, 1, 1, 1}; /* fixed: a faster device would get more layers */
    cost_input ci = plan_cost_input(in);
    ci.home = home;
    stage_table *slow = NULL, *fast = NULL;
    ok(cost_table(&ci, (cost_case){0}, &slow));
    double by = strcmp(f->what + n - 3, "_ns") == 0 ? 0.5 : 2;
    f->low *= by;
    f->likely *= by;
    f->high *= by;
    ok(cost_table(&ci, (cost_case){0}, &fast));
    for (int l = 0; l < 6; l++)
      for (int m = 1; m < 3000; m = 2 * m + 1) {
        const stage_layer *a = &slow->layer[l], *b = &fast->layer[l];
        double tol = 1 + 1e-12;
        assert_true(stage_curve_at(&b->attn, m) <= tol * stage_curve_at(&a->attn, m));
        assert_true(stage_curve_at(&b->shared, m) <= tol * stage_curve_at(&a->shared, m));
        assert_true(stage_curve_at(&b->attn, m + 1) >= stage_curve_at(&b->attn, m));
        if (!a->moe) continue;
        assert_true(stage_curve_at(&b->cexp, m) <= tol * stage_curve_at(&a->cexp, m));
        assert_true(stage_curve_at(&b->dexp, m) <= tol * stage_curve_at(&a->dexp, m));
        assert_true(b->hand_ns <= a->hand_ns && b->hand_tok_ns <= tol * a->hand_tok_ns && b->upload_ns <= a->upload_ns);
        const stage_place *x = stage_place_of(slow, l, 2 - a->home), *y = stage_place_of(fast, l, 2 - a->home);
        assert_true(stage_curve_at(&y->exp, m) <= tol * stage_curve_at(&x->exp, m));
        assert_true(y->hand_ns <= x->hand_ns && y->hand_tok_ns <= tol * x->hand_tok_ns && y->fixed_ns <= x->fixed_ns);
      }
    stage_table_free(slow);
    stage_table_free(fast);
    plan_inputs_close(in);
  }
  cost_rows_free(r);
}

static void what_needs_a_database_says_so(void **state) {
  (void)state;
  cost_rows *r = machine(64 << 20, 64 << 20);
  plan_request q = {.model = "examples/tiny-moe", .host_rows = r, .users = 1, .context = 64, .from_run = 3};
  plan_inputs *in = NULL;
  assert_int_equal(plan_inputs_open(NULL, &q, &in), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "--from-run"));
  q.from_run = 0;
  q.gpu = "paced:paced-desk";
  assert_int_equal(plan_inputs_open(NULL, &q, &in), HF_INPUT);
  q.gpu = "cuda:0";
  q.remotes = "paced-desk:10gbe";
  assert_int_equal(plan_inputs_open(NULL, &q, &in), HF_INPUT);
  q.remotes = NULL;
  q.host_rows = NULL;
  assert_int_equal(plan_inputs_open(NULL, &q, &in), HF_INPUT);
  model *m = NULL;
  ok(model_open("examples/tiny-moe", &m));
  plan_request shared = {.opened = m, .host_rows = r, .users = 1, .context = 64};
  ok(plan_inputs_open(NULL, &shared, &in));
  assert_ptr_equal(in->m, m);
  assert_string_equal(in->req.model, model_get_config(m)->name);
  plan_inputs_close(in);
  assert_int_equal(model_get_config(m)->n_layers, 6); /* still open */
  model_close(m);
  cost_rows_free(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sets_of_gpus),
      cmocka_unit_test(layers_by_speed_and_memory),
      cmocka_unit_test(table_of_two_devices),
      cmocka_unit_test(sizes_by_device),
      cmocka_unit_test(a_small_second_device_gets_fewer_layers),
      cmocka_unit_test(a_device_without_layers),
      cmocka_unit_test(other_machines),
      cmocka_unit_test(faster_is_never_slower),
      cmocka_unit_test(what_needs_a_database_says_so),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
