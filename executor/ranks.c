/* ranks.c: rank 0's side of ranks.h. */
#include "executor/ranks.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/engine_int.h"
#include "executor/ranks_int.h"
#include "executor/watch.h"
#include "kernels/mem/pool.h"
#include "kernels/net/net.h"

#define SECOND_NS INT64_C(1000000000)
enum { SHORT_BYTES = 8 << 10 /* sent at once by whoever posts them; a row or two */ };
enum { HERE_S = 60, LOADING_S = 600 /* of a layer */, ORDER_S = 60, BYE_S = 20, BEAT_NS = 1000000000 };

/* What a rank has done since it was opened. Times are of rank 0's clock, but busy_ns, which the rank has measured. */
typedef struct {
  char host[64];
  int threads, experts;
  bool lost;
  int64_t jobs, rows, bytes; /* both ways */
  int64_t away_ns;           /* from handing a layer's rows over until their results were there, summed */
  int64_t busy_ns;           /* of that, what the rank computed */
} rank_report;

/* FREE: nothing is away. POSTED: rows are to be sent. AWAY: sent, or on their way; LATE: not in time. */
typedef enum { JOB_FREE, JOB_POSTED, JOB_AWAY, JOB_DONE, JOB_LATE } job_state;

typedef struct {
  rank_report report;
  char why[96]; /* written before lost is set */
  atomic_bool losing, lost;
  bool loaded, told /* a loss, to the engine */;
  char *out, *in; /* a job and its result: kept when the rank is lost (net.h) */
  size_t out_room, in_room, out_bytes;
  int *row; /* [max_tok] token of each row sent */
  int n_rows;
  atomic_int state;
  net_message send, receive, beat;
  order beat_order; /* of the beat on its way */
  void *order;      /* one that never got through: MPI's for ever (net.h) */
  int64_t posted_ns, away_ns /* of the last job */;
  watch silence;
} peer;

struct ranks {
  net *net;
  int n; /* others; peer[k] is rank k + 1 */
  peer peer[RANKS_MOST];
  uint8_t *owner;
  int n_layers, n_experts, top_k, d_model, max_tok, number;
  /* Of layers that had rows away: until the last rank's were back; and of that, after this machine's own experts were done. */
  int64_t away_ns, waited_ns, beat_ns;
  pthread_t mover;
  bool has_mover;
  pthread_mutex_t lock, moving;
  pthread_cond_t wake;
  atomic_bool busy, quit;
};

const uint8_t *ranks_owner(const ranks *r) {
  return r->owner;
}
int ranks_left(const ranks *r) {
  int n = 0;
  for (int k = 0; k < r->n; k++) n += !atomic_load(&r->peer[k].lost);
  return n;
}

static rank_report report_of(const ranks *r, int rank) {
  rank_report out = r->peer[rank - 1].report;
  out.lost = atomic_load(&r->peer[rank - 1].lost);
  return out;
}

static void lose(ranks *r, int k, const char *why) {
  peer *p = &r->peer[k];
  if (atomic_exchange(&p->losing, true)) return;
  snprintf(p->why, sizeof p->why, "%s", why);
  net_lose(r->net);
  atomic_store(&p->lost, true);
}

static hf_status lost_error(const ranks *r, int k) {
  return hf_fail(HF_LOST, "rank %d (%s): %s", k + 1, r->peer[k].report.host[0] ? r->peer[k].report.host : "?", r->peer[k].why);
}

/* --- orders and states: outside of steps ------------------------------------------------------------------------------- */

static hf_status send_order(ranks *r, int k, const void *data, size_t bytes) {
  net_message m;
  peer *p = &r->peer[k];
  if (atomic_load(&p->lost)) return HF_OK;
  HF_TRY(hf_alloc(&p->order, 1, bytes, "order of a rank"));
  memcpy(p->order, data, bytes);
  hf_status st = net_send(r->net, k + 1, TAG_ORDER, p->order, bytes, &m);
  if (st == HF_OK) st = net_wait(r->net, &m, ORDER_S * SECOND_NS, NULL);
  if (st != HF_OK) {
    lose(r, k, hf_error_line());
    return st;
  }
  free(p->order);
  p->order = NULL;
  return HF_OK;
}

static void send_all(ranks *r, order_kind kind) {
  for (int k = 0; k < r->n; k++) {
    const order o = {.magic = RANKS_MAGIC, .kind = kind, .number = r->number};
    if (send_order(r, k, &o, sizeof o) != HF_OK) hf_clear_error();
  }
}

/* A rank that is lost before it was ever used: not what a device's loss is to whoever opens an engine. */
static hf_status refused(hf_status st) {
  return st == HF_LOST ? HF_MACHINE : st;
}

/* The next state of a rank; of an earlier load none counts any more. */
static hf_status next_state(ranks *r, int k, int timeout_s, rank_state *s) {
  peer *p = &r->peer[k];
  do {
    size_t bytes = 0;
    net_message m;
    void *to;
    HF_TRY(hf_alloc(&to, 1, sizeof *s, "message of a rank")); /* stays MPI's when none comes */
    hf_status st = net_receive(r->net, k + 1, TAG_STATE, to, sizeof *s, &m);
    if (st == HF_OK) st = net_wait(r->net, &m, timeout_s * SECOND_NS, &bytes);
    if (st != HF_OK) {
      lose(r, k, hf_error_line());
      return lost_error(r, k);
    }
    memcpy(s, to, sizeof *s);
    free(to);
    if (bytes != sizeof *s || s->magic != RANKS_MAGIC || strncmp(s->version, HF_VERSION, sizeof s->version))
      return hf_fail(HF_INPUT, "rank %d is not hf-run %s", k + 1, HF_VERSION);
    s->text[sizeof s->text - 1] = '\0';
    snprintf(p->report.host, sizeof p->report.host, "%.63s", s->host);
  } while (s->kind != STATE_HERE && s->kind != STATE_BYE &&
           s->number != r->number); /* one that failed at once has number 0, as rank 0 then */
  if (s->kind != STATE_FAILED) return HF_OK;
  return hf_fail(s->status == HF_OK ? HF_MACHINE : (hf_status)s->status, "rank %d (%s): %s", k + 1, p->report.host, s->text);
}

/* --- the thread that moves messages ------------------------------------------------------------------------------------ */

static hf_status move_one(ranks *r, int k) {
  peer *p = &r->peer[k];
  bool sent = true, here = true;
  if (atomic_load(&p->state) == JOB_POSTED) {
    HF_TRY(net_receive(r->net, k + 1, TAG_RESULT, p->in, p->in_room, &p->receive));
    HF_TRY(net_send(r->net, k + 1, TAG_ORDER, p->out, p->out_bytes, &p->send));
    watch_begin(&p->silence, 0, p->n_rows);
    atomic_store(&p->state, JOB_AWAY);
  }
  size_t bytes = 0;
  const bool had = p->receive.slot != 0;
  HF_TRY(net_test(r->net, &p->send, &sent, NULL));
  HF_TRY(net_test(r->net, &p->receive, &here, &bytes));
  if (had && here) {
    const result *f = (const result *)p->in;
    if (bytes != sizeof *f + sizeof(float) * (size_t)p->n_rows * (size_t)r->d_model || f->magic != RANKS_MAGIC ||
        f->number != r->number || f->n_rows != p->n_rows)
      return hf_fail(HF_MACHINE, "it answered something else");
    p->report.busy_ns += f->busy_ns;
    p->report.bytes += (int64_t)(bytes + p->out_bytes);
  }
  if (sent && here) {
    watch_end(&p->silence, 0);
    p->report.jobs++;
    p->report.rows += p->n_rows;
    p->away_ns = hf_now_ns() - p->posted_ns;
    p->report.away_ns += p->away_ns;
    atomic_store_explicit(&p->state, JOB_DONE, memory_order_release);
    return HF_OK;
  }
  if (watch_look(&p->silence, hf_now_ns()) < 0) return HF_OK;
  return hf_fail(HF_LOST, "no answer for %.2g s", (double)p->silence.step[0].silent_ns * 1e-9);
}

/* By one thread at a time. Returns how many jobs are on their way. */
static int move_all(ranks *r) {
  int left = 0;
  for (int k = 0; k < r->n; k++) {
    peer *p = &r->peer[k];
    const int state = atomic_load_explicit(&p->state, memory_order_acquire);
    if (state != JOB_POSTED && state != JOB_AWAY) continue;
    if (move_one(r, k) != HF_OK) {
      lose(r, k, hf_error_line());
      hf_clear_error();
      watch_reset(&p->silence);
      atomic_store_explicit(&p->state, JOB_LATE, memory_order_release);
    }
    left += atomic_load(&p->state) == JOB_AWAY;
  }
  return left;
}

/* Once a second a word to every rank that a word gets through to, whatever the others are at: a rank that hears nothing ends itself. */
static void beat_all(ranks *r) {
  const int64_t now = hf_now_ns();
  if (now - r->beat_ns < BEAT_NS) return;
  r->beat_ns = now;
  for (int k = 0; k < r->n; k++) {
    peer *p = &r->peer[k];
    bool sent = true;
    if (atomic_load(&p->lost)) continue;
    hf_status st = net_test(r->net, &p->beat, &sent, NULL);
    if (st == HF_OK && !sent) continue; /* the one before is still on its way */
    p->beat_order = (order){.magic = RANKS_MAGIC, .kind = ORDER_BEAT, .number = r->number};
    if (st == HF_OK) st = net_send(r->net, k + 1, TAG_ORDER, &p->beat_order, sizeof p->beat_order, &p->beat);
    if (st == HF_OK) continue;
    lose(r, k, hf_error_line());
    hf_clear_error();
  }
}

/* Between jobs nobody looks, which is no silence: watch.h counts at most WATCH_BLINK_NS of that. */
static void move_until_done(ranks *r) {
  const int64_t start = hf_now_ns();
  for (int left = 1; left > 0;) {
    pthread_mutex_lock(&r->moving);
    left = move_all(r);
    beat_all(r);
    pthread_mutex_unlock(&r->moving);
    if (left) net_breathe(hf_now_ns() - start);
  }
}

static void *mover(void *arg) {
  ranks *r = arg;
  while (!atomic_load(&r->quit)) {
    bool late = false;
    pthread_mutex_lock(&r->lock);
    while (!atomic_load(&r->busy) && !atomic_load(&r->quit) && !late) {
      struct timespec until;
      clock_gettime(CLOCK_MONOTONIC, &until);
      until.tv_sec += BEAT_NS / SECOND_NS;
      late = pthread_cond_clockwait(&r->wake, &r->lock, CLOCK_MONOTONIC, &until) != 0;
    }
    pthread_mutex_unlock(&r->lock);
    if (atomic_load(&r->busy)) {
      atomic_store(&r->busy, false); /* before the jobs are looked at: one that is posted meanwhile wakes again */
      move_until_done(r);
    } else if (late) {
      pthread_mutex_lock(&r->moving);
      beat_all(r);
      pthread_mutex_unlock(&r->moving);
    }
  }
  return NULL;
}

/* --- life --------------------------------------------------------------------------------------------------------------- */

static hf_status meet(ranks *r) {
  for (int k = 0; k < r->n; k++) {
    rank_state s;
    HF_TRY(next_state(r, k, HERE_S, &s));
  }
  return HF_OK;
}

hf_status ranks_open(ranks **out) {
  ranks *r = NULL;
  *out = NULL;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "ranks"));
  *out = r;
  pthread_mutex_init(&r->lock, NULL);
  pthread_mutex_init(&r->moving, NULL);
  pthread_cond_init(&r->wake, NULL);
  HF_TRY(net_open(&r->net));
  const int n = net_size(r->net) - 1;
  if (n > RANKS_MOST) return hf_fail(HF_INPUT, "%d ranks: at most %d can work together", n + 1, RANKS_MOST + 1);
  r->n = n;
  HF_TRY(meet(r));
  if (pthread_create(&r->mover, NULL, mover, r)) return hf_fail(HF_MACHINE, "no thread for messages between ranks");
  r->has_mover = true;
  return HF_OK;
}

static void free_jobs(peer *p) {
  if (atomic_load(&p->lost)) return; /* net.h: MPI may still use them */
  free(p->out);
  free(p->in);
  p->out = p->in = NULL;
  free(p->row);
  p->row = NULL;
}

/* MPI's own end waits for every rank: one that says nothing any more must be known before. */
static void say_goodbye(ranks *r) {
  send_all(r, ORDER_END);
  for (int k = 0; k < r->n; k++) {
    rank_state s = {.kind = STATE_HERE};
    hf_status st = HF_OK;
    while (!atomic_load(&r->peer[k].lost) && s.kind != STATE_BYE && (st == HF_OK || s.kind == STATE_FAILED))
      st = next_state(r, k, BYE_S, &s);
    if (st != HF_OK) hf_clear_error();
  }
}

void ranks_close(ranks *r, int status) {
  if (!r) return;
  if (r->has_mover) {
    pthread_mutex_lock(&r->lock);
    atomic_store(&r->quit, true);
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->mover, NULL); /* ends: quit, and its sends have deadlines */
  }
  if (r->net) say_goodbye(r);
  net_close(r->net, status);
  for (int k = 0; k < r->n && k < RANKS_MOST; k++) free_jobs(&r->peer[k]);
  pthread_mutex_destroy(&r->lock);
  pthread_mutex_destroy(&r->moving);
  pthread_cond_destroy(&r->wake);
  free(r->owner);
  free(r);
}

/* --- placement and loading ---------------------------------------------------------------------------------------------- */

/* *turn: whose turn it is, over all layers, or the last ranks would go without where a layer has few. */
static int place_by_percent(const model_config *c, const engine_options *o, double percent, int n_ranks, int l, int *turn,
                            uint8_t *owner) {
  int all = 0, seen = 0, away = 0;
  for (int x = 0; x < c->n_experts; x++) all += !placed_on_device(c, o, l, x);
  const int n = (int)(percent / 100.0 * all + 0.5);
  for (int x = 0; x < c->n_experts; x++) {
    if (placed_on_device(c, o, l, x)) continue;
    const bool chosen = (int64_t)(seen + 1) * n / all > (int64_t)seen * n / all;
    owner[x] = (uint8_t)(chosen ? 1 + *turn % n_ranks : 0);
    *turn += chosen;
    away += chosen;
    seen++;
  }
  return away;
}

hf_status ranks_place(ranks *r, const model_config *c, const engine_options *o, double percent) {
  const plan *p = o->placement;
  const int planned = plan_ranks(p);
  int64_t away = 0;
  int turn = 0;
  if (planned > r->n)
    return hf_fail(HF_INPUT, "plan: places experts on %d other machines and there are %d ranks beside this one: mpirun -n %d",
                   planned, r->n, planned + 1);
  if (planned > 0 && percent > 0) return hf_fail(HF_INPUT, "--experts-on-ranks: the plan says which experts other machines have");
  free(r->owner);
  r->owner = NULL;
  r->n_layers = c->n_layers, r->n_experts = c->n_experts, r->top_k = c->top_k, r->d_model = c->d_model;
  HF_TRY(hf_alloc(&r->owner, (size_t)c->n_layers * (size_t)c->n_experts + 1, 1, "experts of ranks"));
  for (int l = 0; l < c->n_layers; l++) {
    uint8_t *owner = r->owner + (size_t)l * (size_t)c->n_experts;
    if (!c->layer_is_moe[l]) continue;
    if (!planned) away += place_by_percent(c, o, percent, r->n, l, &turn, owner);
    for (int x = 0; planned && x < c->n_experts; x++) {
      owner[x] = (uint8_t)plan_rank(p, p->layer[l].device[x]);
      away += owner[x] > 0;
    }
  }
  const size_t n = (size_t)c->n_layers * (size_t)c->n_experts;
  for (int k = 1; k <= r->n && away > 0; k++)
    if (!memchr(r->owner, k, n))
      return hf_fail(HF_INPUT, "mpirun started %d ranks, and rank %d would have no expert: start fewer", r->n + 1, k);
  if (away > 0) return HF_OK;
  return hf_fail(HF_INPUT,
                 "mpirun started %d ranks and nothing is placed on the others: give a plan with other machines (hf-plan plan "
                 "--remote) or --experts-on-ranks PERCENT",
                 r->n + 1);
}

static hf_status open_jobs(const ranks *r, peer *p) {
  const size_t row = (size_t)r->top_k * 8 + (size_t)r->d_model * sizeof(float);
  free_jobs(p);
  p->out_room = sizeof(order) + (size_t)r->max_tok * row;
  p->in_room = sizeof(result) + (size_t)r->max_tok * (size_t)r->d_model * sizeof(float);
  HF_TRY(hf_alloc(&p->out, 1, p->out_room, "rows for a rank"));
  HF_TRY(hf_alloc(&p->in, 1, p->in_room, "rows of a rank"));
  return hf_alloc(&p->row, (size_t)r->max_tok, sizeof *p->row, "rows for a rank");
}

int ranks_of(const engine_options *o) {
  return o->ranks ? o->ranks->n : o->rank > 0;
}

static load_order order_of(const ranks *r, const model *m, const engine_options *o) {
  return (load_order){.n_layers = r->n_layers,
                      .n_experts = r->n_experts,
                      .top_k = r->top_k,
                      .d_model = r->d_model,
                      .d_ff = model_get_config(m)->d_ff_expert,
                      .max_tok = r->max_tok,
                      .exact = o->exact,
                      .dequantise = o->dequantise,
                      .dequantised_to = (int32_t)o->dequantised_to,
                      .n_kernels = o->placement ? o->placement->n_kernels : 0,
                      .model_bytes = model_total_bytes(m, FMT_DEFAULT)};
}

hf_status ranks_load(ranks *r, const model *m, const engine_options *o) {
  const model_config *c = model_get_config(m);
  const size_t experts = (size_t)c->n_layers * (size_t)c->n_experts;
  struct {
    order head;
    load_order load;
  } begin;
  char *text;
  r->max_tok = o->max_tok;
  r->number++;
  memset(&begin, 0, sizeof begin);
  begin.head = (order){.magic = RANKS_MAGIC, .kind = ORDER_LOAD, .number = r->number};
  begin.load = order_of(r, m, o);
  const size_t kernels = (size_t)begin.load.n_kernels * sizeof(plan_kernel), bytes = sizeof begin + experts + kernels;
  HF_TRY(hf_alloc(&text, 1, bytes, "order of a rank"));
  memcpy(text, &begin, sizeof begin);
  memcpy(text + sizeof begin, r->owner, experts);
  if (kernels > 0) memcpy(text + sizeof begin + experts, o->placement->kernel, kernels);
  hf_status st = HF_OK;
  for (int k = 0; k < r->n && st == HF_OK; k++) {
    peer *p = &r->peer[k];
    if (atomic_load(&p->lost)) continue;
    p->report.experts = 0;
    for (size_t i = 0; i < experts; i++) p->report.experts += r->owner[i] == k + 1;
    p->silence.limit_ns = o->deadline_ns;
    st = open_jobs(r, p);
    if (st == HF_OK) st = send_order(r, k, text, bytes);
    p->loaded = st == HF_OK;
  }
  free(text);
  return refused(st);
}

hf_status ranks_ready(ranks *r) {
  for (int k = 0; k < r->n; k++) {
    rank_state s = {.kind = STATE_LOADING};
    if (atomic_load(&r->peer[k].lost)) continue;
    while (s.kind != STATE_READY) HF_TRY(refused(next_state(r, k, LOADING_S, &s)));
    r->peer[k].report.threads = s.threads;
    hf_log(HF_LOG_DEBUG, "rank %d (%s): %d experts are loaded", k + 1, r->peer[k].report.host, r->peer[k].report.experts);
  }
  return HF_OK;
}

void ranks_unload(ranks *r) {
  send_all(r, ORDER_UNLOAD);
}

/* --- a layer's step ------------------------------------------------------------------------------------------------------ */

/* Rows of tokens that chose an expert of rank k + 1: ids, weights and x one behind the other. */
static void gather(const ranks *r, int k, int layer, const dev_step *s, const int32_t *ids, const float *weights) {
  peer *p = (peer *)&r->peer[k];
  const uint8_t *owner = r->owner + (size_t)layer * (size_t)r->n_experts;
  const size_t top = (size_t)r->top_k, d = (size_t)r->d_model;
  p->n_rows = 0;
  for (int t = 0; t < s->n_tok; t++) {
    bool mine = false;
    for (size_t i = 0; i < top && !mine; i++) mine = owner[ids[(size_t)t * top + i]] == k + 1;
    if (mine) p->row[p->n_rows++] = t;
  }
  const size_t n = (size_t)p->n_rows;
  const order head = {.magic = RANKS_MAGIC, .kind = ORDER_JOB, .number = r->number, .layer = layer, .n_rows = p->n_rows};
  char *at = p->out + sizeof head;
  memcpy(p->out, &head, sizeof head);
  for (size_t i = 0; i < n; i++, at += top * 4) memcpy(at, ids + (size_t)p->row[i] * top, top * 4);
  for (size_t i = 0; i < n; i++, at += top * 4) memcpy(at, weights + (size_t)p->row[i] * top, top * 4);
  for (size_t i = 0; i < n; i++, at += d * 4) memcpy(at, s->host_x + (size_t)p->row[i] * d, d * 4);
  p->out_bytes = (size_t)(at - p->out);
}

void ranks_post(ranks *r, int layer, const dev_step *s, const int32_t *ids, const float *weights) {
  bool any = false, any_long = false;
  for (int k = 0; k < r->n; k++) {
    peer *p = &r->peer[k];
    p->n_rows = 0;
    p->away_ns = 0;
    if (atomic_load(&p->lost) || !p->loaded || p->report.experts == 0) continue;
    gather(r, k, layer, s, ids, weights);
    if (p->n_rows == 0) continue;
    p->posted_ns = hf_now_ns();
    atomic_store_explicit(&p->state, JOB_POSTED, memory_order_release);
    any = true;
    any_long = any_long || p->out_bytes > SHORT_BYTES;
  }
  if (!any) return;
  if (pthread_mutex_trylock(&r->moving) == 0) { /* short messages leave now, not when the mover has woken up */
    move_all(r);
    pthread_mutex_unlock(&r->moving);
    if (!any_long) return; /* sent whole; whoever collects them sees the results */
  }
  pthread_mutex_lock(&r->lock);
  atomic_store(&r->busy, true);
  pthread_cond_signal(&r->wake);
  pthread_mutex_unlock(&r->lock);
}

void ranks_collect(ranks *r, void (*breathe)(void *user), void *user) {
  const int64_t start = hf_now_ns();
  int64_t away_ns = 0;
  for (int k = 0; k < r->n; k++) { /* ends: move_one has a deadline for each */
    for (int s; (s = atomic_load_explicit(&r->peer[k].state, memory_order_acquire)) == JOB_POSTED || s == JOB_AWAY;) {
      if (pthread_mutex_trylock(&r->moving) == 0) {
        move_all(r);
        pthread_mutex_unlock(&r->moving);
      }
      if (breathe) breathe(user);
      net_breathe(hf_now_ns() - start);
    }
  }
  for (int k = 0; k < r->n; k++)
    if (r->peer[k].away_ns > away_ns) away_ns = r->peer[k].away_ns;
  if (away_ns == 0) return; /* nothing was away, or it never came back */
  r->away_ns += away_ns;
  r->waited_ns += hf_now_ns() - start;
}

void ranks_add(ranks *r, float *y, int thread, int n_threads) {
  const size_t d = (size_t)r->d_model, from = d * (size_t)thread / (size_t)n_threads,
               to = d * ((size_t)thread + 1) / (size_t)n_threads;
  for (int k = 0; k < r->n; k++) {
    const peer *p = &r->peer[k];
    if (atomic_load(&p->state) != JOB_DONE) continue;
    const float *part = (const float *)(const void *)(p->in + sizeof(result));
    for (int i = 0; i < p->n_rows; i++) {
      float *to_row = y + (size_t)p->row[i] * d;
      for (size_t c = from; c < to; c++) to_row[c] += part[(size_t)i * d + c];
    }
  }
}

bool ranks_lost(const ranks *r, char *why, size_t n) {
  for (int k = 0; k < r->n; k++) {
    const peer *p = &r->peer[k];
    if (!atomic_load(&p->lost) || p->told) continue;
    snprintf(why, n, "rank %d (%.40s): %.40s", k + 1, p->report.host, p->why);
    return true;
  }
  return false;
}

void ranks_forget(ranks *r) {
  for (int k = 0; k < r->n; k++) {
    peer *p = &r->peer[k];
    if (!atomic_load(&p->lost)) continue;
    p->told = true;
    atomic_store(&p->state, JOB_FREE);
    for (size_t i = 0; i < (size_t)r->n_layers * (size_t)r->n_experts; i++)
      if (r->owner[i] == k + 1) r->owner[i] = 0;
  }
}

/* --- what it was ---------------------------------------------------------------------------------------------------------- */

void ranks_json(const ranks *r, json *into) {
  json *list = json_add_array(into, "ranks");
  for (int k = 1; k <= r->n; k++) {
    const rank_report p = report_of(r, k);
    json *o = json_add_object(list, NULL);
    json_add_int(o, "rank", k);
    json_add_str(o, "host", p.host);
    json_add_int(o, "threads", p.threads);
    json_add_int(o, "experts", p.experts);
    json_add_bool(o, "lost", p.lost);
    json_add_int(o, "layers", p.jobs);
    json_add_int(o, "rows", p.rows);
    json_add_int(o, "bytes", p.bytes);
    json_add_num(o, "away_s", (double)p.away_ns * 1e-9);
    json_add_num(o, "busy_s", (double)p.busy_ns * 1e-9);
  }
  json_add_num(into, "ranks_away_s", (double)r->away_ns * 1e-9);
  json_add_num(into, "ranks_waited_s", (double)r->waited_ns * 1e-9);
}

void ranks_print(const ranks *r) {
  for (int k = 1; k <= r->n; k++) {
    const rank_report p = report_of(r, k);
    const double jobs = p.jobs > 0 ? (double)p.jobs : 1;
    printf("  rank %d (%s, %d thread%s): %d experts, %.3g MB in %lld layers, %.3g us a layer, of which %.3g us computing%s\n", k,
           p.host, p.threads, p.threads == 1 ? "" : "s", p.experts, (double)p.bytes * 1e-6, (long long)p.jobs,
           1e-3 * (double)p.away_ns / jobs, 1e-3 * (double)p.busy_ns / jobs, p.lost ? "; lost" : "");
  }
  if (r->away_ns > 0)
    printf("  of the time that rows were away %.0f %% was hidden behind this machine's own experts\n",
           100.0 * fmax(0, 1.0 - (double)r->waited_ns / (double)r->away_ns));
}
