/* records.h: plain structs that mirror the tables. Units in names; one unit per quantity. Strings are fixed-size arrays so
 * that a record owns nothing. Every figure carries a tag, low/likely/high and a source.
 *
 * The database refuses (HF_INPUT) what no record may say: a negative or non-finite quantity, low > likely or likely > high
 * (ns_low, ns, ns_high alike), a kind, phase, source, status or finish that is not listed here, a text without its NUL, a
 * reference to a row that does not exist. The only negative number is layer -1, "the whole step". */
#ifndef HF_DB_RECORDS_H
#define HF_DB_RECORDS_H
#include <stdbool.h>
#include <stdint.h>

typedef enum { TAG_MEASURED, TAG_SCALED, TAG_SPEC, TAG_ASSUMED, TAG_N } db_tag; /* strongest first */
const char *db_tag_name(db_tag t);

typedef enum { MACHINE_MEASURED, MACHINE_CATALOG, MACHINE_WHATIF } machine_kind;

typedef struct {
  int64_t id;
  char name[128];
  machine_kind kind;
  int64_t created_ns;
  char facts_json[4096]; /* ISA, cores, caches, DIMMs, permissions: for people and reports */
} rec_machine;

/* A thing in a machine that computes or holds: "cpu0" (NUMA node 0), "gpu0". */
typedef struct {
  int64_t machine_id;
  char device[16];
  char kind[8];  /* "cpu" or "gpu" */
  char name[96]; /* "Intel Xeon 6787P", "NVIDIA GeForce RTX 4090" */
  int cores;
  int64_t mem_bytes;
} rec_device;

/* What n threads do together is at most n times what one does, and a little for noise and for caches. */
#define REC_POSSIBLE 1.15

/* One scalar figure. what, e.g. dram_read_bytes_per_s, gpu_mem_bytes_per_s, flops_bf16, flops_int8, barrier_ns, layer_fixed_ns,
 * handover_ns, launch_ns, power_idle_w, power_active_w, price_usd. params: "threads=2" or "". */
typedef struct {
  int64_t id, machine_id;
  char device[16]; /* "cpu0", "gpu0", "" for the whole machine */
  char what[48], params[96], unit[24];
  double low, likely, high;
  double spread; /* (p90 - p10) / median of the samples; 0 when not measured */
  int n;         /* samples */
  db_tag tag;
  char source[160];
} rec_figure;
/* Memory's read rate in bytes/s as that many threads of the CPU reach it; 0 when the list does not have it. */
double rec_read_rate(const rec_figure *list, int n, int threads);
/* For a rate of N threads (params "threads=N", unit in /s), how many times N times that of one thread of the same device it is; above
 * REC_POSSIBLE one of the two was measured wrong. 0: list has no such pair. *threads (may be NULL) becomes N. */
double rec_figure_over_linear(const rec_figure *list, int n, int i, int *threads);

/* One point of a kernel's curve. device "cpu" = all workers of the machine together, "cpu0" one node, "gpu0". */
typedef struct {
  int64_t machine_id;
  char device[16];
  char kernel
      [24]; /* "matmul", "expert_ffn", "attn_mla", "attn_gqa"; of pieces of a prompt "prompt_mla", "prompt_gqa", "prompt_plain"; "rmsnorm", "pack" */
  char candidate[48];      /* name of the kernel variant, "" for any */
  char format[16], act[8]; /* weight format; activation type */
  int n_out, n_in;         /* expert_ffn: d_ff, d_model; attn and prompt: lora, rope or head_dim, n_kv_heads */
  int tokens, context, threads;
  char load[16]; /* concurrent load: "" or "dma" */
  double ns_low, ns, ns_high, spread;
  int64_t bytes; /* weight or KV bytes read in that time */
  int n;
  db_tag tag;
} rec_kernel_point;
/* A candidate that rounds weights and activations more than the contract of the format has it (".rounded." in its name, kernels/kernels.h): nobody
 * computes with it unasked. */
bool rec_kernel_rounded(const rec_kernel_point *k);

typedef struct {
  int64_t machine_id;
  char src[16], dst[72]; /* "host", "gpu0"; "@HOST": another machine (profiler/ranks.h) */
  bool pinned;
  char load[16];
  int64_t bytes; /* transfer size */
  double ns_low, ns, ns_high;
  int n;
  db_tag tag;
  int64_t measurement; /* the same of points that were measured together: when that began, ns since 1970; 0 = not known */
} rec_link_point;

/* The columns of a stored plan, without its placement: for finding and listing plans. */
typedef struct {
  int64_t id, machine_id, from_run; /* from_run 0 = made without one */
  int64_t created_ns;
  char model[256], format[32], machine[128], gpu[96];
  int users, context, depth;
  double decode_tok_per_s_low, decode_tok_per_s, decode_tok_per_s_high;
} rec_plan_head;

typedef struct {
  int64_t id, plan_id, machine_id;
  char model[256], format[32], gpu[96], kind[16]; /* kind: prompts, bench, check, server */
  int64_t created_ns;
  int users, depth, threads;
  int64_t prompt_tokens, output_tokens, steps;
  double wall_s, decode_s;
  double decode_tok_per_s, tok_per_s_wall, prefill_tok_per_s;
  double ttft_p50_s, ttft_p90_s, ttft_p99_s, tpot_p50_s, tpot_p90_s, tpot_p99_s;
  double dram_bytes_per_s; /* probed at start */
  double other_cpu_share;  /* of the machine's CPU time while it ran: what other programs had; -1 = not known */
  double predicted_decode_tok_per_s, predicted_low, predicted_high, predicted_ttft_p50_s, predicted_tpot_p50_s; /* 0 = none */
  char status[16]; /* running, done, failed, stopped */
} rec_run;
/* From this share on the times of a run are doubted: others were at work beside it. */
#define REC_RUN_DISTURBED 0.05

typedef struct {
  int64_t run_id, request;
  char ext_id[64];
  int prompt_tokens, output_tokens;
  double arrival_s, first_token_s, end_s; /* since the run's start, at the client side; first_token_s 0 = none came */
  char finish[16];                        /* stop, length, error, cancelled */
} rec_request;

/* Stage times of a run or a simulation, aggregated per (layer, stage, phase): the same record from both sources. dexp: on the layer's own device; what
 * experts on others took is in traces only. */
typedef struct {
  int64_t run_id;
  char source[8]; /* "run", "sim" */
  char stage[12], phase[8],
      resource[8]; /* stage: attn, hand, shared, dexp, cexp, head, step; phase: prefill, decode; resource: cpu, gpu0 */
  int layer;
  int64_t steps, tokens, distinct; /* distinct: experts touched, summed */
  double ns_sum, ns_sq_sum;
} rec_stage;

/* One trace event; kept in memory and written on request only (Chrome trace), or stored for a few steps. */
typedef struct {
  char source[8], stage[12], resource[8];
  int step, micro_batch, layer;
  int64_t start_ns, end_ns, bytes;
  double flops;
  int tokens, distinct;
} rec_trace;

typedef struct {
  int64_t run_id;
  int layer, expert;
  char phase[8];
  int64_t count;
} rec_routing;

typedef struct {
  int64_t run_id;
  int layer;
  char phase[8];
  int tokens;                 /* tokens of the step */
  int64_t steps, sum, sum_sq; /* of distinct experts */
} rec_distinct;

typedef struct {
  int64_t id, run_id, at_ns, recovery_ns;
  char kind[24], detail[256]; /* kind: fault, recovery, replan */
} rec_event;

/* The columns of a stored answer, without its document. kind: whatif, sweep, recommend, roi, validate, formats. */
typedef struct {
  int64_t id;
  char kind[16];
  int64_t created_ns;
  char title[256];
} rec_answer;
#endif
