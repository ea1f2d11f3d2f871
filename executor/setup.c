#include "executor/setup.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "executor/ask.h"
#include "executor/commands.h"

/* HF_NO: no placement fits, and hf-plan's line says why. */
static hf_status planned(const plan_question *q, plan **out) {
  json *doc = NULL;
  hf_status st = ask_plan(q, &doc);
  if (st == HF_OK) st = plan_read_json(doc, "answer of hf-plan", out);
  json_free(doc);
  return st;
}

hf_status make_plan(const run_options *r, const char *db_path, int users, int context, int prompt_tokens, int output_tokens,
                    plan **out) {
  plan_question q = {.db_path = db_path,
                     .model = r->model,
                     .gpu = r->gpu,
                     .machine = r->machine,
                     .kv_type = r->kv_type,
                     .users = users,
                     .context = context,
                     .prompt_tokens = prompt_tokens,
                     .output_tokens = output_tokens,
                     .depth = (int)r->depth, /* what was asked for here takes memory that the plan has to leave */
                     .chunk_tokens = (int)r->chunk,
                     .store = true};
  hf_status st = planned(&q, out);
  if (st == HF_OK) {
    const plan *p = *out;
    if (!r->common.json)
      hf_log(HF_LOG_INFO, "no --plan: made plan %lld for %d users, context %d (depth %d, predicted %.1f tokens/s)",
             (long long)p->id, users, context, p->depth, p->decode_tok_per_s.likely);
    return HF_OK;
  }
  if (st == HF_NO && r->common.json) {
    json *o = json_new_object();
    json_add_bool(o, "feasible", false);
    json_add_str(o, "reason", hf_error_line());
    HF_TRY(json_show(o));
  }
  if (st == HF_NO) return st;
  hf_log(HF_LOG_INFO, "no plan and none could be made (%s): running without a prediction", hf_error_line());
  return HF_OK;
}

/* The load of plan p on its machine, as long as it is not said which devices are left. */
static plan_question question_again(const run_options *r, const char *db_path, const plan *p) {
  return (plan_question){.db_path = db_path,
                         .model = r->model,
                         .machine = p->machine[0] ? p->machine : NULL,
                         .kv_type = r->kv_type      ? r->kv_type
                                    : p->kv_type[0] ? p->kv_type
                                                    : NULL,
                         .users = p->users,
                         .context = p->context,
                         .prompt_tokens = p->prompt_tokens,
                         .output_tokens = p->output_tokens,
                         .threads = r->threads,
                         .store = true};
}

void make_plan_without(const run_options *r, const char *db_path, const plan *p, plan **out) {
  const plan_question q = question_again(r, db_path, p);
  *out = NULL;
  if (planned(&q, out) == HF_OK) return;
  hf_log(HF_LOG_INFO, "no plan for this machine's CPU alone, should the rest be lost: %s", hf_error_line());
  hf_clear_error();
}

/* --gpu without its k-th device. */
static bool devices_but(const gpu_set *all, int k, char *out, size_t room) {
  size_t n = 0;
  for (int i = 0; i < all->n; i++) {
    if (i != k && n + strlen(all->g[i].text) + 2 > room) return false;
    if (i != k) n += (size_t)snprintf(out + n, room - n, "%s%s", n > 0 ? "+" : "", all->g[i].text);
  }
  return n > 0;
}

/* Devices behind the lost one get their own numbers back. */
static hf_status number_again(plan *p, int lost, int n) {
  if (p->n_devices != n - 1 || n > PLAN_MAX_DEVICES) return hf_fail(HF_INPUT, "it is for %d devices", p->n_devices);
  for (int k = n - 1; k > lost; k--) p->device[k] = p->device[k - 1];
  p->device[lost] = (plan_device){.name = "lost"};
  p->n_devices = n;
  for (int l = 0; l < p->n_layers; l++) {
    plan_layer *y = &p->layer[l];
    y->home += y->home >= lost;
    for (int x = 0; y->device && x < y->n_experts; x++) y->device[x] = (int16_t)(y->device[x] + (y->device[x] >= lost));
  }
  return HF_OK;
}

void make_plans_without_each(const run_options *r, const char *db_path, const plan *p, const engine_options *o,
                             plan *out[ENGINE_DEVICES]) {
  const int n = 1 + o->more_devices;
  char gpu[sizeof o->gpu];
  gpu_set all;
  if (gpu_set_parse(o->gpu, &all) != HF_OK) {
    hf_clear_error();
    return;
  }
  plan_question q = question_again(r, db_path, p);
  q.gpu = gpu;
  q.depth = o->depth;
  q.chunk_tokens = o->max_tok - o->max_seqs;
  for (int k = 0; k < n; k++) {
    if (!devices_but(&all, k, gpu, sizeof gpu)) continue;
    hf_status st = planned(&q, &out[k]);
    if (st == HF_OK) st = number_again(out[k], k, n);
    if (st == HF_OK) continue;
    plan_free(out[k]);
    out[k] = NULL;
    hf_log(HF_LOG_INFO, "no plan should gpu%d be lost, what it has would go to the CPU: %s", k, hf_error_line());
    hf_clear_error();
  }
}

hf_status open_plan_or_database(const run_options *r, const char *db_path, db **d, plan **p) {
  bool row = r->plan && strspn(r->plan, "0123456789") == strlen(r->plan);
  struct stat s;
  if (row || (stat(db_path, &s) == 0 && s.st_size > 0)) HF_TRY(db_open(db_path, false, d));
  return plan_open(r, *d, p);
}
