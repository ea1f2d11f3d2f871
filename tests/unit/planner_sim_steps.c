/* Inside a step: places, contention, uploads, shared prefixes, drawn routing, each against what can be worked out by hand; and the two
 * resolutions against each other. */
#include "base/mem.h"
#include "planner/ilp/ilp.h"
#include "planner/sim/sim.h"
#include "planner/sim/random.h"
#include "planner/sim/steps.h"
#include "planner/sim/walk.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { LAYERS = 12, EXPERTS = 32, TOP_K = 4 };

/* Shaped like a large model on one device and one CPU: device and CPU nearly in balance, attention that grows with context. */
static stage_table *table(void) {
  stage_table *t = NULL;
  assert_int_equal(stage_table_new(LAYERS, &t), HF_OK);
  t->n_experts = EXPERTS;
  t->top_k = TOP_K;
  t->step_fixed_ns = 150000;
  t->head = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {400000, 700000}};
  for (int l = 0; l < LAYERS; l++) {
    stage_layer *y = &t->layer[l];
    y->moe = l > 0;
    y->attn = (stage_curve){.n = 3, .tok = {1, 64, 2048}, .ns = {90000, 150000, 2600000}};
    y->attn_ctx_ns = 3;
    y->attn_seq_ctx_ns = 12;
    y->shared = (stage_curve){.n = 3, .tok = {1, 64, 2048}, .ns = {30000, 45000, 700000}};
    if (!y->moe) continue;
    y->cexp = (stage_curve){.n = 4, .tok = {1, 4, 64, 2048}, .ns = {60000, 66000, 300000, 8000000}};
    y->cexp_fixed_ns = 15000;
    y->dexp = (stage_curve){.n = 3, .tok = {1, 64, 2048}, .ns = {9000, 20000, 500000}};
    y->dexp_fixed_ns = 4000;
    y->hand_ns = 20000;
    y->hand_tok_ns = 300;
    y->upload_ns = 1500000;
  }
  return t;
}

/* The same where context costs next to nothing, so that steps repeat themselves for long. */
static stage_table *flat_table(void) {
  stage_table *t = table();
  for (int l = 0; l < LAYERS; l++) {
    t->layer[l].attn_ctx_ns = 0.02;
    t->layer[l].attn_seq_ctx_ns = 0.1;
  }
  return t;
}

static popularity *skewed(void) {
  popularity *p = NULL;
  assert_int_equal(popularity_new(LAYERS, EXPERTS, &p), HF_OK);
  for (int l = 0; l < LAYERS; l++) {
    double sum = 0, *row = p->p + l * EXPERTS;
    for (int e = 0; e < EXPERTS; e++) sum += row[e] = 1.0 / (8 + (e * 7 + l) % EXPERTS);
    for (int e = 0; e < EXPERTS; e++) row[e] *= TOP_K / sum;
  }
  return p;
}

static void place_some(uint8_t on[LAYERS * EXPERTS], int every, int where) {
  memset(on, 0, LAYERS * EXPERTS);
  for (int i = EXPERTS; i < LAYERS * EXPERTS; i++)
    if (i % every == 0) on[i] = (uint8_t)where;
}

static sim_options options(const stage_table *t, const popularity *p, const uint8_t *on, int users, int depth) {
  return (sim_options){.table = t,
                       .pop = p,
                       .on_device = on,
                       .users = users,
                       .depth = depth,
                       .prompt_tokens = 1,
                       .output_tokens = 1,
                       .requests_per_user = 1,
                       .seed = 3,
                       .chunk_tokens = 512,
                       .page_tokens = 32};
}

/* One prompt of so many tokens, one token out: the time of a single step. */
static double step_ns(const sim_options *o, int tokens) {
  sim_options one = *o;
  sim_result r;
  one.users = one.depth = 1;
  one.prompt_tokens = tokens;
  one.resolution = SIM_LAYERS;
  assert_int_equal(sim_run(&one, &r), HF_OK);
  assert_int_equal(r.steps, 1);
  double layers = r.wall_s * 1e9;
  one.resolution = SIM_STEPS;
  assert_int_equal(sim_run(&one, &r), HF_OK);
  assert_true(fabs(r.wall_s * 1e9 - layers) <= 2 * LAYERS); /* alone, both resolutions are the same but for rounding */
  return layers;
}

static double head_and_fixed(const stage_table *t) {
  return t->step_fixed_ns + stage_curve_at(&t->head, 1);
}

/* While device and CPU are both at work each goes at 1/contend. */
static void contention(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS];
  place_some(on, 3, 1);
  sim_options o = options(t, p, on, 1, 1);
  for (int k = 0; k <= 4; k++) {
    t->contend = 1 + 0.25 * k;
    for (int tokens = 1; tokens <= 64; tokens *= 8) {
      double want = head_and_fixed(t);
      for (int l = 0; l < LAYERS; l++) {
        stage_load load = {0};
        stage_load_add(&load, t, 0, tokens);
        layer_times y = stage_layer_times_load(t, p, l, &load, on + l * EXPERTS);
        want += y.attn_ns + stage_overlap_ns(t, y.shared_ns + y.dexp_ns, y.hand_ns + y.cexp_ns);
      }
      assert_true(fabs(step_ns(&o, tokens) - want) <= 4 * LAYERS);
    }
  }
  popularity_free(p);
  stage_table_free(t);
}

/* Two devices and another machine: each layer lasts as long as the slowest of its places, and all are seen at work. */
static void places(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS];
  assert_int_equal(stage_table_places(t, 2, 1), HF_OK);
  for (int l = 0; l < LAYERS; l++) {
    t->layer[l].home = l >= LAYERS / 2;
    for (int q = 1; q <= 3; q++)
      *stage_place_of(t, l, q) = (stage_place){.exp = {.n = 2, .tok = {1, 64}, .ns = {20000.0 * q, 60000.0 * q}},
                                               .fixed_ns = 1000,
                                               .hand_ns = 5000,
                                               .hand_tok_ns = 100};
  }
  memset(on, 0, sizeof on);
  for (int i = EXPERTS; i < LAYERS * EXPERTS; i++) on[i] = (uint8_t)(i % 4);
  sim_options o = options(t, p, on, 1, 1);
  for (int tokens = 1; tokens <= 40; tokens += 13) {
    double want = head_and_fixed(t);
    for (int l = 0; l < LAYERS; l++) {
      stage_load load = {0};
      stage_load_add(&load, t, 0, tokens);
      layer_times y = stage_layer_times_load(t, p, l, &load, on + l * EXPERTS);
      double longest = fmax(y.shared_ns + y.dexp_ns, y.hand_ns + y.cexp_ns);
      for (int q = 1; q < STAGE_MAX_PLACES; q++) longest = fmax(longest, y.place_ns[q]);
      want += y.attn_ns + longest;
    }
    assert_true(fabs(step_ns(&o, tokens) - want) <= 4 * LAYERS);
  }
  for (int depth = 1; depth <= 3; depth++) {
    sim_result r;
    o = options(t, p, on, 6, depth);
    o.output_tokens = 20;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    assert_true(r.busy[0] > 0.1 && r.busy[1] > 0.1 && r.busy[SIM_CPU] > 0.1 && r.busy[SIM_REMOTE] > 0.1);
    for (int i = 0; i < SIM_N_RESOURCES; i++) assert_true(r.busy[i] <= 1);
    assert_true(r.busy[2] == 0 && r.busy[SIM_REMOTE + 1] == 0);
  }
  o.on_device = on;
  on[EXPERTS] = 4;
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_INPUT);
  popularity_free(p);
  stage_table_free(t);
}

/* Uploads: a slot's worth goes ahead of a layer's routing, the rest behind it; a step lasts what the recurrence by hand says. */
static void uploads(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS], up[LAYERS];
  place_some(on, 5, 1);
  memset(up, 1, sizeof up);
  up[4] = 0; /* one layer stays on the CPU */
  sim_options o = options(t, p, on, 1, 1);
  o.prefill_upload = up;
  o.upload_tokens = 100;
  for (int slots = 2, tokens = 32; slots <= 6; tokens = tokens == 512 ? 32 : 4 * tokens, slots += tokens == 32) {
    bool big = tokens >= 100;
    double now = t->step_fixed_ns, link = 0, routed = 0;
    o.upload_slots = slots;
    int n = 0;
    for (int l = 0; l < LAYERS; l++) {
      stage_load load = {.upload = big && up[l]};
      stage_load_add(&load, t, 0, tokens);
      layer_times y = stage_layer_times_load(t, p, l, &load, on + l * EXPERTS);
      if (y.upload_ns > 0) {
        double each = t->layer[l].upload_ns, ahead = fmin(y.upload_ns, slots * each);
        double tail = y.dexp_ns * fmin(1, each / y.upload_ns), rest = y.upload_ns - ahead;
        link = fmax(link, routed) + ahead; /* the layer before it is sent by then, and its routing known */
        routed = now + y.attn_ns;
        if (rest > 0) link = fmax(link, routed) + rest;
        now = fmax(routed + y.shared_ns + y.dexp_ns - tail, link) + tail;
        n++;
      } else {
        now += y.attn_ns + fmax(y.shared_ns + y.dexp_ns, y.hand_ns + y.cexp_ns);
      }
    }
    assert_int_equal(n, big ? LAYERS - 2 : 0);
    now += stage_curve_at(&t->head, 1);
    assert_true(fabs(step_ns(&o, tokens) - now) <= 6 * LAYERS);
  }
  /* decode steps never upload, however many users there are */
  o = options(t, p, on, 8, 2);
  o.prefill_upload = up;
  o.upload_tokens = 1;
  o.output_tokens = 2;
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_true(r.busy[SIM_LINK] > 0 && r.busy[SIM_LINK] <= 1);
  popularity_free(p);
  stage_table_free(t);
}

/* A prompt whose first part is cached costs what its rest costs after so much context; one token at least is computed. */
static void shared_prefix(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  sim_options o = options(t, p, NULL, 1, 1);
  o.prompt_tokens = 400;
  sim_result r;
  for (int share = 0; share <= 100; share += 25) {
    o.prefix_share = 0.01 * share;
    int cached = share == 100 ? 399 : 4 * share;
    double want = head_and_fixed(t);
    for (int l = 0; l < LAYERS; l++) {
      stage_load load = {0};
      stage_load_add(&load, t, cached, 400 - cached);
      layer_times y = stage_layer_times_load(t, p, l, &load, NULL);
      want += y.attn_ns + fmax(y.shared_ns, y.hand_ns + y.cexp_ns);
    }
    assert_int_equal(sim_run(&o, &r), HF_OK);
    assert_true(fabs(r.ttft_s.p50 * 1e9 / want - 1) < 1e-4); /* above 128 tokens experts are priced on a grid */
  }
  popularity_free(p);
  stage_table_free(t);
}

/* Drawn routing gives the expected times on average, spreads around them, and is the same for the same seed. */
static void drawn_routing(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS];
  place_some(on, 3, 1);
  /* a layer's time is the longer of two sums, and the mean of the longer is above the longer of the means: one side only is compared */
  for (int l = 1; l < LAYERS; l++) t->layer[l].shared = t->layer[l].dexp = (stage_curve){.n = 1, .ns = {0}};
  sim_options o = options(t, p, on, 4, 1);
  o.output_tokens = 400;
  sim_result r, s, q;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  o.sample_routing = true;
  assert_int_equal(sim_run(&o, &s), HF_OK);
  assert_int_equal(sim_run(&o, &q), HF_OK);
  assert_true(fabs(s.decode_tok_per_s / r.decode_tok_per_s - 1) < 0.005);
  assert_true(s.wall_s == q.wall_s && s.wall_s != r.wall_s);
  o.seed++;
  assert_int_equal(sim_run(&o, &q), HF_OK);
  assert_true(s.wall_s != q.wall_s);
  o.resolution = SIM_STEPS;
  assert_int_equal(sim_run(&o, &q), HF_INPUT);
  popularity_free(p);
  stage_table_free(t);
}

/* ---- the two resolutions ---- */

static void same(const char *what, double b, double a, double error) {
  if (fabs(b - a) <= error * a) return;
  print_error("%s: %.6g instead of %.6g (%+.2f %%)\n", what, b, a, 100 * (b / a - 1));
  fail();
}

/* b against a. */
static void agree(const char *name, const sim_result *a, const sim_result *b, double error) {
  assert_int_equal(a->requests, b->requests);
  print_message(
      "%s: %lld and %lld steps, of these %lld walked; TTFT p50 %+.3f %%, p95 %+.3f %%; TPOT p50 %+.3f %%, p95 %+.3f %%; "
      "tokens/s %+.3f %%\n",
      name, (long long)a->steps, (long long)b->steps, (long long)b->walked, 100 * (b->ttft_s.p50 / a->ttft_s.p50 - 1),
      100 * (b->ttft_s.p95 / a->ttft_s.p95 - 1), 100 * (b->tpot_s.p50 / a->tpot_s.p50 - 1),
      100 * (b->tpot_s.p95 / a->tpot_s.p95 - 1), 100 * (b->tok_per_s_wall / a->tok_per_s_wall - 1));
  same("TTFT p50", b->ttft_s.p50, a->ttft_s.p50, error);
  same("TTFT p95", b->ttft_s.p95, a->ttft_s.p95, error);
  same("TPOT p50", b->tpot_s.p50, a->tpot_s.p50, error);
  same("TPOT p95", b->tpot_s.p95, a->tpot_s.p95, error);
  same("throughput", b->tok_per_s_wall, a->tok_per_s_wall, error);
  for (int i = 0; i < SIM_N_RESOURCES; i++) assert_true(fabs(a->busy[i] - b->busy[i]) <= 0.002);
}

static void add(sim_result *sum, const sim_result *r, double share) {
  sum->steps += r->steps;
  sum->walked += r->walked;
  sum->requests += r->requests;
  sum->ttft_s.p50 += share * r->ttft_s.p50;
  sum->ttft_s.p95 += share * r->ttft_s.p95;
  sum->tpot_s.p50 += share * r->tpot_s.p50;
  sum->tpot_s.p95 += share * r->tpot_s.p95;
  sum->tok_per_s_wall += share * r->tok_per_s_wall;
  for (int i = 0; i < SIM_N_RESOURCES; i++) sum->busy[i] += share * r->busy[i];
}

/* Means over some seeds: one ns can decide which micro-batch a request comes to, and a queue makes much of little. Gives the share of steps that was simulated. */
static double compare(const char *name, sim_options *o, int seeds) {
  sim_result a = {0}, b = {0}, r;
  for (o->seed = 1; o->seed <= (uint64_t)seeds; o->seed++) {
    o->resolution = SIM_LAYERS;
    assert_int_equal(sim_run(o, &r), HF_OK);
    assert_true(!r.by_steps && r.walked == r.steps);
    add(&a, &r, 1.0 / seeds);
    o->resolution = SIM_STEPS;
    assert_int_equal(sim_run(o, &r), HF_OK);
    assert_true(r.by_steps && r.walked <= r.steps);
    add(&b, &r, 1.0 / seeds);
  }
  agree(name, &a, &b, 0.01);
  return (double)b.walked / (double)b.steps;
}

static void poisson(sim_options *o) {
  o->arrivals = SIM_POISSON;
  o->lengths = SIM_LENGTHS_LOGNORMAL;
  o->length_cv = 1;
  o->rate_per_s = 1.4;
  o->requests = 3000;
  o->max_seqs = 8;
  o->max_context = 8192;
}

static void eight_users(sim_options *o) {
  o->prompt_tokens = 600;
  o->output_tokens = 150;
  o->length_spread = 0.8;
  o->requests_per_user = 100;
}

/* What the machine can do: requests per second of a closed loop. */
static double most_per_s(const sim_options *o) {
  sim_options closed = *o;
  sim_result r;
  closed.resolution = SIM_STEPS;
  assert_int_equal(sim_run(&closed, &r), HF_OK);
  return (double)r.requests / r.wall_s;
}

/* Where contexts matter and where they do not, in a closed loop and at 40, 70 and 90 % of what the machine can do. */
static void resolutions_agree(void **state) {
  (void)state;
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS];
  place_some(on, 4, 1);
  for (int flat = 0; flat <= 1; flat++) {
    stage_table *t = flat ? flat_table() : table();
    double all = 0;
    int seeds = flat ? 2 : 1; /* where contexts matter hardly any step is jumped over */
    for (int depth = 1; depth <= 4; depth++) {
      sim_options o = options(t, p, on, 8, depth);
      char name[64];
      eight_users(&o);
      snprintf(name, sizeof name, "%s, 8 users, depth %d", flat ? "flat" : "steep", depth);
      double walked = compare(name, &o, seeds), most = most_per_s(&o);
      poisson(&o);
      for (int load = 0; load < 3; load++) {
        static const double share[] = {0.4, 0.7, 0.9};
        o.rate_per_s = share[load] * most;
        o.requests = 1000;
        snprintf(name, sizeof name, "%s, Poisson at %.2f/s, depth %d", flat ? "flat" : "steep", o.rate_per_s, depth);
        walked += compare(name, &o, seeds);
      }
      assert_true(depth > 1 ? walked > 0 : walked == 0);
      all += walked / 16;
    }
    assert_true(!flat || all < 0.25);
    stage_table_free(t);
  }
  popularity_free(p);
}

/* Users who start together with equal lengths stay so: micro-batches keep one distance for ever, and it shows in every figure. */
static void lockstep(void **state) {
  (void)state;
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS];
  place_some(on, 4, 1);
  for (int flat = 0; flat <= 1; flat++) {
    stage_table *t = flat ? flat_table() : table();
    for (int depth = 2; depth <= SCHED_MAX_DEPTH; depth++) {
      sim_options o = options(t, p, on, depth, depth);
      char name[64];
      o.prompt_tokens = 600;
      o.output_tokens = 150;
      o.requests_per_user = 20;
      snprintf(name, sizeof name, "%s, lockstep, depth %d", flat ? "flat" : "steep", depth);
      compare(name, &o, 1);
      o.users++; /* one micro-batch has two */
      snprintf(name, sizeof name, "%s, lockstep and one, depth %d", flat ? "flat" : "steep", depth);
      compare(name, &o, 1);
    }
    stage_table_free(t);
  }
  popularity_free(p);
}

/* Machines on which steps do not walk as plainly: contention, uploads, windows, several devices and another machine, the CPU alone. */
static void resolutions_agree_elsewhere(void **state) {
  (void)state;
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS], up[LAYERS];
  memset(up, 1, sizeof up);
  for (int kind = 0; kind < 5; kind++) {
    static const char *const what[] = {"contention", "uploads", "windows", "places", "one resource"};
    stage_table *t = flat_table();
    place_some(on, 4, 1);
    if (kind == 0) t->contend = 1.4;
    if (kind == 2) t->window = 512;
    for (int l = 0; kind == 2 && l < LAYERS; l += 2) t->layer[l].slides = true;
    if (kind == 3) {
      assert_int_equal(stage_table_places(t, 2, 1), HF_OK);
      for (int l = 0; l < LAYERS; l++) {
        t->layer[l].home = l >= LAYERS / 2;
        for (int q = 1; q <= 3; q++)
          *stage_place_of(t, l, q) = (stage_place){
              .exp = {.n = 2, .tok = {1, 64}, .ns = {20000.0 * q, 60000.0 * q}}, .hand_ns = 5000, .hand_tok_ns = 100};
        for (int e = 0; e < EXPERTS; e++) on[l * EXPERTS + e] = t->layer[l].moe ? (uint8_t)(e % 4) : 0;
      }
    }
    if (kind == 4) t->one_resource = true;
    for (int depth = 1; depth <= 4; depth++) {
      sim_options o = options(t, p, kind == 4 ? NULL : on, 8, depth);
      char name[64];
      if (kind == 1) o.prefill_upload = up;
      o.upload_tokens = 200;
      eight_users(&o);
      snprintf(name, sizeof name, "%s, 8 users, depth %d", what[kind], depth);
      double most = most_per_s(&o);
      compare(name, &o, 1);
      poisson(&o);
      o.rate_per_s = 0.6 * most;
      o.requests = 600;
      snprintf(name, sizeof name, "%s, Poisson, depth %d", what[kind], depth);
      compare(name, &o, 3);
    }
    stage_table_free(t);
  }
  popularity_free(p);
}

/* Whatever is asked of it, the short way through the layers ends steps when the long one does. Odd times: what meets in one ns may go either
 * way round. */
static void walk_is_machine(void **state) {
  (void)state;
  enum { N = 7, PLACES = 4 };
  for (uint64_t seed = 0; seed < 200; seed++) {
    sim_rng r = sim_rng_of(seed, 1);
    stage_table *t = NULL;
    int64_t attn[SCHED_MAX_DEPTH][N];
    sim_layer_ns row[SCHED_MAX_DEPTH][N];
    sim_work w[SCHED_MAX_DEPTH];
    sim_machine *m = NULL;
    sim_walk *k = NULL;
    int depth = 1 + (int)(seed % SCHED_MAX_DEPTH);
    assert_int_equal(stage_table_new(N, &t), HF_OK);
    assert_int_equal(stage_table_places(t, 2, 2), HF_OK);
    for (int l = 0; l < N; l++) t->layer[l].home = (int)(sim_rng_next(&r) % 2);
    t->one_resource = seed % 10 == 0;
    for (int b = 0; b < depth; b++) {
      for (int l = 0; l < N; l++) {
        attn[b][l] = (int64_t)(sim_rng_next(&r) % 1000000000);
        row[b][l] =
            (sim_layer_ns){.shared = (int64_t)(sim_rng_next(&r) % 1000000000), .dexp = (int64_t)(sim_rng_next(&r) % 1000000000)};
        if (sim_rng_next(&r) % 4 > 0) {
          row[b][l].hand = (int64_t)(sim_rng_next(&r) % 100000000);
          row[b][l].cexp = (int64_t)(sim_rng_next(&r) % 3000000000);
        }
        for (int q = 1; q <= PLACES; q++) {
          if (t->one_resource || q == 1 + t->layer[l].home || sim_rng_next(&r) % 2 > 0) continue;
          row[b][l].place[q] = (int64_t)(sim_rng_next(&r) % 2000000000);
          row[b][l].elsewhere = true;
        }
      }
      w[b] = (sim_work){.fixed = (int64_t)(sim_rng_next(&r) % 1000000000),
                        .head = (int64_t)(sim_rng_next(&r) % 1000000000),
                        .attn = attn[b],
                        .routed = row[b]};
    }
    assert_int_equal(sim_machine_new(t, NULL, NULL, &m), HF_OK);
    assert_int_equal(sim_walk_new(t, &k), HF_OK);
    for (int b = 0; b < depth; b++) {
      sim_machine_start(m, b, &w[b]);
      sim_walk_start(k, b, &w[b]);
    }
    for (int i = 0; i < 100; i++) {
      int a = -1, b = -1;
      int64_t until = i % 3 == 0 ? sim_machine_now(m) + (int64_t)(sim_rng_next(&r) % 5000000000) : INT64_MAX;
      bool any = sim_machine_advance(m, until, &a);
      assert_true(sim_walk_advance(k, until, &b) == any && a == b && sim_walk_now(k) == sim_machine_now(m));
      if (!any) continue;
      sim_machine_start(m, a, &w[a]);
      sim_walk_start(k, a, &w[a]);
      sim_machine_skip(m, 12345);
      sim_walk_skip(k, 12345);
    }
    int left = depth, e;
    while (left > 0 && sim_machine_advance(m, INT64_MAX, &e)) left--;
    for (left = depth; left > 0 && sim_walk_advance(k, INT64_MAX, &e);) left--;
    for (int i = 0; i < SIM_N_RESOURCES; i++) assert_true(sim_machine_busy_ns(m, i) == sim_walk_busy_ns(k, i));
    sim_machine_free(m);
    sim_walk_free(k);
    stage_table_free(t);
  }
}

/* Two micro-batches at another machine queue there, and nowhere when each has a machine of its own; the same with devices. By hand: attention
 * 10, place 100, so that the second would be through after 20 + 100 and has to wait until the first is at 110. */
static void other_machines_queue(void **state) {
  (void)state;
  for (int first = 2; first <= 5; first++)
    for (int second = 2; second <= 5; second++) {
      stage_table *t = NULL;
      sim_machine *m = NULL;
      sim_walk *k = NULL;
      int a = -1, b = -1;
      const int64_t attn = 10;
      sim_layer_ns row[2] = {{.elsewhere = true}, {.elsewhere = true}};
      row[0].place[first] = row[1].place[second] = 100;
      assert_int_equal(stage_table_new(1, &t), HF_OK);
      assert_int_equal(stage_table_places(t, 3, 2), HF_OK); /* places 2 and 3: devices; 4 and 5: other machines */
      assert_int_equal(sim_machine_new(t, NULL, NULL, &m), HF_OK);
      assert_int_equal(sim_walk_new(t, &k), HF_OK);
      for (int i = 0; i < 2; i++) {
        sim_work w = {.attn = &attn, .routed = &row[i]};
        sim_machine_start(m, i, &w);
        sim_walk_start(k, i, &w);
      }
      assert_true(sim_machine_advance(m, INT64_MAX, &a) && sim_walk_advance(k, INT64_MAX, &b));
      assert_true(a == 0 && b == 0 && sim_machine_now(m) == 110 && sim_walk_now(k) == 110);
      assert_true(sim_machine_advance(m, INT64_MAX, &a) && sim_walk_advance(k, INT64_MAX, &b));
      assert_true(a == 1 && b == 1 && sim_walk_now(k) == sim_machine_now(m));
      assert_int_equal(sim_machine_now(m), first == second ? 210 : 120);
      int where = second <= 3 ? second - 1 : SIM_REMOTE + second - 4;
      assert_int_equal(sim_machine_busy_ns(m, where), first == second ? 200 : 100);
      assert_int_equal(sim_walk_busy_ns(k, where), first == second ? 200 : 100);
      sim_machine_free(m);
      sim_walk_free(k);
      stage_table_free(t);
    }
}

/* An upload and the CPU's experts read the same memory. One micro-batch uploads for 100 from the start and then computes 50; the other has 60 on
 * the CPU from 20 on. Alone: through at 150 and 80. Where both go at 2/3 of their rates: the CPU until 110, by when 20 of the upload are left. */
static void uploads_slow_the_cpu(void **state) {
  (void)state;
  const double contend[] = {1, 1.5};
  const int64_t first[] = {80, 110}, last[] = {150, 180}, attn = 10;
  for (int i = 0; i < 2; i++) {
    stage_table *t = NULL;
    sim_machine *m = NULL;
    int ended = -1;
    const sim_layer_ns sends = {.dexp = 50, .upload = 100, .ahead = 100, .tail = 50}, decodes = {.cexp = 60};
    assert_int_equal(stage_table_new(1, &t), HF_OK);
    t->contend_dma = contend[i];
    assert_int_equal(sim_machine_new(t, NULL, NULL, &m), HF_OK);
    sim_machine_start(m, 0, &(sim_work){.attn = &attn, .routed = &sends});
    sim_machine_start(m, 1, &(sim_work){.attn = &attn, .routed = &decodes});
    assert_true(sim_machine_advance(m, INT64_MAX, &ended));
    assert_true(ended == 1 && sim_machine_now(m) == first[i]);
    assert_true(sim_machine_advance(m, INT64_MAX, &ended));
    assert_true(ended == 0 && sim_machine_now(m) == last[i]);
    sim_machine_free(m);
    stage_table_free(t);
  }
}

static void count_steps(void *user, const rec_trace *r) {
  (void)r;
  ++*(int64_t *)user;
}

/* Runs are what single steps are: somebody who listens to each step gets them one by one, and the same results. */
static void runs_are_steps(void **state) {
  (void)state;
  stage_table *t = flat_table();
  popularity *p = skewed();
  uint8_t on[LAYERS * EXPERTS];
  place_some(on, 4, 1);
  for (int depth = 1; depth <= 4; depth++) {
    sim_options o = options(t, p, on, 8, depth);
    char name[64];
    int64_t steps = 0;
    sim_result a, b;
    o.prompt_tokens = 600;
    o.output_tokens = 150;
    poisson(&o);
    o.n_pages = 250;
    o.rate_per_s = 1;
    o.requests = 1500;
    o.resolution = SIM_STEPS;
    assert_int_equal(sim_run(&o, &b), HF_OK);
    o.trace = count_steps;
    o.trace_user = &steps;
    assert_int_equal(sim_run(&o, &a), HF_OK);
    assert_true(steps == a.steps && b.steps > 100000);
    snprintf(name, sizeof name, "runs, depth %d", depth);
    agree(name, &a, &b, 0.01);
    same("steps", (double)b.steps, (double)a.steps, 0.005);
    if (depth == 1) assert_true(a.steps == b.steps && a.refused == b.refused);
    /* everybody always decoding or in a prompt: tokens of runs count in the moments they belong to */
    o.arrivals = SIM_CLOSED;
    o.requests_per_user = 20;
    o.n_pages = 0;
    assert_int_equal(sim_run(&o, &a), HF_OK);
    o.trace = NULL;
    assert_int_equal(sim_run(&o, &b), HF_OK);
    same("tokens/s while all decode", b.decode_tok_per_s, a.decode_tok_per_s, 0.01);
    same("time while all decode", b.decode_s, a.decode_s, 0.02);
  }
  popularity_free(p);
  stage_table_free(t);
}

/* AUTO: few steps are simulated in layers, many in steps. */
/* Where near context costs more than far one, runs of steps know it: alone they take what the steps take one by one. */
static void near_context_in_runs(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  for (int users = 1; users <= 3; users += 2)
    for (int prompt = 100; prompt < 1000; prompt += 400) {
      sim_result layers, steps;
      sim_options o = options(t, p, NULL, users, 1);
      t->near_tokens = 700;
      t->near_more = 4;
      for (int l = 0; l < LAYERS; l++) t->layer[l].attn_ctx_ns = 500;
      o.prompt_tokens = prompt;
      o.output_tokens = 1500;
      o.length_spread = users > 1 ? 0.3 : 0;
      o.resolution = SIM_LAYERS;
      assert_int_equal(sim_run(&o, &layers), HF_OK);
      o.resolution = SIM_STEPS;
      assert_int_equal(sim_run(&o, &steps), HF_OK);
      assert_int_equal(layers.steps, steps.steps);
      assert_true(steps.walked < steps.steps / 10);
      assert_true(fabs(steps.wall_s / layers.wall_s - 1) < 1e-5);
    }
  popularity_free(p);
  stage_table_free(t);
}

static void resolution_is_chosen(void **state) {
  (void)state;
  stage_table *t = NULL;
  popularity *p = NULL;
  sim_result r;
  assert_int_equal(stage_table_new(1, &t), HF_OK);
  assert_int_equal(popularity_new(1, 0, &p), HF_OK);
  t->step_fixed_ns = 1000;
  sim_options o = options(t, p, NULL, 1, 1);
  o.output_tokens = 1000;
  o.requests_per_user = SIM_LAYER_STEPS / 1000 - 1;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_false(r.by_steps);
  o.requests_per_user += 2;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_true(r.by_steps && r.steps == SIM_LAYER_STEPS + 1000);
  popularity_free(p);
  stage_table_free(t);
}

/* A million requests: memory and time of a run do not depend on how many there are (the events are counted, not the seconds). */
static void a_million_requests(void **state) {
  (void)state;
  stage_table *t = table();
  popularity *p = skewed();
  sim_result r;
  sim_options o = options(t, p, NULL, 1, 1);
  o.rate_per_s = 0.5 / (step_ns(&o, 1) * 1e-9);
  o.arrivals = SIM_POISSON;
  o.requests = 1000;
  o.resolution = SIM_STEPS;
  long before = hf_alloc_count();
  assert_int_equal(sim_run(&o, &r), HF_OK);
  long few = hf_alloc_count() - before;
  o.requests = 1000000;
  before = hf_alloc_count();
  assert_int_equal(sim_run(&o, &r), HF_OK);
  long many = hf_alloc_count() - before;
  assert_int_equal(r.requests, 1000000);
  assert_true(many - few <= 1000000 + 64); /* the page table of each request, gone when it ends */
  popularity_free(p);
  stage_table_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(contention),
      cmocka_unit_test(places),
      cmocka_unit_test(uploads),
      cmocka_unit_test(shared_prefix),
      cmocka_unit_test(drawn_routing),
      cmocka_unit_test(resolutions_agree),
      cmocka_unit_test(lockstep),
      cmocka_unit_test(resolutions_agree_elsewhere),
      cmocka_unit_test(walk_is_machine),
      cmocka_unit_test(other_machines_queue),
      cmocka_unit_test(uploads_slow_the_cpu),
      cmocka_unit_test(runs_are_steps),
      cmocka_unit_test(near_context_in_runs),
      cmocka_unit_test(resolution_is_chosen),
      cmocka_unit_test(a_million_requests),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
