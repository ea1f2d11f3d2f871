/* engine.h: a model laid out as a plan says, ready to take steps.
 *
 * engine_open loads: dense parts, shared experts and the experts placed there go to the device; all other routed experts stay
 * in host memory, where the file's mapping is used as it is when it can be (1x memory). Nothing is loaded before the
 * budget was checked: engine_budget() gives the table that a refusal prints.
 * Depth D: D step contexts, recordings and streams, all with the same weights and one KV cache.
 *
 * Thread rule: one driver thread owns an engine. */
#ifndef HF_EXECUTOR_ENGINE_H
#define HF_EXECUTOR_ENGINE_H

#include "db/plan.h"
#include "kernels/device.h"
#include "kernels/moe.h"
#include "model/model.h"
#include "sched/gpus.h"
#include "sched/stages.h"

enum { ENGINE_DEVICES = STAGE_MAX_DEVICES };

typedef enum { ENGINE_MLA_AUTO /* as sched/mla.h says */, ENGINE_MLA_ABSORBED, ENGINE_MLA_PLAIN } engine_mla;

typedef struct {
  bool exact;           /* activations are not rounded, KV cache in f32 */
  kern_kv_type kv_type; /* ignored when exact */
  bool dequantise;      /* weights that no kernel takes as they are become dequantised_to when they are loaded */
  fmt dequantised_to;   /* FMT_F32 or FMT_BF16 */
  int depth;            /* micro-batches, 1..SCHED_MAX_DEPTH */
  int max_seqs;         /* slots, 1..64 */
  int context;          /* most tokens of a sequence */
  int page_tokens, n_pages;
  int max_tok;           /* most tokens of one micro-batch step */
  int max_logits;        /* most logit rows of one step */
  int threads;           /* 0 = default: all cores, one less for each virtual device, which has a thread of its own */
  const plan *placement; /* experts by plan; NULL: experts_on_gpu_percent */
  double experts_on_gpu_percent;
  /* A step with prompts in it and at least so many tokens has the CPU's experts sent to the device, in layers that the plan says (all, without a
   * plan); 0 = none does. */
  int upload_tokens;
  int upload_slots;   /* experts that a micro-batch's memory on the device has room for while they are sent; with upload_tokens */
  engine_mla mla;     /* latent attention; for tests and comparisons */
  char gpu[GPU_TEXT]; /* none | virtual:SIZE | paced:MACHINE[:SIZE] */
  stage_table *pace;  /* paced devices: the modelled machine's stages; borrowed */
  int64_t device_bytes; /* size of a virtual or paced device; of the first, where there are several: */
  int more_devices;     /* layers go over them as the plan says, without one by their sizes */
  int64_t more_bytes[ENGINE_DEVICES - 1];
  /* Where everything goes once this device is lost, without it and with the numbers that devices have here; borrowed. NULL, or no room for it: what that
   * device had goes to the CPU, and the others keep what they have. */
  const plan *without[ENGINE_DEVICES];
  unsigned lost_devices;   /* bit k: this one is lost, and what would be on it is in the host's memory and computed by the CPU */
  int64_t ram_limit_bytes; /* 0 = what the machine has */
  dev_fault fault;         /* to rehearse with; of a virtual or paced device */
  int fault_device;        /* which of several */
  int64_t check_every_ns;  /* engine_launch_check; 0 = never, no pages are kept for it */
  int64_t deadline_ns;     /* a device silent for so long is lost; 0 = learned (watch.h) */
  int64_t probe_every_ns;  /* how often a lost device is asked whether it answers again (rejoin.h); 0 = never */
  int64_t rejoin_bytes_per_s; /* most that is loaded then; 0 = no limit */
  int64_t standby_bytes;      /* host memory of a mirror of KV beside the engine (mirror.h), for the budget */
  struct ranks *ranks;        /* ranks.h: processes that compute experts for this one; borrowed, NULL = none */
  const uint8_t *owner;       /* [n_layers][n_experts] rank that has each expert; borrowed, NULL = all are this process's */
  bool movable;               /* residency.h: experts may change their places while steps run */
  int64_t move_bytes_per_s;   /* most that is copied for it, both directions together; 0 = no limit */
  int rank;                   /* of this process; above 0 it has experts alone (engine_open_rank) */
} engine_options;

typedef struct engine engine;
/* False: everything is the CPU's (gpu none). */
bool engine_has_device(const engine_options *o);

/* A tensor as it is loaded: its format after --dequantise. *convert: it has another in the file. HF_UNSUPPORTED when no kernel takes it. */
HF_MUST hf_status loaded_tensor(const model *m, const engine_options *o, model_tensor_id id, int layer, int expert,
                                model_tensor_info *info, bool *convert);
/* Memory of a tensor once it is loaded, tiles filled up to 16 rows; *scratch: what one reader of it needs meanwhile. */
HF_MUST hf_status loaded_bytes(const model *m, const engine_options *o, model_tensor_id id, int layer, int expert, int64_t *bytes,
                               int64_t *scratch);
/* HF_UNSUPPORTED: no engine runs a model of this config, whatever its weights are stored in. */
HF_MUST hf_status engine_can_run(const model_config *c);
/* Fills rows; returns how many. fits is false when a limit is exceeded. Rows of a place share its limit. */
HF_MUST hf_status engine_budget(const model *m, const engine_options *o, plan_budget *rows, int max_rows, int *n_rows,
                                bool *fits);
/* A device that is lost while it is filled is done without where memory has room for all: a warning says so and the options
 * say "none", depth 1 then. HF_INPUT for options out of range and for a plan that names a device that there is not, HF_NO when the budget does not fit (the error line names the place; print the table), HF_UNSUPPORTED for formats or families
 * that cannot be executed yet. */
HF_MUST hf_status engine_open(const model *m, const engine_options *o, engine **out);
void engine_close(engine *e);

const model_config *engine_config(const engine *e);
const engine_options *engine_opts(const engine *e);
int engine_threads(const engine *e);
dev_step *engine_step(engine *e, int micro_batch);
int32_t *engine_page_row(engine *e, int seq, int *n); /* page table row of a slot, to be filled by the caller */

/* Starts the step that the caller filled in (tokens, positions, logit rows). On the host device it is complete on return. */
HF_MUST hf_status engine_launch(engine *e, int micro_batch);
/* Answers signals of all micro-batches (runs their CPU experts); *finished gets the index of a micro-batch whose step has ended
 * since, or -1. Call until it is not -1. */
HF_MUST hf_status engine_poll(engine *e, int *finished);
/* While the driver's thread computes a layer's experts (on a modelled CPU: until their time is over) steps of other micro-batches end, and the device would
 * have nothing to do until they are launched anew. Between two claims of rows `over` is called with such a micro-batch, which is idle then as after
 * engine_poll; it may launch steps, not poll. Another status than HF_OK is what the engine_poll at work returns once the layer is answered; nothing
 * more is told until then. fn NULL: no calls, engine_poll tells all. */
typedef hf_status engine_over_fn(void *user, int micro_batch);
void engine_on_over(engine *e, engine_over_fn *fn, void *user);
/* A device that computes wrongly says nothing: a step of CHECK_TOKENS fixed tokens through all of it (weights, kernels, the CPU's experts as well), on a
 * KV page of its own, must give the logits that it gave when the engine was opened, bit by bit. Of a movable engine: through all but routed experts, which are
 * looked at one by one (probe.h), so that what is right does not depend on where they are. It says nothing about KV pages of requests.
 * Launches it in place of a step of an idle micro-batch; once engine_poll has told its end, engine_check_good says how it went: HF_LOST when
 * the result is another one, the device being given up then. */
enum { CHECK_TOKENS = 2 };
bool engine_can_check(const engine *e);
HF_MUST hf_status engine_launch_check(engine *e, int micro_batch);
HF_MUST hf_status engine_check_good(engine *e, int micro_batch);
/* By a rank above 0: the experts that are its own and what computes them; page_tokens, depth, sequences and pages of the options are not looked at. tell is
 * called after each layer is loaded. Other functions here but engine_close, engine_threads and engine_rank_job may not be called then. */
HF_MUST hf_status engine_open_rank(const model *m, const engine_options *o, void (*tell)(void *user), void *user, engine **out);
/* y = what the experts that are here add, for n_tok rows; all threads. */
void engine_rank_job(engine *e, int layer, int n_tok, const float *x, const int32_t *ids, const float *weights, float *y);
/* After HF_LOST: the experts of lost ranks are loaded here, and only these; or, when a device was lost, its work moves to where the plan without it says,
 * or to the CPU. Weights that were there are read again, KV pages begin empty, steps in flight are gone; what need not move stays where it is. Once the last device is
 * lost the options say "none", depth 1 and no pace. HF_NO when memory has no room for it. The engine may be closed, but nothing else, when this fails. */
HF_MUST hf_status engine_fail_over(engine *e);
/* A device that was lost answers again and is filled: once no step is in flight, engine_take_back. Everything is where it was before the loss then, KV
 * pages with what is in them; options, depth among them, are those of the beginning, as far as devices are there. HF_LOST: it, or another one, was lost; a loss as
 * any other. */
bool engine_returning(const engine *e);
typedef struct {
  int device, probes;   /* which; how often it was asked */
  int64_t loaded_bytes; /* beside the steps */
} engine_return;
HF_MUST hf_status engine_take_back(engine *e, engine_return *out);
/* Number of the device that was lost last. */
int engine_lost_device(const engine *e);
/* Devices that are left: 0 on the CPU alone. */
int engine_devices_left(const engine *e);
/* What a loss moves to this machine's memory may have no room there beside the mirror (standby_bytes), also where a second loss is found while the first is
 * mended: then fn is called, which frees it, and the engine goes on without. fn NULL: it stays, and engine_fail_over fails. */
typedef void engine_tight_fn(void *user);
void engine_on_tight(engine *e, engine_tight_fn *fn, void *user);
/* Why the device was lost last; "" if it never was. */
const char *engine_lost_reason(const engine *e);
/* Whether that was another rank and no device. */
bool engine_lost_rank(const engine *e);
/* Whether it was found to compute wrongly, by a check or while experts changed places. */
bool engine_lost_wrong(const engine *e);
/* Layers whose prompts were to be uploaded (upload_tokens, the plan) and are not, for other ranks have experts of them. */
int engine_not_uploaded(const engine *e);
/* Lets steps in flight come to an end, results unseen, so that buffers they use may go. engine_close does it first. Keeps the
 * error trail as it is unless the device gets lost meanwhile. */
void engine_drain(engine *e);

/* Whether a step of so many tokens, some of them of prompts, has the CPU's experts sent to the device (dev_step.upload). */
bool engine_uploads(const engine *e, int tokens, bool prefills);
/* Whether latent attention of a token at this position of a prompt, which is cut into chunks of so many tokens, is computed plain (dev_step.plain). */
bool engine_plain(const engine *e, int pos, int prompt, int chunk);

/* ---- kv.c: KV pages of requests, to the host and back ---- */
/* Of a page, layer by layer. */
int64_t engine_kv_page_bytes(const model_config *c, const engine_options *o);
/* Tokens whose KV lies in one another: what is copied while later ones are written ends on a multiple. */
int engine_kv_grain(const engine *e);
/* The calling thread, one beside the driver's, goes to CPUs that no worker is pinned to, or for want of them to any: it began with the driver's one. */
void engine_step_aside(const engine *e);
/* Copies tokens [from, to) of a page, grains that they are part of whole, between the device and `host`, where the page lies as large as it is there. save:
 * by one thread beside the driver's at a time, tokens whose step has ended; load: by the driver's, into a page that no step is at. HF_LOST. Paced: a copy lasts as
 * long as it would on the modelled machine's link. */
HF_MUST hf_status engine_kv_save(engine *e, int32_t page, int from, int to, char *host);
HF_MUST hf_status engine_kv_load(engine *e, int32_t page, int from, int to, const char *host);

/* Experts of `layer` on the device: 1 byte each. */
const uint8_t *engine_residency(const engine *e, int layer);
/* Distinct CPU experts and weight bytes they read in the last step's layer; summed over all steps: */
typedef struct {
  int64_t cpu_expert_bytes, dense_bytes_per_step, steps;
  int64_t sent_bytes, unused_bytes; /* of experts that were sent to the device; of them for nothing */
} engine_traffic;
engine_traffic engine_get_traffic(const engine *e);

/* CPU share of a layer as the paced machine has it, for tests: ns. */
int64_t engine_pace_cpu_ns(const engine *e, int layer);
#endif
