/* host.c: the device that is none: the whole step runs on the CPU pool, all threads walking the list of operations together with a
 * barrier after each, the host's experts in line at WAIT. One wake-up of the pool per step. */
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

static void walk(void *arg, int thread, int n_threads) {
  host_dev *h = arg;
  dev_recording *r = h->r;
  dev_step *s = h->s;
  int64_t since = thread == 0 ? hf_now_ns() : 0;
  for (int i = 0; i < r->n_ops; i++) {
    const dev_op *op = &r->ops[i];
    if (op->kind == DOP_SIGNAL) continue;
    if (op->kind == DOP_STAGE) {
      if (thread == 0) {
        int64_t now = hf_now_ns();
        cpu_trace(s, (dev_stage)op->n, op->layer, since, now, s->n_tok, 0);
        since = now;
      }
      continue;
    }
    if (op->kind == DOP_WAIT) {
      h->host(h->user, op->layer, s, thread, n_threads); /* ends with all threads together; traces itself */
      if (thread == 0) since = hf_now_ns();
      continue;
    }
    cpu_op_run(r, op, s, thread, n_threads);
    if (n_threads > 1) pool_barrier(h->p, thread);
  }
}

static hf_status host_launch(dev *d, dev_recording *r, dev_step *s) {
  host_dev *h = d->impl;
  h->r = r;
  h->s = s;
  s->launched_ns = hf_now_ns();
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

static void host_free(dev *d) { free(d->impl); }

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
  *d = (dev){.host = true, .impl = h, .launch = host_launch, .finished = host_finished, .sync = host_sync, .free_impl = host_free,
             .n_threads = pool_threads(p)};
  *out = d;
  return HF_OK;
}
