/* cpu_ops.h: the operations of device.h on CPU threads; shared by the host device and the virtual device. Private to
 * kernels/dev. A device address is a host pointer here. */
#ifndef HF_KERNELS_DEV_CPU_OPS_H
#define HF_KERNELS_DEV_CPU_OPS_H

#include "kernels/device.h"
#include "kernels/moe.h"

struct dev_recording {
  dev *owner;
  dev_op *ops;
  int n_ops;
  const dev_context *ctx;
  int max_tok, max_logits;
  int n_threads;
  /* scratch, one slot per thread */
  const void **xptr; /* [n_threads][max_rows] */
  float **yptr;
  float *tmp; /* [n_threads][max_rows][CPU_OP_ROWS] */
  char *pack; /* [n_threads][max_rows][pack_bytes]: head products */
  size_t pack_bytes;
  char *attn; /* [n_threads][attn_bytes] */
  size_t attn_bytes;
  char *plain; /* [n_threads][plain_bytes]: latent attention in its plain form */
  size_t plain_bytes;
  float *part; /* partial results of attention over a part of the context, shared; NULL when contexts are not cut */
  size_t part_floats;
  int max_rows;
  moe *experts;      /* resident and sent experts; NULL when the recording has none */
  moe_expert *table; /* [n_experts] of the layer at work, from the residency table */
  int *uploads;      /* [n_uploads] layers that upload, in their order */
  int n_uploads;
  bool of_step;     /* operations of the step's layer: DEV_LAYER_OF_STEP */
  bool adds_guests; /* an ADD_GUESTS */
  void *impl;       /* of a device that computes elsewhere */
  void (*impl_free)(dev_recording *r);
};

enum { CPU_OP_ROWS = 64 };

/* Checks every operation (HF_INPUT names the bad one), copies the list, allocates scratch for n_threads; 0: of a device that computes elsewhere. */
HF_MUST hf_status cpu_record(dev *owner, const dev_op *ops, int n_ops, const dev_context *ctx, int max_tok, int max_logits,
                             int n_threads, dev_recording **out);
void cpu_recording_free(dev_recording *r);

/* Runs thread's share of one operation. SIGNAL, WAIT and STAGE are the device's business and not accepted here. DOP_EXPERTS runs whole
 * on thread 0 (p NULL, n_threads 1 in practice: only devices with one thread have residents). True, on every thread: after a barrier
 * cpu_op_finish must follow (attention whose context was cut; never with one thread). */
bool cpu_op_run(dev_recording *r, const dev_op *op, dev_step *s, int thread, int n_threads);
void cpu_op_finish(dev_recording *r, const dev_op *op, dev_step *s, int thread, int n_threads);
/* DOP_UPLOADED, by a device with one thread: adds expert `e`, whose weights are x, to the layer's sum; `first` begins it. */
void cpu_sent_expert(dev_recording *r, const dev_op *op, dev_step *s, int e, const moe_expert *x, bool first);
/* Adds the sum to the output, or nothing when there is none. */
void cpu_sent_end(dev_recording *r, const dev_op *op, dev_step *s, bool any);

static inline int cpu_op_layer(const dev_op *op, const dev_step *s) {
  return op->layer == DEV_LAYER_OF_STEP ? s->layer : op->layer;
}

/* Whether an operation runs in this step. */
static inline bool cpu_op_runs(const dev_op *op, const dev_step *s) {
  return op->when == DEV_ALWAYS || (op->when == DEV_UPLOAD) == s->upload;
}

/* Distinct resident experts of the last DOP_EXPERTS of this recording. */
int cpu_last_resident(const dev_recording *r);

/* Flags and trace of a step that starts now; by a launch, once it cannot be refused any more: the step may be running. */
void cpu_step_begin(dev_step *s);
/* Appends a trace record if the step has room. */
void cpu_trace(dev_step *s, dev_stage stage, int layer, int64_t start_ns, int64_t end_ns, int tokens, int distinct);

struct dev {
  bool host, lost;
  int64_t mem_bytes;
  _Atomic int64_t mem_used;
  void *impl;
  hf_status (*launch)(dev *d, dev_recording *r, dev_step *s);
  bool (*finished)(dev *d, int stream);
  hf_status (*sync)(dev *d, int stream, int64_t deadline_ns);
  void (*quit)(dev *d); /* NULL: nothing runs on its own */
  void (*free_impl)(dev *d);
  hf_status (*download)(dev *d, void *dst, dev_addr src, size_t bytes, int64_t deadline_ns); /* NULL: as host memory is read */
  void (*wait_limit)(dev *d, int64_t ns);                                                    /* NULL: nothing waits */
  void (*give_up)(dev *d); /* NULL: it cannot be lost; after `lost` and its reason were set */
  void (*copies_count)(dev *d, int64_t *begun, int64_t *ended); /* NULL: it has no copy queue */
  /* Of a device with a memory of its own; NULL: it is host memory. up: to the device. */
  hf_status (*mem_alloc)(dev *d, size_t bytes, const char *what, dev_addr *out);
  void (*mem_release)(dev *d, dev_addr a);
  hf_status (*copy)(dev *d, void *dst, const void *src, size_t bytes, bool up);
  hf_status (*record)(dev *d, dev_recording *r); /* completes one of cpu_record; NULL: nothing to do */
  bool rehearses;                                /* faults */
  char lost_reason[96];
  dev_fault fault;
  _Atomic int64_t n_memory_calls; /* allocations, uploads and reads since dev_inject */
  int n_threads;
};

/* device.c: counts an allocation or upload; is it the one that is to fail? Any thread. */
bool dev_memory_fault(dev *d);
#endif
