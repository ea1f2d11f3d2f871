/* virtual.c: a device with a thread of its own and a memory of a stated size. It behaves as a GPU with several streams does:
 * operations of one stream run in order, a stream that waits for the host lets another run. A stream keeps the device until it blocks or ends,
 * which favours the micro-batch that is furthest along its layer; one that uploads gives it away after each layer that does.
 *
 * Paced: a stage that would take longer on the modelled machine is stretched to that time while the device counts as busy.
 *
 * A step that uploads has experts sent by a second thread (copies.h), which begins with the first such step.
 *
 * States of a stream:  idle --launch--> running <--> blocked (before its start_at_ns, at a WAIT whose answer is not there, or at an UPLOADED whose
 * next expert is not) --last op--> idle
 * A stream blocked for longer than wait_limit_ns marks the device lost: all streams end, later calls say HF_LOST. Rehearsed faults do the same,
 * or leave it to the driver to give the device up (dev_inject). */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/dev/copies.h"

#define WAIT_LIMIT_NS INT64_C(120000000000) /* a slow host is no lost device: far above any layer's experts */
enum { MAX_STREAMS = 16, SPINS = 256 };

typedef struct {
  dev_recording *r;
  dev_step *s;
  int pc;
  int n_sent;  /* experts of the UPLOADED at work that are computed */
  int n_piece; /* of them, without a pause */
  int64_t piece_start_ns, piece_end_ns;
  bool gave_way; /* the time since then is no part of the next stage */
  int64_t stage_start_ns, blocked_since_ns;
  _Atomic bool active;
} stream;

typedef struct {
  dev *d;
  dev_pace_fn *pace;
  void *user;
  int n_streams;
  stream st[MAX_STREAMS];
  pthread_t thread;
  pthread_mutex_t lock; /* guards launches, stop and the sleep of an idle device */
  pthread_cond_t wake;
  _Atomic bool stop;
  _Atomic bool lost;
  _Atomic(const char *) failed; /* what failed; NULL: nothing, it waited too long */
  _Atomic int64_t wait_limit_ns;
  _Atomic int64_t n_ops; /* run so far, copies among them; for rehearsed faults */
  bool signal_lost;      /* the one that a fault takes */
  copies *copies;        /* NULL: no step has uploaded yet */
} virt;

static bool answered(const dev_step *s, int layer) {
  return atomic_load_explicit(&s->done, memory_order_acquire) >= layer + 1 &&
         hf_now_ns() >= atomic_load_explicit(&s->done_at_ns, memory_order_relaxed);
}

static void end_stage(virt *v, stream *st, const dev_op *op) {
  dev_stage stage = (dev_stage)op->n;
  const int layer = cpu_op_layer(op, st->s);
  if (v->pace) {
    int64_t ns = v->pace(v->user, stage, layer, -1, st->s, st->r->ctx);
    hf_sleep_until_ns(st->stage_start_ns + ns);
  }
  int64_t now = hf_now_ns();
  cpu_trace(st->s, stage, layer, st->stage_start_ns, now, st->s->n_tok, stage == DEV_STAGE_DEXP ? cpu_last_resident(st->r) : 0);
  st->stage_start_ns = now;
}

/* An operation that never ends, but for whoever frees the device, gives it up or waits no longer. */
static void hang(const virt *v, int64_t until_ns) {
  while (!atomic_load(&v->stop) && !atomic_load(&v->lost) && hf_now_ns() < until_ns) hf_sleep_until_ns(hf_now_ns() + 200000);
}

static void fail(virt *v, const char *what) {
  atomic_store(&v->failed, what);
  atomic_store(&v->lost, true);
}

/* True: the operation, or copy, counts as not run, the device is lost or about to be freed. */
static bool faulty_until(virt *v, const char *what, int64_t until_ns) {
  const dev_fault *f = &v->d->fault;
  if (atomic_fetch_add(&v->n_ops, 1) + 1 != f->at || (f->kind != DEV_FAULT_ERROR && f->kind != DEV_FAULT_HANG)) return false;
  if (f->kind == DEV_FAULT_HANG) {
    hang(v, until_ns);
    if (hf_now_ns() >= until_ns) fail(v, what);
    atomic_store(&v->lost, true);
  } else {
    fail(v, what);
  }
  return true;
}

static bool faulty(virt *v, const char *what) {
  return faulty_until(v, what, INT64_MAX);
}

static bool faults_now(const virt *v, dev_fault_kind kind) {
  return v->d->fault.kind == kind && atomic_load(&v->n_ops) >= v->d->fault.at;
}

/* What began at start_ns lasts as long as is rehearsed. */
static void slow_down(const virt *v, int64_t start_ns) {
  if (!faults_now(v, DEV_FAULT_SLOW)) return;
  const int64_t until = start_ns + (int64_t)(v->d->fault.factor * (double)(hf_now_ns() - start_ns));
  for (int64_t now = start_ns; now < until && !atomic_load(&v->stop) && !atomic_load(&v->lost); now = hf_now_ns())
    hf_sleep_until_ns(until - now < 1000000 ? until : now + 1000000);
}

static bool before_copy(void *user) {
  virt *v = user;
  static const char what[] = "an upload failed";
  if (faulty(v, what) || atomic_load(&v->lost)) return true;
  if (!dev_memory_fault(v->d)) return false;
  fail(v, what);
  return true;
}

static void after_copy(void *user, int64_t started_ns) {
  slow_down(user, started_ns);
}

/* The first of n values of a row, a hundredth of its norm beside. */
static void spoil(float *row, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += (double)row[i] * (double)row[i];
  row[0] += (float)(0.01 * sqrt(sum));
}

/* Runs an operation as slowly or wrongly as is rehearsed. */
static void run_op(virt *v, const stream *st, const dev_op *op) {
  const int64_t start = hf_now_ns();
  cpu_op_run(st->r, op, st->s, 0, 1);
  if (op->kind == DOP_MATMUL && faults_now(v, DEV_FAULT_WRONG)) *(float *)(uintptr_t)op->out += 1;
  if ((op->kind == DOP_MATMUL || op->kind == DOP_EXPERTS) && faults_now(v, DEV_FAULT_SLIGHT))
    spoil((float *)(uintptr_t)op->out, op->kind == DOP_MATMUL ? op->w.n_rows : op->n);
  slow_down(v, start);
}

/* Is this signal the one that gets lost? */
static bool signal_lost(virt *v) {
  if (v->signal_lost || !faults_now(v, DEV_FAULT_SIGNAL)) return false;
  return v->signal_lost = true;
}

/* What was computed of sent experts without a pause: part of the layer's stage of device experts, which may have a record already. */
static void trace_sent(stream *st, const dev_op *op) {
  dev_step *s = st->s;
  bool more = false;
  if (st->n_piece == 0) return;
  for (int i = s->n_trace - 1; s->trace && i >= 0 && s->trace[i].layer == op->layer; i--)
    more = more || s->trace[i].stage == DEV_STAGE_DEXP;
  const int n = s->n_trace;
  cpu_trace(s, DEV_STAGE_DEXP, op->layer, st->piece_start_ns, st->piece_end_ns, s->n_tok, st->n_piece);
  if (s->n_trace > n) s->trace[n].more = more;
  st->n_piece = 0;
}

/* Computes the experts of a layer that have come. False: the next one has not, or the device is lost. */
static bool run_sent(virt *v, stream *st, const dev_op *op) {
  const int i = (int)(st - v->st);
  moe_expert x;
  int expert;
  copies_state state;
  while ((state = copies_next(v->copies, i, &expert, &x)) == COPIES_READY) {
    const int64_t start = hf_now_ns();
    if (faulty(v, "an operation failed")) return false;
    cpu_sent_expert(st->r, op, st->s, expert, &x, st->n_sent == 0);
    slow_down(v, start);
    if (v->pace) hf_sleep_until_ns(start + v->pace(v->user, DEV_STAGE_DEXP, op->layer, expert, st->s, st->r->ctx));
    if (st->n_piece++ == 0) st->piece_start_ns = start;
    st->piece_end_ns = hf_now_ns();
    st->n_sent++;
    atomic_fetch_add_explicit(&st->s->beats, 1, memory_order_relaxed);
    copies_used(v->copies, i, expert);
  }
  trace_sent(st, op);
  if (state == COPIES_NOT_YET) return false;
  cpu_sent_end(st->r, op, st->s, st->n_sent > 0);
  copies_layer_ends(v->copies, i);
  st->n_sent = 0;
  return true;
}

/* Runs a stream until it blocks (false) or ends (true). */
static bool advance(virt *v, stream *st) {
  dev_step *s = st->s;
  if (st->pc == 0) {
    int64_t now = hf_now_ns();
    if (now < atomic_load_explicit(&s->start_at_ns, memory_order_relaxed)) return false;
    st->stage_start_ns = now; /* the time in the queue is no part of the first stage */
  }
  if (st->gave_way) st->stage_start_ns = hf_now_ns();
  st->gave_way = false;
  for (; st->pc < st->r->n_ops; st->pc++) {
    const dev_op *op = &st->r->ops[st->pc];
    if (!cpu_op_runs(op, s)) continue;
    if (op->kind == DOP_WAIT && !answered(s, op->layer)) return false;
    if (op->kind == DOP_UPLOADED) {
      if (!run_sent(v, st, op)) return false;
      st->pc++; /* others have their turn: a big step that waits for nobody would keep the device for long */
      st->gave_way = true;
      return false;
    }
    if (faulty(v, "an operation failed")) return false;
    if (op->kind == DOP_UPLOAD) {
      copies_routed(v->copies, (int)(st - v->st));
      atomic_fetch_add_explicit(&s->beats, 1, memory_order_relaxed);
    } else if (op->kind == DOP_WAIT) {
      st->stage_start_ns = hf_now_ns();
    } else if (op->kind == DOP_SIGNAL) {
      if (signal_lost(v)) continue;
      atomic_store_explicit(&s->ready_at_ns, hf_now_ns(), memory_order_relaxed);
      atomic_store_explicit(&s->ready, op->layer + 1, memory_order_release);
    } else if (op->kind == DOP_STAGE) {
      end_stage(v, st, op);
    } else {
      run_op(v, st, op);
    }
  }
  s->finished_ns = hf_now_ns();
  return true;
}

/* One round over the streams. Returns true when at least one moved. */
static bool round_of_streams(virt *v, bool *any_active) {
  bool moved = false;
  *any_active = false;
  for (int i = 0; i < v->n_streams; i++) {
    stream *st = &v->st[i];
    if (!atomic_load_explicit(&st->active, memory_order_acquire)) continue;
    *any_active = true;
    const int pc = st->pc, n_sent = st->n_sent;
    if (advance(v, st)) {
      atomic_store_explicit(&st->active, false, memory_order_release);
      moved = true;
    } else if (st->pc != pc || st->n_sent != n_sent) {
      moved = true;
      st->blocked_since_ns = hf_now_ns();
    } else if (hf_now_ns() - st->blocked_since_ns > atomic_load_explicit(&v->wait_limit_ns, memory_order_relaxed)) {
      atomic_store(&v->lost, true);
    }
  }
  return moved;
}

static void lose(virt *v) {
  for (int i = 0; i < v->n_streams; i++) atomic_store(&v->st[i].active, false);
}

static void *device_thread(void *arg) {
  virt *v = arg;
  int idle_rounds = 0;
  for (;;) {
    bool any;
    if (atomic_load(&v->lost)) lose(v);
    if (round_of_streams(v, &any)) {
      idle_rounds = 0;
      continue;
    }
    if (any) { /* all blocked on the host: poll, giving the core away now and then */
      pool_relax();
      if (++idle_rounds % SPINS == 0) sched_yield();
      continue;
    }
    pthread_mutex_lock(&v->lock);
    bool active = false;
    for (int i = 0; i < v->n_streams; i++) active = active || atomic_load(&v->st[i].active);
    while (!active && !v->stop) {
      pthread_cond_wait(&v->wake, &v->lock); /* ends: idle until a launch, or virt_quit */
      for (int i = 0; i < v->n_streams; i++) active = active || atomic_load(&v->st[i].active);
    }
    bool stop = v->stop;
    pthread_mutex_unlock(&v->lock);
    if (stop) return NULL;
  }
}

static hf_status virt_launch(dev *d, dev_recording *r, dev_step *s) {
  virt *v = d->impl;
  if (s->stream < 0 || s->stream >= v->n_streams) return hf_fail(HF_INPUT, "virtual device: no stream %d", s->stream);
  stream *st = &v->st[s->stream];
  const copies_options co = {.n_streams = v->n_streams,
                             .beside = v->thread,
                             .pace = v->pace,
                             .pace_user = v->user,
                             .before = before_copy,
                             .after = after_copy,
                             .user = v};
  if (atomic_load(&st->active)) return hf_fail(HF_INPUT, "virtual device: stream %d is still running", s->stream);
  const bool uploads = s->upload && r->n_uploads > 0;
  if (uploads && !v->copies) HF_TRY(copies_new(&co, &v->copies));
  pthread_mutex_lock(&v->lock);
  st->r = r;
  st->s = s;
  st->pc = st->n_sent = st->n_piece = 0;
  st->gave_way = false;
  cpu_step_begin(s);
  if (uploads) copies_begin(v->copies, s->stream, r, s);
  st->blocked_since_ns = hf_now_ns();
  atomic_store_explicit(&st->active, true, memory_order_release);
  pthread_cond_signal(&v->wake);
  pthread_mutex_unlock(&v->lock);
  return HF_OK;
}

/* `lost` of the device itself belongs to the driver's thread: this is where that learns of it. The stream is looked at first: one that a loss has stopped
 * is no longer active, and were the loss looked for before, it could come between the two looks and the step would pass for finished. */
static bool virt_finished(dev *d, int i) {
  virt *v = d->impl;
  const bool active = i >= 0 && i < v->n_streams && atomic_load_explicit(&v->st[i].active, memory_order_acquire);
  if (atomic_load(&v->lost) && !d->lost) {
    d->lost = true;
    const char *failed = atomic_load(&v->failed);
    snprintf(d->lost_reason, sizeof d->lost_reason, "%s", failed ? failed : "it waited too long for the host");
  }
  return !active;
}

static hf_status virt_sync(dev *d, int i, int64_t deadline_ns) {
  int64_t until = hf_now_ns() + deadline_ns;
  for (int spins = 1; !virt_finished(d, i); spins++) {
    if (spins % SPINS == 0) {
      if (hf_now_ns() > until)
        return hf_fail(HF_TIMEOUT, "virtual device: stream %d not finished in %lld ms", i, (long long)(deadline_ns / 1000000));
      sched_yield();
    }
  }
  return d->lost ? hf_fail(HF_LOST, "virtual device: lost, %s", d->lost_reason) : HF_OK;
}

static hf_status virt_download(dev *d, void *dst, dev_addr src, size_t bytes, int64_t deadline_ns) {
  virt *v = d->impl;
  static const char what[] = "a copy to the host did not come";
  const int64_t start = hf_now_ns();
  if (!atomic_load(&v->lost) && !faulty_until(v, what, start + deadline_ns)) {
    memcpy(dst, (const void *)(uintptr_t)src, bytes);
    slow_down(v, start);
  }
  return atomic_load(&v->lost) || atomic_load(&v->stop) ? hf_fail(HF_LOST, "virtual device: lost, %s", what) : HF_OK;
}

static void virt_quit(dev *d) {
  virt *v = d->impl;
  pthread_mutex_lock(&v->lock);
  const bool over = atomic_exchange(&v->stop, true);
  for (int i = 0; i < v->n_streams; i++) atomic_store(&v->st[i].active, false);
  pthread_cond_signal(&v->wake);
  pthread_mutex_unlock(&v->lock);
  if (v->copies) copies_quit(v->copies);
  if (!over) pthread_join(v->thread, NULL); /* ends: no stream is active, operations are finite or look at stop */
}

static void virt_free(dev *d) {
  virt *v = d->impl;
  virt_quit(d);
  copies_free(v->copies);
  pthread_cond_destroy(&v->wake);
  pthread_mutex_destroy(&v->lock);
  free(v);
}

static void virt_give_up(dev *d) {
  virt *v = d->impl;
  atomic_store(&v->lost, true);
}

static void virt_copies_count(dev *d, int64_t *begun, int64_t *ended) {
  virt *v = d->impl;
  if (v->copies) copies_count(v->copies, begun, ended);
}

static void virt_wait_limit(dev *d, int64_t ns) {
  virt *v = d->impl;
  atomic_store(&v->wait_limit_ns, ns);
}

void dev_keep_beside(dev *d, const pool *p) {
  cpu_set_t spare;
  if (d->launch != virt_launch || !pool_spare_cpus(p, &spare, sizeof spare)) return;
  virt *v = d->impl;
  (void)pthread_setaffinity_np(v->thread, sizeof spare, &spare);
}

hf_status dev_virtual_new(int64_t mem_bytes, int n_streams, dev_pace_fn *pace, void *user, dev **out) {
  _Static_assert((int)MAX_STREAMS <= (int)COPIES_MAX_STREAMS, "a lane of the copy queue for each stream");
  if (n_streams < 1 || n_streams > MAX_STREAMS)
    return hf_fail(HF_INPUT, "virtual device: %d streams, 1 to %d are possible", n_streams, MAX_STREAMS);
  if (mem_bytes <= 0) return hf_fail(HF_INPUT, "virtual device: its size must be above 0 bytes");
  dev *d = NULL;
  virt *v = NULL;
  HF_TRY(hf_alloc(&d, 1, sizeof *d, "virtual device"));
  hf_status st = hf_alloc(&v, 1, sizeof *v, "virtual device");
  if (st != HF_OK) {
    free(d);
    return st;
  }
  v->d = d;
  v->pace = pace;
  v->user = user;
  v->n_streams = n_streams;
  atomic_store(&v->wait_limit_ns, WAIT_LIMIT_NS);
  pthread_mutex_init(&v->lock, NULL);
  pthread_cond_init(&v->wake, NULL);
  *d = (dev){.mem_bytes = mem_bytes,
             .impl = v,
             .launch = virt_launch,
             .finished = virt_finished,
             .sync = virt_sync,
             .quit = virt_quit,
             .free_impl = virt_free,
             .download = virt_download,
             .wait_limit = virt_wait_limit,
             .give_up = virt_give_up,
             .copies_count = virt_copies_count,
             .rehearses = true,
             .n_threads = 1};
  int err = pthread_create(&v->thread, NULL, device_thread, v);
  if (err) {
    free(v);
    free(d);
    return hf_fail(HF_MACHINE, "virtual device: no thread (error %d)", err);
  }
  *out = d;
  return HF_OK;
}
