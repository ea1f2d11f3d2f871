/* cmd_simulate.c: hf-plan simulate: what a plan gives under any load. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "planner/cmd.h"
#include "planner/plan_sim.h"
#include "planner/plan_standby.h"
#include "planner/plan_sustained.h"
#include "planner/sim/chrome.h"
#include "sched/footprint.h"

enum { DEFAULT_REQUESTS = 2000, DEFAULT_PER_USER = 20, CAPACITY_REQUESTS = 400, CAPACITY_LEAST = 10 };

typedef struct {
  cli_common common;
  const char *plan, *trace, *lengths, *resolution, *chrome, *requests_out, *standby;
  int64_t sessions, turns, shared, parked;
  int64_t users, per_user, requests, prompt, output, seed, depth, slots, warm_up;
  double rate, cv, on, off, think, think_mean, duration, spread, length_cv, prefix, stretch, slo_ttft, slo_tpot;
  double gpu_idle, gpu_active, cpu_idle, cpu_active;
  bool sample;
} simulate_command;

/* Nothing said about the load: the one that the plan's delivered tokens/s are of. */
static bool is_sustained(const simulate_command *c) {
  bool arrivals = c->users > 0 || c->per_user > 0 || c->requests > 0 || c->trace != NULL || c->rate > 0 || c->cv >= 0 ||
                  c->on > 0 || c->off > 0 || c->think > 0 || c->sessions > 0 || c->think_mean > 0 || c->duration > 0;
  bool lengths = c->prompt > 0 || c->output > 0 || c->lengths != NULL || c->spread > 0 || c->length_cv > 0 || c->prefix > 0;
  return !arrivals && !lengths && c->warm_up == 0 && c->slots == 0;
}

static hf_status choose_arrivals(const simulate_command *c, sim_options *o) {
  if ((c->trace != NULL) + (c->rate > 0) + (c->users > 0) + (c->sessions > 0) > 1)
    return hf_fail(HF_INPUT, "options --users, --sessions, --rate and --trace: one of them says how requests arrive");
  if (c->on > 0 && c->cv >= 0) return hf_fail(HF_INPUT, "option --burst-on: not together with --cv");
  if ((c->on > 0) != (c->off > 0)) return hf_fail(HF_INPUT, "options --burst-on and --burst-off: each needs the other");
  if (c->rate == 0 && (c->cv >= 0 || c->on > 0)) return hf_fail(HF_INPUT, "options --cv and --burst-on: need --rate");
  o->requests = c->requests;
  if (c->trace != NULL) {
    o->arrivals = SIM_TRACE;
    o->trace_path = c->trace;
    o->trace_stretch = c->stretch;
  } else if (c->rate > 0) {
    o->arrivals = c->on > 0 ? SIM_BURSTY : c->cv >= 0 ? SIM_GAMMA : SIM_POISSON;
    o->rate_per_s = c->rate;
    o->cv = c->cv >= 0 ? c->cv : 1;
    o->burst_on_s = c->on;
    o->burst_off_s = c->off;
    if (o->requests == 0 && c->duration == 0) o->requests = DEFAULT_REQUESTS;
  } else {
    if (c->users > 0) o->users = (int)c->users;
    if (c->sessions > 0) o->users = (int)c->sessions;
    o->sessions = c->sessions > 0;
    o->requests_per_user = (int)(c->per_user > 0 ? c->per_user : c->duration > 0 ? 0 : DEFAULT_PER_USER);
    o->think_s = c->think_mean > 0 ? c->think_mean : c->think;
    o->think_exponential = c->think_mean > 0;
  }
  o->duration_s = c->duration;
  return HF_OK;
}

static hf_status choose_lengths(const simulate_command *c, sim_options *o) {
  if (c->prompt > 0) o->prompt_tokens = (int)c->prompt;
  if (c->output > 0) o->output_tokens = (int)c->output;
  o->length_spread = c->spread;
  o->length_cv = c->length_cv;
  o->prefix_share = c->prefix;
  if (c->lengths == NULL || strcmp(c->lengths, "uniform") == 0) o->lengths = SIM_LENGTHS_UNIFORM;
  else if (strcmp(c->lengths, "lognormal") == 0) o->lengths = SIM_LENGTHS_LOGNORMAL;
  else if (strcmp(c->lengths, "exponential") == 0) o->lengths = SIM_LENGTHS_EXPONENTIAL;
  else return hf_fail(HF_INPUT, "option --lengths: '%s' is none of uniform, lognormal, exponential", c->lengths);
  return HF_OK;
}

/* Turns, and the mirror that conversations are parked in; after the number of slots is known. */
static hf_status choose_sessions(const simulate_command *c, const plan *p, const plan_eval *v, sim_options *o) {
  const int64_t each = ((int64_t)p->context + o->page_tokens - 1) / o->page_tokens, at_once = sim_max_seqs(o);
  int64_t parked = c->parked >= 0 ? c->parked : c->sessions > at_once ? c->sessions - at_once : 0, pages = plan_standby_pages(p);
  if (c->sessions == 0 && (c->turns > 0 || c->shared > 0))
    return hf_fail(HF_INPUT, "option %s: goes with --sessions", c->turns > 0 ? "--turns" : "--shared-prompt");
  if (c->standby == NULL && c->parked >= 0) return hf_fail(HF_INPUT, "option --parked: goes with --standby ram");
  if (c->standby != NULL && c->sessions == 0 && c->trace == NULL)
    return hf_fail(HF_INPUT, "option --standby: conversations are parked there: goes with --sessions or --trace");
  if (c->standby != NULL && strcmp(c->standby, "none") == 0) pages = 0;
  else if (c->standby != NULL && strcmp(c->standby, "ram") == 0) pages = footprint_standby_pages(at_once, parked, each);
  else if (c->standby != NULL) return hf_fail(HF_INPUT, "option --standby: '%.40s' is neither none nor ram", c->standby);
  if (pages > 1 << 24)
    return hf_fail(HF_INPUT, "option --parked: a mirror of %lld pages is too large to simulate", (long long)pages);
  o->turns = (int)c->turns;
  o->shared_tokens = (int)c->shared;
  o->standby_pages = (int)pages;
  o->kv_token_ns = plan_kv_token_ns(p, v);
  return HF_OK;
}

/* Watts of the plan's machine, where the options do not say. */
static void power_of_plan(const plan *p, sim_options *o) {
  const json *list = json_get(json_get(p->extra, "hardware"), "resources");
  for (const json *x = json_first(list); x != NULL; x = json_next(x)) {
    const char *name = json_string(json_get(x, "name"));
    double idle = json_number(json_get(x, "idle_w"), 0), active = json_number(json_get(x, "active_w"), 0);
    for (int i = 0; i < SIM_N_RESOURCES && name != NULL; i++) {
      if (strcmp(sim_resource_name(i), name) != 0 || o->power[i].idle_w > 0 || o->power[i].active_w > 0) continue;
      if (idle >= 0 && active >= idle && active <= 1e5) o->power[i] = (sim_power){idle, active};
    }
  }
}

static hf_status choose_rest(const simulate_command *c, const plan *p, sim_options *o) {
  o->seed = (uint64_t)c->seed;
  if (c->depth > 0) o->depth = (int)c->depth;
  if (c->slots > 0) {
    o->n_pages = (int)((int64_t)o->n_pages / o->max_seqs * c->slots);
    o->max_seqs = (int)c->slots;
  }
  if (o->table->one_resource && o->depth > 1)
    return hf_fail(HF_INPUT, "option --depth: without a device there is nothing to pipeline");
  o->warm_up = c->warm_up;
  o->slo_ttft_s = c->slo_ttft;
  o->slo_tpot_s = c->slo_tpot;
  o->sample_routing = c->sample;
  for (int d = 0; d < STAGE_MAX_DEVICES && d < o->table->n_devices && !o->table->one_resource; d++)
    o->power[d] = (sim_power){c->gpu_idle, c->gpu_active};
  o->power[SIM_CPU] = (sim_power){c->cpu_idle, c->cpu_active};
  power_of_plan(p, o);
  if (c->resolution == NULL || strcmp(c->resolution, "auto") == 0) o->resolution = SIM_AUTO;
  else if (strcmp(c->resolution, "layers") == 0) o->resolution = SIM_LAYERS;
  else if (strcmp(c->resolution, "steps") == 0) o->resolution = SIM_STEPS;
  else return hf_fail(HF_INPUT, "option --resolution: '%s' is none of auto, layers, steps", c->resolution);
  return HF_OK;
}

/* ---- capacity ---- */

/* Requests per second that fit: what all slots together answer when each has its next request at once. 0 where arrivals say no rate. */
static hf_status capacity_of(const sim_options *o, double *per_s) {
  sim_options full = *o;
  sim_result r;
  *per_s = 0;
  if (o->arrivals == SIM_CLOSED || o->arrivals == SIM_TRACE) return HF_OK;
  full.arrivals = SIM_CLOSED;
  full.users = full.max_seqs = sim_max_seqs(o);
  full.requests_per_user = full.users < CAPACITY_REQUESTS / CAPACITY_LEAST ? CAPACITY_REQUESTS / full.users : CAPACITY_LEAST;
  full.requests = full.warm_up = 0;
  full.duration_s = full.think_s = 0;
  full.trace = NULL;
  full.on_request = NULL;
  full.resolution = SIM_STEPS;
  full.sample_routing = false;
  HF_TRY(sim_run(&full, &r));
  *per_s = r.wall_s > 0 ? (double)r.requests / r.wall_s : 0;
  return HF_OK;
}

/* HF_NO: more arrives than fits, so waiting grows for as long as it lasts. */
static hf_status check_capacity(const sim_options *o, double per_s) {
  if (!(per_s > 0) || o->rate_per_s <= per_s) return HF_OK;
  return hf_fail(
      HF_NO,
      "overloaded: at most %.4g requests per minute fit, %.4g arrive (--rate %.4g is over %.4g); waiting grows for as long as "
      "this lasts",
      60 * per_s, 60 * o->rate_per_s, o->rate_per_s, per_s);
}

/* ---- output ---- */

static void add_percentiles(json *parent, const char *key, const plan_percentiles *p, double mean) {
  json *o = json_add_object(parent, key);
  json_add_num(o, "mean", mean);
  plan_add_percentiles(o, p);
}

static const char *arrivals_name(sim_arrivals a) {
  static const char *const name[] = {"closed loop", "Poisson", "gamma", "bursty", "trace"};
  return name[a];
}

/* What load it was, in words: two figures for one plan are of two loads. */
static void load_text(const sim_options *o, bool sustained, char *out, size_t n) {
  char lengths[160] = "lengths of the trace";
  const char *each = o->lengths == SIM_LENGTHS_LOGNORMAL     ? ", lognormal around these means"
                     : o->lengths == SIM_LENGTHS_EXPONENTIAL ? ", exponential around these means"
                     : o->length_spread > 0 || sustained     ? " in the mean"
                                                             : ", all alike";
  if (o->arrivals != SIM_TRACE)
    snprintf(lengths, sizeof lengths, "prompts of %d and answers of %d tokens%s", o->prompt_tokens, o->output_tokens, each);
  if (sustained)
    snprintf(out, n,
             "what plan calls delivered: every user sends the next request at once, %s, each within a quarter; the first %d "
             "requests do not count, the next %d do",
             lengths, sustained_warm_up(o->users), sustained_requests(o->users));
  else if (o->arrivals == SIM_CLOSED && o->requests_per_user > 0)
    snprintf(out, n, "%d request%s of each user, %s%s", o->requests_per_user, o->requests_per_user == 1 ? "" : "s", lengths,
             o->warm_up > 0 ? "" : ", all counted from the first on");
  else snprintf(out, n, "%s", lengths);
  int places = sim_max_seqs(o);
  size_t used = strlen(out);
  if (o->arrivals == SIM_CLOSED && o->users > places)
    snprintf(out + used, n - used,
             "; %d place%s for %d users, so %d wait%s at any time (--slots gives more, each a smaller cache)", places,
             places == 1 ? "" : "s", o->users, o->users - places, o->users - places == 1 ? "s" : "");
}

static void add_question(json *parent, const plan *p, const sim_options *o, bool sustained) {
  char load[400];
  load_text(o, sustained, load, sizeof load);
  json *q = json_add_object(parent, "question");
  if (p->id > 0) json_add_int(q, "plan_id", p->id);
  json_add_str(q, "model", p->model);
  json_add_str(q, "machine", p->machine);
  json_add_str(q, "arrivals", arrivals_name(o->arrivals));
  json_add_bool(q, "sustained", sustained);
  json_add_str(q, "load", load);
  if (o->arrivals == SIM_CLOSED) json_add_int(q, "users", o->users);
  if (o->arrivals == SIM_CLOSED) json_add_num(q, "think_s", o->think_s);
  if (o->sessions) json_add_bool(q, "sessions", true);
  if (o->turns > 0) json_add_int(q, "turns", o->turns);
  if (o->shared_tokens > 0) json_add_int(q, "shared_prompt_tokens", o->shared_tokens);
  if (o->arrivals == SIM_POISSON || o->arrivals == SIM_GAMMA || o->arrivals == SIM_BURSTY)
    json_add_num(q, "rate_per_s", o->rate_per_s);
  if (o->trace_path != NULL) json_add_str(q, "trace", o->trace_path);
  else json_add_int(q, "prompt_tokens", o->prompt_tokens);
  if (o->trace_path == NULL) json_add_int(q, "output_tokens", o->output_tokens);
  json_add_int(q, "depth", o->depth);
  json_add_int(q, "max_seqs", sim_max_seqs(o));
  json_add_int(q, "seed", (int64_t)o->seed);
  if (o->slo_ttft_s > 0) json_add_num(q, "slo_ttft_s", o->slo_ttft_s);
  if (o->slo_tpot_s > 0) json_add_num(q, "slo_tpot_s", o->slo_tpot_s);
}

static void add_resources(json *parent, const sim_options *o, const sim_result *r) {
  json *list = json_add_array(parent, "resources");
  for (int i = 0; i < SIM_N_RESOURCES; i++) {
    if (r->busy[i] == 0 && o->power[i].idle_w == 0) continue;
    json *x = json_add_object(list, NULL);
    json_add_str(x, "name", sim_resource_name(i));
    json_add_num(x, "busy", r->busy[i]);
    if (o->power[i].idle_w > 0 || o->power[i].active_w > 0) json_add_num(x, "energy_j", r->energy_of_j[i]);
  }
}

static void add_parking(json *parent, const sim_options *o, const sim_result *r) {
  const sim_parking *k = &r->parking;
  json *x = json_add_object(parent, "parking");
  json_add_int(x, "mirror_pages", k->slots);
  json_add_int(x, "shared_tokens", k->shared_tokens);
  json_add_int(x, "restored_tokens", k->restored_tokens);
  json_add_int(x, "computed_tokens", r->prompt_tokens - k->shared_tokens - k->restored_tokens);
  json_add_int(x, "resumed_requests", k->resumed);
  json_add_num(x, "resume_s", k->resumed > 0 ? k->resume_s / (double)k->resumed : 0);
  json_add_num(x, "kv_token_ns", o->kv_token_ns);
  json_add_int(x, "parked_tokens", k->parked_tokens);
  json_add_int(x, "mirrored_tokens", k->mirrored_tokens);
  json_add_int(x, "left_out_pages", k->left_out_pages);
  json_add_int(x, "pages_lost", k->pages_lost);
  json_add_int(x, "slots_lost", k->slots_lost);
}

static json *result_json(const plan *p, const sim_options *o, bool sustained, const sim_result *r) {
  json *doc = json_new_object();
  add_question(doc, p, o, sustained);
  json_add_int(doc, "requests", r->requests);
  json_add_int(doc, "refused", r->refused);
  json_add_num(doc, "wall_s", r->wall_s);
  add_percentiles(doc, "ttft_s", &r->ttft_s, r->ttft_mean_s);
  add_percentiles(doc, "tpot_s", &r->tpot_s, r->tpot_mean_s);
  add_percentiles(doc, "e2e_s", &r->e2e_s, r->e2e_mean_s);
  add_percentiles(doc, "wait_s", &r->wait_s, r->wait_mean_s);
  json_add_num(doc, "tok_per_s", r->tok_per_s_wall);
  json_add_num(doc, "decode_tok_per_s", r->decode_tok_per_s);
  json_add_num(doc, "requests_per_s", r->wall_s > 0 ? (double)r->requests / r->wall_s : 0);
  json_add_int(doc, "prompt_tokens", r->prompt_tokens);
  json_add_int(doc, "output_tokens", r->output_tokens);
  json_add_num(doc, "goodput", r->goodput);
  json_add_num(doc, "goodput_requests_per_s", r->goodput_req_per_s);
  json_add_num(doc, "goodput_tok_per_s", r->goodput_tok_per_s);
  json_add_num(doc, "in_system", r->in_system);
  json_add_num(doc, "waiting", r->waiting);
  json_add_int(doc, "max_in_system", r->max_in_system);
  json_add_int(doc, "max_waiting", r->max_waiting);
  if (r->parking.any) add_parking(doc, o, r);
  add_resources(doc, o, r);
  if (r->energy_j > 0) json_add_num(doc, "energy_j", r->energy_j);
  if (r->energy_j > 0 && r->output_tokens > 0) json_add_num(doc, "joule_per_token", r->energy_j / (double)r->output_tokens);
  json_add_int(doc, "steps", r->steps);
  json_add_str(doc, "resolution", r->by_steps ? "steps" : "layers");
  json_add_bool(doc, "exact_percentiles", r->requests <= SIM_EXACT);
  json_add_str(doc, "tag", p->tag);
  json_add_str(doc, "definitions",
               "TTFT = first token - arrival; TPOT = (E2E - TTFT) / (tokens - 1); goodput = share of requests within both "
               "limits; busy = share of "
               "wall time occupied; energy = of the GPUs and the CPU: board, fans and losses of the supplies are in whatif's and "
               "roi's figures; percentiles by nearest rank, beyond 65536 requests within 0.4 %");
  return doc;
}

static void show_line(const char *name, const plan_percentiles *p, double mean) {
  printf("  %-9s %10.4g %10.4g %10.4g %10.4g %10.4g\n", name, mean, p->p50, p->p90, p->p95, p->p99);
}

static void show_result(const plan *p, const sim_options *o, bool sustained, const sim_result *r) {
  char load[400];
  load_text(o, sustained, load, sizeof load);
  char name[sizeof p->model], machine[sizeof p->machine]; /* the plan may be anybody's file */
  snprintf(name, sizeof name, "%s", p->model);
  snprintf(machine, sizeof machine, "%s", p->machine);
  hf_printable(name);
  hf_printable(machine);
  printf("%s on %s, %s", name, machine, sustained ? "sustained load" : arrivals_name(o->arrivals));
  if (o->arrivals == SIM_CLOSED) printf(" of %d user%s", o->users, o->users == 1 ? "" : "s");
  else if (o->trace_path != NULL) printf(" %s", o->trace_path);
  else printf(", %g requests/s", o->rate_per_s);
  printf(", depth %d: %lld requests in %.1f s", o->depth, (long long)r->requests, r->wall_s);
  if (r->refused > 0) printf(", %lld refused as too long", (long long)r->refused);
  printf("\n  load: %s\n\n  seconds         mean        p50        p90        p95        p99\n", load);
  show_line("TTFT", &r->ttft_s, r->ttft_mean_s);
  show_line("TPOT", &r->tpot_s, r->tpot_mean_s);
  show_line("E2E", &r->e2e_s, r->e2e_mean_s);
  show_line("waiting", &r->wait_s, r->wait_mean_s);
  printf("\n  output       %.2f tokens/s over all, %.2f while all decode\n", r->tok_per_s_wall, r->decode_tok_per_s);
  if (o->slo_ttft_s > 0 || o->slo_tpot_s > 0)
    printf("  goodput      %.1f %% of requests within the limits: %.4g requests/s, %.2f tokens/s\n", 100 * r->goodput,
           r->goodput_req_per_s, r->goodput_tok_per_s);
  if (r->parking.any)
    printf("  prompts      %lld tokens: %lld shared, %lld read back from the KV mirror (%.2g s each time), %lld computed\n",
           (long long)r->prompt_tokens, (long long)r->parking.shared_tokens, (long long)r->parking.restored_tokens,
           r->parking.resumed > 0 ? r->parking.resume_s / (double)r->parking.resumed : 0,
           (long long)(r->prompt_tokens - r->parking.shared_tokens - r->parking.restored_tokens));
  printf("  queue        %.2f waiting on average, %lld at most; %.2f in the system\n", r->waiting, (long long)r->max_waiting,
         r->in_system);
  printf("  busy        ");
  for (int i = 0; i < SIM_N_RESOURCES; i++)
    if (r->busy[i] > 0) printf(" %s %.1f %%", sim_resource_name(i), 100 * r->busy[i]);
  if (r->energy_j > 0)
    printf("\n  energy       %.3g kJ, %.3g J per output token (GPUs and CPU)", 1e-3 * r->energy_j,
           r->energy_j / (double)r->output_tokens);
  printf("\n  simulated    %lld steps in %s; figures are %s\n", (long long)r->steps, r->by_steps ? "whole" : "layers", p->tag);
}

/* One line per request, for comparison with a run's. */
static void write_request(void *user, const sim_request *r) {
  double first = 1e-9 * (double)r->first_token_ns, arrival = 1e-9 * (double)r->arrival_ns, end = 1e-9 * (double)r->end_ns;
  fprintf(user, "{\"id\":\"%lld\",\"prompt_tokens\":%d,\"output_tokens\":%d,\"arrival_s\":%.9f,\"ttft_s\":%.9f,\"end_s\":%.9f",
          (long long)r->number, r->prompt, r->output, arrival, first - arrival, end);
  if (r->cached > 0) fprintf(user, ",\"cached_tokens\":%d", r->cached);
  if (r->output > 1) fprintf(user, ",\"tpot_s\":%.9f", (end - first) / (r->output - 1));
  fputs("}\n", user);
}

static hf_status simulate_load(const simulate_command *c, const sim_options *o, sim_result *r) {
  sustained_result load;
  sim_options asked = *o;
  if (!is_sustained(c)) return sim_run(o, r);
  /* a trace of stages and drawn experts need layers */
  if (o->resolution == SIM_AUTO && (c->chrome != NULL || c->sample)) asked.resolution = SIM_LAYERS;
  return sustained_simulate(&asked, &load, r);
}

/* With --chrome the file is written, too. */
static hf_status run_to_end(const simulate_command *c, sim_options *o, sim_result *r, sim_chrome *chrome) {
  FILE *out = NULL;
  if (c->chrome != NULL) {
    o->trace = sim_chrome_add;
    o->trace_user = chrome;
  }
  if (c->requests_out != NULL && (out = fopen(c->requests_out, "we")) == NULL)
    return hf_fail(HF_INPUT, "option --requests-out: %s cannot be written", c->requests_out);
  if (out != NULL) {
    o->on_request = write_request;
    o->request_user = out;
  }
  hf_status st = simulate_load(c, o, r);
  if (out != NULL && fclose(out) != 0 && st == HF_OK) st = hf_fail(HF_MACHINE, "%s: could not be written", c->requests_out);
  return st == HF_OK && c->chrome != NULL ? sim_chrome_write(chrome, c->chrome) : st;
}

static hf_status run_and_show(const simulate_command *c, const plan *p, sim_options *o, sim_chrome *chrome) {
  sim_result r;
  double fits_per_s = 0;
  HF_TRY(run_to_end(c, o, &r, chrome));
  HF_TRY(capacity_of(o, &fits_per_s));
  json *doc = result_json(p, o, is_sustained(c), &r);
  if (fits_per_s > 0) json_add_num(doc, "capacity_requests_per_s", fits_per_s);
  if (fits_per_s > 0) json_add_bool(doc, "overloaded", o->rate_per_s > fits_per_s);
  if (chrome->left_out > 0) json_add_int(doc, "trace_events_left_out", chrome->left_out);
  if (chrome->idle.n_resources > 0) timeline_json(&chrome->idle, doc);
  hf_status st = HF_OK;
  if (c->common.json) st = cmd_print_json(doc);
  else show_result(p, o, is_sustained(c), &r);
  if (!c->common.json && chrome->idle.n_resources > 0) timeline_print(&chrome->idle);
  if (chrome->left_out > 0 && !c->common.json)
    printf("  trace        the first %d events; %lld left out\n", (int)SIM_CHROME_EVENTS, (long long)chrome->left_out);
  if (fits_per_s > 0 && !c->common.json) printf("  capacity     %.4g requests/s fit\n", fits_per_s);
  json_free(doc);
  return st == HF_OK ? check_capacity(o, fits_per_s) : st;
}

static hf_status simulate(const simulate_command *c) {
  plan *p = NULL;
  plan_sim s = {0};
  sim_chrome chrome = {0};
  hf_status st = HF_OK;
  if (c->chrome != NULL) HF_GO(done, hf_note(hf_can_write(c->chrome), "option --chrome"));
  HF_GO(done, cmd_read_plan(&c->common, c->plan, &p));
  HF_GO(done, plan_sim_open(p, c->plan, &s));
  HF_GO(done, choose_arrivals(c, &s.o));
  HF_GO(done, choose_lengths(c, &s.o));
  HF_GO(done, choose_rest(c, p, &s.o));
  HF_GO(done, choose_sessions(c, p, s.eval, &s.o));
  st = run_and_show(c, p, &s.o, &chrome);
done:
  sim_chrome_free(&chrome);
  plan_sim_close(&s);
  plan_free(p);
  return st;
}

static const char description[] =
    "Replays a plan under a load, with the scheduler that hf-run uses, and tells latencies, "
    "throughput, queues, utilisation and energy.\n\n"
    "Without a load it is the sustained load of hf-plan plan: the plan's users, each sending the next "
    "request at once, lengths within a quarter of the plan's, the first two of each not counted; the "
    "output is then what plan calls delivered.\n\n"
    "Else requests arrive from --users in a closed loop (lengths all alike, everything counted), at a --rate "
    "(Poisson; --cv for gamma gaps, --burst-on and "
    "--burst-off for bursts), or from a --trace file: CSV or JSON Lines with arrival_s, "
    "prompt_tokens, output_tokens, or the columns of the public "
    "Azure (TIMESTAMP, ContextTokens, GeneratedTokens) and Mooncake (timestamp, input_length, "
    "output_length) traces, or what hf-run --out wrote.\n\n"
    "With --sessions, or a trace whose lines have a session, requests are turns of conversations: what is "
    "in KV pages is shared, what was parked in the plan's KV mirror (--standby) is read back over the link, the rest is "
    "computed again.\n\n"
    "At a --rate it also says how many requests fit: what all slots answer when each has its next "
    "request at once. More arriving is an "
    "overload, status 1.\n\n"
    "Equal options and seed give equal results on every machine. Up to 100000 steps every stage of "
    "every layer is an event, beyond every step; "
    "memory does not grow with the number of requests.";
static const char examples[] = "  hf-plan simulate --plan 3 --rate 0.2 --slo-ttft 10 --slo-tpot 0.2\n"
                               "      p95 of TTFT and TPOT at 0.2 requests/s, and how many meet the limits.\n"
                               "  hf-plan simulate --plan plan.json --users 5 --think-mean 20 --duration 3600\n"
                               "      An hour of five people who read for 20 s between questions.\n"
                               "  hf-plan simulate --plan plan.json --sessions 50 --slots 5 --think-mean 60 --standby ram\n"
                               "      50 named users, 5 of them at once; --standby none tells what the mirror is worth.\n"
                               "  hf-plan simulate --plan 3 --trace AzureLLMInferenceTrace_conv.csv --stretch 50 --json\n"
                               "      A public trace, fifty times slower.\n"
                               "  hf-plan simulate --plan plan.json --users 2 --requests-per-user 1 --chrome steps.json\n"
                               "      Every stage, for chrome://tracing or Perfetto.\n";

hf_status cmd_simulate(int argc, char **argv) {
  simulate_command c = {.seed = 1, .cv = -1, .parked = -1};
  const cli_option options[] = {
      {"plan", 'p', CLI_STR, &c.plan, "PLAN.json", "A plan file, the number of a stored plan, or latest.", 0, 0},
      {"users", 'u', CLI_INT, &c.users, "N", "Closed loop of so many users; default the plan's, under sustained load.", 1,
       SIM_MOST_USERS},
      {"requests-per-user", 0, CLI_INT, &c.per_user, "N", "Default 20, or until --duration.", 1, 1e9},
      {"sessions", 0, CLI_INT, &c.sessions, "N",
       "Closed loop of so many users, each in one long conversation: --prompt-tokens are what a turn adds. As many run as there "
       "are "
       "slots.",
       1, SIM_MOST_USERS},
      {"turns", 0, CLI_INT, &c.turns, "N",
       "With --sessions: turns of a conversation before its user begins another; default until the context is full.", 1, 1e6},
      {"shared-prompt", 0, CLI_TOKENS, &c.shared, "N", "With --sessions: tokens that all conversations begin with; default 0.", 0,
       16777216},
      {"standby", 0, CLI_STR, &c.standby, "none|ram",
       "Where conversations are parked while others run: nowhere, they are computed again, or in a KV mirror. Default what the "
       "plan "
       "says.",
       0, 0},
      {"parked", 0, CLI_INT, &c.parked, "N",
       "With --standby ram: conversations beside those that run that it has room for at full context; default all of --sessions.",
       0, 1000000},
      {"think", 0, CLI_NUM, &c.think, "S", "Seconds between an answer and the user's next request, constant; default 0.", 0, 1e6},
      {"think-mean", 0, CLI_NUM, &c.think_mean, "S", "The same, exponential with this mean.", 0, 1e6},
      {"rate", 'r', CLI_NUM, &c.rate, "R", "Requests per second, Poisson.", 1e-9, 1e6},
      {"cv", 0, CLI_NUM, &c.cv, "V", "With --rate: gamma gaps of this coefficient of variation (1 = Poisson, 0 = even).", 0, 20},
      {"burst-on", 0, CLI_NUM, &c.on, "S", "With --rate: mean seconds of a burst; the rate is over bursts and silence.", 0, 1e6},
      {"burst-off", 0, CLI_NUM, &c.off, "S", "Mean seconds of silence between bursts.", 0, 1e6},
      {"trace", 0, CLI_STR, &c.trace, "FILE", "Requests from a CSV or JSON Lines file.", 0, 0},
      {"stretch", 0, CLI_NUM, &c.stretch, "F", "Arrivals of the trace times this; default 1.", 0, 1e6},
      {"requests", 'n', CLI_INT, &c.requests, "N",
       "How many arrive at --rate (default 2000) or are taken from --trace (default all).", 1, 1e12},
      {"duration", 0, CLI_NUM, &c.duration, "S", "No request arrives later than this.", 0, 1e9},
      {"prompt-tokens", 0, CLI_TOKENS, &c.prompt, "N", "Mean length of prompts; default the plan's.", 1, 16777216},
      {"output-tokens", 0, CLI_TOKENS, &c.output, "N", "Mean length of answers; default the plan's.", 1, 16777216},
      {"lengths", 0, CLI_STR, &c.lengths, "uniform|lognormal|exponential", "Distribution of both lengths; default uniform.", 0,
       0},
      {"spread", 0, CLI_NUM, &c.spread, "F", "Uniform lengths lie within this share of the mean; default 0, all equal.", 0, 0.99},
      {"length-cv", 0, CLI_NUM, &c.length_cv, "V", "Coefficient of variation of lognormal lengths.", 0, 20},
      {"prefix-share", 0, CLI_NUM, &c.prefix, "F", "Share of each prompt that is in the cache already.", 0, 1},
      {"seed", 's', CLI_INT, &c.seed, "N", "Default 1.", 0, 9e15},
      {"warm-up", 0, CLI_INT, &c.warm_up, "N", "The first N requests do not count in latencies and goodput.", 0, 1e12},
      {"slo-ttft", 0, CLI_SECONDS, &c.slo_ttft, "TIME", "Limit of TTFT for goodput: seconds, or 500ms, 2min.", 0, CLI_PLAIN_TTFT},
      {"slo-tpot", 0, CLI_SECONDS, &c.slo_tpot, "TIME", "Limit of TPOT for goodput: 0.15 or 150ms.", 0, CLI_PLAIN_TPOT},
      {"depth", 'd', CLI_INT, &c.depth, "D", "Another pipeline depth than the plan's.", 1, SCHED_MAX_DEPTH},
      {"slots", 0, CLI_INT, &c.slots, "N", "Sequences that run at once, each with its share of the KV cache; default the plan's.",
       1, SCHED_MAX_SEQS},
      {"sample-routing", 0, CLI_FLAG, &c.sample, NULL, "Draw every token's experts instead of pricing expected times.", 0, 0},
      {"resolution", 0, CLI_STR, &c.resolution, "auto|layers|steps", "What is an event; default auto.", 0, 0},
      {"gpu-idle-w", 0, CLI_NUM, &c.gpu_idle, "W", "Power of each device when idle, for energy.", 0, 1e5},
      {"gpu-active-w", 0, CLI_NUM, &c.gpu_active, "W", "Power of each device at work.", 0, 1e5},
      {"cpu-idle-w", 0, CLI_NUM, &c.cpu_idle, "W", "Power of CPUs and memory when idle.", 0, 1e5},
      {"cpu-active-w", 0, CLI_NUM, &c.cpu_active, "W", "Power of CPUs and memory at work.", 0, 1e5},
      {"chrome", 0, CLI_STR, &c.chrome, "FILE", "Write every stage (with --resolution steps every step) as a Chrome trace.", 0,
       0},
      {"requests-out", 0, CLI_STR, &c.requests_out, "FILE.jsonl", "Write one line per request, as hf-run --out does.", 0, 0},
      {0}};
  const cli_spec spec = {.program = "hf-plan",
                         .verb = "simulate",
                         .synopsis = "--plan PLAN [--users N | --rate R | --trace FILE] [options]",
                         .description = description,
                         .examples = examples,
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "simulate"));
  if (c.plan == NULL)
    return hf_fail(HF_INPUT, "option --plan: missing: a plan file or the number of a stored plan; see hf-plan simulate --help");
  return simulate(&c);
}
