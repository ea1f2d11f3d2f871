/* plan_inputs.h: what a planning request names, found and opened: model, machine, device, popularity, and the sizes that follow. */
#ifndef HF_PLANNER_PLAN_INPUTS_H
#define HF_PLANNER_PLAN_INPUTS_H

#include "planner/cost/cost.h"

enum { COST_MODEL_VERSION = 6, PLAN_PAGE_TOKENS = 16, PLAN_CHUNK_LEAST = 16, PLAN_CHUNK_MOST = 4096 /* what hf-run takes */ };

/* As on the command line; NULL and 0 = not given. Everything is borrowed and must outlive the plan_inputs. */
typedef struct {
  const char *model, *machine, *gpu, *format, *skew, *census, *census_kind;
  const char *kv_type;    /* of the KV cache: f16 (NULL), q8_0, bf16 or f32 */
  const char *standby;    /* a KV mirror: none (NULL), ram or file:PATH */
  const char *homes;      /* device of each layer, "0,0,1", instead of the planner's choice */
  const char *remotes;    /* "MACHINE:LINK[,MACHINE:LINK]": CPUs of other machines over links of the catalog */
  const char *scale_from; /* name or number of a measured machine whose kernel curves are scaled to this one */
  int64_t users, context, prompt_tokens, output_tokens, depth, threads, chunk_tokens, from_run, parked_users;
  bool rounded;               /* kernels that round to BF16 besides may be planned with, where they were measured fastest */
  double dram_bytes_per_s;    /* > 0: memory is read at this rate now, whatever the machine's rows say */
  const cost_rows *host_rows; /* used instead of machine when not NULL */
  model *opened;              /* used instead of model (then a name only) when not NULL */
} plan_request;

typedef struct {
  plan_request req; /* defaults filled in */
  db *d;            /* borrowed; NULL where the request needs none */
  model *m;
  const model_config *c; /* of m */
  fmt format;            /* FMT_DEFAULT: as stored */
  const char *format_name;
  fmt kv;                /* type of the KV cache */
  const cost_rows *host; /* the machine the plan is for: rows of the request or host_owned */
  cost_rows *host_owned;
  cost_rows *paced; /* paced devices: the machine told, else NULL */
  gpu_set gpus;
  gpu_spec gpu;                          /* the first one, its text that of all; kind GPU_NONE when there is none */
  int64_t device_mem[STAGE_MAX_DEVICES]; /* bytes of each */
  int64_t device_bytes;                  /* of the first; 0 with --gpu none */
  uint8_t home[PLAN_MAX_LAYERS];         /* device of attention, shared experts and KV of each layer */
  int n_remotes;
  cost_remote remote[STAGE_MAX_REMOTES];
  popularity *pop;
  bool assumed_popularity;
  double mean_context; /* of a decode step: prompt + half the output */
  int chunk_most;      /* longest chunk worth a thought */
  int chunk_tokens;    /* chunk_most, or what plan_make chose */
  int upload_slots; /* experts that a micro-batch can have under way to its devices; goes with the chunk, 0: not chosen yet, -1: none */
} plan_inputs;

/* Opens everything. HF_INPUT, HF_NOT_FOUND with the option's name; then nothing was written. Nothing is written: what a plan is stored with is
 * plan_inputs_store's. d may be NULL when the request names its machine by host_rows and neither a run, a
 * paced device, other machines nor one to scale from: then nothing is read but the catalog, and threads may plan at once, sharing host_rows
 * and opened. */
HF_MUST hf_status plan_inputs_open(db *d, const plan_request *r, plan_inputs **out);
void plan_inputs_close(plan_inputs *in);
/* Machines that were composed from the catalog, a file or parts become rows of the database; before the plan that speaks of them. */
HF_MUST hf_status plan_inputs_store(plan_inputs *in);
/* chunk_most: again where users or lengths of in->req were changed since opening. */
HF_MUST hf_status plan_inputs_limit_chunk(plan_inputs *in);
/* --skew, --census or the routing counts of --from-run, else uniform; part of opening. Again where the caller took pop away (NULL). */
HF_MUST hf_status plan_inputs_popularity(plan_inputs *in);
cost_input plan_cost_input(const plan_inputs *in);
/* The depth asked for, else 1: the shallowest that will be tried, which asks for the least room. */
int plan_first_depth(const plan_inputs *in);
/* Sets the hook by which synth:NAME finds catalog models. */
void plan_use_catalog(void);

/* ---- sizes ---- */

/* Bytes that a plan needs, by place. The device's arithmetic is the executor's: every matrix and vector outside the routed experts, KV pages
 * for all users at full context, activation buffers per micro-batch. With several devices each has the layers it is home of; the embedding is
 * where the first layer is, the output matrix where the last one is. The members without a device are the sums. */
typedef struct {
  int64_t dense, head, kv, activations, slots, rope, margin, limit; /* as below, of one device */
} plan_device_sizes;
typedef struct {
  int64_t expert[PLAN_MAX_LAYERS]; /* [n_layers]; 0 for dense layers */
  int64_t all_experts;             /* of all layers */
  int64_t dense;                   /* attention, routers, shared experts, dense layers, norms */
  int64_t head;                    /* embedding and output matrix */
  int64_t kv;                      /* pages for users * context */
  int64_t activations;             /* of one micro-batch */
  int64_t slots;                   /* of one micro-batch: for experts that are sent to a device, where that can be */
  int64_t standby;                 /* KV mirror in host memory */
  int64_t rope;
  int64_t margin;                  /* a real GPU's runtime, and slack for alignment */
  int64_t host_step;               /* step contexts and logits, per micro-batch */
  int64_t rank_rows;               /* on their way to one other machine: here for each of them, and there */
  int64_t device_limit, ram_limit; /* 0 = unknown */
  int64_t host_reserve;            /* of the RAM: what Linux keeps for page structures (1/64) and a GiB for everything else */
  int n_devices, n_remotes, n_here;
  plan_device_sizes device[STAGE_MAX_DEVICES];
  int64_t remote_limit[STAGE_MAX_REMOTES]; /* RAM of other machines; 0 = unknown */
  bool here[STAGE_MAX_REMOTES];            /* n_here ranks on this machine: their experts and rows are in its memory */
} plan_sizes;
HF_MUST hf_status plan_sizes_of(const plan_inputs *in, plan_sizes *s);
/* What a layer keeps on its home device: weights but those of routed experts, and KV pages of all users. */
HF_MUST hf_status plan_layer_bytes(const plan_inputs *in, int layer, int64_t *bytes);
/* Whether experts of the CPU can be sent to such a device, and what one of them takes there at most (expert: plan_sizes.expert). */
bool plan_can_upload(gpu_kind kind);
/* Whether the machine that will compute the CPU's experts has several NUMA nodes, over which each is cut: a slot of a device holds a whole one, so that
 * hf-run sends none. */
bool plan_cuts_experts(const plan_inputs *in);
int64_t plan_slot_bytes(const model_config *c, const int64_t *expert);
/* What is left on a device for routed experts; may be negative. */
int64_t plan_expert_room(const plan_sizes *s, int device, int depth);
/* The same of another machine's RAM, 0 when nothing is left; very much when it is unknown. 0, too, of a rank on this machine, whose memory it shares. */
int64_t plan_remote_room(const plan_sizes *s, int remote);
/* The same of this machine's own memory beside all else in it; only where ram_limit is known. May be negative. */
int64_t plan_ram_room(const plan_inputs *in, const plan_sizes *s, int depth);
/* Whether all places together have room for everything at this depth, but for what does not divide by whole experts. */
bool plan_can_fit(const plan_inputs *in, const plan_sizes *s, int depth);

/* "23.98 GiB" */
void plan_bytes_text(int64_t bytes, char out[24]);
/* Bytes of routed experts that a placement keeps away from this machine's CPU. */
typedef struct {
  int64_t device[STAGE_MAX_DEVICES], remote[STAGE_MAX_REMOTES];
} plan_resident;
/* Budget rows for such a placement. Returns how many. */
int plan_budget_rows(const plan_inputs *in, const plan_sizes *s, int depth, const plan_resident *resident,
                     plan_budget rows[PLAN_MAX_BUDGET]);
/* Weights and KV cache of a plan's rows together, without buffers, margins and the operating system. */
int64_t plan_budget_model_bytes(const plan_budget *rows, int n);
/* The first place whose rows exceed their limit, or NULL. */
const char *plan_budget_over(const plan_budget *rows, int n);
/* What would make a request that is infeasible at this depth feasible, one line each; ram_need: what the placement refused needs of this machine's
 * memory, 0 where that is not the reason. Returns how many lines. */
enum { PLAN_MAX_REMEDIES = 8 };
int plan_remedies(const plan_inputs *in, const plan_sizes *s, int depth, int64_t ram_need, char lines[PLAN_MAX_REMEDIES][200]);
#endif
