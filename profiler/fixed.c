/* fixed.c: what a step costs beside its arithmetic, each measured on the code that the executor runs.
 *
 *   barrier_ns              one pool_barrier of all workers
 *   pool_wake_ns            an empty pool_run, workers still spinning;   pool_wake_parked_ns: after they have gone to sleep
 *   layer_fixed_ns          a MoE layer of which no expert is active: wake, sort, pack, four barriers
 *   thread_layer_fixed_ns   walking one layer's operations on the virtual device's one thread, nothing in them
 *   handover_ns             virtual device signals, host answers, device goes on
 *   launch_ns               launching an empty recording and seeing that it is finished
 *   sample_logits_per_s     greedy choices, on the one thread that drives
 *   step_fixed_ns           launching it on a sleeping device, waking sleeping workers, a greedy choice among 32,768 logits */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "kernels/device.h"
#include "kernels/moe.h"
#include "profiler/nodes.h"
#include "profiler/profile.h"

enum {
  BARRIERS = 500,
  RUNS = 32,
  LAYERS = 64,
  OPS_A_LAYER = 24,
  STAGES_A_LAYER = 4,
  WIDTH = 64,
  LOGITS = 32768,
  LOGIT_ROWS = 64, /* more than a core's own cache holds: another core has written them */
  PAUSE_NS = 1000000
};
#define DEADLINE_NS 10000000000LL

/* --- the pool ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  pool *p;
  moe *m;
  moe_job job;
} workers;

static void nothing(void *arg, int thread, int n_threads) {
  (void)arg, (void)thread, (void)n_threads;
}

static void barriers(void *arg, int thread, int n_threads) {
  workers *w = arg;
  (void)n_threads;
  for (int i = 0; i < BARRIERS; i++) pool_barrier(w->p, thread);
}

static void empty_layer(void *arg, int thread, int n_threads) {
  workers *w = arg;
  moe_run(w->m, &w->job, w->p, thread, n_threads);
}

static double sample_barrier(void *user) {
  workers *w = user;
  int64_t t0 = hf_now_ns();
  pool_run(w->p, barriers, w);
  return (double)(hf_now_ns() - t0) / BARRIERS;
}

static double sample_wake(void *user) {
  workers *w = user;
  int64_t t0 = hf_now_ns();
  for (int i = 0; i < RUNS; i++) pool_run(w->p, nothing, w);
  return (double)(hf_now_ns() - t0) / RUNS;
}

static double sample_parked(void *user) {
  workers *w = user;
  struct timespec pause = {0, PAUSE_NS};
  nanosleep(&pause, NULL);
  int64_t t0 = hf_now_ns();
  pool_run(w->p, nothing, w);
  return (double)(hf_now_ns() - t0);
}

static double sample_layer(void *user) {
  workers *w = user;
  int64_t t0 = hf_now_ns();
  for (int i = 0; i < RUNS; i++) pool_run(w->p, empty_layer, w);
  return (double)(hf_now_ns() - t0) / RUNS;
}

static hf_status add(profile *p, const char *what, int threads, const stats *s, const char *source) {
  char params[32] = "";
  if (threads > 0) snprintf(params, sizeof params, "threads=%d", threads);
  return prof_add_figure(p, "cpu", what, params, "ns", s, source);
}

static hf_status measure_pool(profile *p, pool *of) {
  enum { EXPERTS = 32, TOP_K = 8 };
  static const moe_expert none[EXPERTS * TOPO_MAX_NODES];
  static prof_nodes nodes;
  static const int32_t ids[TOP_K] = {1, 5, 9, 13, 17, 21, 25, 29};
  static const float weights[TOP_K] = {0};
  static _Alignas(64) float x[WIDTH], y[WIDTH];
  workers w = {.p = of};
  int threads = pool_threads(of);
  moe_shape shape = {EXPERTS, TOP_K, WIDTH, WIDTH, 1, false};
  prof_nodes_of(p->topo, KF_F32, WIDTH, EXPERTS, &nodes);
  HF_TRY(prof_moe_new(&shape, &nodes.parts, of, &w.m));
  w.job = (moe_job){
      .experts = none, .n_tok = 1, .x = x, .x_stride = WIDTH, .ids = ids, .weights = weights, .y = y, .y_stride = WIDTH};
  stats s = prof_time(p, sample_wake, &w);
  hf_status st = add(p, "pool_wake_ns", threads, &s, "hf-profile: empty pool_run");
  if (st == HF_OK && threads > 1) {
    s = prof_time(p, sample_parked, &w);
    st = add(p, "pool_wake_parked_ns", threads, &s, "hf-profile: empty pool_run after 1 ms of sleep");
  }
  if (st == HF_OK && threads > 1) {
    s = prof_time(p, sample_barrier, &w);
    st = add(p, "barrier_ns", threads, &s, "hf-profile: pool_barrier");
  }
  if (st == HF_OK) {
    s = prof_time(p, sample_layer, &w);
    st = add(p, "layer_fixed_ns", threads, &s, "hf-profile: moe_run without an active expert");
  }
  moe_free(w.m);
  return st;
}

/* --- the virtual device -------------------------------------------------------------------------------------------------- */

typedef struct {
  dev *d;
  dev_context ctx;
  dev_step step;
  dev_recording *empty, *walk, *hand;
  dev_addr data;
  pool *workers;
  float *logits;
  hf_status st;
  int chosen;
} device;

static bool launch(device *v, dev_recording *r) {
  if (v->st == HF_OK) v->st = dev_launch(v->d, r, &v->step);
  return v->st == HF_OK;
}

static void finish(device *v) {
  v->st = dev_sync(v->d, 0, DEADLINE_NS);
}

static double sample_launch(void *user) {
  device *v = user;
  int64_t t0 = hf_now_ns();
  for (int i = 0; i < RUNS && launch(v, v->empty); i++) finish(v);
  return (double)(hf_now_ns() - t0) / RUNS;
}

static double sample_walk(void *user) {
  device *v = user;
  if (launch(v, v->walk)) finish(v);
  return (double)(v->step.finished_ns - v->step.launched_ns) / LAYERS;
}

static double sample_hand(void *user) {
  device *v = user;
  if (!launch(v, v->hand)) return 0;
  int64_t t0 = 0, until = hf_now_ns() + DEADLINE_NS;
  for (int layer = 0; layer < LAYERS; layer++) {
    while (atomic_load_explicit(&v->step.ready, memory_order_acquire) <= layer) {
      if (hf_now_ns() > until) break;
    }
    if (layer == 0) t0 = hf_now_ns(); /* from here on the device's thread is awake */
    dev_host_done(&v->step, layer, 0);
  }
  finish(v);
  return (double)(hf_now_ns() - t0) / LAYERS;
}

/* A greedy choice as hf-run makes it, over the rows of several sequences one after another. */
static int greedy(const float *logits, int n) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

static double sample_choice(void *user) {
  device *v = user;
  int64_t t0 = hf_now_ns();
  for (int r = 0; r < LOGIT_ROWS; r++) v->chosen ^= greedy(v->logits + (size_t)r * LOGITS, LOGITS); /* keeps the loop */
  return (double)(hf_now_ns() - t0);
}

static double sample_step(void *user) {
  device *v = user;
  struct timespec pause = {0, PAUSE_NS};
  nanosleep(&pause, NULL);
  int64_t t0 = hf_now_ns();
  if (launch(v, v->empty)) {
    pool_run(v->workers, nothing, v);
    finish(v);
  }
  v->chosen ^= greedy(v->logits, LOGITS);
  return (double)(hf_now_ns() - t0);
}

static hf_status record(device *v, dev_op *ops, int n, dev_recording **out) {
  return dev_record(v->d, ops, n, &v->ctx, 1, 1, out);
}

static hf_status record_all(device *v) {
  dev_op *ops = NULL;
  dev_op stage = {.kind = DOP_STAGE};
  hf_status st = hf_alloc(&ops, LAYERS * (OPS_A_LAYER + STAGES_A_LAYER), sizeof *ops, "a recording");
  if (st != HF_OK) return st;
  static const dev_op_kind kinds[3] = {DOP_RMSNORM, DOP_PACK, DOP_SWIGLU};
  dev_addr d = v->data;
  int n = 0;
  for (int l = 0; l < LAYERS; l++) {
    for (int i = 0; i < OPS_A_LAYER; i++) {
      ops[n++] = (dev_op){.kind = kinds[i % 3],
                          .layer = l,
                          .act = KA_F32,
                          .in = d,
                          .in2 = d,
                          .vec = d,
                          .out = d + WIDTH * 4,
                          .n = WIDTH,
                          .count = 1,
                          .in_stride = WIDTH,
                          .in2_stride = WIDTH,
                          .out_stride = WIDTH,
                          .head_stride = WIDTH,
                          .eps = 1e-6f};
      if (i % (OPS_A_LAYER / STAGES_A_LAYER) == 0) ops[n++] = (dev_op){.kind = DOP_STAGE, .layer = l};
    }
  }
  HF_GO(out, record(v, ops, n, &v->walk));
  for (int l = n = 0; l < LAYERS; l++) {
    ops[n++] = (dev_op){.kind = DOP_SIGNAL, .layer = l};
    ops[n++] = (dev_op){.kind = DOP_WAIT, .layer = l};
  }
  HF_GO(out, record(v, ops, n, &v->hand));
  HF_GO(out, record(v, &stage, 1, &v->empty));
out:
  free(ops);
  return st;
}

static hf_status measure_device(profile *p, device *v) {
  static const struct {
    const char *what;
    prof_sample_fn *fn;
    const char *source;
  } list[] = {
      {"launch_ns", sample_launch, "hf-profile: empty recording on the virtual device, launch to finish"},
      {"thread_layer_fixed_ns", sample_walk, "hf-profile: 24 operations of 64 floats on the virtual device"},
      {"handover_ns", sample_hand, "hf-profile: signal of the virtual device to the host and back"},
      {"step_fixed_ns", sample_step, "hf-profile: launch, wake after sleep, greedy choice of 32,768"},
  };
  for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
    stats s = prof_time(p, list[i].fn, v);
    HF_TRY(v->st);
    HF_TRY(add(p, list[i].what, 0, &s, list[i].source));
  }
  stats all = prof_time(p, sample_choice, v), rate = stats_rate(&all, 1e9 * LOGITS * LOGIT_ROWS);
  return prof_add_figure(p, "cpu", "sample_logits_per_s", "", "1/s", &rate, "hf-profile: greedy choices of 32,768, one thread");
}

/* The device's thread inherits the CPUs of the thread that starts it, which pool_run has pinned to a core: it gets the other ones, as
 * beside a pool of all threads but one. */
static hf_status new_device(const topology *t, dev **out) {
  cpu_set_t own, others;
  pthread_t self = pthread_self();
  bool pinned = pthread_getaffinity_np(self, sizeof own, &own) == 0 && CPU_COUNT(&own) == 1;
  CPU_ZERO(&others);
  for (int n = 0; n < t->n_nodes; n++)
    for (int i = 0; i < t->node[n].n_cpus; i++) {
      int cpu = t->node[n].cpus[i];
      if (cpu < CPU_SETSIZE && !(pinned && CPU_ISSET(cpu, &own))) CPU_SET(cpu, &others);
    }
  if (pinned) (void)pthread_setaffinity_np(self, sizeof others, &others); /* fails where there are no others */
  hf_status st = dev_virtual_new(1 << 20, 1, NULL, NULL, out);
  if (pinned) (void)pthread_setaffinity_np(self, sizeof own, &own);
  return st;
}

static hf_status with_device(profile *p) {
  device v = {.ctx = {.n_layers = LAYERS}, .step = {.n_tok = 1}, .workers = p->pools[0]};
  hf_status st;
  HF_GO(out, hf_alloc(&v.logits, (size_t)LOGITS * LOGIT_ROWS, sizeof *v.logits, "logits"));
  prof_random(v.logits, LOGITS * LOGIT_ROWS, 51);
  HF_GO(out, new_device(p->topo, &v.d));
  HF_GO(out, dev_alloc(v.d, 2 * WIDTH * sizeof(float), "operands", &v.data));
  HF_GO(out, record_all(&v));
  st = measure_device(p, &v);
out:
  if (v.d) {
    dev_recording_free(v.empty);
    dev_recording_free(v.walk);
    dev_recording_free(v.hand);
    dev_release(v.d, v.data, 2 * WIDTH * sizeof(float));
    dev_free(v.d);
  }
  free(v.logits);
  return st;
}

hf_status prof_fixed(profile *p) {
  if (!prof_unit_begin(p, "fixed")) return HF_OK;
  for (int i = 0; i < p->n_pools; i++) HF_TRY(measure_pool(p, p->pools[i]));
  HF_TRY(with_device(p));
  return prof_unit_end(p);
}
