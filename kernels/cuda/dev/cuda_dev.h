/* cuda_dev.h: what the files of the CUDA device share; see kernels/cuda/device.h. */
#ifndef HF_KERNELS_CUDA_DEV_CUDA_DEV_H
#define HF_KERNELS_CUDA_DEV_CUDA_DEV_H

#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"
#include "kernels/dev/cpu_ops.h"

enum { CUDA_MAX_STREAMS = 16 };

typedef struct cuda_dev cuda_dev;
typedef struct cuda_job cuda_job;

/* Flags of a stream, page-locked: the device polls done and writes error. */
typedef struct {
  int64_t limit_ns;
  int32_t done, error;
} cuda_flags;

typedef struct {
  cuda_dev *c;
  void *stream, *event;
  cuda_flags *flags;
  dev_recording *r;
  dev_step *s;
  bool active;
} cuda_lane;

/* A way to copy, of one thread: a stream, and a page-locked block that data goes through. */
typedef struct {
  void *stream, *event;
  char *block;
} cuda_way;

struct cuda_dev {
  dev *d;
  cuda_runtime rt;
  int n_streams;
  cuda_lane lane[CUDA_MAX_STREAMS];
  cuda_way up, down; /* the driver's, dev_download's */
  _Atomic int64_t wait_limit_ns;
  _Atomic int failed;     /* an error number that the driver has not seen yet */
  _Atomic bool over;      /* dev_quit, or lost: host nodes touch no step any more */
  _Atomic int busy;       /* host nodes at work */
  _Atomic bool abandoned; /* something hangs: nothing may be freed */
  cuda_job *jobs_left;
  cuda_dev *next; /* of those abandoned */
};

/* A host node: what the device has left in page-locked memory goes to the step's own arrays, then the doorbell. */
typedef struct {
  cuda_job *k;
  int first_layer, n_layers; /* routing */
  int x_cols, logit_cols;    /* 0: none */
  int ready;                 /* 0: none */
} cuda_node;

/* A recording on the device. One page-locked block `in`, copied whole to in_dev, whose parts lie alike in both. */
struct cuda_job {
  cuda_dev *c;
  dev_recording *r;
  cuda_lane *lane;
  void *graph;
  int pages_per_seq, chunks[2]; /* chunks of eight rows: of tokens, of logit rows */
  size_t in_bytes;
  int32_t *in, *in_dev;
  size_t at_counts[2], at_ids, at_pos, at_seq, at_rows, at_pages; /* ints from the start */
  int in_cols;                                                    /* of a COPY_IN, 0: none */
  float *x, *y, *logits, *weights; /* page-locked: rows for the host, its answer, the results, routing */
  int32_t *ids;
  int32_t *ids_dev; /* [n_layers][max_tok][top_k] */
  float *weights_dev;
  hfc_expert *table; /* on the device, [n_layers * n_experts] */
  dev_expert *seen;  /* the residency that the graph was made for */
  struct {
    dev_addr a;
    size_t bytes;
  } room[16];
  int n_room;
  float *part, *hidden, *expert_out;
  void *packed, *hidden_packed;
  int32_t *lists;
  cuda_node *node;
  int n_node;
  cuda_node pending;
  cuda_job *next; /* of those abandoned */
};

/* record.c: HF_UNSUPPORTED names what is not there yet. */
HF_MUST hf_status cuda_check_ops(const dev_recording *r);
/* Between record_begin and record_end: adds every operation to the stream of k->lane. 0 or the runtime's error. */
int cuda_add_ops(cuda_job *k);
/* Formats of a layer's resident experts; false: they differ, or have no kernel. *gate KF_N: none is resident. */
bool cuda_expert_formats(const dev_context *ctx, int layer, kern_format *gate, kern_format *down);
void cuda_run_node(void *node);

/* job.c */
HF_MUST hf_status cuda_record(dev *d, dev_recording *r);
/* Makes, or makes again, the graph that serves this step, and fills `in`. */
HF_MUST hf_status cuda_job_ready(cuda_job *k, cuda_lane *lane, const dev_step *s);
/* dev_step.answer */
void cuda_answer(dev_step *s, int layer);

/* device.c: the device is lost, by an error of the runtime; HF_LOST. */
hf_status cuda_lose(cuda_dev *c, int error, const char *at);
#endif
