/* device.c: the CUDA device's memory, streams, launches and loss. Everything that is queued is polled, with a deadline. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/cuda/dev/cuda_dev.h"

#define WAIT_LIMIT_NS INT64_C(120000000000) /* as the virtual device's */
#define COPY_LIMIT_NS INT64_C(10000000000)  /* of one block */
#define QUIT_LIMIT_NS INT64_C(2000000000)   /* what has not ended by then never will */
enum { BLOCK_BYTES = 1 << 20, SPINS = 256 };

hf_status cuda_lose(cuda_dev *c, int error, const char *at) {
  if (!c->d->lost) {
    snprintf(c->d->lost_reason, sizeof c->d->lost_reason, "%s: %s (CUDA error %d)", at, c->rt.text(error), error);
    c->d->lost = true;
    atomic_store(&c->over, true);
  }
  return hf_fail(HF_LOST, "CUDA device: lost, %s", c->d->lost_reason);
}

/* Until the event is there: 0, an error, or CUDA_RT_NOT_READY when until_ns has come. */
static int poll_event(const cuda_dev *c, void *event, int64_t until_ns) {
  int rc;
  for (int spins = 1; (rc = c->rt.event_query(c->rt.self, event)) == CUDA_RT_NOT_READY; spins++) {
    pool_relax();
    if (spins % SPINS) continue;
    if (hf_now_ns() >= until_ns) break;
    sched_yield();
  }
  return rc;
}

/* ---- memory ---- */

static hf_status cuda_mem_alloc(dev *d, size_t bytes, const char *what, dev_addr *out) {
  cuda_dev *c = d->impl;
  void *p = NULL;
  const int rc = c->rt.alloc(c->rt.self, bytes, &p);
  if (rc == CUDA_RT_NO_MEMORY)
    return hf_fail(HF_MACHINE, "device memory: %zu bytes for %s do not fit: others use the GPU's memory, too", bytes, what);
  if (rc) return cuda_lose(c, rc, "an allocation");
  *out = (dev_addr)(uintptr_t)p;
  return HF_OK;
}

static void cuda_mem_release(dev *d, dev_addr a) {
  cuda_dev *c = d->impl;
  if (!c->abandoned) (void)c->rt.release(c->rt.self, (void *)(uintptr_t)a);
}

/* A block at a time. 0 or an error; CUDA_RT_NOT_READY: not there in time. */
static int move(cuda_dev *c, cuda_way *w, char *dst, const char *src, size_t bytes, bool up, int64_t limit_ns) {
  int rc = 0;
  for (size_t at = 0; at < bytes && !rc; at += BLOCK_BYTES) {
    const size_t n = bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES;
    if (up) memcpy(w->block, src + at, n);
    rc = c->rt.copy(c->rt.self, w->stream, up ? dst + at : w->block, up ? w->block : src + at, n);
    if (!rc) rc = c->rt.event_record(c->rt.self, w->event, w->stream);
    if (!rc) rc = poll_event(c, w->event, hf_now_ns() + limit_ns);
    if (!rc && !up) memcpy(dst + at, w->block, n);
  }
  if (rc == CUDA_RT_NOT_READY) c->abandoned = true; /* it may write yet */
  return rc;
}

static hf_status cuda_copy(dev *d, void *dst, const void *src, size_t bytes, bool up) {
  cuda_dev *c = d->impl;
  const int rc = move(c, &c->up, dst, src, bytes, up, COPY_LIMIT_NS);
  return rc ? cuda_lose(c, rc, up ? "an upload" : "a read") : HF_OK;
}

/* By another thread than the driver's, which learns of a failure by its next look. */
static hf_status cuda_download(dev *d, void *dst, dev_addr src, size_t bytes, int64_t deadline_ns) {
  cuda_dev *c = d->impl;
  if (atomic_load(&c->over)) return hf_fail(HF_LOST, "CUDA device: lost");
  const int rc = move(c, &c->down, dst, (const char *)(uintptr_t)src, bytes, false, deadline_ns);
  if (!rc) return HF_OK;
  atomic_store(&c->failed, rc);
  return hf_fail(HF_LOST, "CUDA device: lost, a copy to the host: %s (CUDA error %d)", c->rt.text(rc), rc);
}

/* ---- steps ---- */

static hf_status refuse(const char *what) {
  return hf_fail(HF_UNSUPPORTED, "CUDA device: %s is not there yet", what);
}

static hf_status cuda_launch(dev *d, dev_recording *r, dev_step *s) {
  cuda_dev *c = d->impl;
  if (s->stream < 0 || s->stream >= c->n_streams) return hf_fail(HF_INPUT, "CUDA device: no stream %d", s->stream);
  cuda_lane *lane = &c->lane[s->stream];
  if (lane->active) return hf_fail(HF_INPUT, "CUDA device: stream %d is still running", s->stream);
  if (s->upload) return refuse("a step that uploads");
  if (s->forced_ids) return refuse("imposed routing");
  HF_TRY(cuda_job_ready(r->impl, lane, s));
  lane->flags->done = lane->flags->error = 0;
  lane->flags->limit_ns = atomic_load(&c->wait_limit_ns);
  lane->r = r;
  lane->s = s;
  cpu_step_begin(s);
  s->answer = cuda_answer;
  s->answer_to = lane;
  int rc = c->rt.graph_launch(c->rt.self, ((cuda_job *)r->impl)->graph, lane->stream);
  if (!rc) rc = c->rt.event_record(c->rt.self, lane->event, lane->stream);
  if (rc) return cuda_lose(c, rc, "a launch");
  lane->active = true;
  return HF_OK;
}

static bool cuda_finished(dev *d, int i) {
  cuda_dev *c = d->impl;
  const int failed = atomic_load(&c->failed);
  if (failed) (void)cuda_lose(c, failed, "a copy to the host");
  if (i < 0 || i >= c->n_streams || !c->lane[i].active || d->lost) return true;
  cuda_lane *lane = &c->lane[i];
  const int rc = c->rt.event_query(c->rt.self, lane->event);
  if (rc == CUDA_RT_NOT_READY) return false;
  lane->active = false;
  if (rc) {
    (void)cuda_lose(c, rc, "a step");
  } else if (__atomic_load_n(&lane->flags->error, __ATOMIC_ACQUIRE)) {
    snprintf(d->lost_reason, sizeof d->lost_reason, "it waited too long for the host");
    d->lost = true;
    atomic_store(&c->over, true);
  } else {
    lane->s->finished_ns = hf_now_ns();
  }
  return true;
}

static hf_status cuda_sync(dev *d, int i, int64_t deadline_ns) {
  const int64_t until = hf_now_ns() + deadline_ns;
  for (int spins = 1; !cuda_finished(d, i); spins++) {
    pool_relax();
    if (spins % SPINS) continue;
    if (hf_now_ns() > until)
      return hf_fail(HF_TIMEOUT, "CUDA device: stream %d not finished in %lld ms", i, (long long)(deadline_ns / 1000000));
    sched_yield();
  }
  return d->lost ? hf_fail(HF_LOST, "CUDA device: lost, %s", d->lost_reason) : HF_OK;
}

static void cuda_wait_limit(dev *d, int64_t ns) {
  cuda_dev *c = d->impl;
  atomic_store(&c->wait_limit_ns, ns);
}

/* ---- the end ---- */

static void cuda_give_up(dev *d) {
  cuda_dev *c = d->impl;
  atomic_store(&c->over, true);
}

/* Waits end by the error word, everything else by itself, or never: then nothing is freed that it could write to. */
static void cuda_quit(dev *d) {
  cuda_dev *c = d->impl;
  atomic_store(&c->over, true);
  for (int i = 0; i < c->n_streams; i++)
    if (c->lane[i].active && c->lane[i].flags) __atomic_store_n(&c->lane[i].flags->error, INT32_MAX, __ATOMIC_RELEASE);
  const int64_t until = hf_now_ns() + QUIT_LIMIT_NS;
  for (int i = 0; i < c->n_streams; i++) {
    if (c->lane[i].active && poll_event(c, c->lane[i].event, until) == CUDA_RT_NOT_READY) c->abandoned = true;
    c->lane[i].active = false;
  }
  while (atomic_load(&c->busy) > 0) sched_yield(); /* ends: a host node copies some rows */
}

static void way_free(const cuda_dev *c, cuda_way *w) {
  const cuda_runtime *rt = &c->rt;
  if (w->block) (void)rt->host_release(rt->self, w->block);
  if (w->event) (void)rt->event_free(rt->self, w->event);
  if (w->stream) (void)rt->stream_free(rt->self, w->stream);
}

static void cuda_free(dev *d) {
  cuda_dev *c = d->impl;
  const cuda_runtime *rt = &c->rt;
  cuda_quit(d);
  if (c->abandoned) {
    static cuda_dev *left;
    c->next = left;
    left = c;
    return;
  }
  for (int i = 0; i < c->n_streams; i++) {
    const cuda_lane *lane = &c->lane[i];
    if (lane->flags) (void)rt->host_release(rt->self, lane->flags);
    if (lane->event) (void)rt->event_free(rt->self, lane->event);
    if (lane->stream) (void)rt->stream_free(rt->self, lane->stream);
  }
  way_free(c, &c->up);
  way_free(c, &c->down);
  free(c);
}

static int way_open(const cuda_dev *c, cuda_way *w) {
  int rc = c->rt.stream_new(c->rt.self, &w->stream);
  if (!rc) rc = c->rt.event_new(c->rt.self, &w->event);
  return rc ? rc : c->rt.host_alloc(c->rt.self, BLOCK_BYTES, (void **)&w->block);
}

static int open_all(cuda_dev *c) {
  int rc = way_open(c, &c->up);
  if (!rc) rc = way_open(c, &c->down);
  for (int i = 0; i < c->n_streams && !rc; i++) {
    cuda_lane *lane = &c->lane[i];
    lane->c = c;
    rc = c->rt.stream_new(c->rt.self, &lane->stream);
    if (!rc) rc = c->rt.event_new(c->rt.self, &lane->event);
    if (!rc) rc = c->rt.host_alloc(c->rt.self, sizeof *lane->flags, (void **)&lane->flags);
  }
  return rc;
}

hf_status dev_cuda_new(const cuda_runtime *rt, int64_t mem_bytes, int n_streams, dev **out) {
  if (n_streams < 1 || n_streams > CUDA_MAX_STREAMS)
    return hf_fail(HF_INPUT, "CUDA device: %d streams, 1 to %d are possible", n_streams, CUDA_MAX_STREAMS);
  if (mem_bytes <= 0) return hf_fail(HF_INPUT, "CUDA device: its size must be above 0 bytes");
  dev *d = NULL;
  cuda_dev *c = NULL;
  HF_TRY(hf_alloc(&d, 1, sizeof *d, "CUDA device"));
  const hf_status st = hf_alloc(&c, 1, sizeof *c, "CUDA device");
  if (st != HF_OK) {
    free(d);
    return st;
  }
  c->d = d;
  c->rt = *rt;
  c->n_streams = n_streams;
  atomic_store(&c->wait_limit_ns, WAIT_LIMIT_NS);
  *d = (dev){.mem_bytes = mem_bytes,
             .impl = c,
             .launch = cuda_launch,
             .finished = cuda_finished,
             .sync = cuda_sync,
             .quit = cuda_quit,
             .free_impl = cuda_free,
             .download = cuda_download,
             .wait_limit = cuda_wait_limit,
             .give_up = cuda_give_up,
             .mem_alloc = cuda_mem_alloc,
             .mem_release = cuda_mem_release,
             .copy = cuda_copy,
             .record = cuda_record};
  const int rc = open_all(c);
  if (rc) {
    const hf_status failed = hf_fail(HF_MACHINE, "CUDA device: %s (CUDA error %d)", rt->text(rc), rc);
    dev_free(d);
    return failed;
  }
  *out = d;
  return HF_OK;
}
