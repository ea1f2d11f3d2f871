#include "kernels/dev/copies.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

static const int64_t PAUSE_NS = 20000; /* shorter ones are not told apart from the thread's own work */

typedef struct {
  enum { SLOT_FREE, SLOT_SENDING, SLOT_FULL } state;
  bool dropped; /* while it is sent: nobody wants it any more */
  int at, expert;
  int64_t ready_ns, free_ns; /* when it has arrived; since when it is free */
  moe_expert x;              /* in the slot's memory */
} slot;

/* What is sent for one stream. Layers that upload are counted in their order. */
typedef struct {
  const dev_recording *r; /* NULL: no step that uploads is under way */
  dev_step *s;
  int at;     /* layer whose experts are sent */
  int routed; /* layers whose routing is known: at is the last of them, or the one after it */
  int used;   /* experts of layer routed - 1 below this one are computed */
  int64_t since_ns;
  uint8_t need[DEV_MAX_SENT]; /* chosen in layer routed - 1 */
  slot slot[DEV_MAX_SLOTS];
  struct {
    dev_trace rec[DEV_MAX_SENT];
    int n;
  } log[2]; /* of layers at and at - 1, by their parity: copies without a pause are one record */
} lane;

struct copies {
  copies_options o;
  pthread_t thread;
  pthread_mutex_t lock; /* guards all below */
  pthread_cond_t wake;
  bool stop, joined;
  int turn;             /* stream to look at first */
  int64_t begun, ended; /* copies */
  int64_t link_ns;      /* when the last copy ended */
  lane lane[COPIES_MAX_STREAMS];
};

/* ---- what to send next; under the lock ---- */

static const moe_expert *source(const lane *y, int at, int e) {
  const dev_context *ctx = y->r->ctx;
  return &ctx->host_experts[(size_t)y->r->uploads[at] * (size_t)ctx->n_experts + (size_t)e];
}

static bool wanted(const lane *y, int at, int e) {
  const dev_context *ctx = y->r->ctx;
  const bool chosen =
      at < y->routed ? y->need[e] != 0 : ctx->likely[(size_t)y->r->uploads[at] * (size_t)ctx->n_experts + (size_t)e];
  return chosen && source(y, at, e)->gate.data;
}

static slot *slot_with(lane *y, int at, int e) {
  for (int i = 0; i < y->r->ctx->n_slots; i++) {
    slot *t = &y->slot[i];
    if (t->state != SLOT_FREE && !t->dropped && t->at == at && t->expert == e) return t;
  }
  return NULL;
}

/* The first that is wanted, not computed and in no slot; -1: none. *first: the device waits for it. */
static int missing(lane *y, int at, bool *first) {
  *first = true;
  for (int e = at < y->routed ? y->used : 0; e < y->r->ctx->n_experts; e++) {
    if (!wanted(y, at, e)) continue;
    if (!slot_with(y, at, e)) return e;
    *first = false;
  }
  return -1;
}

static slot *free_slot(lane *y) {
  slot *best = NULL;
  for (int i = 0; i < y->r->ctx->n_slots; i++) {
    slot *t = &y->slot[i];
    if (t->state == SLOT_FREE && (!best || t->free_ns < best->free_ns)) best = t;
  }
  return best;
}

static size_t bytes_of(const lane *y, const moe_expert *x) {
  return dev_slot_bytes(x, y->r->ctx->d_model, y->r->ctx->d_ff_expert);
}

/* The slot of the last expert sent ahead: it will be sent again. */
static slot *take_back(lane *y, int at) {
  slot *last = NULL;
  for (int i = 0; i < y->r->ctx->n_slots; i++) {
    slot *t = &y->slot[i];
    if (t->state == SLOT_FULL && t->at == at && (!last || t->expert > last->expert)) last = t;
  }
  if (!last) return NULL;
  last->state = SLOT_FREE;
  last->free_ns = hf_now_ns();
  y->s->unused_bytes += (int64_t)bytes_of(y, &last->x);
  return last;
}

static slot *next_copy(lane *y) {
  while (y->r && y->at < y->r->n_uploads) {
    const bool known = y->at < y->routed;
    bool first;
    const int e = missing(y, y->at, &first);
    if (e < 0 && !known) return NULL; /* all that is likely is there */
    if (e < 0) {
      y->at++;
      continue;
    }
    slot *t = free_slot(y);
    if (!t && known && first) t = take_back(y, y->at);
    if (!t) return NULL;
    t->state = SLOT_SENDING;
    t->dropped = false;
    t->at = y->at;
    t->expert = e;
    y->s->sent_bytes += (int64_t)bytes_of(y, source(y, y->at, e));
    return t;
  }
  return NULL;
}

/* ---- sending ---- */

static char *put(char *to, const void *from, size_t bytes) {
  memcpy(to, from, bytes);
  return to + (bytes + 63) / 64 * 64;
}

static char *put_matrix(char *to, kern_mat *w) {
  const void *from = w->data;
  w->data = to;
  return put(to, from, kern_mat_bytes(w->layout, w->format, w->n_rows, w->n_cols));
}

static char *put_bias(char *to, const float **bias, int n) {
  const float *from = *bias;
  if (!from) return to;
  *bias = (const float *)to;
  return put(to, from, (size_t)n * sizeof *from);
}

/* *x becomes the expert as it lies at `to`. */
static void send_expert(const dev_context *ctx, moe_expert *x, char *to) {
  to = put_matrix(to, &x->gate);
  to = put_matrix(to, &x->up);
  to = put_matrix(to, &x->down);
  to = put_bias(to, &x->gate_bias, ctx->d_ff_expert);
  to = put_bias(to, &x->up_bias, ctx->d_ff_expert);
  put_bias(to, &x->down_bias, ctx->d_model);
}

typedef struct {
  lane *y;
  slot *t;
  const dev_recording *r; /* as it was when the copy began: the step may be over when it ends */
  const dev_step *s;
  int layer, tokens;
  moe_expert x;
  char *to;
  int64_t earliest_ns, bytes;
} copy;

static bool next_of_all(copies *q, copy *c) {
  for (int i = 0; i < q->o.n_streams; i++) {
    const int k = (q->turn + i) % q->o.n_streams;
    lane *y = &q->lane[k];
    slot *t = next_copy(y);
    if (!t) continue;
    const dev_context *ctx = y->r->ctx;
    const size_t index = (size_t)k * (size_t)ctx->n_slots + (size_t)(t - y->slot);
    *c = (copy){.y = y, .t = t, .r = y->r, .s = y->s, .layer = y->r->uploads[t->at], .x = *source(y, t->at, t->expert)};
    c->tokens = y->s->n_tok;
    c->to = (char *)(uintptr_t)ctx->slots + index * ctx->slot_bytes;
    c->bytes = (int64_t)bytes_of(y, &c->x);
    c->earliest_ns = q->link_ns > t->free_ns ? q->link_ns : t->free_ns;
    if (y->since_ns > c->earliest_ns) c->earliest_ns = y->since_ns;
    q->turn = (k + 1) % q->o.n_streams;
    return true;
  }
  return false;
}

static void note(copies *q, copy *c, int64_t start_ns, int64_t end_ns) {
  const int k = c->t->at % 2, n = c->y->log[k].n;
  q->link_ns = end_ns;
  c->t->ready_ns = end_ns;
  c->t->x = c->x;
  if (c->t->dropped) {
    c->t->state = SLOT_FREE;
    c->t->free_ns = hf_now_ns();
    return;
  }
  c->t->state = SLOT_FULL;
  dev_trace *rec = n > 0 ? &c->y->log[k].rec[n - 1] : NULL;
  if (!rec || (start_ns - rec->end_ns > PAUSE_NS && n < DEV_MAX_SENT)) {
    rec = &c->y->log[k].rec[c->y->log[k].n++];
    *rec = (dev_trace){.start_ns = start_ns, .layer = c->layer, .stage = DEV_STAGE_UPLOAD, .tokens = c->tokens, .more = n > 0};
  }
  rec->end_ns = end_ns;
  rec->distinct++;
  rec->bytes += c->bytes;
}

static void *copy_thread(void *arg) {
  copies *q = arg;
  copy c;
  pthread_mutex_lock(&q->lock);
  for (;;) {
    while (!q->stop && !next_of_all(q, &c)) pthread_cond_wait(&q->wake, &q->lock); /* ends: copies_quit wakes it */
    if (q->stop) break;
    const int expert = c.t->expert;
    q->begun++;
    pthread_mutex_unlock(&q->lock);
    int64_t start = hf_now_ns();
    const bool lost = q->o.before(q->o.user);
    if (!lost) send_expert(c.r->ctx, &c.x, c.to);
    if (!lost) q->o.after(q->o.user, start);
    int64_t end = hf_now_ns();
    if (q->o.pace) {
      const int64_t ns = q->o.pace(q->o.pace_user, DEV_STAGE_UPLOAD, c.layer, expert, c.s, c.r->ctx);
      start = c.earliest_ns;
      end = start + ns > end ? start + ns : end;
    }
    pthread_mutex_lock(&q->lock);
    if (lost) break;
    q->ended++;
    note(q, &c, start, end);
  }
  pthread_mutex_unlock(&q->lock);
  return NULL;
}

/* ---- interface ---- */

hf_status copies_new(const copies_options *o, copies **out) {
  copies *q = NULL;
  HF_TRY(hf_alloc(&q, 1, sizeof *q, "copy queue"));
  q->o = *o;
  pthread_mutex_init(&q->lock, NULL);
  pthread_cond_init(&q->wake, NULL);
  int err = pthread_create(&q->thread, NULL, copy_thread, q);
  if (err) {
    q->joined = true;
    copies_free(q);
    return hf_fail(HF_MACHINE, "virtual device: no thread for copies (error %d)", err);
  }
  cpu_set_t cpus;
  if (pthread_getaffinity_np(o->beside, sizeof cpus, &cpus) == 0) (void)pthread_setaffinity_np(q->thread, sizeof cpus, &cpus);
  *out = q;
  return HF_OK;
}

void copies_quit(copies *q) {
  pthread_mutex_lock(&q->lock);
  q->stop = true;
  pthread_cond_signal(&q->wake);
  pthread_mutex_unlock(&q->lock);
  if (!q->joined) pthread_join(q->thread, NULL); /* ends: a copy is finite, `before` looks at what the caller has set */
  q->joined = true;
}

void copies_count(copies *q, int64_t *begun, int64_t *ended) {
  pthread_mutex_lock(&q->lock);
  *begun = q->begun;
  *ended = q->ended;
  pthread_mutex_unlock(&q->lock);
}

void copies_free(copies *q) {
  if (!q) return;
  pthread_cond_destroy(&q->wake);
  pthread_mutex_destroy(&q->lock);
  free(q);
}

void copies_begin(copies *q, int stream, const dev_recording *r, dev_step *s) {
  lane *y = &q->lane[stream];
  pthread_mutex_lock(&q->lock);
  y->r = r;
  y->s = s;
  y->at = y->routed = y->used = 0;
  y->since_ns = hf_now_ns();
  y->log[0].n = y->log[1].n = 0;
  for (int i = 0; i < DEV_MAX_SLOTS; i++) {
    if (y->slot[i].state == SLOT_SENDING) y->slot[i].dropped = true;
    else y->slot[i].state = SLOT_FREE;
  }
  pthread_cond_signal(&q->wake);
  pthread_mutex_unlock(&q->lock);
}

void copies_routed(copies *q, int stream) {
  lane *y = &q->lane[stream];
  const dev_context *ctx = y->r->ctx;
  const dev_step *s = y->s;
  const int layer = y->r->uploads[y->routed];
  const int32_t *ids = s->route_ids + (size_t)layer * (size_t)s->max_tok * (size_t)ctx->top_k;
  const int64_t now = hf_now_ns();
  pthread_mutex_lock(&q->lock);
  memset(y->need, 0, sizeof y->need);
  for (int i = 0; i < s->n_tok * ctx->top_k; i++) y->need[ids[i]] = 1;
  memcpy(ctx->likely + (size_t)layer * (size_t)ctx->n_experts, y->need, (size_t)ctx->n_experts);
  y->since_ns = now;
  y->used = 0;
  y->routed++;
  for (int i = 0; i < ctx->n_slots; i++) {
    slot *t = &y->slot[i];
    if (t->state == SLOT_FREE || t->dropped || y->need[t->expert]) continue;
    y->s->unused_bytes += (int64_t)bytes_of(y, source(y, t->at, t->expert));
    if (t->state == SLOT_SENDING) {
      t->dropped = true;
    } else {
      t->state = SLOT_FREE;
      t->free_ns = now;
    }
  }
  pthread_cond_signal(&q->wake);
  pthread_mutex_unlock(&q->lock);
}

copies_state copies_next(copies *q, int stream, int *expert, moe_expert *x) {
  lane *y = &q->lane[stream];
  const int at = y->routed - 1;
  copies_state state = COPIES_ALL;
  pthread_mutex_lock(&q->lock);
  for (int e = y->used; e < y->r->ctx->n_experts && state == COPIES_ALL; e++) {
    if (!wanted(y, at, e)) continue;
    const slot *t = slot_with(y, at, e);
    state = COPIES_NOT_YET;
    if (!t || t->state != SLOT_FULL || t->ready_ns > hf_now_ns()) continue;
    state = COPIES_READY;
    *expert = e;
    *x = t->x;
  }
  pthread_mutex_unlock(&q->lock);
  return state;
}

void copies_used(copies *q, int stream, int expert) {
  lane *y = &q->lane[stream];
  pthread_mutex_lock(&q->lock);
  slot *t = slot_with(y, y->routed - 1, expert);
  t->state = SLOT_FREE;
  t->free_ns = hf_now_ns();
  y->used = expert + 1;
  pthread_cond_signal(&q->wake);
  pthread_mutex_unlock(&q->lock);
}

void copies_layer_ends(copies *q, int stream) {
  lane *y = &q->lane[stream];
  dev_step *s = y->s;
  pthread_mutex_lock(&q->lock);
  const int k = (y->routed - 1) % 2;
  for (int i = 0; s->trace && i < y->log[k].n && s->n_trace < s->max_trace; i++) s->trace[s->n_trace++] = y->log[k].rec[i];
  y->log[k].n = 0;
  if (y->at < y->routed) y->at = y->routed; /* nothing was to be sent for it, and the thread has not seen that yet */
  if (y->routed == y->r->n_uploads) y->r = NULL;
  pthread_mutex_unlock(&q->lock);
}
