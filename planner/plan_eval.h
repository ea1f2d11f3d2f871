/* plan_eval.h: the part of a plan that lets anybody recompute its objective: stage table, popularity, sizes. Kept in plan.json as
 * member "inputs", so that `hf-plan evaluate` needs neither the model nor the machine. */
#ifndef HF_PLANNER_PLAN_EVAL_H
#define HF_PLANNER_PLAN_EVAL_H

#include "db/plan.h"
#include "planner/ilp/ilp.h"

typedef struct {
  stage_table *table;                               /* owned */
  popularity *pop;                                  /* owned */
  int64_t *expert_bytes;                            /* [n_layers], owned */
  int64_t room[STAGE_MAX_DEVICES][ILP_MAX_DEPTH];   /* [device][depth-1] bytes left for experts */
  int64_t cpu_room, remote_room[STAGE_MAX_REMOTES]; /* as ilp_problem: 0 = no limit */
  ilp_prefill prefill;                              /* weight 0: decode alone was optimised */
  ilp_limits limit;                                 /* service levels as rows; not in the JSON: they change no objective */
  double mean_context;
  int users, n_devices;
} plan_eval;

/* Adds "inputs" to extra (an object). */
HF_MUST hf_status plan_eval_to_json(const plan_eval *v, json *extra);
/* HF_INPUT naming where and field when the member is missing or contradicts the plan, or users are more than run at once (SCHED_MAX_SEQS). */
HF_MUST hf_status plan_eval_from_plan(const plan *p, const char *where, plan_eval **out);
void plan_eval_free(plan_eval *v);
ilp_problem plan_eval_problem(const plan_eval *v, uint32_t depths);
/* Placement of a plan as ilp wants it: [n_layers * n_experts], a place each (1 + the plan's device); free(). HF_INPUT when layers or experts differ. */
HF_MUST hf_status plan_placement(const plan *p, int n_layers, int n_experts, uint8_t **out);
#endif
