/* cmd_check.c: hf-run --check-reference */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor/check.h"
#include "executor/commands.h"

static void print_people(const check_result *c, const engine_options *o, bool ok) {
  printf("%s: %d of %d sequences pass (%s activations, device %s, depth %d, %s)\n", ok ? "passed" : "FAILED", c->passed,
         c->prompts, o->exact ? "exact" : "fast", o->gpu, o->depth, kern_get()->isa_name);
  printf("  largest logit difference %.3g, relative RMS %.3g\n", c->max_abs_logit_diff, c->max_rel_rms);
  printf("  expert choices %lld of %lld, greedy tokens %lld of %lld, most likely tokens %lld of %lld\n",
         (long long)c->routing_match, (long long)c->routing_total, (long long)c->greedy_match, (long long)c->greedy_total,
         (long long)c->top1_match, (long long)c->top1_total);
  if (c->narrow) printf("  %d comparisons ended early at a narrow margin\n", c->narrow);
  if (c->first_failure[0]) printf("  first failure: %s\n", c->first_failure);
}

static hf_status print_json(const check_result *c, const engine_options *o, bool ok) {
  json *j = json_new_object();
  json_add_int(j, "prompts", c->prompts);
  json_add_int(j, "passed", c->passed);
  json_add_num(j, "max_abs_logit_diff", c->max_abs_logit_diff);
  json_add_num(j, "max_rel_rms", c->max_rel_rms);
  json_add_int(j, "greedy_match", c->greedy_match);
  json_add_int(j, "greedy_total", c->greedy_total);
  json_add_int(j, "routing_match", c->routing_match);
  json_add_int(j, "routing_total", c->routing_total);
  json_add_int(j, "top1_match", c->top1_match);
  json_add_int(j, "top1_total", c->top1_total);
  json_add_int(j, "narrow", c->narrow);
  json_add_str(j, "activations", o->exact ? "exact" : "fast");
  json_add_str(j, "isa", kern_get()->isa_name);
  json_add_str(j, "gpu", o->gpu);
  json_add_int(j, "depth", o->depth);
  if (c->first_failure[0]) json_add_str(j, "first_failure", c->first_failure);
  json_add_str(j, "verdict", ok ? "passed" : "failed");
  return json_show(j);
}

static hf_status check_with(const run_options *r, const model *m, const plan *p, const char *db_path) {
  hf_status st;
  check_ref *ref = NULL;
  engine *e = NULL;
  engine_options o;
  stage_table *pace = NULL;
  check_result res;
  run_options opt = *r;
  int batch = r->batch ? (int)r->batch : 1;
  int depth = r->depth ? (int)r->depth : p ? p->depth : 1;
  if (!opt.activations) opt.activations = "exact";
  if (!opt.chunk) opt.chunk = 16; /* shorter than the prompts, so that chunked prefill is part of what is checked */
  if (!opt.gpu && !p && r->experts_percent > 0) opt.gpu = "virtual:8G";
  HF_TRY(check_open(r->reference, m, &ref));
  HF_GO(end, engine_options_for(&opt, db_path, m, p, batch, check_context(ref), depth, &o, &pace));
  o.max_logits = o.max_tok;
  HF_GO(end, open_engine_or_explain(r, m, &o, &e));
  HF_GO(end, check_run(ref, e, batch, (int)opt.chunk, &res));
  bool ok = res.passed == res.prompts;
  if (r->common.json) HF_GO(end, print_json(&res, &o, ok));
  else print_people(&res, &o, ok);
  if (!ok)
    st = hf_fail(HF_NO, "%s: %d of %d sequences differ from the reference; first: %s", r->reference, res.prompts - res.passed,
                 res.prompts, res.first_failure);
end:
  engine_close(e);
  stage_table_free(pace);
  check_close(ref);
  return st;
}

hf_status cmd_check(const run_options *r) {
  hf_status st;
  model *m = NULL;
  plan *p = NULL;
  db *d = NULL;
  char path[4096];
  HF_TRY(db_default_path(r->common.db_path, path, sizeof path));
  HF_TRY(open_model_to_run(r->model, &m));
  if (r->plan && strspn(r->plan, "0123456789") == strlen(r->plan)) HF_GO(end, db_open(path, false, &d));
  HF_GO(end, plan_open(r, d, &p));
  st = check_with(r, m, p, path);
end:
  plan_free(p);
  if (d) db_close(d);
  model_close(m);
  return st;
}
