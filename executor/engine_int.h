/* engine_int.h: inside of an engine, shared by engine.c (life, steps), load.c (weights), graph.c (recordings). */
#ifndef HF_EXECUTOR_ENGINE_INT_H
#define HF_EXECUTOR_ENGINE_INT_H

#include <pthread.h>

#include "executor/engine.h"
#include "executor/nodes.h"
#include "executor/ranks.h"
#include "executor/repack.h"
#include "executor/watch.h"
#include "sched/sched.h"

/* Weights of a layer on the device. Matrices with data 0 do not exist in this family; vectors are f32. */
typedef struct {
  dev_addr attn_norm, ffn_norm, q_a_norm, kv_a_norm, q_norm, k_norm, q_bias, k_bias, v_bias, o_bias, sinks, router_bias,
      router_lin_bias;
  dev_mat q, k, v, o, q_a, q_b, kv_a, k_b, v_b, router, gate, up, down, sh_gate, sh_up, sh_down, sh_gate_inp;
  bool has_host_experts; /* it asks the host for the sum of experts on the CPU and on devices where it is not at home: */
  bool has_cpu_experts, has_guests;
  bool has_device_experts;
  bool uploads;      /* has_cpu_experts, and big steps with prompts have them sent to the device */
  int expert_format; /* of gate and up of all routed experts: kern_format + 1; 0 before the first is loaded */
} layer_weights;

typedef struct {
  dev_addr addr;
  size_t bytes;
  int device; /* dev_release there; -1: mem_free */
  int node;   /* of the latter; -1 = none */
} owned;

/* A device with what recordings on it need. */
typedef struct {
  dev *d;
  dev_context ctx;
} engine_device;

/* What the check of the whole model gave, every expert where the plan has it, while these devices were lost. */
typedef struct {
  unsigned lost;
  const plan *placement;
  uint64_t hash; /* of the logits; 0 = not known */
} whole_check;

enum { ENGINE_PARTS = 16, ENGINE_CHECKS = 8 /* kept, the last ones and that of the beginning */ };
/* Layers [first, end) of every step, on one device; the part after it goes on with their activations on another one. */
typedef struct {
  int device, first, end;
} step_part;

/* A tensor as it is loaded: mat.data is set where the mapping of a file can be used as it is. */
typedef struct {
  model_tensor_info info;
  bool convert;
  kern_mat mat;
} load_source;

/* What a device computes for a layer that is at home on another: the rows of a micro-batch through the experts that are here. */
typedef struct {
  dev_step step; /* host_x: the rows, then what the experts make of them */
  dev_recording *rec;
  bool running, ended; /* ended: what it made is not taken yet */
  int seen;            /* what other micro-batches were at on its device (devices.c) */
} guest;

typedef struct {
  dev_step step;
  guest guest[ENGINE_DEVICES];
  dev_recording *rec[ENGINE_PARTS];
  int part;   /* of the step, at work */
  int traced; /* records of the step that know their device */
  bool running;
  bool held;    /* its part is the host's own, which waits until the pool is through with experts */
  bool checks;  /* running: a step of the check that has no experts (probe.h) */
  int answered; /* last value of ready that was answered */
  int beats;    /* last value of step.beats that was seen */
  dev_trace *
      trace; /* [1 + n_devices][n_layers] CPU experts of the step and guests, written by the driver while the device writes step.trace */
  dev_addr buffers[ENGINE_DEVICES];
  /* residency.h: tables of its own, and which changes they have; NULL: those of the engine */
  dev_context ctx;
  moe_expert *host;
  dev_expert *device;
  int64_t version;
  int64_t over_ns; /* when the driver saw its step end, 0 once it has looked elsewhere */
} micro_batch;

struct engine {
  const model *m;
  model_config c;
  engine_options o;
  double kv_link_ns; /* kv.c: a byte on a modelled link */
  topology *topo;
  pool *p;
  engine_device device[ENGINE_DEVICES]; /* [n_devices]; where there is none the host is number 0 */
  int n_devices, n_parts;
  step_part part[ENGINE_PARTS];
  uint8_t *home;        /* [n_layers] device of attention, shared parts and KV cache */
  layer_weights *layer; /* [n_layers] */
  dev_mat embed;        /* on the first part's device */
  dev_mat output;       /* on the last part's, as out_norm */
  dev_addr out_norm;
  nodes nodes;
  int *cut; /* [n_layers * n_experts * (nodes.parts.n + 1)] where slices begin (sched/split.h); NULL: experts are not cut */
  moe_expert *host_experts; /* [n_layers * nodes.parts.n * n_experts]; gate.data NULL when on the device, or on another node */
  uint8_t *resident;        /* [n_layers * n_experts] 0: on a CPU, else 1 + device */
  moe *cpu_moe;
  micro_batch mb[SCHED_MAX_DEPTH];
  int32_t *page_table;
  int pages_per_seq;
  size_t kv_layer_bytes;
  repack repack; /* while weights are loaded */
  owned *own;
  int n_own, cap_own;
  engine_traffic traffic;
  struct residency *moves;                     /* NULL: experts stay where they are */
  engine_options asked;                        /* as it was opened */
  struct rejoin *rejoin;                       /* NULL: no device is lost that may come back */
  hf_status (*pause)(engine *e, size_t bytes); /* after each tensor on a device; NULL: none */
  int lost_device, times_lost[ENGINE_DEVICES];
  struct probe *probe; /* with moves */
  char lost_reason[96];
  bool lost_rank;
  bool lost_wrong;     /* the device was found to compute wrongly */
  int not_uploaded;    /* layers that were to upload and do not */
  float *check_logits; /* [vocab] what the check gave at first; NULL: there is no check */
  whole_check whole[ENGINE_CHECKS];
  int n_whole;       /* that were ever kept */
  watch watch;       /* of a device that computes on its own */
  watch guest_watch; /* by device */
  int cpu_layer;     /* layer and step at work in the pool */
  dev_step *cpu_step;
  bool aside_now;    /* in look_aside: the pool is at work */
  hf_status in_line; /* of guests in the middle of the host's own part */
  bool cpu_away;     /* waiting for rows of other ranks */
  engine_tight_fn *tight;
  void *tight_user;
  engine_over_fn *over; /* told of steps that end meanwhile */
  void *over_user;
  hf_status aside; /* what it returned */
};

/* For what contexts of all devices have in common: shapes, how activations are rounded, how KV pages lie. */
static inline const dev_context *common_context(const engine *e) {
  return &e->device[0].ctx;
}
bool any_lost(const engine *e); /* failover.c: any device */
/* load.c: everything that is not where it should be yet. */
HF_MUST hf_status load_weights(engine *e);
/* load.c: what the options have on this device, and its KV cache. */
HF_MUST hf_status load_one_device(engine *e, int device);
HF_MUST hf_status own_reserve(engine *e, int n); /* the next n blocks can be noted */
/* load.c: where a layer's tables say where its weights are, each address; returns how many. */
enum { LAYER_TENSORS = 32 };
int layer_tensors(layer_weights *w, dev_addr *at[LAYER_TENSORS]);
/* load.c: of these only the routed experts; tell, if there is one, after each layer. */
HF_MUST hf_status load_experts_alone(engine *e, void (*tell)(void *user), void *user);
/* Whether an expert is another rank's. */
bool expert_away(const engine_options *o, int n_experts, int layer, int expert);
/* The engine frees the block from now on; on failure it is freed at once. device -1: host memory of mem_alloc. */
HF_MUST hf_status own_add_at(engine *e, int device, dev_addr addr, size_t bytes);
HF_MUST hf_status own_add_on(engine *e, void *p, size_t bytes, int node); /* mem_alloc'ed there */
void own_release(engine *e, const owned *o);
HF_MUST hf_status load_describe(const engine *e, model_tensor_id id, int layer, int expert, load_source *s);
HF_MUST hf_status load_check_expert(engine *e, kern_format gate, kern_format up, int gate_cols, int down_cols, int layer);
HF_MUST hf_status load_host_biases(engine *e, int layer, int expert, moe_expert *h); /* NULL where the family has none */
/* load_nodes.c: the layer's experts that belong in host memory and are not there yet, slices to their nodes: noted only, until repack_run. */
HF_MUST hf_status load_cut_experts(engine *e, int layer);
void load_tell_nodes(const engine *e); /* with --verbose: who holds what */
/* A tensor that was read, in rows, to its slices. */
void load_cut_read(const engine *e, model_tensor_id id, int layer, int expert, const kern_mat *rows);
HF_MUST hf_status devices_share(engine *e);    /* devices.c: homes of layers and parts of steps, as the options say */
void engine_without_device(engine_options *o); /* engine.c: without any */
bool placed_on_device(const model_config *c, const engine_options *o, int layer, int expert); /* engine.c */
int check_pages(const engine_options *o);                            /* engine.c: behind the n_pages of requests */
double kv_link_ns(const engine *e);                                  /* kv.c */
size_t kv_row_bytes(const model_config *c, const engine_options *o); /* engine.c: of a token in a layer */
/* check_device.c: what the check gives on a device that is taken to be good. */
HF_MUST hf_status check_learn(engine *e);
/* Of one that came back: HF_LOST when it gives other bits than it did with the same devices before, or, where these were never together, is far from what
 * the others gave. */
HF_MUST hf_status check_again(engine *e);
HF_MUST hf_status engine_lost(engine *e); /* engine.c: HF_LOST, with the reason that the device gives */
/* check_device.c: the device is given up, for it computes wrongly: HF_LOST. */
HF_MUST hf_status engine_found_wrong(engine *e, const char *why);
HF_MUST hf_status engine_must_fit(const engine *e,
                                  const engine_options *o); /* engine.c: with these options; HF_NO, with what is missing */
/* engine.c: the devices that the options name, and workers beside them. */
HF_MUST hf_status open_device(engine *e);
/* engine.c: tables of a device's context. */
HF_MUST hf_status device_context(const engine *e, dev_context *x);
/* engine.c: one device as these options have it. */
HF_MUST hf_status open_virtual(engine *e, const engine_options *o, int device, dev **out);
/* failover.c: `base` without these devices, too: as the plan without the one says, if it is the only one; else, and where that does not fit, theirs is the CPU's. */
void engine_options_without(const engine *e, const engine_options *base, unsigned lost, engine_options *out);
/* engine.c: the host's experts and the micro-batches' recordings, once the weights are loaded. */
HF_MUST hf_status open_steps(engine *e);
/* upload.c: which layers upload, and slots for what they send; once the weights are loaded. */
HF_MUST hf_status open_uploads(engine *e);
void uploads_need_whole_experts(engine *e); /* where they are cut, nothing is sent */
bool any_slots(const engine *e);
bool layer_uploads(const engine_options *o, const model_config *c, int layer);
/* residency.c. Whether experts can change places here as the options ask; before weights are loaded. */
typedef struct residency residency;
typedef struct rejoin rejoin;
HF_MUST hf_status residency_possible(const engine *e);
HF_MUST hf_status residency_open(engine *e);      /* when they are, before steps are recorded */
void residency_close(engine *e);                  /* nothing runs any more; a device that was lost is not asked */
void residency_apply(engine *e, int micro_batch); /* which is idle: it takes the tables as they are */
void residency_give_up(engine *e);                /* after it has failed, but for a loss: clears the error */
HF_MUST hf_status residency_work(engine *e);      /* a piece of what there is to do */
/* graph.c: allocates the micro-batch's buffers and records its step, part by part. */
HF_MUST hf_status graph_record(engine *e, micro_batch *mb);
size_t graph_buffer_bytes(const model_config *c, const engine_options *o);
#endif
