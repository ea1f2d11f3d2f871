/* plan_extras.c: what a plan tells beyond what is executed: what simpler placements would give, what more memory is worth, what is left when
 * the device is lost, and what a re-plan changed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/plan_make.h"
#include "planner/sim/machine.h"

static void add_baselines(const planned *p, json *extra) {
  json *list = json_add_array(extra, "baselines");
  for (int i = 0; i < ILP_N_BASELINES; i++) {
    const ilp_baseline *b = &p->ilp->baseline[i];
    if (b->name == NULL || !(b->objective_ns > 0) || isinf(b->objective_ns)) continue;
    json *o = json_add_object(list, NULL);
    json_add_str(o, "name", b->name);
    json_add_num(o, "objective_ns", b->objective_ns);
    json_add_int(o, "depth", b->depth);
    if (!(p->eval->prefill.weight > 0)) /* else the objective has prompts in it and is no rate of decoding */
      json_add_num(o, "decode_tok_per_s", 1e9 * p->eval->users / b->objective_ns);
    json_add_num(o, "slower_by", b->objective_ns / p->ilp->objective_ns - 1);
  }
}

static void add_depths(const planned *p, json *extra) {
  static const char *const state[] = {"not tried", "does not fit", "limits not kept", "pruned", "solved"};
  json *list = json_add_array(extra, "by_depth");
  for (int d = 0; d < ILP_MAX_DEPTH; d++) {
    const ilp_depth_result *r = &p->by_depth[d];
    if (r->state == ILP_DEPTH_NOT_TRIED) continue;
    json *o = json_add_object(list, NULL);
    json_add_int(o, "depth", d + 1);
    json_add_str(o, "state", state[r->state]);
    if (r->state == ILP_DEPTH_INFEASIBLE || r->state == ILP_DEPTH_LIMITED) continue;
    json_add_int(o, "chunk_tokens", p->depth_chunk[d]);
    json_add_num(o, "objective_ns", r->objective_ns);
    json_add_num(o, "bound_ns", r->bound_ns);
    if (p->depth_tok_per_s[d] > 0) json_add_num(o, "delivered_tok_per_s", p->depth_tok_per_s[d]);
  }
}

static void advice_on_placement(const planned *p, char *text, size_t size) {
  size_t n = (size_t)p->eval->table->n_layers * (size_t)p->eval->table->n_experts;
  const ilp_baseline *best = NULL;
  bool any = false;
  for (size_t i = 0; i < n; i++) any = any || p->ilp->on_device[i];
  for (int i = 0; i < ILP_N_BASELINES; i++) {
    const ilp_baseline *b = &p->ilp->baseline[i];
    if (b->name != NULL && b->objective_ns > 0 && (best == NULL || b->objective_ns < best->objective_ns)) best = b;
  }
  double worth = best != NULL ? best->objective_ns / p->ilp->objective_ns - 1 : 0;
  if (p->near_gain > 0)
    snprintf(text, size, "the placement with the least step simulates %.1f %% slower: waiting in turn is in no step",
             100 * (1 - 1 / (1 + p->near_gain)));
  else if (!any) snprintf(text, size, "no expert is worth its place on the device");
  else if (worth < 1e-4)
    snprintf(text, size, "'%s' is as good: the search adds nothing here", best != NULL ? best->name : "all-cpu");
  else snprintf(text, size, "the search is worth %.2f %% over the best simple placement, '%s'", 100 * worth, best->name);
}

static void add_worth(const planned *p, json *o) {
  if (p->eval->n_devices == 0) return;
  double per_gib = p->ilp->theta_ns_per_byte * (1 << 30);
  json_add_num(o, "device_memory_ns_per_gib", per_gib);
  json_add_num(o, "device_memory_tok_per_s_per_gib", p->ilp->tok_per_s * per_gib / p->ilp->objective_ns);
  char text[128];
  advice_on_placement(p, text, sizeof text);
  json_add_str(o, "placement", text);
}

/* Neighbours of one kind, on one device, that wait for the same are a class. */
static void add_classes(const planned *p, json *extra) {
  const stage_table *t = p->eval->table;
  json *list = json_add_array(extra, "layer_classes");
  for (int l = 0, run; l < t->n_layers; l += run) {
    const ilp_layer *y = &p->ilp->layer[l];
    const char *waits_for = plan_layer_waits_for(p, l);
    double ns = 0;
    int resident = 0;
    for (run = 0; l + run < t->n_layers; run++) {
      const ilp_layer *z = &p->ilp->layer[l + run];
      if (t->layer[l + run].moe != t->layer[l].moe || z->binding != y->binding || t->layer[l + run].home != t->layer[l].home ||
          strcmp(plan_layer_waits_for(p, l + run), waits_for) != 0)
        break;
      ns += z->ns;
      resident += z->resident;
    }
    json *o = json_add_object(list, NULL);
    json_add_int(o, "first", l);
    json_add_int(o, "count", run);
    json_add_str(o, "class", t->layer[l].moe ? "MoE" : "dense");
    json_add_str(o, "binding", ilp_binding_name(y->binding));
    json_add_str(o, "waits_for", waits_for);
    json_add_num(o, "ns", ns);
    json_add_int(o, "experts_on_devices", resident);
  }
}

static void add_resources(const planned *p, json *extra) {
  const ilp_evaluation *e = &p->ilp->evaluation;
  const stage_table *t = p->eval->table;
  json *o = json_add_object(extra, "resources");
  json_add_num(o, "step_ns", e->step_ns);
  if (e->chunk_ns > 0) json_add_num(o, "chunk_ns", e->chunk_ns);
  json_add_num(o, "path_ns", e->path_ns);
  json_add_num(o, "cpu_ns", e->place_ns[0]);
  json *devices = json_add_array(o, "device_ns"), *machines = json_add_array(o, "machine_ns");
  for (int q = 1; q < ilp_n_places(t); q++)
    json_add_num(q <= (t->one_resource ? 0 : t->n_devices) ? devices : machines, NULL, e->place_ns[q]);
}

/* Likely watts of a resource of the simulator: device, or all of device0, device1, ... together; nothing where the rows do not say. */
static void add_power(const plan_inputs *in, const char *name, bool numbered, json *list) {
  enum { MOST = 16 };
  double idle = 0, active = 0;
  for (int i = 0; i < (numbered ? MOST : 1); i++) {
    char device[24];
    cost_figure f[2];
    if (numbered) snprintf(device, sizeof device, "%s%d", name, i);
    else snprintf(device, sizeof device, "%s", name);
    if (!cost_find(in->host, device, "power_idle_w", &f[0]) || !cost_find(in->host, device, "power_active_w", &f[1])) break;
    idle += f[0].likely;
    active += f[1].likely;
  }
  if (!(active > 0)) return;
  json *o = json_add_object(list, NULL);
  json_add_str(o, "name", name);
  json_add_num(o, "idle_w", idle);
  json_add_num(o, "active_w", active);
}

/* Of this machine and of the others that have experts; false where one of them does not say. */
static bool all_machines(const plan_inputs *in, const char *what, cost_figure *sum) {
  if (!cost_find(in->host, "", what, sum)) return false;
  for (int r = 0; r < in->n_remotes; r++) {
    cost_figure f;
    if (in->remote[r].here) continue;
    if (!cost_find(in->remote[r].rows, "", what, &f)) return false;
    sum->low += f.low;
    sum->likely += f.likely;
    sum->high += f.high;
    if (f.tag > sum->tag) sum->tag = f.tag;
  }
  return true;
}

/* What the machines cost and draw, where their rows say so; the network between them is not in it. */
static void add_hardware(const plan_inputs *in, json *extra) {
  static const char *const what[] = {"price_usd", "power_idle_w", "power_active_w"};
  json *o = NULL;
  int machines = 1;
  for (int r = 0; r < in->n_remotes; r++) machines += !in->remote[r].here;
  for (int i = 0; i < 3; i++) {
    cost_figure f;
    if (!all_machines(in, what[i], &f)) continue;
    if (o == NULL) json_add_int(o = json_add_object(extra, "hardware"), "machines", machines);
    json *v = json_add_object(o, what[i]);
    json_add_num(v, "low", f.low);
    json_add_num(v, "likely", f.likely);
    json_add_num(v, "high", f.high);
    json_add_str(v, "tag", db_tag_name(f.tag));
  }
  if (o == NULL || in->paced != NULL) return;
  json *list = json_add_array(o, "resources");
  for (int d = 0; in->gpu.kind == GPU_CUDA && d < in->gpus.n; d++) add_power(in, sim_resource_name(d), false, list);
  add_power(in, "cpu", true, list);
}

void plan_sustained_json(const planned *p, json *into) {
  const sustained_result *r = &p->sustained;
  json *o = json_add_object(into, "sustained");
  json_add_num(o, "tok_per_s", r->tok_per_s);
  plan_add_percentiles(json_add_object(o, "ttft_s"), &r->ttft_s);
  plan_add_percentiles(json_add_object(o, "tpot_s"), &r->tpot_s);
  plan_add_percentiles(json_add_object(o, "e2e_s"), &r->e2e_s);
  json *busy = json_add_object(o, "busy");
  for (int i = 0; i < SIM_N_RESOURCES; i++)
    if (r->busy[i] > 0) json_add_num(busy, sim_resource_name(i), r->busy[i]);
  json_add_int(o, "requests", r->requests);
  if (p->slo_ttft_s > 0 || p->slo_tpot_s > 0) json_add_num(o, "goodput", r->goodput);
  json_add_str(o, "load", SUSTAINED_WORDS);
}

hf_status plan_extras(const plan_inputs *in, const planned *p, json *extra) {
  add_baselines(p, extra);
  add_depths(p, extra);
  json *advice = json_add_object(extra, "advice");
  add_worth(p, advice);
  HF_TRY(plan_advice(in, p, advice));
  add_classes(p, extra);
  add_resources(p, extra);
  plan_slo_json(p, extra);
  add_hardware(in, extra);
  HF_TRY(plan_lost(in, p, extra));
  cost_input ci = plan_cost_input(in);
  HF_TRY(cost_provenance(&ci, json_add_array(extra, "figures")));
  if (in->req.scale_from != NULL) json_add_str(extra, "scaled_from", in->req.scale_from);
  plan_sustained_json(p, extra);
  json *o = json_add_object(extra, "simulation");
  json_add_num(o, "tok_per_s_wall", p->sustained.tok_per_s);
  json_add_num(o, "prefill_tok_per_s", p->sim.prefill_tok_per_s);
  json_add_num(o, "device_busy", p->sustained.device_busy);
  json_add_num(o, "cpu_busy", p->sustained.cpu_busy);
  json_add_int(o, "requests", p->sim.requests);
  json_add_int(o, "steps", p->sim.steps);
  json_add_str(o, "definitions",
               "predicted: users who start together, one request each; TTFT = first token - arrival; TPOT = (E2E - TTFT) / "
               "(tokens - 1); decode_tok_per_s = output tokens of all users per second while every user decodes; tok_per_s_wall "
               "and busy: of the member sustained");
  json_add_str(extra, "placement_chosen_by", p->near ? "simulation" : "objective");
  if (p->near) json_add_num(extra, "placement_gain", p->near_gain);
  json_add_str(extra, "depth_chosen_by",
               in->req.depth > 0 ? "request" : "simulation; objective_ns and bound_ns are those of this depth");
  json_add_str(extra, "certificate", p->ilp->certificate);
  if (p->ilp->failure[0] != '\0') json_add_str(extra, "search_failed", p->ilp->failure);
  return json_type(o) == JSON_OBJECT ? HF_OK : hf_fail(HF_MACHINE, "out of memory: extra members of a plan");
}

/* ---- changes ---- */

typedef struct {
  double hit_in, hit_out; /* summed probabilities that a decode step touches them */
  int in, out;
} moves;

static void layer_changes(const planned *p, int l, int tokens, json *layers, moves *all) {
  int n = p->eval->table->n_experts;
  const uint8_t *now = p->ilp->on_device + (size_t)l * (size_t)n, *old = p->drift->old_placement + (size_t)l * (size_t)n;
  const double *pop = p->eval->pop->p + (size_t)l * (size_t)n;
  moves m = {0};
  for (int e = 0; e < n; e++) {
    double hit = expert_hit(pop[e], tokens);
    if (now[e] != 0 && old[e] == 0) {
      m.in++;
      m.hit_in += hit;
    }
    if (now[e] == 0 && old[e] != 0) {
      m.out++;
      m.hit_out += hit;
    }
  }
  if (m.in + m.out == 0) return;
  json *o = json_add_object(layers, NULL);
  json_add_int(o, "layer", l);
  json *in = json_add_array(o, "in"), *out = json_add_array(o, "out");
  for (int e = 0; e < n; e++) {
    if (now[e] != 0 && old[e] == 0) json_add_int(in, NULL, e);
    if (now[e] == 0 && old[e] != 0) json_add_int(out, NULL, e);
  }
  char why[160];
  snprintf(why, sizeof why, "a step touches an expert that came in with %.0f %%, one that went out with %.0f %%",
           m.in > 0 ? 100 * m.hit_in / m.in : 0, m.out > 0 ? 100 * m.hit_out / m.out : 0);
  json_add_num(o, "hit_in", m.in > 0 ? m.hit_in / m.in : 0);
  json_add_num(o, "hit_out", m.out > 0 ? m.hit_out / m.out : 0);
  json_add_str(o, "why", why);
  all->in += m.in;
  all->out += m.out;
  all->hit_in += m.hit_in;
  all->hit_out += m.hit_out;
}

static void add_drift(const plan_drift *d, json *o) {
  json *f = json_add_object(o, "drift");
  for (int s = 0; s < DRIFT_N; s++)
    if (d->used[s]) json_add_num(f, drift_name[s], d->factor[s]);
  if (d->fixed_factor != 1) json_add_num(f, "fixed", d->fixed_factor);
  json_add_num(o, "measured_share", d->measured_share);
  if (!(d->distinct_predicted > 0)) return;
  json *x = json_add_object(o, "distinct_experts");
  json_add_num(x, "measured", d->distinct_measured);
  json_add_num(x, "predicted", d->distinct_predicted);
  json_add_num(x, "ratio", d->distinct_measured / d->distinct_predicted);
}

/* What the old placement would give now, simulated like the new one: the promise is in tokens per second, and measurable. */
static hf_status add_gain(const plan_inputs *in, const planned *p, json *o) {
  const plan_drift *d = p->drift;
  bool device = p->eval->n_devices > 0;
  int depth = device ? d->old->depth : 1;
  if (depth > p->eval->users) depth = p->eval->users;
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  ilp_evaluation old;
  HF_TRY(ilp_evaluate(&prob, device ? d->old_placement : NULL, depth, NULL, &old));
  sim_result sim;
  double stretch = 1;
  HF_TRY(plan_simulate(in, p, d->old_placement, depth, &sim, &stretch));
  double rate = sim.decode_tok_per_s > 0 ? sim.decode_tok_per_s / stretch : old.tok_per_s;
  json_add_int(o, "old_depth", depth);
  json_add_num(o, "old_objective_ns", old.objective_ns);
  json_add_num(o, "old_decode_tok_per_s", rate);
  json_add_num(o, "objective_gain", old.objective_ns / p->ilp->objective_ns - 1);
  json_add_num(o, "gain_expected", p->p->decode_tok_per_s.likely / rate - 1);
  return HF_OK;
}

hf_status plan_changes(const plan_inputs *in, const planned *p, json *extra) {
  const plan_drift *d = p->drift;
  json *o = json_add_object(extra, "changes");
  json_add_int(o, "from_run", in->req.from_run);
  if (d->run.other_cpu_share >= REC_RUN_DISTURBED) json_add_num(o, "other_cpu_share", d->run.other_cpu_share);
  add_drift(d, o);
  if (d->old == NULL) {
    json_add_int(o, "moved", 0);
    json_add_str(o, "note", "the run has no stored plan to compare with");
    return HF_OK;
  }
  json_add_int(o, "old_plan_id", d->old->id);
  json *layers = json_add_array(o, "layers");
  moves all = {0};
  int tokens = (p->eval->users + p->ilp->depth - 1) / p->ilp->depth;
  for (int l = 0; l < p->eval->table->n_layers; l++)
    if (p->eval->table->layer[l].moe) layer_changes(p, l, tokens, layers, &all);
  json_add_int(o, "moved", all.in > all.out ? all.in : all.out);
  json_add_int(o, "moved_in", all.in);
  json_add_int(o, "moved_out", all.out);
  return add_gain(in, p, o);
}
