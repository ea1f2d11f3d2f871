/* runtime.c: see runtime.h. One lock guards queues and counts; another is held by the kernel that runs, and by allocations: the shim is one GPU. */
#include "tests/cuda/stand_in/runtime.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/cuda/host/host.h"
#include "kernels/cuda/ops.h"

enum { MAX_STREAMS = 32, MAX_EVENTS = 64, MAX_GRAPHS = 256, MAX_BLOCKS = 4096, ARGS = 256, BAD_HANDLE = 400, IN_RECORDING = 900 };

typedef enum { ITEM_CALL, ITEM_WAIT, ITEM_COPY, ITEM_HOST, ITEM_EVENT } item_kind;

typedef struct {
  item_kind kind;
  cuda_call *fn;
  void (*host)(void *);
  void *user, *dst;
  const void *src;
  size_t bytes;
  struct event *event;
  int64_t generation;
  _Alignas(16) char args[ARGS];
} item;

typedef struct {
  item *at;
  size_t n, cap;
  bool live;
} list;

typedef struct event {
  bool live;
  int64_t recorded, reached;
} event;

typedef struct {
  stand_in *x;
  pthread_t thread;
  pthread_cond_t wake;
  list queue;
  size_t next;
  list *recording;
  unsigned seed;
  bool live, stop;
} stream;

struct stand_in {
  pthread_mutex_t lock, gpu;
  pthread_cond_t unhang;
  stream stream[MAX_STREAMS];
  event event[MAX_EVENTS];
  list graph[MAX_GRAPHS];
  int n_streams, n_events, n_graphs;
  void *block[MAX_BLOCKS];
  int n_blocks;
  unsigned seed;
  int error;
  bool released;
  int64_t items, allocs, fail_at, hang_at, refuse_at;
  int fail_with;
};

static void push(list *l, const item *i) {
  if (l->n == l->cap) {
    l->cap = l->cap ? 2 * l->cap : 64;
    l->at = realloc(l->at, l->cap * sizeof *l->at);
    if (!l->at) abort();
  }
  l->at[l->n++] = *i;
}

static unsigned dice(unsigned *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return *seed >> 16;
}

/* ---- streams' threads ---- */

static int32_t flag_now(const int32_t *p) {
  return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* As the kernel does (its own test: moves.c), but that other streams have the GPU meanwhile. Without the lock. */
static void poll_flag(const stream *s, const hfc_wait *w) {
  const int64_t start = hf_now_ns();
  while (flag_now(w->flag) < w->value && flag_now(w->error) == 0) {
    pthread_mutex_lock(&s->x->lock);
    const bool over = s->x->error || s->x->released;
    pthread_mutex_unlock(&s->x->lock);
    if (over) return;
    if (hf_now_ns() - start >= *w->limit_ns) {
      __atomic_store_n(w->error, w->value, __ATOMIC_RELEASE);
      return;
    }
    hf_sleep_until_ns(hf_now_ns() + 20000);
  }
}

static int run(stream *s, const item *i) {
  int rc = 0;
  if (dice(&s->seed) % 8 == 0) hf_sleep_until_ns(hf_now_ns() + 1000 * (int64_t)(dice(&s->seed) % 64));
  if (i->kind == ITEM_WAIT) poll_flag(s, (const hfc_wait *)i->args);
  if (i->kind == ITEM_HOST) i->host(i->user);
  if (i->kind == ITEM_CALL || i->kind == ITEM_COPY) {
    pthread_mutex_lock(&s->x->gpu);
    if (i->kind == ITEM_COPY) memcpy(i->dst, i->src, i->bytes);
    else rc = i->fn(i->args, NULL);
    pthread_mutex_unlock(&s->x->gpu);
  }
  return rc;
}

/* Under the lock, which is given away while the item runs. */
static void step(stream *s) {
  stand_in *x = s->x;
  const item i = s->queue.at[s->next++];
  if (s->next == s->queue.n) s->next = s->queue.n = 0;
  if (i.kind == ITEM_EVENT) {
    i.event->reached = i.generation;
    return;
  }
  if (x->error) return; /* a context that has failed runs nothing more */
  const int64_t n = ++x->items;
  if (n == x->hang_at)
    while (!x->released) pthread_cond_wait(&x->unhang, &x->lock); /* ends: stand_in_close */
  if (n == x->fail_at) x->error = x->fail_with;
  if (x->error || n == x->hang_at) return;
  pthread_mutex_unlock(&x->lock);
  const int rc = run(s, &i);
  pthread_mutex_lock(&x->lock);
  if (rc && !x->error) x->error = rc;
}

static void *stream_thread(void *arg) {
  stream *s = arg;
  pthread_mutex_lock(&s->x->lock);
  for (;;) {
    while (!s->stop && s->next == s->queue.n) pthread_cond_wait(&s->wake, &s->x->lock); /* ends: stream_free or stand_in_close */
    if (s->next == s->queue.n) break;
    step(s);
  }
  pthread_mutex_unlock(&s->x->lock);
  return NULL;
}

/* ---- the table ---- */

static const char *text(int error) {
  return error == CUDA_RT_NO_MEMORY ? "out of memory" : error == HFC_FAULT ? hfc_host_fault() : "an error";
}

static bool recording(const stand_in *x) {
  for (int i = 0; i < x->n_streams; i++)
    if (x->stream[i].recording) return true;
  return false;
}

static int alloc(void *self, size_t bytes, void **out) {
  stand_in *x = self;
  *out = NULL;
  pthread_mutex_lock(&x->gpu); /* first, as nobody takes it with the other in hand */
  pthread_mutex_lock(&x->lock);
  int rc = x->error ? x->error : recording(x) ? IN_RECORDING : ++x->allocs == x->refuse_at ? CUDA_RT_NO_MEMORY : 0;
  if (!rc && x->n_blocks < MAX_BLOCKS) x->block[x->n_blocks++] = *out = hfc_host_alloc(bytes, "device memory");
  if (!rc && !*out) rc = CUDA_RT_NO_MEMORY;
  pthread_mutex_unlock(&x->lock);
  pthread_mutex_unlock(&x->gpu);
  return rc;
}

static int release(void *self, void *p) {
  stand_in *x = self;
  int rc = BAD_HANDLE;
  pthread_mutex_lock(&x->gpu);
  pthread_mutex_lock(&x->lock);
  for (int i = 0; i < x->n_blocks && rc; i++) {
    if (x->block[i] != p) continue;
    x->block[i] = x->block[--x->n_blocks];
    hfc_host_free(p);
    rc = 0;
  }
  pthread_mutex_unlock(&x->lock);
  pthread_mutex_unlock(&x->gpu);
  return rc;
}

static int stream_new(void *self, void **out) {
  stand_in *x = self;
  if (x->n_streams == MAX_STREAMS) return CUDA_RT_NO_MEMORY;
  pthread_mutex_lock(&x->lock);
  stream *s = &x->stream[x->n_streams++];
  *s = (stream){.x = x, .seed = x->seed += 77, .live = true};
  pthread_cond_init(&s->wake, NULL);
  pthread_mutex_unlock(&x->lock);
  *out = s;
  return pthread_create(&s->thread, NULL, stream_thread, s) ? CUDA_RT_NO_MEMORY : 0;
}

static int stream_free(void *self, void *p) {
  stand_in *x = self;
  stream *s = p;
  pthread_mutex_lock(&x->lock);
  s->stop = true;
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&x->lock);
  pthread_join(s->thread, NULL); /* ends: what is queued is finite, hangs have been released or the device abandons the stream */
  pthread_cond_destroy(&s->wake);
  free(s->queue.at);
  s->live = false;
  return 0;
}

static int event_new(void *self, void **out) {
  stand_in *x = self;
  if (x->n_events == MAX_EVENTS) return CUDA_RT_NO_MEMORY;
  event *e = &x->event[x->n_events++];
  *e = (event){.live = true};
  *out = e;
  return 0;
}

static int event_free(void *self, void *p) {
  (void)self;
  ((event *)p)->live = false;
  return 0;
}

/* Into the recording, or the queue. */
static int add(stand_in *x, stream *s, item *i) {
  pthread_mutex_lock(&x->lock);
  const int rc = x->error;
  if (!rc && i->kind == ITEM_EVENT) i->generation = ++i->event->recorded;
  if (!rc) push(s->recording ? s->recording : &s->queue, i);
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&x->lock);
  return rc;
}

static int event_record(void *self, void *e, void *s) {
  return add(self, s, &(item){.kind = ITEM_EVENT, .event = e});
}

static int event_query(void *self, void *p) {
  stand_in *x = self;
  const event *e = p;
  pthread_mutex_lock(&x->lock);
  const int rc = x->error ? x->error : e->reached < e->recorded ? CUDA_RT_NOT_READY : 0;
  pthread_mutex_unlock(&x->lock);
  return rc;
}

static int call(void *self, void *s, cuda_call *fn, const void *args, size_t bytes) {
  item i = {.kind = ITEM_CALL, .fn = fn};
  if (bytes > ARGS) return HFC_INVALID;
  memcpy(i.args, args, bytes);
  return add(self, s, &i);
}

static int wait_for_host(void *self, void *s, const void *args) {
  item i = {.kind = ITEM_WAIT};
  memcpy(i.args, args, sizeof(hfc_wait));
  return add(self, s, &i);
}

static int copy(void *self, void *s, void *dst, const void *src, size_t bytes) {
  return add(self, s, &(item){.kind = ITEM_COPY, .dst = dst, .src = src, .bytes = bytes});
}

static int host_call(void *self, void *s, void (*fn)(void *), void *user) {
  return add(self, s, &(item){.kind = ITEM_HOST, .host = fn, .user = user});
}

static int record_begin(void *self, void *p) {
  stand_in *x = self;
  stream *s = p;
  pthread_mutex_lock(&x->lock);
  const int rc = x->error ? x->error : s->recording || x->n_graphs == MAX_GRAPHS ? BAD_HANDLE : 0;
  if (!rc) {
    s->recording = &x->graph[x->n_graphs++];
    *s->recording = (list){.live = true};
  }
  pthread_mutex_unlock(&x->lock);
  return rc;
}

static int record_end(void *self, void *p, void **out) {
  stand_in *x = self;
  stream *s = p;
  pthread_mutex_lock(&x->lock);
  *out = s->recording;
  s->recording = NULL;
  const int rc = x->error;
  pthread_mutex_unlock(&x->lock);
  return rc;
}

static int graph_launch(void *self, void *g, void *p) {
  stand_in *x = self;
  stream *s = p;
  const list *graph = g;
  pthread_mutex_lock(&x->lock);
  const int rc = x->error ? x->error : !graph->live ? BAD_HANDLE : 0;
  for (size_t i = 0; i < graph->n && !rc; i++) push(&s->queue, &graph->at[i]);
  pthread_cond_signal(&s->wake);
  pthread_mutex_unlock(&x->lock);
  return rc;
}

static int graph_free(void *self, void *p) {
  stand_in *x = self;
  list *g = p;
  pthread_mutex_lock(&x->lock);
  free(g->at);
  *g = (list){0};
  pthread_mutex_unlock(&x->lock);
  return 0;
}

/* ---- for tests ---- */

stand_in *stand_in_open(unsigned seed, cuda_runtime *rt) {
  stand_in *x = calloc(1, sizeof *x);
  if (!x) abort();
  x->seed = seed;
  pthread_mutex_init(&x->lock, NULL);
  pthread_mutex_init(&x->gpu, NULL);
  pthread_cond_init(&x->unhang, NULL);
  *rt = (cuda_runtime){x,           text,      alloc,        release,      alloc,        release,   stream_new,
                       stream_free, event_new, event_free,   event_record, event_query,  call,      wait_for_host,
                       copy,        host_call, record_begin, record_end,   graph_launch, graph_free};
  return x;
}

static void set(stand_in *x, int64_t *at, int64_t n, int64_t since) {
  pthread_mutex_lock(&x->lock);
  *at = n ? since + n : 0;
  pthread_mutex_unlock(&x->lock);
}

void stand_in_fail(stand_in *x, int64_t n, int error) {
  x->fail_with = error;
  set(x, &x->fail_at, n, stand_in_items(x));
}

void stand_in_hang(stand_in *x, int64_t n) {
  set(x, &x->hang_at, n, stand_in_items(x));
}

void stand_in_refuse(stand_in *x, int64_t n) {
  set(x, &x->refuse_at, n, x->allocs);
}

int64_t stand_in_items(stand_in *x) {
  pthread_mutex_lock(&x->lock);
  const int64_t n = x->items;
  pthread_mutex_unlock(&x->lock);
  return n;
}

int64_t stand_in_graphs(stand_in *x) {
  return x->n_graphs;
}

int stand_in_close(stand_in *x) {
  int left = x->n_blocks;
  pthread_mutex_lock(&x->lock);
  x->released = true;
  pthread_cond_broadcast(&x->unhang);
  pthread_mutex_unlock(&x->lock);
  for (int i = 0; i < x->n_streams; i++) {
    if (!x->stream[i].live) continue;
    left++;
    stream_free(x, &x->stream[i]);
  }
  for (int i = 0; i < x->n_events; i++) left += x->event[i].live;
  for (int i = 0; i < x->n_graphs; i++) {
    left += x->graph[i].live;
    free(x->graph[i].at);
  }
  for (int i = 0; i < x->n_blocks; i++) hfc_host_free(x->block[i]);
  pthread_cond_destroy(&x->unhang);
  pthread_mutex_destroy(&x->lock);
  pthread_mutex_destroy(&x->gpu);
  free(x);
  return left;
}
