/* The placement solver against brute force, against placements that try to beat its bound, and at full size. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "planner/ilp/alike.h"
#include "planner/ilp/ilp_int.h"
#include "tests/unit/ilp_cases.h"

static void must(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static void assert_close(double a, double b, double rel, const char *what, uint64_t seed) {
  if (!(fabs(a - b) <= rel * fmax(fabs(a), fabs(b)))) fail_msg("%s, seed %d: %.17g against %.17g", what, (int)seed, a, b);
}

/* Least objective over all placements at depth 1: every subset of every layer through stage_layer_times, then every
 * combination of
 * counts (the bytes depend on counts alone). INFINITY when nothing fits. */
static double brute_shallow(const ilp_case *c) {
  const stage_table *t = c->t;
  int E = t->n_experts, tokens = c->p.users, n = 0, layer[8], k[8] = {0};
  double best[8][16], base = t->step_fixed_ns + stage_curve_at(&t->head, c->p.users), least = INFINITY;
  for (int l = 0; l < t->n_layers; l++) {
    if (!t->layer[l].moe) {
      layer_times y = stage_layer_times(t, c->pop, l, tokens, c->p.context, NULL);
      base += y.attn_ns + y.shared_ns;
      continue;
    }
    for (int j = 0; j <= E; j++) best[n][j] = INFINITY;
    for (unsigned mask = 0; mask < 1u << E; mask++) {
      uint8_t on[16];
      int count = 0;
      bool allowed = true;
      for (int e = 0; e < E; e++) {
        on[e] = mask >> e & 1;
        count += on[e];
        int pin = c->pin != NULL ? c->pin[l * E + e] : ILP_FREE;
        allowed = allowed && !(pin == ILP_PIN_DEVICE && !on[e]) && !(pin == ILP_PIN_CPU && on[e]);
      }
      layer_times y = stage_layer_times(t, c->pop, l, tokens, c->p.context, on);
      double side = y.shared_ns + y.dexp_ns, cpu = y.hand_ns + y.cexp_ns;
      double v = y.attn_ns + fmax(side, cpu) + (t->contend - 1) * fmin(side, cpu);
      if (allowed) best[n][count] = fmin(best[n][count], v);
    }
    layer[n++] = l;
  }
  for (;;) {
    double sum = base;
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
      sum += best[i][k[i]];
      bytes += k[i] * c->bytes[layer[i]];
    }
    if (bytes <= c->p.device[0].expert_bytes_free[0]) least = fmin(least, sum);
    int i = 0;
    while (i < n && ++k[i] > E) k[i++] = 0;
    if (i == n) return least;
  }
}

/* Least objective over every placement of every depth asked for: n places, n^(layers * experts) of them. */
static double brute_all(const ilp_case *c) {
  int cells = c->t->n_layers * c->t->n_experts, P = ilp_n_places(c->t);
  uint8_t place[32] = {0};
  double least = INFINITY;
  for (;;) {
    for (int d = 1; d <= 4 && d <= c->p.users; d++) {
      ilp_evaluation e;
      if (!(c->p.depths >> (d - 1) & 1)) continue;
      must(ilp_evaluate(&c->p, place, d, NULL, &e));
      if (e.fits && e.pins_broken == 0) least = fmin(least, e.objective_ns);
    }
    int i = 0;
    while (i < cells && (++place[i] == P || !c->t->layer[i / c->t->n_experts].moe)) place[i++] = 0;
    if (i == cells) return least;
  }
}

static void check_invariants(const ilp_case *c, const ilp_result *r) {
  ilp_evaluation e;
  must(ilp_evaluate(&c->p, r->on_device, r->depth, NULL, &e));
  assert_true(e.objective_ns == r->objective_ns);
  assert_true(e.fits);
  assert_int_equal(e.pins_broken, 0);
  assert_true(r->bound_ns <= r->objective_ns);
  assert_true(r->gap == r->objective_ns / r->bound_ns - 1);
  for (int b = 0; b < ILP_N_BASELINES; b++) assert_true(r->baseline[b].objective_ns >= r->bound_ns * (1 - 1e-12));
  for (int d = 0; d < ILP_MAX_DEPTH; d++)
    if (r->by_depth[d].state >= ILP_DEPTH_PRUNED) assert_true(r->by_depth[d].bound_ns >= r->bound_ns);
}

static void test_brute_force(void **state) {
  (void)state;
  int gpu = 0, cpu = 0, milp = 0;
  for (uint64_t seed = 0; seed < 120; seed++) {
    ilp_case c;
    ilp_result *r;
    int layers = 2 + (int)(seed % 4), experts = seed % 5 == 0 ? 8 : seed % 3 == 0 ? 4 : 6;
    assert_true(case_small(&c, layers, experts, seed % 2 == 1, seed));
    c.p.depths = 1;
    if (seed % 4 == 3) c.t->contend = 1.1 + 0.01 * (double)(seed % 80);
    must(ilp_solve(&c.p, NULL, &r));
    double least = brute_shallow(&c);
    assert_close(r->objective_ns, least, 1e-9, "optimum", seed);
    assert_string_equal(r->status, "optimal");
    assert_true(r->lp_exact);
    check_invariants(&c, r);
    for (int l = 0; l < r->n_layers; l++) {
      gpu += c.t->layer[l].moe && r->layer[l].binding == ILP_BIND_GPU;
      cpu += r->layer[l].binding == ILP_BIND_CPU;
    }
    milp += strcmp(r->certificate, "milp") == 0;
    ilp_result_free(r);
    case_free(&c);
  }
  /* The instances cover what they are meant to cover. */
  assert_true(gpu > 20 && cpu > 20 && milp > 5);
}

static void check_optimum(ilp_case *c, uint64_t seed, ilp_result **out) {
  ilp_result *r;
  must(ilp_solve(&c->p, NULL, &r));
  double least = brute_all(c);
  assert_close(r->objective_ns, least, 1e-7, "optimum", seed);
  assert_true(r->bound_ns <= least * (1 + 1e-12));
  assert_string_equal(r->status, "optimal");
  assert_true(r->lp_exact);
  check_invariants(c, r);
  *out = r;
}

static void test_brute_force_every_depth(void **state) {
  (void)state;
  int deep = 0, path = 0, cpu = 0, gpu = 0;
  for (uint64_t seed = 500; seed < 540; seed++) {
    ilp_case c;
    ilp_result *r;
    assert_true(case_small(&c, 2, 5, seed % 2, seed));
    if (seed % 4 == 1) c.t->contend = 1.3;
    if (seed % 8 == 3) c.t->step_fixed_ns = 2e6; /* a way so long that no resource is busy all the time */
    for (int depth = 1; depth <= 4 && depth <= c.p.users; depth++) {
      c.p.depths = 1u << (depth - 1);
      check_optimum(&c, seed, &r);
      path += depth > 1 && r->evaluation.binding == ILP_BIND_PATH;
      gpu += depth > 1 && r->evaluation.binding == ILP_BIND_GPU;
      cpu += depth > 1 && r->evaluation.binding == ILP_BIND_CPU;
      ilp_result_free(r);
    }
    c.p.depths = 0xf;
    check_optimum(&c, seed, &r);
    deep += r->depth > 1;
    ilp_result_free(r);
    case_free(&c);
  }
  if (!(deep > 3 && path > 3 && cpu > 3 && gpu > 3)) fail_msg("deep %d, path %d, cpu %d, gpu %d", deep, path, cpu, gpu);
}

static void test_brute_force_places(void **state) {
  (void)state;
  static const int devices[] = {2, 3, 1, 2}, remotes[] = {0, 0, 1, 1};
  int used = 0;
  for (uint64_t seed = 0; seed < 16; seed++) {
    ilp_case c;
    ilp_result *r;
    uint64_t s = seed + 40;
    int d = devices[seed % 4], m = remotes[seed % 4], places = 1 + d + m;
    assert_true(case_small(&c, 2, places == 4 ? 3 : 4, seed % 2, seed + 600));
    assert_true(case_more_places(&c, d, m, &s));
    if (c.p.users < 2) c.p.users = 2;
    c.p.depths = 3;
    if (seed % 5 == 4) c.t->contend = 1.2;
    if (seed % 3 == 2) c.p.cpu_bytes = 4 * c.bytes[0];
    if (seed % 3 == 1) {
      for (int l = 0; l < 2; l++) c.t->layer[l].upload_ns = case_uniform(&s, 0, 2e5);
      c.p.prefill =
          (ilp_prefill){.weight = 0.2, .load = {.tokens = 200, .query_context = 20000, .seq_context = 200}, .upload = seed % 2};
      assert_true(case_prompts(c.pop));
    }
    if (brute_all(&c) < INFINITY) {
      check_optimum(&c, seed, &r);
      for (int q = 1; q < places; q++) used += r->evaluation.place_bytes[q] > 0;
      ilp_result_free(r);
    } else {
      assert_int_equal(ilp_solve(&c.p, NULL, &r), HF_NO);
    }
    case_free(&c);
  }
  assert_true(used > 12);
}

/* Five machines alike are one place for the search, and get about equal parts. What is proven of them holds for what is found with each for itself. */
static void test_machines_alike(void **state) {
  (void)state;
  for (uint32_t depths = 1; depths <= 2; depths++) {
    ilp_case c;
    ilp_result *r, *each;
    assert_true(case_large(&c, 9, 0, 256, &case_machines[1], 16, 0.8, false, 1));
    must(stage_table_places(c.t, 1, 5));
    case_machines_from(&c, 2);
    for (int q = 3; q < 7; q++)
      for (int l = 0; l < 9; l++) *stage_place_of(c.t, l, q) = *stage_place_of(c.t, l, 2);
    c.p.depths = depths;
    for (int i = 0; i < 5; i++) c.p.remote_bytes[i] = INT64_C(1) << 50;
    must(ilp_solve(&c.p, NULL, &r));
    check_invariants(&c, r);
    if (depths == 1 && !(r->gap < 0.02)) fail_msg("gap %g", r->gap);
    int64_t least = INT64_MAX, most = 0;
    for (int q = 2; q < 7; q++) {
      if (r->evaluation.place_bytes[q] < least) least = r->evaluation.place_bytes[q];
      if (r->evaluation.place_bytes[q] > most) most = r->evaluation.place_bytes[q];
    }
    if (!(depths > 1 || (least > 0 && (double)(most - least) <= 0.25 * (double)most)))
      fail_msg("machines alike have %lld to %lld bytes", (long long)least, (long long)most);
    for (int i = 0; i < 5; i++) c.p.remote_bytes[i] += i; /* no two alike any more, and no other problem */
    must(ilp_solve(&c.p, NULL, &each));
    check_invariants(&c, each);
    assert_true(r->bound_ns <= each->objective_ns * (1 + 1e-9) && each->bound_ns <= r->objective_ns * (1 + 1e-9));
    ilp_result_free(r);
    ilp_result_free(each);
    case_free(&c);
  }
}

/* Machines are alike only where every number of tokens costs the same: equal points do not say so where products take tokens in passes. */
static void test_alike_in_passes(void **state) {
  (void)state;
  ilp_case c;
  ilp_alike *a;
  assert_true(case_large(&c, 9, 0, 256, &case_machines[1], 16, 0.8, false, 1));
  must(stage_table_places(c.t, 1, 2));
  case_machines_from(&c, 2);
  for (int l = 0; l < 9; l++) {
    stage_place *p = stage_place_of(c.t, l, 2);
    p->exp = (stage_curve){.n = 2, .tok = {1, 32}, .ns = {100, 400}, .pass = 4, .part = {0, 2, 3, 3.5}};
    *stage_place_of(c.t, l, 3) = *p;
  }
  must(ilp_alike_new(&c.p, &a));
  assert_non_null(a);
  ilp_alike_free(a);
  stage_place_of(c.t, 8, 3)->exp.part[1] = 1;
  must(ilp_alike_new(&c.p, &a));
  assert_null(a);
  case_free(&c);
}

/* Memory for hardly more experts than there are, and not for a whole number of them on each machine: what is dealt out fits every machine. */
static void test_alike_in_little_memory(void **state) {
  (void)state;
  for (int odd = 0; odd < 4; odd++) {
    ilp_case c;
    ilp_result *r;
    assert_true(case_large(&c, 9, 0, 256, &case_machines[1], 16, 0.8, odd % 2, 1));
    must(stage_table_places(c.t, 1, 5));
    case_machines_from(&c, 2);
    int64_t all = 0;
    for (int l = 0; l < 9; l++) all += 256 * c.bytes[l];
    for (int q = 3; q < 7; q++)
      for (int l = 0; l < 9; l++) *stage_place_of(c.t, l, q) = *stage_place_of(c.t, l, 2);
    for (int d = 0; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] = 0;
    c.p.depths = 1;
    for (int i = 0; i < 5; i++) c.p.remote_bytes[i] = all / (odd < 2 ? 12 : 7) + c.bytes[0] / 2;
    c.p.cpu_bytes = all - 5 * c.p.remote_bytes[0] + 12 * c.bytes[8];
    must(ilp_solve(&c.p, NULL, &r));
    check_invariants(&c, r);
    assert_true(r->evaluation.fits && r->gap < 0.1);
    ilp_result_free(r);
    case_free(&c);
  }
}

static void test_pins(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 30; seed++) {
    ilp_case c;
    ilp_result *r;
    bool deep = seed % 3 == 0;
    int L = deep ? 2 : 4, E = deep ? 5 : 6;
    assert_true(case_small(&c, L, E, seed % 2, seed + 1000));
    c.pin = calloc((size_t)(L * E), 1);
    assert_non_null(c.pin);
    uint64_t s = seed;
    for (int i = 0; i < L * E; i++)
      c.pin[i] = case_u64(&s) % 6 == 0 ? ILP_PIN_CPU : case_u64(&s) % 12 == 0 ? ILP_PIN_DEVICE : ILP_FREE;
    for (int e = 0; !deep && e < E; e++) c.pin[E + e] = ILP_FREE; /* layer 1 is dense */
    c.p.pin = c.pin;
    c.p.depths = deep && c.p.users > 1 ? 2 : 1;
    double least = deep ? brute_all(&c) : brute_shallow(&c);
    hf_status st = ilp_solve(&c.p, NULL, &r);
    if (least == INFINITY) {
      assert_int_equal(st, HF_NO);
    } else {
      must(st);
      assert_close(r->objective_ns, least, 1e-7, "optimum with pins", seed);
      check_invariants(&c, r);
      ilp_result_free(r);
    }
    case_free(&c);
  }
}

/* Layers too large to enumerate: nothing may get below the bound, however it is made. */
static void test_bound_holds(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 16; seed++) {
    ilp_case c;
    ilp_result *r;
    enum { L = 5, E = 20 };
    assert_true(case_small(&c, L, E, seed % 2, seed + 2000));
    must(ilp_solve(&c.p, NULL, &r));
    check_invariants(&c, r);
    if (!(r->gap < 0.02)) fail_msg("seed %d: gap %g at depth %d", (int)seed, r->gap, r->depth);
    uint64_t s = seed;
    for (int trial = 0; trial < 400; trial++) {
      uint8_t on[L * E];
      ilp_evaluation e;
      memcpy(on, r->on_device, sizeof on);
      int changes = trial % 4 == 0 ? L * E : 1 + trial % 7;
      for (int i = 0; i < changes; i++) {
        int a = (int)(case_u64(&s) % (L * E)), b = a / E * E + (int)(case_u64(&s) % E);
        if (trial % 2 == 0) {
          on[a] = case_u64(&s) % 2;
        } else { /* swap within the layer: as many bytes as before */
          uint8_t x = on[a];
          on[a] = on[b];
          on[b] = x;
        }
      }
      for (int d = 1; d <= 4 && d <= c.p.users; d++) {
        must(ilp_evaluate(&c.p, on, d, NULL, &e));
        if (!e.fits) continue;
        assert_true(e.objective_ns >= r->bound_ns * (1 - 1e-12));
        assert_true(e.objective_ns >= r->by_depth[d - 1].bound_ns * (1 - 1e-12));
      }
    }
    ilp_result_free(r);
    case_free(&c);
  }
}

static void test_more_memory_is_never_worse(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 8; seed++) {
    ilp_case c;
    double before = INFINITY, bound_before = INFINITY;
    assert_true(case_small(&c, 5, seed % 2 ? 6 : 24, seed % 3 == 0, seed + 3000));
    for (int step = 0; step <= 12; step++) {
      ilp_result *r;
      for (int d = 0; d < ILP_MAX_DEPTH; d++)
        c.p.device[0].expert_bytes_free[d] = 9000 * step - 500 * d > 0 ? 9000 * step - 500 * d : 0;
      must(ilp_solve(&c.p, NULL, &r));
      assert_true(r->objective_ns <= before * (1 + r->gap + 1e-12));
      assert_true(r->bound_ns <= bound_before);
      before = r->objective_ns;
      bound_before = r->objective_ns;
      ilp_result_free(r);
    }
    case_free(&c);
  }
}

/* More bandwidth of a device or the CPU, or fewer users, never makes the best step longer, up to the two gaps; at all depths,
 * with several
 * places. */
static void test_more_of_anything_is_never_worse(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 10; seed++) {
    ilp_case c;
    uint64_t s = seed;
    ilp_result *a, *b;
    assert_true(case_small(&c, 4, seed % 2 ? 4 : 24, seed % 3 == 0, seed + 4000));
    if (seed % 4 > 1) assert_true(case_more_places(&c, 2, seed % 4 == 3, &s));
    c.p.users = 8;
    must(ilp_solve(&c.p, NULL, &a));
    c.p.users = 4; /* half of each micro-batch, at every depth */
    must(ilp_solve(&c.p, NULL, &b));
    assert_true(b->objective_ns <= a->objective_ns * (1 + a->gap + b->gap + 1e-9));
    ilp_result_free(b);
    c.p.users = 8;
    for (int l = 0; l < c.t->n_layers; l++)
      for (int i = 0; i < c.t->layer[l].cexp.n; i++) c.t->layer[l].cexp.ns[i] *= 0.8;
    must(ilp_solve(&c.p, NULL, &b));
    assert_true(b->objective_ns <= a->objective_ns * (1 + a->gap + b->gap + 1e-9));
    ilp_result_free(a);
    for (int l = 0; l < c.t->n_layers; l++)
      for (int i = 0; i < c.t->layer[l].dexp.n; i++) c.t->layer[l].dexp.ns[i] *= 0.7;
    must(ilp_solve(&c.p, NULL, &a));
    assert_true(a->objective_ns <= b->objective_ns * (1 + a->gap + b->gap + 1e-9));
    ilp_result_free(a);
    ilp_result_free(b);
    case_free(&c);
  }
}

/* Several unlike devices, too many sets to try: nothing may get below the bound. */
static void test_bound_holds_places(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 8; seed++) {
    enum { L = 4, E = 16 };
    ilp_case c;
    ilp_result *r;
    uint64_t s = seed;
    assert_true(case_small(&c, L, E, seed % 2, seed + 5000));
    assert_true(case_more_places(&c, 2 + (int)(seed % 2), (int)(seed % 3 == 0), &s));
    if (seed % 4 == 1) c.t->contend = 1.2;
    must(ilp_solve(&c.p, NULL, &r));
    check_invariants(&c, r);
    for (int trial = 0; trial < 400; trial++) {
      uint8_t place[L * E];
      memcpy(place, r->on_device, sizeof place);
      for (int i = 0; i < (trial % 4 == 0 ? L * E : 1 + trial % 5); i++) {
        int x = (int)(case_u64(&s) % (L * E)), y = x / E * E + (int)(case_u64(&s) % E);
        uint8_t was = place[x];
        place[x] = trial % 2 ? place[y] : (uint8_t)(case_u64(&s) % (uint64_t)ilp_n_places(c.t));
        if (trial % 2) place[y] = was;
      }
      for (int d = 1; d <= 4 && d <= c.p.users; d++) {
        ilp_evaluation e;
        must(ilp_evaluate(&c.p, place, d, NULL, &e));
        if (e.fits) assert_true(e.objective_ns >= r->by_depth[d - 1].bound_ns * (1 - 1e-12));
      }
    }
    ilp_result_free(r);
    case_free(&c);
  }
}

static void *solve_often(void *arg) {
  ilp_case *c = arg;
  ilp_result *first = NULL;
  for (int i = 0; i < 6; i++) {
    ilp_result *r;
    if (ilp_solve(&c->p, NULL, &r) != HF_OK) return first;
    if (first == NULL) {
      first = r;
      continue;
    }
    bool same = r->objective_ns == first->objective_ns && r->bound_ns == first->bound_ns;
    ilp_result_free(r);
    if (!same) break;
    if (i == 5) return first;
  }
  ilp_result_free(first);
  return NULL;
}

static void *solve_in_thread(void *arg) {
  void *r = solve_often(arg);
  ilp_thread_end();
  return r;
}

/* GLPK keeps its environment per thread: two threads at once find what one finds alone. */
static void test_two_threads(void **state) {
  (void)state;
  ilp_case c;
  pthread_t thread[2];
  void *got[2];
  assert_true(case_small(&c, 4, 20, true, 77));
  c.p.users = 8;
  ilp_result *alone = solve_often(&c);
  assert_non_null(alone);
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&thread[i], NULL, solve_in_thread, &c), 0);
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(thread[i], &got[i]), 0);
  for (int i = 0; i < 2; i++) {
    ilp_result *r = got[i];
    assert_non_null(r);
    assert_true(r->objective_ns == alone->objective_ns && r->bound_ns == alone->bound_ns);
    assert_memory_equal(r->on_device, alone->on_device, 4 * 20);
    ilp_result_free(r);
  }
  ilp_result_free(alone);
  case_free(&c);
}

/* Whichever relaxation GLPK breaks off at: an answer that says so, with a simple placement no better than the real one and a bound below it, or the
 * search had another way. And it works again afterwards. */
static void test_glpk_breaks_off(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *good, *r;
  int without = 0;
  assert_true(case_small(&c, 4, 20, true, 77));
  c.p.users = 8;
  c.p.depths = 6; /* depths 2 and 3 */
  must(ilp_solve(&c.p, NULL, &good));
  for (int n = 1; n <= 12; n++) {
    ilp_evaluation e;
    ilp_lp_abort_in(n);
    must(ilp_solve(&c.p, NULL, &r));
    ilp_lp_abort_in(0);
    must(ilp_evaluate(&c.p, r->on_device, r->depth, NULL, &e));
    assert_true(e.fits && e.objective_ns == r->objective_ns && r->bound_ns > 0 && r->bound_ns <= r->objective_ns);
    assert_true(good->bound_ns <= r->objective_ns * (1 + 1e-12) && r->bound_ns <= good->objective_ns);
    if (strcmp(r->status, "feasible") == 0) {
      without++;
      assert_string_equal(r->certificate, "none");
      assert_non_null(strstr(r->failure, "GLPK"));
      assert_int_equal(ilp_write_lp(r, "/tmp/no-such-program.lp"), HF_NO);
      hf_clear_error();
    }
    ilp_result_free(r);
  }
  assert_true(without > 0);
  must(ilp_solve(&c.p, NULL, &r));
  assert_true(r->objective_ns == good->objective_ns && r->bound_ns == good->bound_ns && r->failure[0] == '\0');
  ilp_result_free(r);
  ilp_result_free(good);
  case_free(&c);
}

/* The theta of a result is worth something: with one more expert's room the bound falls by about that much, not more. */
static void test_multiplier(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *a, *b;
  assert_true(case_large(&c, 12, 1, 64, &case_machines[1], 8, 0.8, false, 3));
  c.p.depths = 1;
  c.p.device[0].expert_bytes_free[0] = 200 * c.bytes[1];
  must(ilp_solve(&c.p, NULL, &a));
  assert_true(a->theta_ns_per_byte > 0);
  c.p.device[0].expert_bytes_free[0] += 4 * c.bytes[1];
  must(ilp_solve(&c.p, NULL, &b));
  double gain = a->bound_ns - b->bound_ns, promised = 4 * a->theta_ns_per_byte * (double)c.bytes[1];
  assert_true(gain > 0.5 * promised && gain <= promised * (1 + 1e-6));
  ilp_result_free(a);
  ilp_result_free(b);
  case_free(&c);
}

/* 58 x 256 at depths 1 to 4: proven to 0.1 % everywhere; work counted, not timed. */
static void test_full_size(void **state) {
  (void)state;
  static const double skews[] = {0, 0.8, 1.2, SKEW_MIXED};
  static const int users[] = {1, 5, 64};
  static const ilp_counters recorded = {.table_evaluations = 2499043,
                                        .refined = 30273,
                                        .lp_iterations = 16466,
                                        .nodes = 2514,
                                        .moves = 2287207,
                                        .priced = 54330,
                                        .expert_times = 4633388,
                                        .glpk_solves = 131};
  ilp_counters spent = {0};
  for (size_t m = 0; m < sizeof case_machines / sizeof case_machines[0]; m++)
    for (size_t u = 0; u < sizeof users / sizeof users[0]; u++)
      for (size_t k = 0; k < sizeof skews / sizeof skews[0]; k++) {
        if ((m + u + k) % 2) continue; /* half of the grid: the benchmark does all */
        ilp_case c;
        ilp_result *r;
        assert_true(case_large(&c, 61, 3, 256, &case_machines[m], users[u], skews[k], m == 1, 7 + m));
        must(ilp_solve(&c.p, NULL, &r));
        if (!(r->gap <= 1e-3)) fail_msg("%s, %d users, skew %g: gap %g", case_machines[m].name, users[u], skews[k], r->gap);
        check_invariants(&c, r);
        case_add_work(&spent, &r->counters);
        ilp_result_free(r);
        case_free(&c);
      }
  if (case_more_work(&spent, &recorded) != NULL) fail_msg("more work than recorded: %s", case_more_work(&spent, &recorded));
  /* The gate closes when any of them doubles. */
  for (size_t i = 0; i < sizeof spent / sizeof(int64_t); i++) {
    ilp_counters twice = recorded;
    ((int64_t *)&twice)[i] *= 2;
    assert_non_null(case_more_work(&twice, &recorded));
  }
}

/* Another placement of the same depth: everything about it is as evaluated, the proof stays. */
static void test_take_another_placement(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *a, *b, *deeper;
  ilp_evaluation e;
  assert_true(case_large(&c, 20, 2, 128, &case_machines[2], 16, SKEW_MIXED, true, 5));
  for (int d = 0; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] /= 8;
  c.p.depths = 2;
  must(ilp_solve(&c.p, NULL, &a));
  must(ilp_solve(&c.p, &(ilp_options){.quick = true, .gap_target = 0.05}, &b));
  must(ilp_solve(&c.p, NULL, &deeper));
  deeper->depth = 3;
  assert_int_equal(ilp_result_take(a, deeper), HF_INPUT);
  b->on_device[3 * b->n_experts] ^= b->on_device[3 * b->n_experts] <= 1; /* surely another one */
  must(ilp_evaluate(&c.p, b->on_device, 2, b->layer, &b->evaluation));
  b->objective_ns = b->evaluation.objective_ns;
  double bound = a->bound_ns, baseline = a->baseline[ILP_BASE_GREEDY].objective_ns;
  must(ilp_result_take(a, b));
  must(ilp_evaluate(&c.p, a->on_device, 2, NULL, &e));
  assert_true(a->objective_ns == e.objective_ns && a->by_depth[1].objective_ns == e.objective_ns);
  assert_true(a->bound_ns == bound && a->gap == e.objective_ns / bound - 1 && !a->lp_exact);
  assert_true(a->baseline[ILP_BASE_GREEDY].objective_ns == baseline);
  assert_memory_equal(a->on_device, b->on_device, (size_t)a->n_layers * (size_t)a->n_experts);
  a->bound_ns = 0; /* nothing proven: no gap to speak of */
  must(ilp_result_take(a, b));
  assert_true(a->gap == 0);
  ilp_result_free(a);
  ilp_result_free(b);
  ilp_result_free(deeper);
  case_free(&c);
}

static void test_same_input_same_answer(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *a, *b;
  assert_true(case_large(&c, 20, 2, 128, &case_machines[2], 16, SKEW_MIXED, true, 5));
  for (int d = 0; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] /= 8;
  must(ilp_solve(&c.p, NULL, &a));
  must(ilp_solve(&c.p, NULL, &b));
  assert_memory_equal(a->on_device, b->on_device, 20 * 128);
  assert_true(a->objective_ns == b->objective_ns && a->bound_ns == b->bound_ns && a->depth == b->depth);
  assert_memory_equal(&a->counters, &b->counters, sizeof a->counters);
  for (int i = 0; i < ILP_N_BASELINES; i++) assert_true(a->baseline[i].objective_ns == b->baseline[i].objective_ns);
  ilp_result_free(a);
  ilp_result_free(b);
  case_free(&c);
}

static void expect(ilp_case *c, hf_status want, const char *part) {
  ilp_result *r = NULL;
  hf_status st = ilp_solve(&c->p, NULL, &r);
  if (st != want || strstr(hf_error_line(), part) == NULL)
    fail_msg("status %d, \"%s\"; wanted %d, \"%s\"", st, hf_error_line(), want, part);
  assert_null(r);
}

static void test_bad_input(void **state) {
  (void)state;
  ilp_case c;
  assert_true(case_small(&c, 4, 6, false, 42));
  ilp_problem good = c.p;
  for (int d = 0; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] = -5000;
  expect(&c, HF_NO, "5000 bytes short");
  c.p = good;
  c.p.users = 0;
  expect(&c, HF_INPUT, "users");
  c.p = good;
  c.p.depths = 0;
  expect(&c, HF_INPUT, "depths");
  c.p = good;
  c.p.users = 1;
  c.p.depths = 2;
  expect(&c, HF_INPUT, "depths");
  c.p = good;
  c.p.context = NAN;
  expect(&c, HF_INPUT, "context");
  c.p = good;
  c.p.n_devices = 2;
  expect(&c, HF_INPUT, "n_devices");
  c.p = good;
  c.t->layer[2].home = 1;
  expect(&c, HF_INPUT, "layer 2: home 1");
  c.t->layer[2].home = 0;
  c.p.prefill.weight = NAN;
  expect(&c, HF_INPUT, "prefill.weight");
  c.p.prefill.weight = 1;
  expect(&c, HF_INPUT, "prefill.load");
  c.p = good;
  c.p.cpu_bytes = 100;
  for (int d = 0; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] = 1000;
  expect(&c, HF_NO, "16900 bytes short");
  c.p = good;
  c.p.pop = NULL;
  expect(&c, HF_INPUT, "popularity");
  c.p = good;
  c.bytes[2] = 0;
  expect(&c, HF_INPUT, "expert_bytes: layer 2");
  c.bytes[2] = 1000;
  c.pop->p[3] = 1.5;
  expect(&c, HF_INPUT, "layer 0 expert 3");
  c.pop->p[3] = NAN;
  expect(&c, HF_INPUT, "layer 0 expert 3");
  c.pop->p[3] = 0;
  c.pin = calloc(24, 1);
  assert_non_null(c.pin);
  memset(c.pin, ILP_PIN_DEVICE, 24);
  c.p.pin = c.pin;
  for (int d = 0; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] = 100;
  expect(&c, HF_NO, "pinned experts need 18000 bytes");
  c.pin[5] = 9;
  expect(&c, HF_INPUT, "pin: layer 0 expert 5");
  case_free(&c);
}

/* Two devices that have room for one pinned expert together, but neither of them for it. */
static void test_pinned_fits_no_device(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *r = NULL;
  uint64_t s = 5;
  assert_true(case_small(&c, 2, 4, false, 43));
  assert_true(case_more_places(&c, 2, 0, &s));
  c.pin = calloc(8, 1);
  assert_non_null(c.pin);
  c.pin[1] = ILP_PIN_DEVICE;
  c.p.pin = c.pin;
  c.p.depths = 1;
  for (int d = 0; d < 2; d++) c.p.device[d].expert_bytes_free[0] = c.bytes[0] * 6 / 10;
  assert_int_equal(ilp_solve(&c.p, NULL, &r), HF_NO);
  assert_non_null(strstr(hf_error_line(), "pinned"));
  hf_clear_error();
  case_free(&c);
}

static void test_only_deep_depths_infeasible(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *r;
  assert_true(case_small(&c, 4, 6, false, 43));
  c.p.users = 8;
  for (int d = 1; d < ILP_MAX_DEPTH; d++) c.p.device[0].expert_bytes_free[d] = -1;
  must(ilp_solve(&c.p, NULL, &r));
  assert_int_equal(r->depth, 1);
  assert_int_equal(r->by_depth[1].state, ILP_DEPTH_INFEASIBLE);
  assert_int_equal(r->by_depth[4].state, ILP_DEPTH_NOT_TRIED);
  assert_close(r->objective_ns, brute_shallow(&c), 1e-9, "depth 1", 43);
  ilp_result_free(r);
  case_free(&c);
}

static void test_no_device(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *r;
  ilp_evaluation e;
  uint8_t on[24] = {0};
  assert_true(case_small(&c, 4, 6, false, 44));
  c.t->one_resource = true;
  c.p.n_devices = 0;
  must(ilp_solve(&c.p, NULL, &r));
  assert_int_equal(r->depth, 1);
  assert_string_equal(r->status, "optimal");
  assert_string_equal(r->certificate, "exact");
  double sum = c.t->step_fixed_ns + stage_curve_at(&c.t->head, c.p.users);
  for (int l = 0; l < 4; l++) {
    layer_times y = stage_layer_times(c.t, c.pop, l, c.p.users, c.p.context, NULL);
    sum += y.attn_ns + y.shared_ns + y.cexp_ns;
    assert_int_equal(r->layer[l].binding, ILP_BIND_CPU);
  }
  assert_close(r->objective_ns, sum, 1e-12, "one resource", 44);
  assert_int_equal(ilp_evaluate(&c.p, on, 2, NULL, &e), HF_INPUT);
  on[0] = 1;
  assert_int_equal(ilp_evaluate(&c.p, on, 1, NULL, &e), HF_INPUT);
  ilp_result_free(r);
  /* A table with a device, but none in the problem: everything on the CPU, at the best depth. */
  c.t->one_resource = false;
  must(ilp_solve(&c.p, NULL, &r));
  assert_int_equal(r->bytes_used, 0);
  assert_close(r->objective_ns, r->baseline[ILP_BASE_ALL_CPU].objective_ns, 1e-12, "all on the CPU", 44);
  ilp_result_free(r);
  case_free(&c);
}

/* One layer by hand: ways, what limits a step, uneven micro-batches. */
static void test_step(void **state) {
  (void)state;
  stage_table *t;
  popularity *pop;
  int64_t bytes[1] = {10};
  uint8_t on[2] = {1, 0};
  ilp_evaluation e;
  ilp_layer y;
  must(stage_table_new(1, &t));
  must(popularity_new(1, 2, &pop));
  pop->p[0] = pop->p[1] = 1;
  t->n_experts = t->top_k = 2;
  t->layer[0].moe = true;
  t->layer[0].attn = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {10, 20}};
  t->layer[0].shared = (stage_curve){.n = 1, .ns = {5}};
  t->layer[0].dexp = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {20, 30}};
  t->layer[0].cexp = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {40, 60}};
  t->layer[0].hand_ns = 7;
  t->head = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {3, 6}};
  t->step_fixed_ns = 100;
  ilp_problem p = {.table = t, .pop = pop, .users = 3, .depths = 3, .expert_bytes = bytes, .n_devices = 1};
  must(ilp_evaluate(&p, on, 1, &y, &e)); /* 3 tokens: attn 30, dexp 40, cexp 80, head 9 */
  assert_true(e.objective_ns == 100 + 9 + 30 + 87 && e.binding == ILP_BIND_PATH && y.binding == ILP_BIND_CPU);
  must(ilp_evaluate(&p, on, 2, &y, &e)); /* 2 tokens and 1 */
  assert_true(e.place_ns[0] == 60 + 40);
  assert_true(e.place_ns[1] == (20 + 5 + 30) + (10 + 5 + 20) + 6 + 3);
  assert_true(e.path_ns == 100 + 6 + 20 + 67 && e.objective_ns == e.path_ns);
  assert_false(e.fits);
  t->step_fixed_ns = 0;
  must(ilp_evaluate(&p, on, 2, &y, &e));
  assert_true(e.objective_ns == 100 && e.binding == ILP_BIND_CPU && y.ns == 100 && y.binding == ILP_BIND_CPU);
  t->contend = 1.5;
  must(ilp_evaluate(&p, on, 2, &y, &e));
  assert_true(e.objective_ns == 100 + 0.5 * 99 && e.binding == ILP_BIND_CPU);
  must(ilp_evaluate(&p, on, 1, &y, &e));
  assert_true(e.objective_ns == 9 + 30 + 87 + 0.5 * 45);
  on[1] = 2;
  assert_int_equal(ilp_evaluate(&p, on, 1, NULL, &e), HF_INPUT);
  assert_string_equal(ilp_binding_name(ILP_BIND_GPU), "gpu");
  popularity_free(pop);
  stage_table_free(t);
}

/* GLPK and the dynamic program agree with trying everything, also when the multiplier given is poor. */
static void test_knapsack(void **state) {
  (void)state;
  enum { G = 5, N = 6 };
  for (uint64_t seed = 1; seed <= 60; seed++) {
    uint64_t s = seed;
    int first[G + 1], start[G], a[G], b[G], pick[G] = {0};
    double cost[G * N], best = INFINITY;
    int64_t units[G * N];
    for (int i = 0; i <= G; i++) first[i] = i * N;
    for (int i = 0; i < G; i++) {
      start[i] = i * N;
      for (int j = 0; j < N; j++) {
        units[i * N + j] = j * (1 + (int64_t)(seed % 3) * i);
        cost[i * N + j] = 1000 + case_uniform(&s, 0, 100) - 12.0 * j;
      }
    }
    ilp_mckp m = {.n_groups = G,
                  .first = first,
                  .cost = cost,
                  .units = units,
                  .cap = 4 + (int64_t)(seed % 20),
                  .theta = (double)(seed % 4) * 5,
                  .start = start,
                  .stop_value = -INFINITY,
                  .stop_bound = INFINITY,
                  .max_nodes = 10000,
                  .max_work = 1e9};
    for (;;) {
      double sum = 0;
      int64_t used = 0;
      for (int i = 0; i < G; i++) {
        sum += cost[i * N + pick[i]];
        used += units[i * N + pick[i]];
      }
      if (used <= m.cap && sum < best) best = sum;
      int i = 0;
      while (i < G && ++pick[i] == N) pick[i++] = 0;
      if (i == G) break;
    }
    ilp_counters count = {0};
    ilp_mckp_result x = {.choice = a}, y = {.choice = b};
    must(ilp_mckp_solve(&m, &count, &x));
    must(ilp_mckp_dynamic(&m, &y));
    assert_true(x.finished && y.finished);
    assert_close(x.value, best, 1e-10, "GLPK", seed);
    assert_close(y.value, best, 1e-10, "dynamic program", seed);
    assert_close(x.bound, best, 1e-9, "GLPK's bound", seed);
    assert_close(y.bound, best, 1e-9, "bound of the dynamic program", seed);
  }
}

static void test_glpk_cannot_abort(void **state) {
  (void)state;
  int first[] = {0, 2}, start[] = {0}, choice[1];
  double cost[] = {2, 1};
  int64_t units[] = {0, 1};
  ilp_counters count = {0};
  ilp_mckp m = {.n_groups = 1,
                .first = first,
                .cost = cost,
                .units = units,
                .cap = 1,
                .start = start,
                .stop_value = -INFINITY,
                .stop_bound = INFINITY,
                .max_nodes = 10};
  m.max_work = -1000; /* GLPK calls abort() on a negative iteration limit */
  ilp_mckp_result r = {.choice = choice};
  assert_int_equal(ilp_mckp_solve(&m, &count, &r), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "GLPK"));
  m.max_work = 1e6;
  must(ilp_mckp_solve(&m, &count, &r)); /* and it works again */
  assert_int_equal(choice[0], 1);
}

static void test_failing_allocations(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *r = NULL;
  assert_true(case_small(&c, 4, 16, true, 46));
  long n = 1;
  for (; n < 10000; n++) {
    hf_fail_alloc_at(n);
    hf_status st = ilp_solve(&c.p, NULL, &r);
    hf_fail_alloc_at(0);
    if (st == HF_OK) {
      check_invariants(&c, r);
      ilp_result_free(r);
      r = NULL;
      if (n > 200) break;
    } else {
      assert_int_equal(st, HF_MACHINE);
      assert_null(r);
    }
  }
  case_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_step),
      cmocka_unit_test(test_brute_force),
      cmocka_unit_test(test_brute_force_every_depth),
      cmocka_unit_test(test_brute_force_places),
      cmocka_unit_test(test_machines_alike),
      cmocka_unit_test(test_alike_in_passes),
      cmocka_unit_test(test_alike_in_little_memory),
      cmocka_unit_test(test_pins),
      cmocka_unit_test(test_pinned_fits_no_device),
      cmocka_unit_test(test_bound_holds),
      cmocka_unit_test(test_more_memory_is_never_worse),
      cmocka_unit_test(test_more_of_anything_is_never_worse),
      cmocka_unit_test(test_bound_holds_places),
      cmocka_unit_test(test_two_threads),
      cmocka_unit_test(test_multiplier),
      cmocka_unit_test(test_full_size),
      cmocka_unit_test(test_same_input_same_answer),
      cmocka_unit_test(test_take_another_placement),
      cmocka_unit_test(test_bad_input),
      cmocka_unit_test(test_only_deep_depths_infeasible),
      cmocka_unit_test(test_no_device),
      cmocka_unit_test(test_knapsack),
      cmocka_unit_test(test_glpk_cannot_abort),
      cmocka_unit_test(test_glpk_breaks_off),
      cmocka_unit_test(test_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
