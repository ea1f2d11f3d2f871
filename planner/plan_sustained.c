#include "planner/plan_sustained.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COUNTED = 2 * SCHED_MAX_SEQS > SUSTAINED_MOST ? 2 * SCHED_MAX_SEQS : SUSTAINED_MOST };

typedef struct {
  const sim_options *o;
  double give_up_ttft_s, give_up_tpot_s;
  int warm, want, ended, n, n_tpot, good;
  int over_ttft, over_tpot, may_be_over; /* of those counted, over what is given up at; how many may be with p95 at it still */
  int64_t from_ns, to_ns, tokens, good_tokens, prompt_tokens;
  double ttft[MOST_COUNTED], tpot[MOST_COUNTED], e2e[MOST_COUNTED], wait[MOST_COUNTED];
  bool stop, given_up;
} counting;

int sustained_requests(int users) {
  int n = SUSTAINED_PER_USER * users;
  if (n < SUSTAINED_LEAST) n = SUSTAINED_LEAST;
  if (n > SUSTAINED_MOST) n = SUSTAINED_MOST;
  return n > 2 * users ? n : 2 * users;
}

int sustained_warm_up(int users) {
  return SUSTAINED_WARM * users;
}

static void count(void *user, const sim_request *r) {
  counting *c = user;
  if (c->o->on_request != NULL) c->o->on_request(c->o->request_user, r);
  if (c->stop) return;
  if (++c->ended <= c->warm) {
    c->from_ns = r->end_ns;
    return;
  }
  const sim_options *o = c->o;
  double ttft = 1e-9 * (double)(r->first_token_ns - r->arrival_ns), tpot = 0;
  if (r->output > 1) c->tpot[c->n_tpot++] = tpot = 1e-9 * (double)(r->end_ns - r->first_token_ns) / (r->output - 1);
  c->ttft[c->n] = ttft;
  c->wait[c->n] = 1e-9 * (double)(r->start_ns - r->arrival_ns);
  c->e2e[c->n++] = 1e-9 * (double)(r->end_ns - r->arrival_ns);
  c->to_ns = r->end_ns;
  c->tokens += r->output;
  c->prompt_tokens += r->prompt;
  bool good = (o->slo_ttft_s <= 0 || ttft <= o->slo_ttft_s) && (o->slo_tpot_s <= 0 || tpot <= o->slo_tpot_s);
  c->good += good;
  c->good_tokens += good ? r->output : 0;
  c->over_ttft += c->give_up_ttft_s > 0 && ttft > c->give_up_ttft_s;
  c->over_tpot += c->give_up_tpot_s > 0 && tpot > c->give_up_tpot_s;
  c->given_up = c->n < c->want && (c->over_ttft > c->may_be_over || c->over_tpot > c->may_be_over);
  c->stop = c->n == c->want || c->given_up;
}

static int rising(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double nearest_rank(const double *sorted, int n, double share) {
  int rank = (int)ceil(share * n - 1e-9);
  return n > 0 ? sorted[rank > 0 ? rank - 1 : 0] : 0;
}

/* Where it was given up, as many of those still to come as there are might be shorter: p95 is at least the shortest of the longest may_be_over + 1
 * seen. */
static plan_percentiles percentiles(const counting *c, double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, rising);
  plan_percentiles p = {.p50 = nearest_rank(v, n, 0.5),
                        .p90 = nearest_rank(v, n, 0.9),
                        .p95 = nearest_rank(v, n, 0.95),
                        .p99 = nearest_rank(v, n, 0.99)};
  if (c->given_up) p.p95 = n > c->may_be_over ? v[n - 1 - c->may_be_over] : 0;
  return p;
}

static double mean(const double *v, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += v[i];
  return n > 0 ? sum / n : 0;
}

/* The simulator's own answer cut down to the requests that count. Busy shares, queues and watts are of the whole time, energy is what those watts
 * take while the counted requests end. */
static void only_counted(counting *c, const sustained_result *of, sim_result *r) {
  double seconds = 1e-9 * (double)(c->to_ns - c->from_ns), share = r->wall_s > 0 ? seconds / r->wall_s : 0;
  r->requests = c->n;
  r->prompt_tokens = c->prompt_tokens;
  r->output_tokens = c->tokens;
  r->ttft_s = of->ttft_s;
  r->tpot_s = of->tpot_s;
  r->e2e_s = of->e2e_s;
  r->wait_s = percentiles(c, c->wait, c->n);
  r->ttft_mean_s = mean(c->ttft, c->n);
  r->tpot_mean_s = mean(c->tpot, c->n_tpot);
  r->e2e_mean_s = mean(c->e2e, c->n);
  r->wait_mean_s = mean(c->wait, c->n);
  r->wall_s = seconds;
  r->tok_per_s_wall = of->tok_per_s;
  r->goodput = of->goodput;
  r->goodput_req_per_s = seconds > 0 ? c->good / seconds : 0;
  r->goodput_tok_per_s = seconds > 0 ? (double)c->good_tokens / seconds : 0;
  r->energy_j *= share;
  for (int i = 0; i < SIM_N_RESOURCES; i++) r->energy_of_j[i] *= share;
}

static hf_status run(const sim_options *base, double give_up_ttft_s, double give_up_tpot_s, sustained_result *out,
                     sim_result *whole) {
  sim_options o = *base;
  sim_result r;
  counting *c = NULL;
  HF_TRY(hf_alloc(&c, 1, sizeof *c, "sustained load"));
  *c = (counting){.o = base,
                  .give_up_ttft_s = give_up_ttft_s,
                  .give_up_tpot_s = give_up_tpot_s,
                  .warm = sustained_warm_up(o.users),
                  .want = sustained_requests(o.users)};
  c->may_be_over = c->want - (int)ceil(0.95 * c->want - 1e-9);
  o.arrivals = SIM_CLOSED;
  o.requests_per_user = c->warm + c->want; /* nobody comes to the end of them */
  o.length_spread = SUSTAINED_SPREAD;
  o.lengths = SIM_LENGTHS_UNIFORM;
  o.n_pages = 0;
  o.max_context = 0;
  o.on_request = count;
  o.request_user = c;
  o.stop = &c->stop;
  if (o.resolution == SIM_AUTO) o.resolution = SIM_STEPS;
  hf_status st = sim_run(&o, &r);
  if (st == HF_OK) {
    double seconds = 1e-9 * (double)(c->to_ns - c->from_ns);
    *out = (sustained_result){.requests = c->n,
                              .tok_per_s = seconds > 0 ? (double)c->tokens / seconds : 0,
                              .goodput = c->n > 0 ? (double)c->good / c->n : 0,
                              .device_busy = r.device_busy,
                              .cpu_busy = r.cpu_busy,
                              .given_up = c->given_up};
    memcpy(out->busy, r.busy, sizeof out->busy);
    out->ttft_s = percentiles(c, c->ttft, c->n);
    out->tpot_s = percentiles(c, c->tpot, c->n_tpot);
    out->e2e_s = percentiles(c, c->e2e, c->n);
    if (whole != NULL) {
      only_counted(c, out, &r);
      *whole = r;
    }
  }
  free(c);
  return st;
}

hf_status sustained_run(const sim_options *o, double give_up_ttft_s, double give_up_tpot_s, sustained_result *out) {
  return run(o, give_up_ttft_s, give_up_tpot_s, out, NULL);
}

hf_status sustained_simulate(const sim_options *o, sustained_result *out, sim_result *whole) {
  return run(o, 0, 0, out, whole);
}
