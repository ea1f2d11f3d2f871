#include "planner/plan_make.h"
#include "planner/plan_standby.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void planned_free(planned *p) {
  plan_free(p->p);
  ilp_result_free(p->ilp);
  plan_eval_free(p->eval);
  plan_drift_free(p->drift);
  memset(p, 0, sizeof *p);
}

/* ---- table and problem ---- */

static hf_status table_for(const plan_inputs *in, const planned *p, cost_case c, stage_table **out) {
  cost_input ci = plan_cost_input(in);
  HF_TRY(cost_table(&ci, c, out));
  if (p->drift != NULL) plan_drift_apply(p->drift, *out);
  return HF_OK;
}

/* What each place has for experts. This machine's memory limits them only where that could decide anything: all experts must
 * fit somewhere,
 * and what is on a virtual device is in the same memory. */
static void fill_rooms(const plan_inputs *in, const plan_sizes *s, plan_eval *v) {
  v->n_devices = in->gpus.n;
  for (int d = 0; d < v->n_devices; d++)
    for (int i = 0; i < ILP_MAX_DEPTH; i++) v->room[d][i] = plan_expert_room(s, d, i + 1);
  int first = plan_first_depth(in);
  int64_t elsewhere = 0;
  v->cpu_room = 0;
  for (int r = 0; r < in->n_remotes; r++) {
    v->remote_room[r] = in->remote[r].here ? 0 : plan_remote_room(s, r) > 0 ? plan_remote_room(s, r) : -1;
    elsewhere += plan_remote_room(s, r);
  }
  for (int d = 0; d < v->n_devices; d++) elsewhere += v->room[d][first - 1] > 0 ? v->room[d][first - 1] : 0;
  if (s->ram_limit <= 0 || in->gpu.kind == GPU_VIRTUAL || in->gpu.kind == GPU_PACED) return;
  /* With the buffers of the deepest pipeline, where that leaves room; deeper ones than fit are found over their budget. */
  for (int depth = in->req.depth > 0 || in->gpu.kind == GPU_NONE ? first : PLAN_DEPTHS; depth >= first && v->cpu_room == 0;
       depth--) {
    int64_t ram = plan_ram_room(in, s, depth);
    if (ram > 0 && ram + elsewhere >= s->all_experts) v->cpu_room = ram;
  }
  if (s->n_here == 0 || v->cpu_room == 0 || v->cpu_room >= s->all_experts) return;
  v->cpu_room = (v->cpu_room + s->n_here) / (1 + s->n_here); /* ranks here share it; 0 would be no limit */
  for (int r = 0; r < in->n_remotes; r++)
    if (in->remote[r].here) v->remote_room[r] = v->cpu_room;
}

ilp_prefill plan_prefill(const plan_inputs *in, const planned_options *o, const stage_table *t) {
  const plan_request *r = &in->req;
  ilp_prefill f = {0};
  double prompts = (double)r->users * (double)r->prompt_tokens, chunk = fmin((double)in->chunk_tokens, prompts);
  /* Without a weight prompts do not move an expert; how each layer's chunk is best computed is still told. */
  if (o->optimise == PLAN_FOR_REQUEST)
    f.weight = o->weight_prefill > 0 ? o->weight_prefill : ceil(prompts / chunk) / (double)r->output_tokens;
  int64_t tokens = (int64_t)chunk < r->prompt_tokens ? (int64_t)chunk : r->prompt_tokens; /* of one sequence; the others follow */
  for (int64_t left = (int64_t)chunk; left > 0; left -= tokens)
    stage_load_add(&f.load, t, (r->prompt_tokens - tokens) / 2, left < tokens ? left : tokens);
  f.upload = plan_can_upload(in->gpu.kind) && !plan_cuts_experts(in);
  return f;
}

/* All but what goes with the chunk (plan_set_chunk). */
static hf_status make_eval(const plan_inputs *in, const plan_sizes *s, planned *out) {
  plan_eval *v = NULL;
  int n = in->c->n_layers;
  HF_TRY(hf_alloc(&v, 1, sizeof *v, "inputs of a plan"));
  out->eval = v;
  v->users = (int)in->req.users;
  v->mean_context = in->mean_context;
  HF_TRY(hf_alloc(&v->expert_bytes, (size_t)n, sizeof *v->expert_bytes, "sizes of experts"));
  memcpy(v->expert_bytes, s->expert, (size_t)n * sizeof *v->expert_bytes);
  HF_TRY(popularity_copy(in->pop, &v->pop));
  cost_input ci = plan_cost_input(in);
  HF_TRY(cost_table(&ci, (cost_case){0}, &v->table));
  if (in->req.from_run == 0) return HF_OK;
  HF_TRY(plan_drift_of_run(in, v->table, &out->drift));
  plan_drift_apply(out->drift, v->table);
  return HF_OK;
}

/* Whether a chunk could be faster with a layer's experts sent, none of them living on the device: what lives there leaves less to send and less to
 * compute elsewhere alike. */
static bool upload_pays(const stage_table *t, const popularity *prompts, int l, const stage_load *chunk) {
  stage_load load = *chunk;
  load.upload = false;
  layer_times cpu = stage_layer_times_load(t, prompts, l, &load, NULL);
  load.upload = true;
  layer_times sent = stage_layer_times_load(t, prompts, l, &load, NULL);
  return fmax(sent.attn_ns + sent.shared_ns + sent.dexp_ns, sent.upload_ns) <
         cpu.attn_ns + stage_overlap_ns(t, cpu.shared_ns + cpu.dexp_ns, cpu.hand_ns + cpu.cexp_ns);
}

/* With so many slots the link goes on while the device is at attention and shared experts of a chunk: as many experts as it sends meanwhile, one that
 * comes and one that is computed. At most a fiftieth of a device's memory for all, which would else hold so many more experts for good; but four,
 * since experts that many tokens chose and such that few did follow each other. -1 where no chunk of that length uploads. */
static int upload_slots(const plan_inputs *in, const plan_eval *v) {
  enum { PART = 50, LEAST = 4, MOST = SCHED_MOST_SLOTS };
  const stage_table *t = v->table;
  const int64_t each = plan_slot_bytes(in->c, v->expert_bytes);
  const popularity prompts = popularity_of_prompts(v->pop);
  double meanwhile = 0;
  bool pays = false;
  for (int l = 0; v->prefill.upload && l < t->n_layers; l++) {
    const stage_layer *y = &t->layer[l];
    if (!y->moe || !(y->upload_ns > 0)) continue;
    double ns = stage_attn_ns(t, l, &v->prefill.load) + stage_curve_at(&y->shared, v->prefill.load.tokens);
    meanwhile = fmax(meanwhile, ns / y->upload_ns);
    pays = pays || upload_pays(t, &prompts, l, &v->prefill.load);
  }
  if (!pays || each == 0) return -1;
  int64_t room = in->device_mem[0];
  for (int d = 1; d < in->gpus.n; d++) room = in->device_mem[d] < room ? in->device_mem[d] : room;
  int64_t most = room / PART / each;
  most = most < LEAST ? LEAST : most > MOST ? MOST : most;
  double n = fmax(LEAST, SCHED_UPLOAD_SLOTS + ceil(meanwhile));
  return n < (double)most ? (int)n : (int)most;
}

hf_status plan_set_chunk(plan_inputs *in, const planned_options *o, int chunk_tokens, plan_sizes *s, plan_eval *v) {
  in->chunk_tokens = chunk_tokens;
  v->prefill = plan_prefill(in, o, v->table);
  in->upload_slots = upload_slots(in, v);
  v->prefill.upload = in->upload_slots > 0;
  HF_TRY(plan_sizes_of(in, s));
  fill_rooms(in, s, v);
  v->limit = plan_slo_limits(in, o, &v->prefill);
  return HF_OK;
}

plan_resident plan_resident_of(const plan_inputs *in, const ilp_evaluation *e) {
  plan_resident r = {0};
  for (int d = 0; d < in->gpus.n; d++) r.device[d] = e->place_bytes[1 + d];
  for (int k = 0; k < in->n_remotes; k++) r.remote[k] = e->place_bytes[1 + in->gpus.n + k];
  return r;
}

static hf_status refuse(const plan_inputs *in, const plan_sizes *s, int depth, const plan_resident *resident, planned *out,
                        const char *where) {
  out->n_budget = plan_budget_rows(in, s, depth, resident, out->budget);
  int64_t need = 0, limit = 0;
  for (int i = 0; i < out->n_budget; i++)
    if (strcmp(out->budget[i].where, where) == 0) {
      need += out->budget[i].bytes;
      limit = out->budget[i].limit_bytes;
    }
  out->n_remedies = plan_remedies(in, s, depth, strcmp(where, "ram") == 0 ? need : 0, out->remedy);
  char t[2][24];
  plan_bytes_text(need, t[0]);
  plan_bytes_text(limit, t[1]);
  return hf_fail(HF_NO, "no plan fits: %s needs %s and has %s; possible: %s", where, t[0], t[1],
                 out->n_remedies > 0 ? out->remedy[0] : "more memory there");
}

/* The search found no placement, whose line tells how much is short: experts do not divide as the rooms do. */
static hf_status no_room(const plan_inputs *in, const plan_sizes *s, planned *out) {
  plan_resident resident = {0};
  int depth = plan_first_depth(in);
  char why[400];
  snprintf(why, sizeof why, "%.399s", hf_error_line());
  for (int d = 0; d < in->gpus.n; d++) resident.device[d] = plan_expert_room(s, d, depth) > 0 ? plan_expert_room(s, d, depth) : 0;
  out->n_budget = plan_budget_rows(in, s, depth, &resident, out->budget);
  out->n_remedies = plan_remedies(in, s, depth, 0, out->remedy);
  return hf_fail(HF_NO, "no plan fits: %s; possible: %s", why, out->n_remedies > 0 ? out->remedy[0] : "more memory there");
}

/* ---- prediction ---- */

hf_status plan_step_ns(const plan_inputs *in, const planned *p, cost_case c, double *ns) {
  stage_table *t = NULL;
  ilp_evaluation e;
  HF_TRY(table_for(in, p, c, &t));
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  prob.table = t;
  hf_status st = ilp_evaluate(&prob, p->ilp->on_device, p->ilp->depth, NULL, &e);
  if (st == HF_OK) *ns = e.step_ns;
  stage_table_free(t);
  return st;
}

/* What a model of a serving engine misses even when every operation was measured, as a logarithm: published errors of peers
 * that predict
 * from measured operation times (research of this project: Vidur "< 9 %" of latency; aiconfigurator 6 to 12 % of TPOT). None
 * of them
 * models this engine: that their error is ours is judgement. The rest of the interval is the rows' own low and high. */
static const double MODEL_DOUBT = 0.09;

void plan_combine(const double effect[][2], int n, double *slower, double *faster) {
  double sum[2] = {MODEL_DOUBT * MODEL_DOUBT, MODEL_DOUBT * MODEL_DOUBT};
  for (int i = 0; i < n; i++)
    for (int side = 0; side < 2; side++) sum[effect[i][side] < 0] += effect[i][side] * effect[i][side];
  *slower = exp(sqrt(sum[0]));
  *faster = exp(sqrt(sum[1]));
}

/* Moves each group of figures alone to both ends. */
static hf_status interval(const plan_inputs *in, planned *p, double *slower, double *faster) {
  double likely = 0;
  HF_TRY(plan_step_ns(in, p, (cost_case){0}, &likely));
  for (int g = 0; g < COST_N_GROUPS; g++)
    for (int side = 0; side < 2; side++) {
      double ns = 0;
      HF_TRY(plan_step_ns(in, p, (cost_case){side == 0 ? -1 : 1, 1u << g}, &ns));
      p->effect[g][side] = log(ns / likely);
    }
  plan_combine(p->effect, COST_N_GROUPS, slower, faster);
  return HF_OK;
}

static hf_status predict(const plan_inputs *in, const planned_options *o, planned *out) {
  plan *p = out->p;
  double slower = 1, faster = 1, give_up = o->slo_report ? o->give_up : 0;
  if (!o->no_simulation && give_up == 0 && out->sim.requests == 0)
    HF_TRY(plan_simulate(in, out, out->ilp->on_device, out->ilp->depth, &out->sim, &out->stretch));
  const sustained_result *load = &out->sustained;
  if (!o->no_simulation && ((load->requests == 0 && !load->given_up) || (load->given_up && give_up > PLAN_NEARLY)))
    HF_TRY(plan_sustain(in, out, out->ilp, give_up, &out->sustained));
  if (!o->no_interval) HF_TRY(interval(in, out, &slower, &faster));
  double rate = out->sim.decode_tok_per_s > 0 ? out->sim.decode_tok_per_s / out->stretch : out->ilp->tok_per_s;
  p->decode_tok_per_s = (plan_range){rate / slower, rate, rate * faster};
  p->ttft_s = out->sim.ttft_s;
  p->tpot_s = out->sim.tpot_s;
  p->tpot_s.p50 *= out->stretch;
  p->tpot_s.p90 *= out->stretch;
  p->tpot_s.p95 *= out->stretch;
  p->tpot_s.p99 *= out->stretch;
  return HF_OK;
}

/* ---- binding resource ---- */

/* What the CPU waits for in a layer it binds: its memory while a second token of an expert costs little more than the first. */
static const char *cpu_binding(const stage_table *t, int layer, const ilp_layer *l) {
  const stage_layer *y = &t->layer[layer];
  if (y->cexp_fixed_ns > 0.5 * l->times.cexp_ns) return "CPU fixed cost";
  return stage_curve_at(&y->cexp, 2) > 1.4 * stage_curve_at(&y->cexp, 1) ? "CPU compute" : "DRAM bandwidth";
}

static const char *binding_text(const planned *out, ilp_binding b, int example) {
  if (b == ILP_BIND_REMOTE) return "other machine";
  if (b == ILP_BIND_PATH) return "way through device and CPU";
  if (b == ILP_BIND_GPU) return "device";
  return example >= 0 ? cpu_binding(out->eval->table, example, &out->ilp->layer[example]) : "CPU";
}

const char *plan_layer_waits_for(const planned *p, int layer) {
  const stage_table *t = p->eval->table;
  const ilp_layer *l = &p->ilp->layer[layer];
  if (!(l->ns > 0)) return "behind the rest";
  return binding_text(p, l->binding, t->layer[layer].moe ? layer : -1);
}

/* What most of the time of the layers bound by `b` waits for; of the MoE layers where all share one CPU: they name what it waits for. */
static const char *most_waited_for(const planned *out, ilp_binding b) {
  const stage_table *t = out->eval->table;
  const char *name[8], *best = binding_text(out, b, -1);
  double ns[8], most = 0;
  int n = 0;
  for (int l = 0; l < t->n_layers; l++) {
    const ilp_layer *y = &out->ilp->layer[l];
    if (t->one_resource ? !t->layer[l].moe : y->binding != b) continue;
    const char *text = binding_text(out, b, t->layer[l].moe ? l : -1);
    int k = 0;
    while (k < n && strcmp(name[k], text) != 0) k++;
    if (k == n) {
      name[n] = text;
      ns[n++] = 0;
    }
    ns[k] += y->ns;
    if (ns[k] <= most) continue;
    most = ns[k];
    best = text;
  }
  return best;
}

static void name_binding(const planned *out, char *to, size_t n) {
  const stage_table *t = out->eval->table;
  double ns[4] = {0};
  int best = ILP_BIND_CPU;
  for (int l = 0; l < t->n_layers; l++) ns[out->ilp->layer[l].binding] += out->ilp->layer[l].ns;
  for (int b = 0; b < 4; b++)
    if (ns[b] > ns[best]) best = b;
  if (t->one_resource) best = ILP_BIND_CPU;
  snprintf(to, n, "%s", most_waited_for(out, (ilp_binding)best));
}

/* ---- putting it together ---- */

static void fnv(uint64_t *h, const void *data, size_t n) {
  const unsigned char *p = data;
  for (size_t i = 0; i < n; i++) *h = (*h ^ p[i]) * 0x100000001b3u;
}

/* FNV-1a over everything that went in, from two starting points. */
static hf_status hash_inputs(const plan_inputs *in, const planned *out, char *to, size_t n) {
  json *o = json_new_object();
  char *text = NULL;
  hf_status st = plan_eval_to_json(out->eval, o);
  if (st == HF_OK) st = json_print(o, false, &text);
  json_free(o);
  HF_TRY(st);
  const plan_request *r = &in->req;
  const int64_t numbers[] = {r->users, r->context,       r->prompt_tokens,   r->output_tokens,
                             r->depth, in->chunk_tokens, COST_MODEL_VERSION, r->parked_users};
  uint64_t h[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
  for (int i = 0; i < 2; i++) {
    fnv(&h[i], text, strlen(text));
    fnv(&h[i], numbers, sizeof numbers);
    fnv(&h[i], r->model, strlen(r->model));
    fnv(&h[i], in->format_name, strlen(in->format_name));
    fnv(&h[i], in->gpu.text, strlen(in->gpu.text));
    if (r->standby != NULL && strcmp(r->standby, "none") != 0) fnv(&h[i], r->standby, strlen(r->standby));
  }
  free(text);
  snprintf(to, n, "fnv1a64x2:%016llx%016llx", (unsigned long long)h[0], (unsigned long long)h[1]);
  return HF_OK;
}

/* Experts on the CPU over the nodes of the machine that will compute them. */
static hf_status fill_split(const plan_inputs *in, plan_layer *y) {
  const cost_input ci = {.m = in->m, .format = in->format, .rows = in->host};
  model_layer_parts parts;
  cost_numa s;
  db_tag tag = TAG_MEASURED;
  HF_TRY(model_layer_parts_of(in->m, in->format, y->index, &parts));
  if (!cost_numa_of_expert(&ci, &parts, (cost_case){0}, &s, &tag)) return HF_OK;
  y->n_nodes = s.n;
  HF_TRY(hf_alloc(&y->split, (size_t)y->n_experts * ((size_t)s.n + 1), sizeof *y->split, "slices of experts"));
  unsigned char *away = NULL;
  HF_TRY(hf_alloc(&away, (size_t)y->n_experts, 1, "slices of experts"));
  for (int e = 0; e < y->n_experts; e++) away[e] = y->device[e] >= 0;
  split_layer(&s.rule, y->n_experts, away, y->split);
  free(away);
  return HF_OK;
}

static hf_status fill_layers(const plan_inputs *in, const planned *out) {
  plan *p = out->p;
  for (int l = 0; l < p->n_layers; l++) {
    plan_layer *y = &p->layer[l];
    const ilp_layer *i = &out->ilp->layer[l];
    *y = (plan_layer){.index = l,
                      .moe = in->c->layer_is_moe[l],
                      .home = in->home[l],
                      .attn_ns = i->times.attn_ns,
                      .shared_ns = i->times.shared_ns,
                      .dexp_ns = i->times.dexp_ns,
                      .cexp_ns = i->times.cexp_ns,
                      .hand_ns = i->times.hand_ns,
                      .layer_ns = i->ns};
    /* a plan knows three names; waiting for another machine is the way of a micro-batch, too */
    snprintf(y->binding, sizeof y->binding, "%s", ilp_binding_name(i->binding == ILP_BIND_REMOTE ? ILP_BIND_PATH : i->binding));
    snprintf(y->prefill, sizeof y->prefill, "%s", i->upload ? "upload" : "cpu");
    if (!y->moe) continue;
    y->n_experts = p->n_experts;
    HF_TRY(hf_alloc(&y->device, (size_t)p->n_experts, sizeof *y->device, "placement"));
    for (int e = 0; e < p->n_experts; e++)
      y->device[e] = (int16_t)(out->ilp->on_device[(size_t)l * (size_t)p->n_experts + (size_t)e] - 1);
    HF_TRY(fill_split(in, y));
  }
  return HF_OK;
}

static void fill_devices(const plan_inputs *in, plan *p) {
  for (int i = 0; i < in->gpus.n; i++) {
    plan_device *d = &p->device[p->n_devices++];
    const rec_device *row = cost_device(in->paced != NULL ? in->paced : in->host, in->gpus.g[i].device);
    snprintf(d->name, sizeof d->name, "%.95s", row != NULL ? row->name : "virtual device");
    snprintf(d->spec, sizeof d->spec, "%.95s", in->gpus.g[i].text);
    d->mem_bytes = in->device_mem[i];
  }
  for (int r = 0; r < in->n_remotes; r++) { /* places of experts after the devices */
    plan_device *d = &p->device[p->n_devices++];
    snprintf(d->name, sizeof d->name, "CPU of %.88s", in->remote[r].rows->machine.name);
    snprintf(d->spec, sizeof d->spec, "remote:%.88s", in->remote[r].text);
    d->mem_bytes = cost_mem_bytes(in->remote[r].rows, "cpu", -1);
  }
}

static hf_status fill_plan(const plan_inputs *in, const planned_options *o, planned *out) {
  plan *p = out->p;
  const plan_request *r = &in->req;
  p->cost_model_version = COST_MODEL_VERSION;
  if (!o->quick) HF_TRY(hash_inputs(in, out, p->inputs_hash, sizeof p->inputs_hash));
  snprintf(p->model, sizeof p->model, "%s", r->model);
  snprintf(p->family, sizeof p->family, "%s", model_family_name(in->c->family));
  snprintf(p->format, sizeof p->format, "%s", in->format_name);
  snprintf(p->machine, sizeof p->machine, "%s", in->host->machine.name);
  snprintf(p->gpu, sizeof p->gpu, "%s", in->gpu.text);
  p->machine_id = in->host->machine.id;
  p->from_run = r->from_run;
  p->users = (int)r->users;
  p->context = (int)r->context;
  p->prompt_tokens = (int)r->prompt_tokens;
  p->output_tokens = (int)r->output_tokens;
  p->depth = out->ilp->depth;
  p->n_experts = in->c->n_experts;
  fill_devices(in, p);
  HF_TRY(fill_layers(in, out));
  snprintf(p->kv_type, sizeof p->kv_type, "%s", fmt_get(in->kv)->name);
  p->kv_page_tokens = PLAN_PAGE_TOKENS;
  p->max_seqs = (int)r->users;
  p->chunk_tokens = in->chunk_tokens;
  cost_input host = plan_cost_input(in);
  host.rows = in->host;
  host.threads = (int)r->threads;
  if (in->gpu.kind == GPU_PACED) host.gpus.g[0].kind = GPU_VIRTUAL; /* each keeps one thread of the machine that runs it, too */
  p->threads = cost_pool_threads(&host);
  HF_TRY(plan_choose_kernels(in, p));
  p->ilp.objective_ns = out->ilp->objective_ns;
  p->ilp.bound_ns = out->ilp->bound_ns;
  p->ilp.gap = out->ilp->gap;
  p->ilp.seconds = out->seconds;
  snprintf(p->ilp.status, sizeof p->ilp.status, "%s", out->ilp->status);
  snprintf(p->tag, sizeof p->tag, "%s", out->eval->table->tag);
  if (in->assumed_popularity && in->c->n_experts > 0) snprintf(p->tag, sizeof p->tag, "%s", db_tag_name(TAG_ASSUMED));
  snprintf(p->popularity, sizeof p->popularity, "%s", in->pop->source);
  name_binding(out, p->binding, sizeof p->binding);
  return HF_OK;
}

static hf_status add_extra(const plan_inputs *in, const planned_options *o, planned *out) {
  out->p->extra = json_new_object();
  if (o->quick) return HF_OK;
  uint8_t upload[PLAN_MAX_LAYERS];
  int from = plan_uploads(out, out->ilp->layer, out->ilp->on_device, out->ilp->depth, upload);
  if (from > 0) json_add_int(out->p->extra, "upload_tokens", from); /* steps from here on upload where layers say so */
  if (from > 0) json_add_int(out->p->extra, "upload_slots", in->upload_slots);
  plan_standby_json(in, out, out->p->extra);
  HF_TRY(plan_extras(in, out, out->p->extra));
  if (out->drift != NULL) HF_TRY(plan_changes(in, out, out->p->extra));
  return plan_eval_to_json(out->eval, out->p->extra);
}

void plan_summarise(const planned *p, planned_summary *out) {
  const stage_table *t = p->eval->table;
  *out = (planned_summary){.decode_tok_per_s = p->p->decode_tok_per_s,
                           .ttft_s = p->sustained.ttft_s,
                           .tpot_s = p->sustained.tpot_s,
                           .e2e_s = p->sustained.e2e_s,
                           .tok_per_s_wall = p->sustained.tok_per_s,
                           .prefill_tok_per_s = p->sim.prefill_tok_per_s,
                           .goodput = p->sustained.goodput,
                           .device_busy = p->sustained.device_busy,
                           .cpu_busy = p->sustained.cpu_busy,
                           .depth = p->ilp->depth,
                           .objective_ns = p->ilp->objective_ns,
                           .bound_ns = p->ilp->bound_ns,
                           .gap = p->ilp->gap,
                           .seconds = p->seconds,
                           .device_expert_bytes = p->ilp->bytes_used};
  snprintf(out->status, sizeof out->status, "%s", p->ilp->status);
  snprintf(out->binding, sizeof out->binding, "%s", p->p->binding);
  snprintf(out->tag, sizeof out->tag, "%s", p->p->tag);
  memcpy(out->effect, p->effect, sizeof out->effect);
  const ilp_evaluation *e = &p->ilp->evaluation;
  for (int l = 0; l < t->n_layers; l++) out->experts_on_devices += p->ilp->layer[l].resident;
  for (int q = 1; q <= p->eval->n_devices; q++) out->device_ns = fmax(out->device_ns, e->place_ns[q]);
  out->cpu_ns = e->place_ns[0];
  out->path_ns = e->path_ns;
}

hf_status plan_make(plan_inputs *in, const planned_options *options, planned *out) {
  static const planned_options full = {0};
  const planned_options *o = options != NULL ? options : &full;
  plan_sizes s;
  memset(out, 0, sizeof *out);
  out->scenario = o->scenario;
  out->scenario_named = o->scenario_named;
  out->slo_ttft_s = o->slo_ttft_s;
  out->slo_tpot_s = o->slo_tpot_s;
  out->stretch = 1;
  HF_TRY(plan_inputs_popularity(in));
  HF_TRY(plan_sizes_of(in, &s));
  HF_TRY(make_eval(in, &s, out));
  HF_TRY(plan_choose_chunk(in, o, &s, out));
  for (int d = 0, depth = plan_first_depth(in); d < out->eval->n_devices; d++) {
    char where[GPU_NAME];
    gpu_name(d, where);
    if (plan_expert_room(&s, d, depth) < 0) return refuse(in, &s, depth, &(plan_resident){0}, out, where);
  }
  hf_status st = plan_choose_depth(in, o, &s, out);
  if (st == HF_NO) return no_room(in, &s, out);
  HF_TRY(st);
  HF_TRY(plan_new(in->c->n_layers, &out->p));
  plan_resident resident = plan_resident_of(in, &out->ilp->evaluation);
  out->p->n_budget = plan_budget_rows(in, &s, out->ilp->depth, &resident, out->p->budget);
  const char *over = plan_budget_over(out->p->budget, out->p->n_budget);
  if (over != NULL) return refuse(in, &s, out->ilp->depth, &resident, out, over);
  out->p->kv_bytes = s.kv;
  HF_TRY(fill_plan(in, o, out));
  HF_TRY(predict(in, o, out));
  HF_TRY(plan_slo_check(in, o, out));
  return add_extra(in, o, out);
}
