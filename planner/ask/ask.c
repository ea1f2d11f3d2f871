#include "planner/ask/ask.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_THREADS = 256 };

static void set_parts(const ask_case_spec *s, ask_case *out) {
  const ask_machine_facts *f = ask_machine_facts_of(s->machine);
  *out = (ask_case){.sockets = f->sockets,
                    .memory_bytes = f->memory_bytes,
                    .has_price = f->has_price,
                    .price = {f->price[0], f->price[1], f->price[2]},
                    .has_power = f->has_power,
                    .power_idle_w = f->idle_w,
                    .power_active_w = f->active_w,
                    .goodput = -1,
                    .users_at_slo = -1};
  snprintf(out->name, sizeof out->name, "%s", s->name);
  snprintf(out->machine, sizeof out->machine, "%s", f->name);
  snprintf(out->cpu, sizeof out->cpu, "%s", f->cpu);
  snprintf(out->memory, sizeof out->memory, "%s", f->memory);
  snprintf(out->gpus, sizeof out->gpus, "%s", f->gpus);
}

static void set_load(const plan_inputs *in, ask_case *out) {
  const plan_request *r = &in->req;
  snprintf(out->model, sizeof out->model, "%s", r->model);
  snprintf(out->format, sizeof out->format, "%s", in->format_name);
  out->users = r->users;
  out->context = r->context;
  out->prompt_tokens = r->prompt_tokens;
  out->output_tokens = r->output_tokens;
}

static void set_refusal(const planned *p, ask_case *out) {
  snprintf(out->why_not, sizeof out->why_not, "%s", hf_error_line());
  hf_clear_error();
  for (int i = 0; i < p->n_remedies && out->n_possible < ASK_MAX_POSSIBLE; i++)
    snprintf(out->possible[out->n_possible++], sizeof out->possible[0], "%s", p->remedy[i]);
}

/* What feeds the step: the figures that a change of the machine moves. */
static void set_resources(const plan_inputs *in, ask_case *out) {
  cost_figure f;
  if (cost_find(in->host, "cpu", "dram_read_bytes_per_s", &f)) out->dram_bytes_per_s = f.likely;
  if (in->gpu.kind == GPU_NONE) return;
  const char *device = in->gpu.device[0] != '\0' ? in->gpu.device : "gpu0";
  if (cost_find(in->host, device, "gpu_mem_bytes_per_s", &f)) out->gpu_bytes_per_s = f.likely;
  if (cost_find(in->host, device, "pcie_h2d_bytes_per_s", &f)) out->link_bytes_per_s = f.likely;
}

/* Energy: each device idles, and draws more while it is busy; the platform (what the total has beyond the devices) likewise: whatever the busiest
 * is. */
static void set_energy(const plan_inputs *in, const double of[SIM_N_RESOURCES], ask_case *out) {
  if (!out->has_power || !(out->tok_per_s_wall > 0)) return;
  double idle = 0, active = 0, watts = 0, most = out->cpu_busy;
  int n_gpus = 0;
  for (int i = 0; i < in->host->n_device; i++) {
    const rec_device *d = &in->host->device[i];
    cost_figure a, b;
    if (!cost_find(in->host, d->device, "power_idle_w", &a) || !cost_find(in->host, d->device, "power_active_w", &b)) continue;
    double busy = strcmp(d->kind, "gpu") == 0 && n_gpus < SIM_CPU ? of[n_gpus++] : out->cpu_busy;
    most = fmax(most, busy);
    watts += a.likely + fmax(0, b.likely - a.likely) * busy;
    idle += a.likely;
    active += b.likely;
  }
  double rest_idle = fmax(0, out->power_idle_w - idle), rest_active = fmax(0, out->power_active_w - active);
  watts += rest_idle + fmax(0, rest_active - rest_idle) * most;
  out->power_mean_w = watts;
  out->joule_per_token = watts / out->tok_per_s_wall;
}

static void set_answer(const plan_inputs *in, const planned *p, ask_case *out) {
  planned_summary y;
  plan_summarise(p, &y);
  out->feasible = true;
  out->decode_tok_per_s = y.decode_tok_per_s;
  out->ttft_s = y.ttft_s;
  out->tpot_s = y.tpot_s;
  out->e2e_s = y.e2e_s;
  out->tok_per_s_wall = y.tok_per_s_wall;
  out->prefill_tok_per_s = y.prefill_tok_per_s;
  out->depth = y.depth;
  out->chunk_tokens = in->chunk_tokens;
  snprintf(out->binding, sizeof out->binding, "%s", y.binding);
  snprintf(out->tag, sizeof out->tag, "%s", y.tag);
  out->gap = y.gap;
  out->device_busy = y.device_busy;
  out->cpu_busy = y.cpu_busy;
  out->step_ns = y.objective_ns;
  out->cpu_ns = y.cpu_ns;
  out->device_ns = y.device_ns;
  out->experts_on_gpu = y.experts_on_devices;
  memcpy(out->log_effect, y.effect, sizeof out->log_effect);
  out->given_up = p->sustained.given_up;
  set_resources(in, out);
  set_energy(in, p->sustained.busy, out);
}

/* What a million tokens cost; left out where price or power of the machine is not known. */
static hf_status set_cost(const ask_case_spec *s, ask_case *out) {
  double likely = out->decode_tok_per_s.likely, wall = out->tok_per_s_wall;
  if (s->scenario == NULL || !(wall > 0) || !(likely > 0)) return HF_OK;
  money_machine m;
  money_fact f[MONEY_N];
  money_load l = {.tok_per_s = {wall * out->decode_tok_per_s.low / likely, wall, wall * out->decode_tok_per_s.high / likely},
                  .input_per_output = (double)out->prompt_tokens / (double)out->output_tokens,
                  .users = (double)out->users,
                  .tag = TAG_ASSUMED};
  if (out->prefill_tok_per_s > 0) l.prefill_share = fmin(0.99, wall * l.input_per_output / out->prefill_tok_per_s);
  snprintf(l.source, sizeof l.source, "simulation");
  money_machine_of(ask_machine_rows(s->machine), &m);
  if (isnan(m.price.likely) && isnan(s->scenario->f[MONEY_PRICE].likely)) return HF_OK;
  money_machine_busy(ask_machine_rows(s->machine), out->cpu_busy, out->device_busy, &m);
  hf_status st = money_inputs(s->scenario, &m, &l, f);
  if (st == HF_INPUT) { /* something nobody says: no cost, which is no failure of the case */
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  HF_TRY(money_per_million(f, &out->cost));
  out->has_cost = true;
  return HF_OK;
}

static hf_status evaluate(const ask_case_spec *s, int64_t users, ask_case *out) {
  plan_request r = s->req;
  plan_inputs *in = NULL;
  planned p = {0};
  set_parts(s, out);
  r.host_rows = ask_machine_rows(s->machine);
  r.machine = NULL;
  if (users > 0) r.users = users;
  if (users > 0 && r.depth > users) r.depth = users; /* no more micro-batches than users */
  HF_TRY(plan_inputs_open(NULL, &r, &in));
  set_load(in, out);
  planned_options o = {.quick = s->quick,
                       .compare_depths = !s->one_depth,
                       .search_fully = s->search_fully,
                       .no_chunks = s->no_chunks,
                       .no_interval = s->no_interval,
                       .slo_ttft_s = s->slo.ttft_s,
                       .slo_tpot_s = s->slo.tpot_s,
                       .slo_report = true,
                       .give_up = s->give_up};
  hf_status st = plan_make(in, &o, &p);
  if (st == HF_NO) {
    set_refusal(&p, out);
    st = HF_OK;
  } else if (st == HF_OK) {
    set_answer(in, &p, out);
    if (s->slo.ttft_s > 0 || s->slo.tpot_s > 0) out->goodput = p.sustained.goodput;
    st = set_cost(s, out);
  }
  planned_free(&p);
  plan_inputs_close(in);
  return st;
}

/* Most users that meet the SLO: doubled until one does not, then halved in between. The percentiles of a closed loop rise with users but for
 * small steps (depth changes), which this search may overlook by a user. */
static hf_status count_users(const ask_case_spec *s, const ask_case *at, int64_t *most) {
  int64_t good = 0, bad = SCHED_MAX_SEQS + 1, next = at->users;
  ask_case c = *at;
  ask_case_spec other = *s;
  other.give_up = 1; /* whether it meets them is all that is asked */
  other.no_interval = true;
  while (bad - good > 1) {
    if (next != at->users) HF_TRY(evaluate(&other, next, &c));
    else c = *at;
    if (c.feasible && ask_meets(&c, &s->slo, NULL)) good = next;
    else bad = next;
    next = bad > SCHED_MAX_SEQS ? (good * 2 <= SCHED_MAX_SEQS ? good * 2 : SCHED_MAX_SEQS) : good + (bad - good) / 2;
  }
  *most = good;
  return HF_OK;
}

hf_status ask_evaluate(const ask_case_spec *s, ask_case *out) {
  HF_TRY(evaluate(s, 0, out));
  bool slo = s->slo.ttft_s > 0 || s->slo.tpot_s > 0;
  if (s->count_users && slo) HF_TRY(count_users(s, out, &out->users_at_slo));
  return HF_OK;
}

/* "12 %", "0.4 %": never 0 % of something that is over. */
static void over_text(double over, char out[16]) {
  double p = 100 * over;
  if (p >= 1) snprintf(out, 16, "%.0f %%", p);
  else if (p >= 0.1) snprintf(out, 16, "%.1f %%", p);
  else snprintf(out, 16, "under 0.1 %%");
}

bool ask_meets(const ask_case *c, const ask_slo *slo, char why[160]) {
  char none[160], over[16], p95[24];
  char *to = why != NULL ? why : none;
  if (!c->feasible) snprintf(to, 160, "does not fit: %.140s", c->why_not);
  else if (slo->tpot_s > 0 && c->tpot_s.p95 > slo->tpot_s) {
    over_text(c->tpot_s.p95 / slo->tpot_s - 1, over);
    plan_beside_limit_text(1e3 * c->tpot_s.p95, 1e3 * slo->tpot_s, p95);
    snprintf(to, 160, "p95 TPOT %s ms is %s over %.6g ms", p95, over, 1e3 * slo->tpot_s);
  } else if (slo->ttft_s > 0 && c->ttft_s.p95 > slo->ttft_s) {
    over_text(c->ttft_s.p95 / slo->ttft_s - 1, over);
    plan_beside_limit_text(c->ttft_s.p95, slo->ttft_s, p95);
    snprintf(to, 160, "p95 TTFT %s s is %s over %.6g s", p95, over, slo->ttft_s);
  } else if (slo->tok_per_s > 0 && c->tok_per_s_wall < slo->tok_per_s) {
    over_text(1 - c->tok_per_s_wall / slo->tok_per_s, over);
    plan_beside_limit_text(c->tok_per_s_wall, slo->tok_per_s, p95);
    snprintf(to, 160, "%s tokens/s delivered is %s under %.6g", p95, over, slo->tok_per_s);
  } else {
    return true;
  }
  return false;
}

/* ---- JSON ---- */

static void add_range(json *o, const char *key, plan_range r) {
  json *v = json_add_object(o, key);
  json_add_num(v, "low", r.low);
  json_add_num(v, "likely", r.likely);
  json_add_num(v, "high", r.high);
}

static void add_parts(const ask_case *c, json *into) {
  json *o = json_add_object(into, "parts");
  if (c->cpu[0] != '\0') json_add_str(o, "cpu", c->cpu);
  else json_add_null(o, "cpu");
  if (c->sockets > 0) json_add_int(o, "sockets", c->sockets);
  else json_add_null(o, "sockets");
  if (c->memory[0] != '\0') json_add_str(o, "memory", c->memory);
  else json_add_null(o, "memory");
  json_add_int(o, "memory_bytes", c->memory_bytes);
  json_add_str(o, "gpus", c->gpus);
}

static void add_hardware(const ask_case *c, json *o) {
  if (c->has_price) add_range(o, "price", c->price);
  else json_add_null(o, "price");
  if (!c->has_power) {
    json_add_null(o, "power_w");
    return;
  }
  json *p = json_add_object(o, "power_w");
  json_add_num(p, "idle", c->power_idle_w);
  json_add_num(p, "active", c->power_active_w);
  if (c->power_mean_w > 0) json_add_num(p, "mean", c->power_mean_w);
}

static void add_rates(const ask_case *c, json *o) {
  add_range(o, "decode_tok_per_s", c->decode_tok_per_s);
  plan_add_percentiles(json_add_object(o, "ttft_s"), &c->ttft_s);
  plan_add_percentiles(json_add_object(o, "tpot_s"), &c->tpot_s);
  plan_add_percentiles(json_add_object(o, "e2e_s"), &c->e2e_s);
  json_add_num(o, "tok_per_s_wall", c->tok_per_s_wall);
  json_add_num(o, "prefill_tok_per_s", c->prefill_tok_per_s);
  if (c->goodput >= 0) json_add_num(o, "goodput", c->goodput);
  else json_add_null(o, "goodput");
  if (c->users_at_slo >= 0) json_add_int(o, "users_at_slo", c->users_at_slo);
  else json_add_null(o, "users_at_slo");
  json_add_int(o, "depth", c->depth);
  json_add_int(o, "chunk_tokens", c->chunk_tokens);
  json_add_str(o, "binding", c->binding);
  json_add_num(o, "gap", c->gap);
  json *b = json_add_object(o, "busy");
  json_add_num(b, "device", c->device_busy);
  json_add_num(b, "cpu", c->cpu_busy);
  json *step = json_add_object(o, "step");
  json_add_num(step, "total_s", c->step_ns / 1e9);
  json_add_num(step, "cpu_s", c->cpu_ns / 1e9);
  json_add_num(step, "device_s", c->device_ns / 1e9);
}

void ask_case_to_json(const ask_case *c, json *o) {
  json_add_str(o, "name", c->name);
  json_add_str(o, "machine", c->machine);
  add_parts(c, o);
  json_add_str(o, "model", c->model);
  json_add_str(o, "format", c->format);
  json_add_int(o, "users", c->users);
  json_add_int(o, "context", c->context);
  json_add_int(o, "prompt_tokens", c->prompt_tokens);
  json_add_int(o, "output_tokens", c->output_tokens);
  json_add_bool(o, "feasible", c->feasible);
  if (!c->feasible) {
    json_add_str(o, "why_not", c->why_not);
    json *list = json_add_array(o, "possible");
    for (int i = 0; i < c->n_possible; i++) json_add_str(list, NULL, c->possible[i]);
  } else {
    add_rates(c, o);
  }
  add_hardware(c, o);
  if (!c->feasible) return;
  if (c->joule_per_token > 0) json_add_num(o, "joule_per_token", c->joule_per_token);
  else json_add_null(o, "joule_per_token");
  if (c->has_cost) add_range(o, "cost_per_million_tokens", c->cost);
  else json_add_null(o, "cost_per_million_tokens");
  json_add_str(o, "tag", c->tag);
}

/* ---- many at once ---- */

typedef struct {
  const ask_case_spec *s;
  ask_case *out;
  int n, next, failed; /* failed: index of the first failure, n = none */
  hf_status st;
  char line[1024];
  void (*done)(void *user, int i);
  void *user;
  pthread_mutex_t lock;
} work;

static void take_cases(work *w) {
  pthread_mutex_lock(&w->lock);
  /* Cases are handed out in order, so every case before a failed one was begun and its failure, if any, is the one reported. */
  while (w->next < w->n && w->failed == w->n) {
    int i = w->next++;
    pthread_mutex_unlock(&w->lock);
    hf_status st = ask_evaluate(&w->s[i], &w->out[i]);
    pthread_mutex_lock(&w->lock);
    if (st != HF_OK && i < w->failed) {
      w->failed = i;
      w->st = st;
      snprintf(w->line, sizeof w->line, "%s", hf_error_line());
    }
    if (st == HF_OK && w->done != NULL) w->done(w->user, i);
  }
  pthread_mutex_unlock(&w->lock);
}

static void *worker(void *arg) {
  take_cases(arg);
  ilp_thread_end();
  return NULL;
}

int ask_threads(int asked, int n) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  int t = asked > 0 ? asked : cores > 0 ? (int)cores : 1;
  if (t > MOST_THREADS) t = MOST_THREADS;
  return t > n ? n : t;
}

hf_status ask_evaluate_all(const ask_case_spec *s, int n, int threads, void (*done)(void *user, int i), void *user,
                           ask_case *out) {
  if (n <= 0) return HF_OK;
  work w = {.s = s, .out = out, .n = n, .failed = n, .done = done, .user = user};
  pthread_t id[MOST_THREADS];
  int want = ask_threads(threads, n), started = 0;
  if (pthread_mutex_init(&w.lock, NULL) != 0) return hf_fail(HF_MACHINE, "no more locks: evaluating cases");
  while (started < want - 1 && pthread_create(&id[started], NULL, worker, &w) == 0) started++;
  take_cases(&w);
  for (int i = 0; i < started; i++) pthread_join(id[i], NULL); /* ends: no case is left, each is finite */
  pthread_mutex_destroy(&w.lock);
  return w.failed == n ? HF_OK : hf_fail(w.st, "%s: %s", s[w.failed].name, w.line);
}
