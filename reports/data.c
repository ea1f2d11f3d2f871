#include "reports/data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- read and free ---- */

void data_machine_free(data_machine *m) {
  if (m == NULL) return;
  json_free(m->facts);
  free(m->device);
  free(m->figure);
  free(m->point);
  free(m->link);
  free(m);
}

static hf_status read_machine(db *d, int64_t id, data_machine *m) {
  HF_TRY(db_machine_get(d, id, &m->m));
  HF_TRY(db_device_list(d, id, &m->device, &m->n_device));
  HF_TRY(db_figure_list(d, id, &m->figure, &m->n_figure));
  HF_TRY(db_kernel_list(d, id, &m->point, &m->n_point));
  HF_TRY(db_link_list(d, id, &m->link, &m->n_link));
  hf_status st = json_parse(m->m.facts_json, strlen(m->m.facts_json), "facts", &m->facts);
  if (st == HF_INPUT) { /* facts are for people; a machine without them is still a machine */
    hf_clear_error();
    st = HF_OK;
  }
  return st;
}

hf_status data_machine_get(db *d, int64_t id, data_machine **out) {
  data_machine *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "machine of a report"));
  hf_status st = read_machine(d, id, m);
  if (st != HF_OK) data_machine_free(m);
  else *out = m;
  return st;
}

void data_plan_free(data_plan *p) {
  if (p == NULL) return;
  plan_free(p->p);
  data_machine_free(p->machine);
  free(p);
}

static hf_status read_plan(db *d, int64_t id, data_plan *p) {
  rec_plan_head *heads = NULL;
  int n = 0;
  HF_TRY(db_plan_get(d, id, &p->p));
  HF_TRY(db_plan_heads(d, &heads, &n));
  for (int i = 0; i < n; i++)
    if (heads[i].id == id) p->head = heads[i];
  free(heads);
  if (p->head.machine_id == 0) return HF_OK;
  return data_machine_get(d, p->head.machine_id, &p->machine);
}

hf_status data_plan_get(db *d, int64_t id, data_plan **out) {
  data_plan *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "plan of a report"));
  hf_status st = read_plan(d, id, p);
  if (st != HF_OK) data_plan_free(p);
  else *out = p;
  return st;
}

void data_run_free(data_run *r) {
  if (r == NULL) return;
  plan_free(r->p);
  free(r->request);
  free(r->stage);
  free(r->routing);
  free(r->distinct);
  free(r->event);
  free(r->error);
  free(r->trace);
  free(r);
}

static hf_status read_run(db *d, int64_t id, data_run *r) {
  HF_TRY(db_run_get(d, id, &r->r));
  HF_TRY(db_request_list(d, id, &r->request, &r->n_request));
  HF_TRY(db_stage_list(d, id, &r->stage, &r->n_stage));
  HF_TRY(db_routing_list(d, id, &r->routing, &r->n_routing));
  HF_TRY(db_distinct_list(d, id, &r->distinct, &r->n_distinct));
  HF_TRY(db_event_list(d, id, &r->event, &r->n_event));
  HF_TRY(db_signed_errors(d, id, &r->error, &r->n_error));
  HF_TRY(db_trace_list(d, id, 0, &r->trace, &r->n_trace));
  return r->r.plan_id > 0 ? db_plan_get(d, r->r.plan_id, &r->p) : HF_OK;
}

hf_status data_run_get(db *d, int64_t id, data_run **out) {
  data_run *r = NULL;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "run of a report"));
  hf_status st = read_run(d, id, r);
  if (st != HF_OK) data_run_free(r);
  else *out = r;
  return st;
}

void data_loop_free(data_loop *l) {
  data_machine_free(l->machine);
  for (int i = 0; i < 2; i++) {
    data_plan_free(l->plan[i]);
    data_run_free(l->run[i]);
  }
  data_plan_free(l->whatif);
}

/* ---- choosing ---- */

static bool finished(const rec_run *r) {
  return strcmp(r->status, "done") == 0 || strcmp(r->status, "stopped") == 0;
}

hf_status data_latest_run(db *d, int64_t *id) {
  rec_run *runs = NULL;
  int n = 0;
  HF_TRY(db_run_list(d, &runs, &n));
  *id = n > 0 ? runs[0].id : 0;
  for (int i = n - 1; i >= 0; i--)
    if (finished(&runs[i]) && runs[i].output_tokens > 0) *id = runs[i].id;
  free(runs);
  return n > 0 ? HF_OK : hf_fail(HF_NOT_FOUND, "no run in the database; hf-run makes one");
}

hf_status data_latest_plan(db *d, int64_t *id) {
  rec_plan_head *plans = NULL;
  int n = 0;
  HF_TRY(db_plan_heads(d, &plans, &n));
  if (n > 0) *id = plans[0].id;
  free(plans);
  return n > 0 ? HF_OK : hf_fail(HF_NOT_FOUND, "no plan in the database; hf-plan makes one");
}

static bool measured(const rec_machine *m, int n, int64_t id) {
  for (int i = 0; i < n; i++)
    if (m[i].id == id) return m[i].kind == MACHINE_MEASURED;
  return true;
}

hf_status data_latest_whatif(db *d, int64_t *id) {
  rec_plan_head *plans = NULL;
  rec_machine *machines = NULL;
  int n = 0, n_machines = 0;
  int64_t found = 0;
  HF_TRY(db_plan_heads(d, &plans, &n));
  hf_status st = db_machine_list(d, &machines, &n_machines);
  for (int i = n - 1; i >= 0 && st == HF_OK; i--)
    if (!measured(machines, n_machines, plans[i].machine_id)) found = plans[i].id;
  free(plans);
  free(machines);
  HF_TRY(st);
  if (found == 0)
    return hf_fail(HF_NOT_FOUND, "no plan for a catalog machine in the database; hf-plan plan --machine NAME makes one");
  *id = found;
  return HF_OK;
}

/* Which rows make the loop when they are not named. */
static void choose(const rec_plan_head *plans, int n_plans, const rec_run *runs, int n_runs, int64_t plan_id[2],
                   int64_t run_id[2]) {
  for (int i = 0; i < n_runs && plan_id[1] == 0 && plan_id[0] == 0 && run_id[0] == 0; i++) /* newest run of a re-plan */
    for (int k = 0; k < n_plans; k++)
      if (plans[k].id == runs[i].plan_id && plans[k].from_run > 0 && finished(&runs[i])) {
        plan_id[1] = plans[k].id;
        if (run_id[1] == 0) run_id[1] = runs[i].id;
        break;
      }
  for (int k = 0; k < n_plans && plan_id[1] == 0 && plan_id[0] == 0 && run_id[0] == 0; k++)
    if (plans[k].from_run > 0) plan_id[1] = plans[k].id;
  for (int k = 0; k < n_plans; k++)
    if (plans[k].id == plan_id[1] && run_id[0] == 0) run_id[0] = plans[k].from_run;
  for (int i = 0; i < n_runs && run_id[0] == 0; i++) /* no re-plan: the newest run, of the plan if one is named */
    if (finished(&runs[i]) && (plan_id[0] == 0 ? runs[i].plan_id > 0 : runs[i].plan_id == plan_id[0])) run_id[0] = runs[i].id;
  for (int i = 0; i < n_runs && plan_id[0] == 0; i++)
    if (runs[i].id == run_id[0]) plan_id[0] = runs[i].plan_id;
  for (int i = 0; i < n_runs && run_id[1] == 0 && plan_id[1] > 0; i++)
    if (runs[i].plan_id == plan_id[1] && finished(&runs[i])) run_id[1] = runs[i].id;
}

static hf_status choose_ids(db *d, int64_t plan_id[2], int64_t run_id[2]) {
  rec_plan_head *plans = NULL;
  rec_run *runs = NULL;
  int n_plans = 0, n_runs = 0;
  HF_TRY(db_plan_heads(d, &plans, &n_plans));
  hf_status st = db_run_list(d, &runs, &n_runs);
  if (st == HF_OK) choose(plans, n_plans, runs, n_runs, plan_id, run_id);
  free(plans);
  free(runs);
  return st;
}

static hf_status read_loop_machine(db *d, const report_options *o, data_loop *l) {
  rec_machine m;
  hf_status st = HF_OK;
  if (o->machine != NULL) st = db_machine_find(d, o->machine, &m);
  else if (l->plan[0] != NULL && l->plan[0]->head.machine_id > 0) m.id = l->plan[0]->head.machine_id;
  else st = db_machine_latest(d, MACHINE_MEASURED, &m);
  if (st == HF_NOT_FOUND && o->machine == NULL) { /* a loop without a measured machine is still worth a page */
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  return data_machine_get(d, m.id, &l->machine);
}

static hf_status read_loop(db *d, const report_options *o, data_loop *l) {
  int64_t plan_id[2] = {o->plan[0], o->plan[1]}, run_id[2] = {o->run[0], o->run[1]}, whatif = o->whatif;
  HF_TRY(choose_ids(d, plan_id, run_id));
  if (whatif == 0) {
    hf_status st = data_latest_whatif(d, &whatif);
    if (st != HF_OK && st != HF_NOT_FOUND) return st;
    hf_clear_error();
  }
  for (int i = 0; i < 2; i++) {
    if (plan_id[i] > 0) HF_TRY(data_plan_get(d, plan_id[i], &l->plan[i]));
    if (run_id[i] > 0) HF_TRY(data_run_get(d, run_id[i], &l->run[i]));
  }
  if (whatif > 0) HF_TRY(data_plan_get(d, whatif, &l->whatif));
  HF_TRY(read_loop_machine(d, o, l));
  if (l->machine == NULL && l->plan[0] == NULL && l->run[0] == NULL && l->whatif == NULL)
    return hf_fail(HF_NOT_FOUND, "the database holds neither machine, plan nor run; " DB_BEGIN);
  return HF_OK;
}

hf_status data_loop_get(db *d, const report_options *o, data_loop *out) {
  *out = (data_loop){0};
  hf_status st = read_loop(d, o, out);
  if (st != HF_OK) data_loop_free(out);
  return st;
}

/* ---- derived ---- */

double data_stage_ns(const data_run *r, const char *stage, int layer) {
  double sum = 0;
  bool found = false;
  for (int i = 0; i < r->n_stage; i++) {
    const rec_stage *s = &r->stage[i];
    if (strcmp(s->source, "run") != 0 || strcmp(s->phase, "decode") != 0 || strcmp(s->stage, stage) != 0 || s->steps <= 0)
      continue;
    if (layer >= 0 && s->layer != layer) continue;
    sum += s->ns_sum / (double)s->steps;
    found = true;
  }
  return found ? sum : NAN;
}

static double layer_part(const plan_layer *l, const char *stage) {
  if (strcmp(stage, "attn") == 0) return l->attn_ns;
  if (strcmp(stage, "shared") == 0) return l->shared_ns;
  if (strcmp(stage, "dexp") == 0) return l->dexp_ns;
  if (strcmp(stage, "cexp") == 0) return l->cexp_ns;
  if (strcmp(stage, "hand") == 0) return l->hand_ns;
  return NAN;
}

double data_planned_ns(const plan *p, const char *stage, int layer) {
  double sum = 0;
  if (strcmp(stage, "step") == 0) return p->ilp.objective_ns;
  for (int i = 0; i < p->n_layers; i++)
    if (layer < 0 || p->layer[i].index == layer) sum += layer_part(&p->layer[i], stage);
  return sum;
}

void data_placed(const plan *p, int layer, int64_t *on_device, int64_t *all) {
  *on_device = *all = 0;
  for (int i = 0; i < p->n_layers; i++) {
    const plan_layer *l = &p->layer[i];
    if (layer >= 0 && l->index != layer) continue;
    *all += l->n_experts;
    for (int e = 0; e < l->n_experts; e++) *on_device += l->device[e] >= 0 && plan_rank(p, l->device[e]) == 0;
  }
}

static const plan_layer *layer_of(const plan *p, int index) {
  for (int i = 0; i < p->n_layers; i++)
    if (p->layer[i].index == index) return &p->layer[i];
  return NULL;
}

double data_hit_share(const data_run *r, const plan *p, int layer) {
  double hit = 0, all = 0;
  for (int i = 0; i < r->n_routing; i++) {
    const rec_routing *c = &r->routing[i];
    if (strcmp(c->phase, "decode") != 0 || (layer >= 0 && c->layer != layer)) continue;
    const plan_layer *l = layer_of(p, c->layer);
    if (l == NULL || c->expert >= l->n_experts) continue;
    all += (double)c->count;
    if (l->device[c->expert] >= 0) hit += (double)c->count;
  }
  return all > 0 ? hit / all : NAN;
}
