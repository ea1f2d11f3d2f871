/* host.c: the device that is none: the whole step runs on the CPU pool, all threads walking the list of operations together, the host's
 * experts in line at WAIT. One wake-up of the pool per step. A barrier stands only where a thread may need what another wrote
 * (needs_barrier): about half of the operations, which matters when a layer is short. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/dev/cpu_ops.h"

typedef struct {
  pool *p;
  dev_host_fn *host;
  void *user;
  /* of the launch at work */
  dev_recording *r;
  dev_step *s;
} host_dev;

/* Operations that treat each row alone, row r always on thread r % n_threads. */
static bool by_row(const dev_op *op) {
  switch (op->kind) {
    case DOP_EMBED:
    case DOP_RMSNORM:
    case DOP_PACK:
    case DOP_ROPE:
    case DOP_KV_WRITE:
    case DOP_ROUTE:
    case DOP_SWIGLU:
    case DOP_COPY_OUT:
    case DOP_COPY_LOGITS:
    case DOP_ADD_IN:
    case DOP_ADD_GUESTS:
    case DOP_COPY_IN: return true;
    default: return false;
  }
}

/* Between an operation and the next real one. None is needed when both keep to the rows of their thread, when the second product reads
 * the same input as the first, or when the rotation of queries follows the product that fills the other columns of its output. */
static bool needs_barrier(const dev_op *op, const dev_op *next) {
  if (by_row(op) && by_row(next)) return op->rows != next->rows;
  if (op->kind == DOP_GATHER && by_row(next)) return next->rows != DEV_ROWS_LOGITS;
  if (op->kind == DOP_MATMUL && next->kind == DOP_MATMUL) return op->in != next->in || op->out == next->out;
  if (op->kind == DOP_ATTN_MLA && next->kind == DOP_ATTN_PLAIN) return false; /* other tokens */
  return !(op->kind == DOP_HEADMM && next->kind == DOP_ROPE && op->in == next->in);
}

static bool is_marker(const dev_op *op) {
  return op->kind == DOP_STAGE || op->kind == DOP_SIGNAL;
}

static bool barrier_after(const dev_recording *r, int i) {
  int n = i + 1;
  while (n < r->n_ops && is_marker(&r->ops[n])) n++;
  return n < r->n_ops && needs_barrier(&r->ops[i], &r->ops[n]);
}

static void walk(void *arg, int thread, int n_threads) {
  host_dev *h = arg;
  dev_recording *r = h->r;
  dev_step *s = h->s;
  int64_t since = thread == 0 ? hf_now_ns() : 0;
  for (int i = 0; i < r->n_ops; i++) {
    const dev_op *op = &r->ops[i];
    if (op->kind == DOP_SIGNAL || !cpu_op_runs(op, s)) continue;
    if (op->kind == DOP_STAGE) {
      if (thread == 0) {
        int64_t now = hf_now_ns();
        cpu_trace(s, (dev_stage)op->n, cpu_op_layer(op, s), since, now, s->n_tok, 0);
        since = now;
      }
      continue;
    }
    if (op->kind == DOP_WAIT) {
      h->host(h->user, op->layer, s, thread, n_threads); /* ends with all threads together; traces itself */
      if (thread == 0) since = hf_now_ns();
      continue;
    }
    if (cpu_op_run(r, op, s, thread, n_threads)) {
      pool_barrier(h->p, thread);
      cpu_op_finish(r, op, s, thread, n_threads);
    }
    if (n_threads > 1 && barrier_after(r, i)) pool_barrier(h->p, thread);
  }
}

static hf_status host_launch(dev *d, dev_recording *r, dev_step *s) {
  host_dev *h = d->impl;
  h->r = r;
  h->s = s;
  cpu_step_begin(s);
  pool_run(h->p, walk, h);
  s->finished_ns = hf_now_ns();
  return HF_OK;
}

static bool host_finished(dev *d, int stream) {
  (void)d;
  (void)stream;
  return true;
}

static hf_status host_sync(dev *d, int stream, int64_t deadline_ns) {
  (void)d;
  (void)stream;
  (void)deadline_ns;
  return HF_OK;
}

static void host_free(dev *d) {
  free(d->impl);
}

hf_status dev_host_new(pool *p, dev_host_fn *host, void *user, dev **out) {
  dev *d = NULL;
  host_dev *h = NULL;
  HF_TRY(hf_alloc(&d, 1, sizeof *d, "host device"));
  hf_status st = hf_alloc(&h, 1, sizeof *h, "host device");
  if (st != HF_OK) {
    free(d);
    return st;
  }
  *h = (host_dev){.p = p, .host = host, .user = user};
  *d = (dev){.host = true,
             .impl = h,
             .launch = host_launch,
             .finished = host_finished,
             .sync = host_sync,
             .free_impl = host_free,
             .n_threads = pool_threads(p)};
  *out = d;
  return HF_OK;
}
