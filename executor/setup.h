/* setup.h: what commands do before there is an engine: a plan, given or asked for, and the database it may come from. */
#ifndef HF_EXECUTOR_SETUP_H
#define HF_EXECUTOR_SETUP_H
#include "executor/options.h"

/* --plan, and the database where it holds the plan or exists already: where what is given settles everything it is not created before that has
 * been found good. *d may stay NULL. */
HF_MUST hf_status open_plan_or_database(const run_options *r, const char *db_path, db **d, plan **p);

/* Without --plan hf-plan makes one for this load; when it cannot (no profile yet), *out stays NULL and the run goes on without a prediction
 * and says so. HF_NO when nothing fits. */
HF_MUST hf_status make_plan(const run_options *r, const char *db_path, int users, int context, int prompt_tokens,
                            int output_tokens, plan **out);
/* The plan for the same load should the device be lost, stored in the database; made before it is needed, for a run with a device on the machine
 * that p is for. *out NULL: there is none, and a line says why. Never an error. */
void make_plan_without(const run_options *r, const char *db_path, const plan *p, plan **out);
/* The same for each of several virtual devices, should it be lost: what goes on is on the others and the CPU. Devices have the numbers that they have in
 * o, and steps its depth and chunk. */
void make_plans_without_each(const run_options *r, const char *db_path, const plan *p, const engine_options *o,
                             plan *out[ENGINE_DEVICES]);
#endif
