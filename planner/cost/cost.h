/* cost.h: from database rows to stage tables. Each source of time is one small function; cost_table() puts them together.
 *
 * Where a kernel was measured (rec_kernel_point) its curve over tokens is used, scaled by bytes to other shapes (tag scaled). Elsewhere
 *     time(M) = fixed + max(bytes / bytes_per_s, M * flops / flops_per_s)
 * with the figures of the machine. The table carries the weakest tag of all it read. The same function makes the likely table and the ones
 * of a slower or faster machine (cost_case), so that low, likely and high differ in figures only. */
#ifndef HF_PLANNER_COST_COST_H
#define HF_PLANNER_COST_COST_H

#include "model/model.h"
#include "planner/cost/rows.h"
#include "sched/gpus.h"
#include "sched/stages.h"
#include "sched/split.h"

/* ---- what runs where ---- */

/* All GPUs of the machine, at most `most` of them, else none. */
HF_MUST hf_status gpu_set_default(const cost_rows *r, int most, gpu_set *out);

/* Who computes: the device column of the database, and how many threads of it. */
typedef struct {
  const cost_rows *rows;
  bool cpu;
  char device[16];
  int threads; /* CPU: 0 = all */
} cost_unit;

/* The CPU of another machine, reached over a link. */
typedef struct {
  cost_rows *rows;                     /* owned by whoever opened it */
  char text[96];                       /* MACHINE:LINK as given */
  cost_figure bytes_per_s, latency_ns; /* of one direction */
  bool here;                           /* no other machine: a rank on this one, whose memory and cores it shares */
} cost_remote;

typedef struct {
  const model *m;
  fmt format;            /* FMT_DEFAULT = as stored */
  const cost_rows *rows; /* the machine (paced: the one told) */
  gpu_set gpus;
  const uint8_t *home; /* [n_layers] home device of each layer; NULL = all on device 0 */
  int n_remotes;
  const cost_remote *remote; /* [n_remotes] */
  int threads;               /* CPU threads altogether; 0 = all cores */
  fmt kv;                    /* type of the KV cache, as model_kv_bytes_per_token takes it */
  double remote_part;        /* 0..1: part of the CPU experts' bytes that lie on another node than the workers that read them */
  double expert_bytes;       /* of one routed expert as stated elsewhere; 0 = by format */
  bool correlated; /* popularity is assumed and several tokens go together: real gates touch fewer experts (distinct_factor) */
} cost_input;

cost_unit cost_device_unit(const cost_input *in, int device); /* attention, shared and resident experts */
cost_unit cost_pool_unit(const cost_input *in);               /* the other experts */
cost_unit cost_remote_unit(const cost_remote *r);             /* experts on another machine */
/* Ranks on this machine, the first among them: they compute their experts of a layer at the same time. */
int cost_ranks_here(const cost_input *in);
/* What of several ranks here one expert is as fast as: on all of their threads, as far as there are cores; times cost_ranks_here, since each has one at a time.
 * So kernels measured on that many threads tell what ranks take from each other, memory and caches, at any number of tokens. */
cost_unit cost_crowd_unit(const cost_input *in);
/* Workers of the CPU pool: with virtual devices all but one thread for each. */
int cost_pool_threads(const cost_input *in);

/* ---- the parts of a step ---- */

/* Experts of a layer that `tokens` tokens touch: sum over e of 1 - (1 - p_e)^tokens. */
double cost_distinct_experts(const double *p, int n_experts, double tokens);
double cost_roofline_ns(double bytes, double flops, double bytes_per_s, double flops_per_s);
/* fixed + max(bytes, unpack + tokens * flops) likewise. */
stage_curve cost_unpack_curve(double fixed_ns, double bytes, double unpack_ns, double flops_per_token, double bytes_per_s,
                              double flops_per_s);
/* fixed + roofline over 1..512 tokens as an exact piecewise linear curve (its kink is a point). */
stage_curve cost_roofline_curve(double fixed_ns, double bytes, double flops_per_token, double bytes_per_s, double flops_per_s);
/* Bytes that cross per token and layer when a layer has CPU experts: activations there, results back, float32, and the routing. */
double cost_handover_bytes(const model_config *c);

double cost_unit_bytes_per_s(const cost_unit *u, cost_case c, db_tag *tag);
/* Reading the KV cache: figure gpu_kv_bytes_per_s or cpu_kv_bytes_per_s where there is one, else the memory rate. */
double cost_unit_kv_bytes_per_s(const cost_unit *u, cost_case c, db_tag *tag);
/* Turning quantised weights into what the arithmetic takes, once per application: figure cpu_unpack_weights_per_s (weights = FLOPs per token
 * / 2) or cpu_unpack_bytes_per_s of a CPU; 0 where there is none. */
double cost_unpack_ns(const cost_unit *u, double bytes, double flops_per_token, cost_case c, db_tag *tag);
/* For weights of this format: the activation type decides which unit computes (int8, bf16, fp16, fp32). */
double cost_unit_flops(const cost_unit *u, fmt f, cost_case c, db_tag *tag);

typedef struct {
  const char *kernel; /* "expert_ffn" or "matmul" */
  fmt format;
  int n_out, n_in;
  double bytes; /* what one application reads */
} cost_shape;
/* Measured curve of the kernel for the shape, or of the measured shape nearest in bytes, scaled (tag scaled); false when nothing like it was
 * measured on this unit. Per number of tokens the fastest candidate counts: the executor takes it too. */
bool cost_measured_curve(const cost_unit *u, const cost_shape *s, cost_case c, stage_curve *out, db_tag *tag);
/* One query token over its context, from attention points over context: the line from the point of least context to one in the middle, and on to that
 * of most. */
typedef struct {
  double ns;                     /* per token of context, from the middle to the most */
  double near_tokens, near_more; /* tokens up to the middle take ns * (1 + near_more) */
  double
      seq_ns; /* what the point of least context takes beside that and the waking of the workers: its rows come from memory that nothing has
                  * asked for yet, and states and sums are set up */
} cost_attention;
/* work: FLOPs per token of context; false when no point was measured. */
bool cost_measured_attention(const cost_unit *u, const model_config *m, fmt kv, double work, cost_case c, cost_attention *out,
                             db_tag *tag);

/* What overlapping work of device and CPU costs both (stage_table.contend). A virtual device is one thread of the same CPU: the rates of one
 * thread and of the others, each alone, over the rate of all together, from measured kernels of the format (all three thread counts, the shape
 * nearest to s), else from memory bandwidth. A real device works out of its own memory while it decodes: 1. */
double cost_contend(const cost_input *in, const cost_shape *s, db_tag *tag);

/* The same of an upload (DMA out of this machine's memory) and the CPU's experts (stage_table.contend_dma). Where kernels were measured beside
 * a DMA (kernel_curve.load "dma") and lost the share 1 - f of their rate: 2 - f, the upload counted as undisturbed; where the rate of that DMA is
 * known (figure dma_load_bytes_per_s: a stand-in of hf-profile), the share goes with link / that rate, at most 1. Else both share the memory's
 * bandwidth: 1 + link / DRAM, at most 2; experts bound by arithmetic are disturbed less. 1 without a real device. */
double cost_contend_dma(const cost_input *in, const cost_shape *s, db_tag *tag);

/* Measured experts touched over 1 - (1 - p)^tokens with assumed p; 1 where the machine has no such figure. A slower case takes more. */
double cost_distinct_factor(const cost_rows *r, cost_case c, db_tag *tag);

/* ---- NUMA ---- */

enum { COST_MAX_NODES = 16 };
/* Experts over the nodes, as sched/split.h cuts them. */
typedef struct {
  int n, used;
  split_rule rule; /* rate 0: a node that would not help has nothing */
  double
      ns; /* an expert where `active` of a layer are computed: the slowest node, and split_ns for every node beyond the first */
  double ideal_ns; /* at the sum of all rates */
} cost_numa;
/* width: intermediate dimension; bytes: of an expert; active of n_experts are computed together. Takes as many nodes as make it fastest. */
void cost_numa_split(const double *bytes_per_s, int n_nodes, int width, int unit, int n_experts, int active, double bytes,
                     double split_ns, cost_numa *out);
/* A node's rate when that part of its reads goes to another node: figure dram_remote_fraction (cpu), else a prior. */
double cost_numa_remote_rate(const cost_rows *r, double local_bytes_per_s, double remote_part, cost_case c, db_tag *tag);
/* dram_read_bytes_per_s of cpu0, cpu1, …; 0 nodes when there are fewer than two. */
int cost_numa_rates(const cost_rows *r, cost_case c, double rate[COST_MAX_NODES], db_tag *tag);
/* Figure numa_split_ns (cpu): what a split costs per expert; 0 where it was not measured: it is part of layer_fixed_ns then. */
double cost_numa_split_ns(const cost_rows *r, cost_case c, db_tag *tag);
/* The split of experts of these parts on the machine's nodes, one token's worth at a time; false on one node. */
bool cost_numa_of_expert(const cost_input *in, const model_layer_parts *p, cost_case c, cost_numa *out, db_tag *tag);

/* ---- attention ---- */

/* Row work of one token in a layer on one thread, ns: everything that is done row by row, value by value. What is packed for products that all
 * workers share (and copied to the experts): as many ns a value as point "pack" says, whose rows were read by others before, the norm's where there is
 * none. The rest (norms, of which parts.norms counts the values, rotating, writing the KV cache, copies and additions): as many as the measured
 * norm of the width nearest to d_model. And choosing experts, by their number. 0 where no norm was measured on the unit. f: of the weights. */
double cost_row_work_ns(const cost_unit *u, const model_config *c, const model_part *norms, fmt f, bool moe, db_tag *tag);
/* The same of a shared or dense part of so many hidden values, beside its products. */
double cost_ffn_row_work_ns(const cost_unit *u, const model_config *c, int width, fmt f, db_tag *tag);
/* Writing the results of a token's products and attention into rows that other workers have treated, ns on one thread, from point "results"; 0 where
 * there is none. Then the same of a shared or dense part of so many hidden values. */
double cost_results_ns(const cost_unit *u, const model_config *c, bool moe);
double cost_ffn_results_ns(const cost_unit *u, const model_config *c, int width);
/* Attention of pieces of prompts (sched/stages.h), from points prompt_mla, prompt_gqa and prompt_plain of the model's width. What has no points is
 * priced as decode, latent attention absorbed: what engines of published figures do is in the priors fitted to them. ctx_ns: of a query and a token of
 * context at decode; latent_ns: what a token's products with absorbed weights take in the attention curve of long pieces. */
void cost_prompt_attention(const cost_unit *u, const model_config *m, fmt kv, double ctx_ns, double latent_ns, stage_prompt *out,
                           db_tag *tag);
/* The greedy choice of a token on the thread that drives, ns for each logit; 0 where it was not measured. step_fixed_ns has one of 32,768. */
double cost_choice_ns(const cost_rows *r, cost_case c, db_tag *tag);
enum { COST_CHOICE_OF_STEP = 32768 };

/* ---- prefill ---- */

/* Tokens of a chunk from which on sending a layer's experts to its device takes no longer than computing them on the CPU, with everything of
 * the layer on the CPU; INT32_MAX when up to `most` it never does. */
int cost_prefill_crossing(const stage_table *t, const popularity *pop, int layer, int most);
/* A curve measured for few tokens goes on with its last slope, or as arithmetic demands where that is more. */
void cost_curve_bend(stage_curve *c, double flops_per_token, double flops_per_s);

/* ---- several devices ---- */

/* Contiguous runs of layers over devices: device d gets about the share of all layers' cost that its speed is of all speeds, but no more bytes
 * than limit[d]; where a limit binds, the others take more. What fits nowhere stays on the last device: its budget then says so. */
void cost_split_layers(const double *layer_cost, const int64_t *layer_bytes, int n_layers, const double *speed,
                       const int64_t *limit, int n_devices, uint8_t *home);
/* Adds fixed_ns and ns_per_token to a curve. */
void cost_curve_add(stage_curve *c, double fixed_ns, double ns_per_token);

HF_MUST hf_status cost_table(const cost_input *in, cost_case c, stage_table **out);

/* ---- where figures come from ---- */

/* Adds to an array every figure that the table reads: {name, device, low, likely, high, unit, tag, source}. device: "cpu", "gpuN" (place of
 * the device), "remoteN", "" for the machine. Times: low is the fastest. */
HF_MUST hf_status cost_provenance(const cost_input *in, json *list);

/* The rows of `to` with kernel curves of `from`, a measured machine, scaled to it: each point by the ratio of what it is bound by on either
 * side, memory bandwidth or arithmetic (figures dram_theoretical_bytes_per_s where both have it, else dram_read_bytes_per_s; cpu_flops_*;
 * gpu_mem_bytes_per_s; gpu_flops_*). Tag scaled; the ends are as far apart as those of the figures. Points on all threads are taken, to all
 * of the other's; kernels that `to` has measured itself are kept. HF_INPUT when nothing can be scaled. */
HF_MUST hf_status cost_rows_scaled(const cost_rows *to, const cost_rows *from, cost_rows **out);

/* The machine as it is while all its threads read memory at another rate than when it was measured (drift of a shared machine, or a
 * throttled one): the rows of the rate, and of kernels that read from memory, each as hf_at_read_rate says; fewer threads read at their own
 * rate as long as that is below. HF_INPUT when its rate is not known or bytes_per_s is not above 0. */
HF_MUST hf_status cost_rows_at_rate(const cost_rows *r, double bytes_per_s, cost_rows **out);

/* ---- popularity ---- */

HF_MUST hf_status popularity_uniform(const model_config *c, popularity **out);
/* p ~ rank^-s, shuffled per layer by a fixed seed, no p above 1. */
HF_MUST hf_status popularity_zipf(const model_config *c, double s, popularity **out);
/* Replaces counted popularity by the power law of each layer that makes its choices most likely: p ~ rank^-s with the layer's own order of
 * experts and its own s, 0 to 4. What a short count says of rare experts is noise; what it says of the slope is not. */
HF_MUST hf_status popularity_zipf_fit(const model_config *c, popularity *p);
/* The exponent alone: p [n], any order, not all 0. */
double popularity_fit_exponent(const double *p, int n);
/* The format is docs/popularity.md. File of counts per kind of text: {kind: {"tokens": n, "counts": {layer: [per expert]}}}; kind NULL = all kinds together. */
HF_MUST hf_status popularity_census_json(const model_config *c, const json *doc, const char *where, const char *kind,
                                         popularity **out);
HF_MUST hf_status popularity_census(const model_config *c, const char *path, const char *kind, popularity **out);
/* Routing counts of a run: p from tokens that were decoded, prefill from those of prompts, which choose other experts; of each, one token as
 * in the whole run is spread on top, so that nothing is impossible and a phase that the run had not is as the other. HF_INPUT when the run
 * has none or is of another shape. */
HF_MUST hf_status popularity_run(const model_config *c, const rec_routing *rows, int n, int64_t run_id, popularity **out);
/* p from counts, with one pseudo-token spread evenly, so that nothing is impossible. */
void popularity_from_counts(const double *counts, int n_experts, int top_k, double *p);

#endif
