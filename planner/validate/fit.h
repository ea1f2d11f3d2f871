/* fit.h: the facts of each engine from the rows measured with it: few per engine, one set for all of its rows, by a method that gives the same
 * result every time. The committed priors are its output (hf-plan validate CASES.csv --fit prints them), and leaving a machine out runs the same
 * code on the other rows.
 *
 * What is minimised: sum over the rows of the engine of |ln(predicted / published)|, of decode and of prefill alike (absolute, not squared, errors:
 * a row that is off does not pull the others), plus PENALTY * |ln(fact / start)| for each fact, so that a fact that no row speaks of stays where it
 * started. How: pattern search in the logarithms, one fact at a time, step 0.4 halved down to 0.0125, from the start that the file below it
 * states; the result is rounded to three digits. An engine's mode ("-no-rtr") starts from the engine's result.
 * A fact that none of the rows can speak of is not searched for but rests at what its class says: thread_layer_ns, without a row that is all on
 * the CPU, at operations_per_layer / 2 x BARRIER_NS; gemm_flops_per_cycle of dot products (unpack_every_token), without a row with a prompt, at
 * 2 FLOP per weight unpacked. A search for thread_layer_ns starts from the operations of the file below; one for launch_ns (a mode without a
 * recorded graph) from eager_layer_ns.
 * low and high of the fact that decides decode (or prefill): for each row that it moves, the value that would make it exact, all others as
 * fitted; of these the middle two thirds (other doubts come on top); where all of them are of one machine, at least half-way (in the logarithm)
 * to what the class says of an engine that nobody measured. Of the other facts: what leaving one machine out makes of them. Both at least 10 %
 * either way. */
#ifndef HF_PLANNER_VALIDATE_FIT_H
#define HF_PLANNER_VALIDATE_FIT_H
#include "planner/validate/predict.h"

enum { FIT_MAX_FACTS = 4, FIT_MAX_ENGINES = 8 };
typedef struct {
  const char *engine;
  int n;
  engine_fact fact[FIT_MAX_FACTS];
} fit_plan;
extern const fit_plan fit_plans[FIT_MAX_ENGINES]; /* engine NULL ends; an engine comes after the one it leans on */

/* Engines by name, as committed or as fitted. */
typedef struct {
  int n;
  engine e[FIT_MAX_ENGINES];
} engine_set;
HF_MUST hf_status engine_set_load(engine_set *s);
const engine *engine_set_find(const engine_set *s, const char *name); /* NULL when it is not there */

/* Fits every engine of fit_plans from the used rows: likely values only. With `without` (a box: rows on the same CPU) those rows do not count, and
 * only the engines that have some of them, and their modes, are fitted again; the others stay as they are in *s. */
HF_MUST hf_status fit_engines(prepared_case *cases, int n, const char *without, engine_set *s);
/* The engine of one row, fitted without that row; the engine it leans on as in s. */
HF_MUST hf_status fit_without_row(prepared_case *cases, int n, int row, const engine_set *s, engine *out);
/* low and high of the facts that fit_engines set, from the same rows. */
HF_MUST hf_status fit_spreads(prepared_case *cases, int n, engine_set *s);
#endif
