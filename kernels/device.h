/* device.h: what the executor sees of a GPU: memory, recordings of operations, launches on streams, flags.
 *
 * A micro-batch's whole step is one recording, made once, replayed every step: whatever changes from step to step (number
 * of tokens, ids, positions, page tables, which experts are resident) is read through pointers of its step context when
 * an operation runs. CUDA will record the same list as a graph; the devices here replay it on CPUs:
 *   host      no device at all: operations run on the CPU pool, the host's experts in line (dev_host_new)
 *   virtual   an own thread and an arena of a stated size; several streams, one runs while another waits (dev_virtual_new)
 *   paced     virtual, where each stage also lasts at least as long as a modelled machine would need (dev_pace)
 *
 * One MoE layer of a recording:
 *     device: norm .. attention .. router | COPY_OUT, SIGNAL | shared, resident experts | WAIT, ADD_IN
 *     host:                                 sees the signal -> its experts -> done flag  ^
 * A step that uploads (dev_step.upload) asks the host's CPU for no experts of the layers that do: their weights are sent to the device one by one
 * through a few slots of its memory, on a copy queue of its own, and computed there:
 *     device:     norm .. router | UPLOAD | shared, resident experts | UPLOADED: computes each as it comes, ascending, and frees its slot
 *     copy queue: likely ones of this layer -> | the others that tokens chose -> | likely ones of the next layer ->
 * Each stream has slots of its own; the queue serves streams in turn. Before a layer's UPLOAD its routing is not known: ahead of it go experts
 * that tokens of the last such step chose (dev_context.likely), as far as free slots go; what turns out not to be wanted is dropped. An
 * expert's bytes arrive in the layout that they have on the host, of which there is no second copy: a device that computes from another one
 * converts in its own memory. Results do not depend on what was sent ahead: the experts of a layer are summed in ascending order,
 * as on the host.
 * Flags are monotonic counters in the step context: the device stores layer+1 into `ready` (release), the host stores layer+1
 * into `done` (release) after it wrote host_y. launch resets both to 0 before anything runs.
 *
 * Nothing waits for ever: dev_sync has a deadline, a WAIT longer than wait_limit_ns marks the device lost, and whoever sees no sign of life may
 * give it up (dev_give_up). A lost device answers every call with HF_LOST; its memory may still be freed.
 * Thread rule: one driver thread calls the device; host_y, done are written by that thread. */
#ifndef HF_KERNELS_DEVICE_H
#define HF_KERNELS_DEVICE_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "kernels/mem/pool.h"
#include "kernels/moe.h"

typedef uint64_t dev_addr; /* address in the device's memory; 0 = none */

/* A weight matrix in device memory. */
typedef struct {
  kern_format format;
  kern_layout layout;
  int n_rows, n_cols;
  size_t row_bytes;
  dev_addr data;
} dev_mat;

/* One routed expert; gate.data == 0: not resident. Biases as in moe_expert, 0 = none. */
typedef struct {
  dev_mat gate, up, down;
  dev_addr gate_bias, up_bias, down_bias;
} dev_expert;

typedef enum {
  DEV_STAGE_ATTN,
  DEV_STAGE_SHARED,
  DEV_STAGE_DEXP,
  DEV_STAGE_HAND,
  DEV_STAGE_CEXP,
  DEV_STAGE_HEAD,
  DEV_STAGE_UPLOAD, /* of the copy queue */
  DEV_STAGE_N
} dev_stage;
const char *dev_stage_name(dev_stage s); /* as in sched/stages.h and in the database */

/* Activation buffers are f32 [rows][stride]; packed buffers hold kern_act_bytes(act, n) per row. rows: the step's tokens, or the tokens
 * that want logits. */
typedef enum { DEV_ROWS_TOKENS, DEV_ROWS_LOGITS } dev_rows;

typedef enum {
  DOP_EMBED,   /* out[t] = row ids[t] of w */
  DOP_RMSNORM, /* `count` vectors of n floats a row, `head_stride` apart: out = rmsnorm(in, vec, eps) */
  DOP_PACK,    /* out (packed) = in, n floats a row, as `act` */
  DOP_MATMUL,  /* out[t][r] = w in[t] (packed as act) (+ vec[r] when vec) (+ old out when add) */
  DOP_HEADMM, /* for each of `count` heads h: out[t][h*out_head ..] = rows h*n.. of w times in[t][h*head_stride ..]; n rows a head; not of
               * tokens that the step computes plain */
  DOP_ROPE, /* `count` heads: copies n floats from in (head_stride, offset) to out (out_head, out_offset), rotated by pos[t] */
  DOP_KV_WRITE, /* KV row of (seq, pos) of `layer` = n floats of in, then n2 floats of in2: keys and values of `count` heads; 0: a latent */
  DOP_ATTN_MLA, /* see kern_attn: count heads, n = lora, n2 = rope; tokens that are not computed plain */
  DOP_ATTN_PLAIN, /* see kernels/mla.h: tokens that are; w = k_b, w2 = v_b; in = queries (head_stride), in2 = their rotated parts (n + n2 apart) */
  DOP_ATTN_GQA, /* count heads, n = head_dim, n2 = KV heads, window, vec = sinks */
  DOP_ROUTE,    /* in = router logits -> step route_ids, route_weights of `layer` */
  DOP_SWIGLU,   /* out = silu(in) * in2, n floats a row */
  DOP_GATE,     /* out[t] = in[t] * sigmoid(in2[t][0]), n floats a row */
  DOP_EXPERTS,  /* out[t] += sum of the resident experts chosen by t, in ascending expert order; in = f32 rows, n = d_model; layer
                    * DEV_LAYER_OF_STEP: out[t] = the sum */
  DOP_GATHER,   /* out[i] = in[logit_rows[i]], n floats: from token rows to logit rows */
  DOP_COPY_OUT, /* step host_x = in, n floats a row */
  DOP_COPY_LOGITS, /* step logits = in, n floats a row */
  DOP_SIGNAL,      /* ready = layer + 1 */
  DOP_WAIT,        /* until done >= layer + 1; the host device runs the host's experts here */
  DOP_ADD_IN,      /* out[t] += host_y[t], n floats */
  DOP_ADD_GUESTS,  /* out[t] += host_guests[t], n floats */
  DOP_COPY_IN,     /* out[t] = host_x[t], n floats: what a part of the step on another device left there */
  DOP_UPLOAD,      /* the routing of `layer` is known: the copy queue sends what tokens chose of the host's experts */
  DOP_UPLOADED,    /* out[t] += their sum, in ascending order, in in2 [n_tok][n]; in = f32 rows, n = d_model */
  DOP_STAGE,       /* the stage `n` (dev_stage) of `layer` ends here: trace record, pacing */
} dev_op_kind;

/* As the layer of EXPERTS and STAGE: the one that the step says. Experts of many layers on a device that is home of none of them need one recording. */
enum { DEV_LAYER_OF_STEP = -2 };

/* In which steps an operation runs. CUDA will make a graph of each kind of step from the one list. */
typedef enum { DEV_ALWAYS, DEV_NO_UPLOAD, DEV_UPLOAD } dev_when;

typedef struct {
  dev_op_kind kind;
  dev_when when;
  int layer;
  dev_rows rows;
  kern_act act;
  bool add;
  dev_mat w, w2;
  dev_addr in, in2, out, vec;
  int in_stride, in2_stride, out_stride; /* floats; packed buffers: bytes */
  int n, n2, count, head_stride, offset, out_head, out_offset, window;
  float eps, scale;
} dev_op;

typedef struct {
  int64_t start_ns, end_ns;
  int layer;
  dev_stage stage;
  int tokens, distinct; /* distinct device (dexp), CPU (cexp) or sent (upload) experts touched */
  bool more;            /* the stage goes on: an earlier record of the step has its beginning, and there was a pause */
  int64_t bytes;        /* sent */
  int device;           /* for whoever drives several: 0 here */
} dev_trace;

/* Step context: written by the driver before launch, read by the device. One per micro-batch. */
typedef struct dev_step dev_step;
struct dev_step {
  int stream; /* index of the micro-batch */
  int layer;  /* for operations of DEV_LAYER_OF_STEP: one of the context's */
  int n_tok, n_logits, n_seq;
  int32_t *ids, *pos, *seq;  /* [max_tok]; seq: row of page_table */
  uint8_t *plain;            /* [max_tok]: latent attention in its plain form (sched/mla.h), or NULL: of none */
  int32_t *logit_rows;       /* [max_logits] */
  const int32_t *page_table; /* [slots][pages_per_seq] */
  int pages_per_seq;
  int32_t *route_ids;        /* [n_layers][max_tok][top_k], ascending */
  float *route_weights;      /* same shape */
  const int32_t *forced_ids; /* imposed routing, same shape, or NULL */
  float *host_x, *host_y;    /* [max_tok][d_model] */
  float *host_guests;        /* same shape: sums of experts on other devices; needed by ADD_GUESTS only */
  float *logits;             /* [max_logits][vocab] */
  int max_tok, max_logits;
  bool
      goes_on; /* a further part of a step whose layers are on several devices: trace, sums and launched_ns go on from the part before */
  bool upload;       /* the host's experts of layers that upload are sent to the device; never on the host device */
  _Atomic int beats; /* signs of life of a step that uploads, which signals to nobody for long: rises */
  int64_t sent_bytes, unused_bytes; /* by the copy queue; of them sent ahead and not wanted, or sent again */
  _Atomic int ready, done;          /* flags of the hand-over */
  _Atomic int64_t done_at_ns;       /* paced: `done` counts from this moment on */
  _Atomic int64_t ready_at_ns;      /* when ready was stored */
  _Atomic int64_t
      start_at_ns;  /* paced: the device begins no earlier, other streams run meanwhile; may be brought forward while it waits */
  dev_trace *trace; /* [max_trace]; filled by the device, NULL = none */
  int n_trace, max_trace;
  int64_t launched_ns, finished_ns;
  void (*answer)(dev_step *s,
                 int layer); /* the device's own, set by a launch: takes the host's answer where the device cannot see it */
  void *answer_to;
};

/* What operations need beside the step: constant while a recording lives. All addresses are the device's. */
typedef struct {
  int n_layers, n_experts, top_k, d_model, d_ff_expert;
  kern_router router;          /* bias NULL: per layer below */
  dev_addr *router_bias;       /* [n_layers] or 0 */
  dev_addr rope_cos, rope_sin; /* [max_context][rope_dim/2] */
  int rope_dim;
  bool rope_pairs;
  kern_kv_type kv_type;
  dev_addr *kv; /* [n_layers]: base of the layer's pages */
  size_t kv_page_bytes, kv_row_bytes;
  int kv_page_tokens;
  int max_context;     /* tokens of a sequence, for scratch of attention over parts of a context; 0: contexts are not cut */
  bool exact;          /* activations are not rounded */
  float swiglu_limit;  /* of the routed experts, as in moe_shape */
  dev_expert *experts; /* [n_layers * n_experts], residency table, changed in place between steps */
  /* Of recordings that upload. */
  const moe_expert *host_experts; /* [n_layers * n_experts]; gate.data NULL: not in host memory */
  uint8_t *likely;   /* [n_layers * n_experts]: what tokens of the last step that uploaded chose; written by the device */
  dev_addr slots;    /* [streams][n_slots][slot_bytes] */
  int n_slots;       /* of a stream: 2 to DEV_MAX_SLOTS */
  size_t slot_bytes; /* dev_slot_bytes of the largest */
} dev_context;

enum { DEV_MAX_SLOTS = 64, DEV_MAX_SENT = 1024 /* experts of a layer that uploads */ };
/* What an expert takes in a slot: its matrices and biases one behind the other, each on a boundary of 64 bytes. */
size_t dev_slot_bytes(const moe_expert *x, int d_model, int d_ff);

typedef struct dev dev;
typedef struct dev_recording dev_recording;

/* Called at the end of each stage: returns the ns the stage lasts on the modelled machine (0 = as long as it really took). expert: -1; of
 * experts that are sent, the one that the queue has sent (upload) or the device has computed (dexp). Called by the device's threads. */
typedef int64_t dev_pace_fn(void *user, dev_stage stage, int layer, int expert, const dev_step *step, const dev_context *ctx);
/* The host's part of layer `layer`, run by all threads of the pool together (host device only). */
typedef void dev_host_fn(void *user, int layer, dev_step *step, int thread, int n_threads);

/* pool is borrowed. mem_bytes 0 = no limit. */
HF_MUST hf_status dev_host_new(pool *p, dev_host_fn *host, void *user, dev **out);
/* Own thread. n_streams = micro-batches. pace NULL = plain. max_tok: most tokens a step (scratch). */
HF_MUST hf_status dev_virtual_new(int64_t mem_bytes, int n_streams, dev_pace_fn *pace, void *user, dev **out);
/* Keeps the device's thread off the cores of the pool's workers where there are others. No-op on the host device. */
void dev_keep_beside(dev *d, const pool *p);
/* Nothing of the device runs any more when this returns, whatever it was at; recordings and memory of it may go. NULL ok. */
void dev_quit(dev *d);
void dev_free(dev *d); /* NULL ok; quits first */

bool dev_is_host(const dev *d);      /* launches run in line: no signals to answer */
int64_t dev_mem_bytes(const dev *d); /* 0 = no limit */
int64_t dev_mem_used(const dev *d);
bool dev_lost(const dev *d);
/* Why; "" while it is not lost. Lives as long as the device. */
const char *dev_lost_reason(const dev *d);
/* The device counts as lost from now on: its streams end, whatever an operation is at. No-op on the host device and on one that is lost. */
void dev_give_up(dev *d, const char *why);

/* Faults to rehearse the loss of a device with; of virtual devices. Operations count from dev_inject on, over all streams and the copy queue, each
 * expert that is sent or computed from a slot being one; allocations and uploads, those of the queue among them, are counted apart. */
typedef enum {
  DEV_FAULT_NONE,
  DEV_FAULT_ERROR,  /* operation number `at` fails: the device is lost */
  DEV_FAULT_HANG,   /* it never ends */
  DEV_FAULT_SIGNAL, /* from it on, the next signal does not arrive: a lost interrupt */
  DEV_FAULT_SLOW,   /* from it on, each lasts `factor` times as long */
  DEV_FAULT_WRONG,  /* from it on, the first value of every product but those of experts is wrong, and nothing says so */
  DEV_FAULT_SLIGHT, /* the same of every product, experts' included, by a hundredth of a row's norm */
  DEV_FAULT_MEMORY, /* allocation or upload number `at` fails: the device is lost */
} dev_fault_kind;
typedef struct {
  dev_fault_kind kind;
  int64_t at;    /* from 1 */
  double factor; /* slow: 1 to a million */
  int64_t back;  /* for whoever asks a lost device whether it answers again: from which time on it does, from 1; 0 = never */
} dev_fault;
/* HF_INPUT for values out of range. */
HF_MUST hf_status dev_fault_check(const dev_fault *f);
/* Whether the device computes: a product whose result is known, through its memory and stream 0; HF_LOST or HF_TIMEOUT when it does not, and nothing but
 * dev_free is asked of it then. By one that nothing else was launched on. */
HF_MUST hf_status dev_self_check(dev *d, int64_t deadline_ns);
/* Before the first launch. HF_UNSUPPORTED on the host device, HF_INPUT for values out of range. */
HF_MUST hf_status dev_inject(dev *d, const dev_fault *f);

/* 64-byte aligned. HF_MACHINE "device memory: N bytes for WHAT do not fit …" */
HF_MUST hf_status dev_alloc(dev *d, size_t bytes, const char *what, dev_addr *out);
void dev_release(dev *d, dev_addr a, size_t bytes); /* d NULL: of a host device that is gone */
/* Memory that no step in flight reads or writes (upload) or writes (read back); by the driver. */
HF_MUST hf_status dev_upload(dev *d, dev_addr dst, const void *src, size_t bytes);
HF_MUST hf_status dev_read_back(dev *d, void *dst, dev_addr src, size_t bytes);
/* The way back, while steps run that do not write there; by one thread beside the driver's, until dev_quit. It counts as an operation for rehearsed faults.
 * HF_LOST when the device is lost, or becomes so because the copy has not come after deadline_ns: what dst holds then is nothing. CUDA: a stream of its own
 * and page-locked memory. */
HF_MUST hf_status dev_download(dev *d, void *dst, dev_addr src, size_t bytes, int64_t deadline_ns);
/* Host device only: device memory is host memory, so a mapped tensor may be used where it is. 0 on other devices. */
dev_addr dev_wrap(const dev *d, const void *host);

/* ctx is borrowed until dev_recording_free. Ops are copied. HF_INPUT when an op is not valid (names it). An expert sent ahead for nothing may still be on its
 * way when its step has ended: recordings and steps that upload, and the memory of slots, go after dev_quit only. */
HF_MUST hf_status dev_record(dev *d, const dev_op *ops, int n_ops, const dev_context *ctx, int max_tok, int max_logits,
                             dev_recording **out);
void dev_recording_free(dev_recording *r);
/* Experts that the copy queue has begun to read from host memory since the device was made, and those it has done with: whoever wants host memory back
 * from an expert that no table has any more waits until as many have ended as had begun. */
void dev_copies_count(dev *d, int64_t *begun, int64_t *ended);

/* Starts a replay on step->stream. The host device returns when it is finished. HF_INPUT for a step that does not fit the recording: too many tokens, a
 * layer that does not exist where operations are of the step's layer, no host_guests where they are added. */
HF_MUST hf_status dev_launch(dev *d, dev_recording *r, dev_step *step);
/* True when the launch on this stream is finished. */
bool dev_finished(dev *d, int stream);
/* Waits for it: HF_TIMEOUT after deadline_ns from now (device stays usable), HF_LOST. */
HF_MUST hf_status dev_sync(dev *d, int stream, int64_t deadline_ns);
/* How long a WAIT may last before the device counts as lost; 120 s unless set. */
void dev_set_wait_limit(dev *d, int64_t ns);
/* The host's answer to a signal: results are in host_y; visible to the device not before at_ns (0 = now). */
void dev_host_done(dev_step *step, int layer, int64_t at_ns);
#endif
