/* prices.h: how long the parts of a step take, in whole ns, kept for further use. Attention depends on context and is computed for
 * every step; the rest depends on the number of tokens alone. Above 128 tokens every sixteenth number is priced, the others lie on the
 * line between (expected times are smooth there). */
#ifndef HF_PLANNER_SIM_PRICES_H
#define HF_PLANNER_SIM_PRICES_H

#include "planner/sim/sim.h"

typedef struct sim_prices sim_prices;
HF_MUST hf_status sim_prices_new(const sim_options *o, sim_prices **out);
void sim_prices_free(sim_prices *p);

/* What is in a step. */
typedef struct {
  stage_load load; /* upload set where this step uploads */
  bool prefills;   /* has a prompt in it: its experts are chosen as prompts choose them */
  int logits;
} sim_step_load;
void sim_step_load_of(const sim_options *o, const sched_step *st, sim_step_load *out);

/* All of a step but its number. attn and row are [n_layers] of the caller's; *w may point to them or to kept rows. With sample_routing the
 * experts of steps of up to 64 tokens are drawn: `number` is the draw's. */
HF_MUST hf_status sim_prices_step(sim_prices *p, const sim_step_load *s, int64_t number, int64_t *attn, sim_layer_ns *row,
                                  sim_work *w);
#endif
