/* plan_sim.h: the simulation of a plan that is stored or lies in a file. */
#ifndef HF_PLANNER_PLAN_SIM_H
#define HF_PLANNER_PLAN_SIM_H

#include "planner/plan_eval.h"
#include "planner/sim/sim.h"

typedef struct {
  sim_options o; /* a closed loop of the plan's users, one request each; to be changed at will */
  plan_eval *eval;
  uint8_t *placement, *upload;
} plan_sim;

/* p must outlive out. HF_INPUT: the plan does not carry its inputs. */
HF_MUST hf_status plan_sim_open(const plan *p, const char *where, plan_sim *out);
void plan_sim_close(plan_sim *s);
#endif
