/* plan.h: the plan, as rows and as plan.json. Written by hf-plan, executed by hf-run, shown by hf-report.
 *
 * Valid (plan_check) when
 *   - n_layers is 1..PLAN_MAX_LAYERS; layer[].index rises; a MoE layer has n_experts entries, each -1 (CPU tier) or the index
 *   of a
 *     device, 0..n_devices-1; a dense layer has none; its home is one of the devices, 0 where there is none;
 *   - where a layer has nodes, the slices of each of its experts follow each other from 0 to the same end;
 *   - depth 1..PLAN_MAX_DEPTH; users and context at least 1; every number finite and not negative; low <= likely <= high,
 *     p50 <= p90 <= p95 <= p99; bound_ns <= objective_ns (a millionth of slack for rounding);
 *   - no physical device (spec "cuda:N...") appears twice;
 *   - the budget names no (where, what) twice and has no rows of totals: the rows of one `where` add up, they state the same
 *     limit_bytes (0 = no limit stated), and their sum does not exceed it.
 * plan_read_json checks all of it (HF_INPUT, file and field). Whether the budget covers what the placement needs can only be said
 * with the model at hand: hf-plan and hf-run do.
 *
 * plan.json, stable members (design, contract):
 *   plan_id model machine users context depth
 *   placement      per layer an array of runs [count, device]; [] for a dense layer. Reading also takes one device per expert
 *   ilp            objective_ns bound_ns gap status seconds
 *   predicted      decode_tok_per_s {low likely high}, ttft_s and tpot_s {p50 p90 p95 p99}, tag
 *   binding        and budget [{where what bytes limit_bytes}]
 * and beside them: schema_version cost_model_version inputs_hash family format gpu machine_id from_run prompt_tokens
 * output_tokens n_layers n_experts devices [{name spec mem_bytes}] layers [{layer moe n_experts attn_ns ... layer_ns binding
 * prefill, home where it is not 0, and where experts on the CPU are cut over NUMA nodes, split: runs [count, [rows of node 0, rows of node 1, ...]]}] kv {type page_tokens bytes} max_seqs chunk_tokens threads kernels [{op format candidate tokens_lo tokens_hi}]
 * popularity. Every further member of the object is kept in `extra` and written back as it was, after the others.
 * May be missing when read: plan_id machine_id from_run inputs_hash family popularity kernels cost_model_version, p95. */
#ifndef HF_DB_PLAN_H
#define HF_DB_PLAN_H
#include "base/json.h"

enum {
  PLAN_SCHEMA_VERSION = 1,
  PLAN_MAX_DEPTH = 8,
  PLAN_MAX_DEVICES = 16,
  PLAN_MAX_BUDGET = 64,
  PLAN_MAX_KERNELS = 64,
  PLAN_MAX_LAYERS = 1024,
  PLAN_MAX_EXPERTS = 4096,
  PLAN_MAX_NODES = 32,
  PLAN_MAX_BYTES = 64 << 20 /* of the text of a plan */
};

typedef struct {
  double low, likely, high;
} plan_range;
typedef struct {
  double p50, p90, p99;
  double p95; /* 0 = not stated (older plans) */
} plan_percentiles;
/* What binds (`binding` of a plan or a case) as a letter of the legend, which tables and pages print below: "-" for nothing. */
#define PLAN_BINDING_LEGEND                                                                                                      \
  "D DRAM bandwidth, C arithmetic of the CPU, F fixed costs of the CPU, P the CPU in layers without routed experts, G the GPU, " \
  "W the way of one micro-batch through both, L the link, N the network or another machine"
char plan_binding_letter(const char *binding);
/* Members p50, p90, p95, p99 into an object. */
void plan_add_percentiles(json *into, const plan_percentiles *p);

typedef struct {
  int index; /* model layer */
  bool moe;
  int n_experts;
  int home;        /* device of its attention, shared or dense part and KV cache */
  int16_t *device; /* [n_experts]: -1 CPU, else device index; owned. NULL for dense layers */
  int n_nodes;     /* over which an expert on the CPU is cut; 0 = it is not */
  int32_t *split;  /* [n_experts][n_nodes + 1]: rows [i, i + 1) of its intermediate dimension belong to NUMA node i; owned */
  double attn_ns, shared_ns, dexp_ns, cexp_ns, hand_ns, layer_ns; /* expected, per micro-batch step of decode */
  char binding[8];                                                /* "cpu", "gpu", "path" */
  char prefill[8];                                                /* "cpu" or "upload" */
} plan_layer;

typedef struct {
  char name[96], spec[96];
  int64_t mem_bytes;
} plan_device; /* spec: "virtual:8M", "paced:…", "cuda:0", "catalog:rtx4090" */
typedef struct {
  char where[48], what[96];
  int64_t bytes, limit_bytes;
} plan_budget; /* where: "gpu0", "ram" */
typedef struct {
  char op[32], format[16], candidate[48];
  int tokens_lo, tokens_hi;
} plan_kernel;

typedef struct {
  int64_t id; /* 0 = not stored */
  int schema_version, cost_model_version;
  char inputs_hash[65]; /* SHA-256 or similar of everything that went in */
  char model[256], family[32], format[32], machine[128], gpu[96];
  int64_t machine_id, from_run; /* from_run 0 = none */
  int users, context, prompt_tokens, output_tokens;
  int depth, n_layers, n_experts;
  int n_devices;
  plan_device device[PLAN_MAX_DEVICES];
  plan_layer *layer; /* [n_layers], owned */
  char kv_type[8];
  int kv_page_tokens, max_seqs, chunk_tokens, threads;
  int64_t kv_bytes; /* of the whole cache */
  int n_kernels;
  plan_kernel kernel[PLAN_MAX_KERNELS];
  struct {
    double objective_ns, bound_ns, gap, seconds;
    char status[32];
  } ilp;
  plan_range decode_tok_per_s;
  plan_percentiles ttft_s, tpot_s;
  char tag[16]; /* weakest tag among what went into the prediction */
  char binding[32];
  char popularity[64]; /* source of expert popularity */
  int n_budget;
  plan_budget budget[PLAN_MAX_BUDGET];
  json *extra; /* further members kept for reports (baselines, advice, changes, fallback); may be NULL; owned */
} plan;

/* Zeroed, with n_layers dense layers of index 0.. and the versions set. */
HF_MUST hf_status plan_new(int n_layers, plan **out);
void plan_free(plan *p);
/* All rules above; `where` starts the error line. plan_to_json does not ask for the budget, so that a plan that does not fit
 * can be shown; reading and storing do. */
HF_MUST hf_status plan_check(const plan *p, const char *where);
HF_MUST hf_status plan_read_json(const json *doc, const char *where, plan **out);
HF_MUST hf_status plan_read_file(const char *path, plan **out);
/* HF_INPUT when a number is not finite or an index out of range. json_print reports a lack of memory, as for any document. */
HF_MUST hf_status plan_to_json(const plan *p, json **out);

/* 0: a place of experts on this machine (device -1: its CPU), else the rank of the other machine, from 1 on. */
int plan_rank(const plan *p, int device);
/* Other machines that the plan names; p may be NULL. */
int plan_ranks(const plan *p);
#endif
