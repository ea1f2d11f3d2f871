/* The simulator against queueing theory, with stage tables whose service times are exact: every step lasts `step_fixed_ns`. */
#include "planner/sim/sim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const double STEP_S = 1e-3;
static stage_table *table;
static popularity *pop;

static int set_up(void **state) {
  (void)state;
  assert_int_equal(stage_table_new(1, &table), HF_OK);
  table->step_fixed_ns = STEP_S * 1e9;
  assert_int_equal(popularity_new(1, 0, &pop), HF_OK);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  stage_table_free(table);
  popularity_free(pop);
  return 0;
}

static sim_options open_loop(double rate, int servers, int64_t requests) {
  return (sim_options){.table = table,
                       .pop = pop,
                       .depth = 1,
                       .prompt_tokens = 1,
                       .output_tokens = 1,
                       .seed = 7,
                       .chunk_tokens = 64,
                       .page_tokens = 16,
                       .arrivals = SIM_POISSON,
                       .rate_per_s = rate,
                       .requests = requests,
                       .max_seqs = servers,
                       .max_context = 65536,
                       .resolution = SIM_STEPS};
}

static void near(const char *what, double got, double want, double share) {
  if (fabs(got - want) <= share * fabs(want)) return;
  print_error("%s: %.6g, theory %.6g (%+.2f %%)\n", what, got, want, 100 * (got / want - 1));
  fail();
}

/* Little's law with its two accounts: requests counted over time, and their times added up. */
static void little(const sim_result *r) {
  near("in system", r->in_system, r->e2e_sum_s / r->wall_s, 1e-9);
  near("waiting", r->waiting, r->wait_mean_s * (double)r->requests / r->wall_s, 1e-9);
}

/* M/D/1: Pollaczek and Khinchine's mean wait, and the busy share. */
static void m_d_1(void **state) {
  (void)state;
  for (int load = 3; load <= 8; load += 5) {
    double rho = 0.1 * load;
    sim_options o = open_loop(rho / STEP_S, 1, 300000);
    sim_result r;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    near("wait", r.wait_mean_s, rho * STEP_S / (2 * (1 - rho)), 0.03);
    near("throughput", (double)r.requests / r.wall_s, rho / STEP_S, 0.01);
    assert_true(r.ttft_mean_s > r.wait_mean_s + 0.999 * STEP_S && r.steps == 300000);
    little(&r);
  }
}

/* M/G/1 with geometric service (nearly M/M/1): answers of exponential length on one slot. */
static void m_m_1(void **state) {
  (void)state;
  const int mean = 50;
  double p = 1.0 / mean, s1 = mean * STEP_S, s2 = STEP_S * STEP_S * (2 - p) / (p * p), rho = 0.7, rate = rho / s1;
  sim_options o = open_loop(rate, 1, 100000);
  o.output_tokens = mean;
  o.lengths = SIM_LENGTHS_EXPONENTIAL;
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  near("output", (double)r.output_tokens / (double)r.requests, mean, 0.01);
  near("wait", r.wait_mean_s, rate * s2 / (2 * (1 - rho)), 0.04);
  near("p90 wait", r.wait_s.p90, log(rho / 0.1) / ((1 - rho) / s1), 0.06); /* M/M/1: P(W > t) = rho exp(-(mu - lambda) t) */
  little(&r);
}

static double erlang_c(int servers, double load) {
  double term = 1, sum = 0;
  for (int k = 0; k < servers; k++) {
    sum += term;
    term *= load / (k + 1);
  }
  double last = term * servers / (servers - load);
  return last / (sum + last);
}

/* M/M/c: c slots whose steps cost the same however many are filled. A request waits for the step under way, half of one on average. */
static void m_m_c(void **state) {
  (void)state;
  const int mean = 100, servers = 4;
  double s1 = mean * STEP_S, load = 2.8, rate = load / s1;
  sim_options o = open_loop(rate, servers, 200000);
  o.output_tokens = mean;
  o.lengths = SIM_LENGTHS_EXPONENTIAL;
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  near("wait", r.wait_mean_s - STEP_S / 2, erlang_c(servers, load) * s1 / (servers - load), 0.06);
  assert_true(r.max_waiting > 4);
  little(&r);
}

/* Machine repair (M/M/1//N): exact throughput of N users with exponential think time and service; and the asymptotic bounds. */
static void closed_loop(void **state) {
  (void)state;
  const int mean = 40;
  double s = mean * STEP_S, z = 4 * s;
  for (int users = 1; users <= 16; users *= 4) {
    sim_options o = open_loop(0, 1, 0);
    o.arrivals = SIM_CLOSED;
    o.users = users;
    o.requests_per_user = 24000 / users;
    o.think_s = z;
    o.think_exponential = true;
    o.output_tokens = mean;
    o.lengths = SIM_LENGTHS_EXPONENTIAL;
    sim_result r;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    double p = 1, sum = 1, x = (double)r.requests / r.wall_s;
    for (int k = 1; k <= users; k++) sum += p *= (users - k + 1) * s / z;
    near("throughput", x, (1 - 1 / sum) / s, 0.03);
    assert_true(x <= 1.02 / s && x <= 1.02 * users / (s + z) && x >= 0.98 * users / (users * s + z));
    little(&r);
  }
}

/* With constant think time and lengths nothing is random: N users of service s and think time z, N <= (s + z) / s, never meet again. */
static void constant_think_time(void **state) {
  (void)state;
  sim_options o = open_loop(0, 1, 0);
  o.arrivals = SIM_CLOSED;
  o.users = 4;
  o.requests_per_user = 101;
  o.output_tokens = 10;
  o.think_s = 50 * STEP_S;
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_true(fabs(r.wall_s - (10 * 4 + 100 * 60) * STEP_S) < 1e-9);
  assert_true(r.wait_s.p90 == 0 && r.max_waiting == 3 && r.max_in_system == 4);
}

/* Faster arrivals, longer answers, fewer slots: nothing gets better. */
static void monotone(void **state) {
  (void)state;
  double last = 0;
  for (int i = 1; i <= 5; i++) {
    sim_options o = open_loop(0.18 * i / STEP_S, 1, 30000);
    sim_result r;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    assert_true(r.ttft_mean_s >= last);
    last = r.ttft_mean_s;
  }
  for (int slots = 8; slots >= 1; slots /= 2) {
    sim_options o = open_loop(0.9 / (8 * STEP_S), slots, 20000);
    o.output_tokens = 8;
    sim_result r;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    assert_true(slots == 8 || r.e2e_mean_s >= last);
    last = r.e2e_mean_s;
  }
}

/* Goodput: with a limit between the percentiles the share is what the percentile says; warm-up requests do not count. */
static void goodput(void **state) {
  (void)state;
  sim_options o = open_loop(0.8 / STEP_S, 1, 50000);
  o.warm_up = 1000;
  sim_result r, q;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_true(r.goodput == 1);
  o.slo_ttft_s = r.ttft_s.p90;
  assert_int_equal(sim_run(&o, &q), HF_OK);
  assert_true(q.goodput >= 0.9 && q.goodput < 0.902);
  near("good requests", q.goodput_req_per_s, q.goodput * 49000 / q.wall_s, 1e-9);
  o.slo_tpot_s = 1e-9; /* one token: there is no time per further token */
  assert_int_equal(sim_run(&o, &q), HF_OK);
  assert_true(q.goodput >= 0.9);
}

/* An overloaded queue grows with time, but memory does not: a million requests wait in the source. */
static void overload(void **state) {
  (void)state;
  sim_options o = open_loop(10 / STEP_S, 2, 200000);
  o.power[SIM_CPU] = (sim_power){100, 300};
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_true(r.requests == 200000 && r.max_waiting > 150000);
  near("throughput", (double)r.requests / r.wall_s, 2 / STEP_S, 0.01);
  near("energy", r.energy_j, 100 * r.wall_s, 1e-9); /* the table occupies no resource */
  little(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(m_d_1),
      cmocka_unit_test(m_m_1),
      cmocka_unit_test(m_m_c),
      cmocka_unit_test(closed_loop),
      cmocka_unit_test(constant_think_time),
      cmocka_unit_test(monotone),
      cmocka_unit_test(goodput),
      cmocka_unit_test(overload),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
