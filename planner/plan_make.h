/* plan_make.h: from inputs to a plan: table, placement, prediction, budget. */
#ifndef HF_PLANNER_PLAN_MAKE_H
#define HF_PLANNER_PLAN_MAKE_H

#include "planner/ilp/ilp.h"
#include "planner/money/scenario.h"
#include "planner/plan_drift.h"
#include "planner/plan_eval.h"
#include "planner/plan_inputs.h"
#include "planner/plan_sustained.h"
#include "planner/sim/sim.h"

/* Another depth must deliver more by this to replace the objective's choice: small, since the depth chosen shall be the fastest or within 3 % of
 * it (project bar); not nothing, since a tie goes to the simpler schedule. */
#define PLAN_DEPTH_MARGIN 1.02
enum { PLAN_CHUNKS = 9, PLAN_DEPTHS = 4 }; /* tried */
/* Another depth or chunk may make up for a limit missed by this: searches follow a load so far beyond it. */
#define PLAN_NEARLY 1.5

/* What placement and depth minimise: the decode step, or the time of a whole request (its prompt's chunks and its steps). */
typedef enum { PLAN_FOR_DECODE, PLAN_FOR_REQUEST } plan_goal;

/* How to plan; all zero (or NULL where a pointer is taken) = the full answer of hf-plan plan. */
typedef struct {
  bool
      quick; /* cells of a sweep: the placement of the Lagrangian search stands when its proven gap is at most quick_gap; no baselines, no
               * advice, no inputs in plan.extra, and depths are compared by their objective, one simulation in all */
  double quick_gap; /* 0 = 0.005 */
  bool
      search_fully; /* with quick: the placement is searched as without, whatever the number of devices; on up to two it is anyway where depths are
                      * compared and no load is given up */
  bool compare_depths; /* with quick: every depth that could win is simulated too, and the simulation chooses */
  bool slo_report;     /* slo_* go to the simulation (goodput), nothing is refused */
  bool no_chunks;      /* the chunk that the estimate chose stands: searches that rank, and plan again what they name */
  bool no_interval;    /* decode_tok_per_s low = likely = high: saves the tables of 14 cases */
  bool no_simulation;  /* the rate is the objective's; no TTFT and TPOT percentiles */
  plan_goal optimise;
  double weight_prefill;          /* > 0: prompt chunks per decode step instead of the workload's own; with PLAN_FOR_REQUEST */
  const money_scenario *scenario; /* prices for the advice; NULL: no money in it. Outlives the planned */
  bool scenario_named;            /* by the asker, so that its API price is of this model */
  /* 0 = none. Rows of the program first (ilp_limits; not with slo_report or no_simulation); then p95 under sustained load must meet them, else
   * HF_NO and out->remedy. */
  double slo_ttft_s, slo_tpot_s;
  /* With slo_report, for searches that ask only whether limits are met: the sustained load ends when a p95 is certainly over this many times
    * its limit (the choice of depth and chunk follows it to PLAN_NEARLY times), and the decode rate is the objective's, not simulated; 0 = the
    * whole answer. */
  double give_up;
} planned_options;

typedef struct {
  plan *p;         /* not stored yet */
  ilp_result *ilp; /* for the LP files */
  plan_eval *eval;
  plan_drift *drift; /* with --from-run, else NULL */
  /* Users who start together, one request each: the decode rate while all decode, and what runs are held against. */
  sim_result sim;
  double stretch; /* see plan_simulate */
  /* The placement has not the least step found: it delivers more by near_gain, or keeps limits that the one of the least step misses
   * (near_gain may then be below 0). */
  bool near;
  double near_gain;
  sustained_result sustained;    /* what limits are judged by, and what is delivered */
  double slo_ttft_s, slo_tpot_s; /* of the options, as the two below */
  const money_scenario *scenario;
  bool scenario_named;
  ilp_refusal refusal;                      /* the rows cannot be kept: the placement is that without them */
  ilp_depth_result by_depth[ILP_MAX_DEPTH]; /* of the search over all depths, with the chunk of depth_chunk */
  int depth_chunk[ILP_MAX_DEPTH];
  double depth_tok_per_s[ILP_MAX_DEPTH]; /* delivered under sustained load; 0 = not simulated, or given up */
  /* Chunks with room, longest first, and what a request takes with each by the estimate that chooses where to begin (plan_chunk.c); prompt_ns: its
   * prompt alone, with the one chosen there. */
  int n_chunks, chunk[PLAN_CHUNKS];
  double chunk_ns[PLAN_CHUNKS], chunk_alone_ns[PLAN_CHUNKS], prompt_ns; /* alone: with nothing overlapping */
  double seconds;                                                       /* all searches together */
  double effect[COST_N_GROUPS][2]; /* of the interval: ln(step / likely step) with one group at its slow, at its fast end */
  /* Set when the answer is HF_NO: what needs how much, and what would help. */
  int n_budget, n_remedies;
  plan_budget budget[PLAN_MAX_BUDGET];
  char remedy[PLAN_MAX_REMEDIES][200];
} planned;

/* HF_NO when nothing fits: out->budget and out->remedy tell. Other failures leave nothing of use in out. In both cases free
 * with
 * planned_free. */
HF_MUST hf_status plan_make(plan_inputs *in, const planned_options *o, planned *out);
void planned_free(planned *p);

/* What a sweep keeps of an answer; no pointers. Percentiles, tok_per_s_wall, goodput and busy are of the sustained load. */
typedef struct {
  plan_range decode_tok_per_s;
  plan_percentiles ttft_s, tpot_s, e2e_s;
  double tok_per_s_wall, prefill_tok_per_s, goodput, device_busy, cpu_busy;
  int depth;
  double objective_ns, bound_ns, gap, seconds;
  char status[32], binding[32], tag[16];
  double device_ns, cpu_ns, path_ns; /* of a decode step: the busiest device's own sum, the CPU's, one micro-batch's way */
  double effect[COST_N_GROUPS][2];
  int64_t device_expert_bytes, experts_on_devices;
} planned_summary;
void plan_summarise(const planned *p, planned_summary *out);

/* Decode step of a placement with the table of another case of the figures: for intervals and tests. */
HF_MUST hf_status plan_step_ns(const plan_inputs *in, const planned *p, cost_case c, double *ns);

/* The interval of a prediction: effect[i] is the logarithm of the step's time over the likely one with the i-th source of
 * doubt at its slow
 * and at its fast end. Sources are independent, so their squares add up, those that make a step longer apart from those that
 * make it
 * shorter, and with them that of what any such model misses. What the sources are: the groups of cost_group; their ends are
 * the low and high
 * of the rows, each with its origin (measured percentiles, or the catalog's priors, where the ends of two factors are
 * multiplied: the
 * bandwidth of two sockets is wider than it need be). Popularity adds nothing: what skewed gates do to the experts touched is
 * the
 * group COST_ROUTING (distinct_factor), and no catalog figure says how skewed an unknown model's gates are. */
void plan_combine(const double effect[][2], int n, double *slower, double *faster);

/* Users who start together, under the plan's table, with any placement and depth. stretch: how much slower the mean decode
 * step is than
 * the simulated ones, where answers are too long to simulate whole. */
HF_MUST hf_status plan_simulate(const plan_inputs *in, const planned *p, const uint8_t *placement, int depth, sim_result *out,
                                double *stretch);

/* Marks the layers that upload in a step of prompts (those whose layer says so). Returns from how many tokens on a step does; 0: no layer does. */
int plan_uploads(const planned *p, const ilp_layer *layers, const uint8_t *placement, int depth, uint8_t upload[PLAN_MAX_LAYERS]);
/* What a placement has on devices and other machines. */
plan_resident plan_resident_of(const plan_inputs *in, const ilp_evaluation *e);
/* plan_chunk.c. Sets the chunk asked for, or among those the memory has room for the shortest with which a request (its prompt's chunks and its
 * share of decode steps: one after another, or where micro-batches overlap the busiest resource's part) takes hardly longer than with the best; what
 * goes with it in *s and p->eval; p->prompt_ns. */
HF_MUST hf_status plan_choose_chunk(plan_inputs *in, const planned_options *o, plan_sizes *s, planned *p);
/* A chunk, and what depends on it: sizes, rooms for experts, the load of prompts and the rows of limits. */
HF_MUST hf_status plan_set_chunk(plan_inputs *in, const planned_options *o, int chunk_tokens, plan_sizes *s, plan_eval *v);
/* plan_depth.c. Placement and depth, then chunks near the one set: p->ilp, by_depth, depth_tok_per_s, and the sustained load of what was chosen.
 * HF_NO as ilp_solve. */
HF_MUST hf_status plan_choose_depth(plan_inputs *in, const planned_options *o, plan_sizes *s, planned *p);

/* extra.changes: which experts moved against the plan of the run, why, and the gain expected under the new table. */
HF_MUST hf_status plan_changes(const plan_inputs *in, const planned *p, json *extra);
/* Chunk, weights and upload of PLAN_FOR_REQUEST. */
ilp_prefill plan_prefill(const plan_inputs *in, const planned_options *o, const stage_table *t);
/* plan_slo.c. The rows of the limits asked for, from the load of a chunk. */
ilp_limits plan_slo_limits(const plan_inputs *in, const planned_options *o, const ilp_prefill *f);
/* Whether the percentiles of the plan meet the limits. */
bool plan_slo_within(const planned *p, double ttft_p95_s, double tpot_p95_s);
/* The rows leave out waiting. Where sustained load misses a limit they are narrowed by as much and the plan is searched again at its depth,
 * a few times; a plan that meets the limits replaces p->ilp: *changed. Bound and gap are then those of the narrowed rows: of placements that
 * keep them, not of all that may meet the limits. */
HF_MUST hf_status plan_slo_tighten(const plan_inputs *in, const ilp_options *o, planned *p, bool *changed);
/* Sustained load on a result; give_up: times the limits, see planned_options. Not simulated where no step that writes a token could be within
 * give_up times the limit of TPOT: tpot_s is then the least of such a step. */
HF_MUST hf_status plan_sustain(const plan_inputs *in, const planned *p, const ilp_result *r, double give_up,
                               sustained_result *out);
/* A figure beside its limit: 3 digits, or as many more as show on which side of it the figure is. */
void plan_beside_limit_text(double v, double limit, char out[24]);
/* HF_NO with what would make it feasible, and by how much, in out->remedy. */
hf_status plan_slo_check(const plan_inputs *in, const planned_options *o, planned *out);
/* extra.slo, where limits were asked for. */
void plan_slo_json(const planned *p, json *extra);
/* advice.values: what one more of something is worth, in tokens per second and in money (plan_worth.h); docs/answers.md has the members. */
HF_MUST hf_status plan_advice(const plan_inputs *in, const planned *p, json *into);
/* extra.fallback: what is left when the first device is lost, planned and judged as hf-plan whatif --set lost=gpu0 does. */
HF_MUST hf_status plan_lost(const plan_inputs *in, const planned *p, json *extra);
/* Member sustained of a plan, and of what is left after a loss. */
void plan_sustained_json(const planned *p, json *into);
/* What a layer of the plan waits for: "DRAM bandwidth", "CPU compute", "CPU fixed cost", "CPU" (a layer without routed experts), "device",
 * "way through device and CPU", "other machine"; "behind the rest" where it asks nothing of what limits the step (depth 2 and more). */
const char *plan_layer_waits_for(const planned *p, int layer);
/* extra.baselines, by_depth, advice, layer_classes, resources, fallback, definitions. */
HF_MUST hf_status plan_extras(const plan_inputs *in, const planned *p, json *extra);

/* Fills p->kernel from the host's rows: per operation and format of the model, the candidate that is least behind over all numbers of tokens, and another
 * where it is faster by five per cent and by more than both scatter. p->threads is set. */
HF_MUST hf_status plan_choose_kernels(const plan_inputs *in, plan *p);
#endif
