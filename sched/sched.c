/* sched.c: see sched.h for the policy and the invariants; sched_check() is their executable form.
 *
 *   waiting --admit()--> PREFILL --last chunk in sched_done()--> DECODE --max_tokens or finished[]--> free slot
 *   sched_cancel() leads from any of them to the free slot; with a step in flight it waits for that step's sched_done().
 *
 * A request's page table is allocated by sched_add, so that admission cannot fail. The waiting queue is a ring; looking for a request
 * to cancel is linear, which is enough for queues of some thousands. */
#include "sched/sched.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

typedef struct {
  int64_t request;
  int prompt, max_tokens, cached;
  int32_t *pages; /* [n_pages], owned; filled when admitted */
  int n_pages;
} waiting;

typedef enum { SLOT_FREE, SLOT_PREFILL, SLOT_DECODE } slot_state;

typedef struct {
  slot_state state;
  waiting w;
  int64_t order; /* admission number: older is smaller */
  int micro_batch;
  int pos;        /* tokens whose KV is written or being written before the next piece */
  int produced;   /* output tokens so far */
  bool cancelled; /* goes with the step in flight */
} slot;

struct sched {
  sched_options o;
  waiting *queue; /* ring of cap entries */
  size_t head, n_waiting, cap;
  slot slot[SCHED_MAX_SEQS];
  int n_running;
  int64_t admitted;
  int32_t *free_pages; /* stack */
  int n_free;
  int32_t *holders; /* [n_pages] */
  sched_sharing share;
  bool busy[SCHED_MAX_DEPTH];
  sched_step flight[SCHED_MAX_DEPTH];
};

hf_status sched_new(const sched_options *o, sched **out) {
  if (o->depth < 1 || o->depth > SCHED_MAX_DEPTH)
    return hf_fail(HF_INPUT, "scheduler: depth %d is not between 1 and %d", o->depth, (int)SCHED_MAX_DEPTH);
  if (o->max_seqs < 1 || o->max_seqs > SCHED_MAX_SEQS)
    return hf_fail(HF_INPUT, "scheduler: %d sequences at once is not between 1 and %d", o->max_seqs, (int)SCHED_MAX_SEQS);
  if (o->chunk_tokens < 1) return hf_fail(HF_INPUT, "scheduler: chunk of %d tokens is below 1", o->chunk_tokens);
  if (o->page_tokens < 1 || (o->page_tokens & (o->page_tokens - 1)) != 0)
    return hf_fail(HF_INPUT, "scheduler: pages of %d tokens: needs a power of two", o->page_tokens);
  if (o->n_pages < 1) return hf_fail(HF_INPUT, "scheduler: %d KV pages: needs at least one", o->n_pages);
  sched *s = NULL;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "scheduler"));
  hf_status st = hf_alloc(&s->free_pages, (size_t)o->n_pages, sizeof *s->free_pages, "KV page list");
  if (st == HF_OK) st = hf_alloc(&s->holders, (size_t)o->n_pages, sizeof *s->holders, "KV page list");
  if (st != HF_OK) {
    sched_free(s);
    return st;
  }
  s->o = *o;
  s->n_free = o->n_pages;
  for (int i = 0; i < o->n_pages; i++) s->free_pages[i] = o->n_pages - 1 - i;
  *out = s;
  return HF_OK;
}

void sched_free(sched *s) {
  if (s == NULL) return;
  for (size_t i = 0; i < s->n_waiting; i++) free(s->queue[(s->head + i) % s->cap].pages);
  for (int i = 0; i < SCHED_MAX_SEQS; i++) free(s->slot[i].w.pages);
  free(s->queue);
  free(s->free_pages);
  free(s->holders);
  free(s);
}

bool sched_check(const sched *s) {
  int held = 0, running = 0;
  for (int i = 0; i < SCHED_MAX_SEQS; i++) {
    const slot *q = &s->slot[i];
    if (q->state == SLOT_FREE) continue;
    running++;
    for (int p = 0; p < q->w.n_pages; p++)
      if (s->holders[q->w.pages[p]] < 1) return false;
    if (i >= s->o.max_seqs || q->micro_batch < 0 || q->micro_batch >= s->o.depth) return false;
    if (q->pos > q->w.prompt + q->w.max_tokens || q->produced > q->w.max_tokens) return false;
    if ((int64_t)q->w.n_pages * s->o.page_tokens < (int64_t)q->w.prompt + q->w.max_tokens) return false;
    if (q->cancelled && !s->busy[q->micro_batch]) return false;
  }
  for (int p = 0; p < s->o.n_pages; p++) held += s->holders[p] > 0;
  for (int m = 0; m < s->o.depth; m++)
    for (int i = 0; s->busy[m] && i < s->flight[m].n_pieces; i++) {
      const slot *q = &s->slot[s->flight[m].piece[i].seq];
      if (q->state == SLOT_FREE || q->micro_batch != m || q->w.request != s->flight[m].piece[i].request) return false;
    }
  return s->n_free + held == s->o.n_pages && running == s->n_running;
}

/* ---- waiting queue ---- */

static hf_status queue_grow(sched *s) {
  if (s->n_waiting < s->cap) return HF_OK;
  size_t cap = s->cap > 0 ? 2 * s->cap : 64;
  waiting *q = NULL;
  HF_TRY(hf_alloc(&q, cap, sizeof *q, "waiting requests"));
  for (size_t i = 0; i < s->n_waiting; i++) q[i] = s->queue[(s->head + i) % s->cap];
  free(s->queue);
  s->queue = q;
  s->cap = cap;
  s->head = 0;
  return HF_OK;
}

hf_status sched_add(sched *s, int64_t request, int prompt_tokens, int max_tokens) {
  return sched_add_cached(s, request, prompt_tokens, max_tokens, 0);
}

hf_status sched_add_cached(sched *s, int64_t request, int prompt_tokens, int max_tokens, int cached_tokens) {
  if (prompt_tokens < 1 || max_tokens < 1)
    return hf_fail(HF_INPUT, "request: %d prompt tokens and %d to write: both need at least 1", prompt_tokens, max_tokens);
  if (cached_tokens < 0 || cached_tokens >= prompt_tokens)
    return hf_fail(HF_INPUT, "request: %d cached tokens of a prompt of %d: the last must be computed", cached_tokens,
                   prompt_tokens);
  int64_t tokens = (int64_t)prompt_tokens + max_tokens, fits = (int64_t)s->o.n_pages * s->o.page_tokens;
  if (tokens > fits)
    return hf_fail(HF_NO, "request: %lld tokens (prompt %d + up to %d) do not fit: the KV cache holds %lld", (long long)tokens,
                   prompt_tokens, max_tokens, (long long)fits);
  HF_TRY(queue_grow(s));
  waiting w = {.request = request, .prompt = prompt_tokens, .max_tokens = max_tokens, .cached = cached_tokens};
  w.n_pages = (int)((tokens + s->o.page_tokens - 1) / s->o.page_tokens);
  HF_TRY(hf_alloc(&w.pages, (size_t)w.n_pages, sizeof *w.pages, "KV page table"));
  s->queue[(s->head + s->n_waiting++) % s->cap] = w;
  return HF_OK;
}

/* ---- admission ---- */

static int free_slot(const sched *s) {
  for (int i = 0; i < s->o.max_seqs; i++)
    if (s->slot[i].state == SLOT_FREE) return i;
  return -1;
}

static int emptiest_micro_batch(const sched *s) {
  int n[SCHED_MAX_DEPTH] = {0}, best = 0;
  for (int i = 0; i < s->o.max_seqs; i++)
    if (s->slot[i].state != SLOT_FREE) n[s->slot[i].micro_batch]++;
  for (int m = 1; m < s->o.depth; m++)
    if (n[m] < n[best]) best = m;
  return best;
}

/* The pages of a request: shared ones first. Returns tokens that need not be computed, or -1 when it cannot be admitted yet; then it
 * holds nothing. */
static int take_pages(sched *s, waiting *w) {
  int shared = s->share.find ? s->share.find(s->share.user, w->request, w->pages) : 0;
  if (shared < 0) return -1;
  assert((int64_t)shared * s->o.page_tokens < w->prompt);
  for (int p = 0; p < shared; p++) sched_keep(s, w->pages[p]);
  int need = w->n_pages - shared;
  if (need > s->n_free && s->share.make_room) s->share.make_room(s->share.user, need - s->n_free);
  if (need > s->n_free) {
    for (int p = 0; p < shared; p++) sched_drop(s, w->pages[p]);
    return -1;
  }
  for (int p = shared; p < w->n_pages; p++) {
    w->pages[p] = s->free_pages[--s->n_free];
    s->holders[w->pages[p]] = 1;
  }
  int tokens = shared * s->o.page_tokens;
  if (s->share.restore) {
    tokens = s->share.restore(s->share.user, w->request, w->pages, shared);
    assert(tokens >= shared * s->o.page_tokens && tokens < w->prompt);
  }
  return tokens > w->cached ? tokens : w->cached;
}

static void admit(sched *s) {
  while (s->n_waiting > 0) {
    waiting *w = &s->queue[s->head];
    int i = free_slot(s), known = i < 0 ? -1 : take_pages(s, w);
    if (known < 0) return; /* first come, first served: nobody overtakes the head */
    s->slot[i] =
        (slot){.state = SLOT_PREFILL, .w = *w, .order = s->admitted++, .micro_batch = emptiest_micro_batch(s), .pos = known};
    s->head = (s->head + 1) % s->cap;
    s->n_waiting--;
    s->n_running++;
  }
}

static void release(sched *s, int i) {
  slot *q = &s->slot[i];
  for (int p = q->w.n_pages; p-- > 0;) sched_drop(s, q->w.pages[p]);
  free(q->w.pages);
  *q = (slot){.state = SLOT_FREE};
  s->n_running--;
}

/* ---- shared pages ---- */

void sched_share(sched *s, const sched_sharing *with) {
  s->share = *with;
}

void sched_keep(sched *s, int32_t page) {
  assert(page >= 0 && page < s->o.n_pages && s->holders[page] > 0);
  s->holders[page]++;
}

hf_status sched_adopt(sched *s, int32_t page) {
  if (page < 0 || page >= s->o.n_pages)
    return hf_fail(HF_INPUT, "scheduler: page %d of %d cannot be kept", (int)page, s->o.n_pages);
  for (int i = 0; s->holders[page] == 0 && i < s->n_free; i++) {
    if (s->free_pages[i] != page) continue;
    memmove(s->free_pages + i, s->free_pages + i + 1, (size_t)(s->n_free - i - 1) * sizeof *s->free_pages);
    s->n_free--;
    break;
  }
  s->holders[page]++;
  return HF_OK;
}

void sched_drop(sched *s, int32_t page) {
  assert(page >= 0 && page < s->o.n_pages && s->holders[page] > 0);
  if (--s->holders[page] > 0) return;
  s->free_pages[s->n_free++] = page;
  if (s->share.on_free) s->share.on_free(s->share.user, page);
}

int sched_holders(const sched *s, int32_t page) {
  return s->holders[page];
}

/* ---- steps ---- */

static void add_piece(sched_step *st, const slot *q, int seq, int n_tokens, bool decode) {
  st->piece[st->n_pieces++] = (sched_piece){.seq = seq,
                                            .request = q->w.request,
                                            .start_pos = q->pos,
                                            .n_tokens = n_tokens,
                                            .decode = decode,
                                            .wants_logits = decode || q->pos + n_tokens == q->w.prompt};
  st->n_tokens += n_tokens;
  st->n_decode += decode;
}

/* The oldest prefilling sequence of micro_batch admitted after `after`, or -1. */
static int next_prefill(const sched *s, int micro_batch, int64_t after) {
  int best = -1;
  for (int i = 0; i < s->o.max_seqs; i++) {
    const slot *q = &s->slot[i];
    if (q->state != SLOT_PREFILL || q->micro_batch != micro_batch || q->order <= after) continue;
    if (best < 0 || q->order < s->slot[best].order) best = i;
  }
  return best;
}

bool sched_next(sched *s, int micro_batch, sched_step *out) {
  assert(micro_batch >= 0 && micro_batch < s->o.depth && !s->busy[micro_batch]);
  if (s->busy[micro_batch]) return false;
  admit(s);
  sched_step *st = &s->flight[micro_batch];
  *st = (sched_step){0};
  for (int i = 0; i < s->o.max_seqs; i++)
    if (s->slot[i].state == SLOT_DECODE && s->slot[i].micro_batch == micro_batch) add_piece(st, &s->slot[i], i, 1, true);
  int room = s->o.chunk_tokens;
  int64_t after = -1;
  for (int i; room > 0 && (i = next_prefill(s, micro_batch, after)) >= 0;) {
    const slot *q = &s->slot[i];
    int n = q->w.prompt - q->pos < room ? q->w.prompt - q->pos : room;
    add_piece(st, q, i, n, false);
    room -= n;
    after = q->order;
  }
  s->busy[micro_batch] = st->n_pieces > 0;
  *out = *st;
  assert(sched_check(s));
  return st->n_pieces > 0;
}

void sched_done(sched *s, int micro_batch, const uint8_t *finished, int64_t *ended, int *n_ended) {
  assert(micro_batch >= 0 && micro_batch < s->o.depth && s->busy[micro_batch]);
  const sched_step *st = &s->flight[micro_batch];
  int n = 0;
  for (int i = 0; s->busy[micro_batch] && i < st->n_pieces; i++) {
    const sched_piece *p = &st->piece[i];
    slot *q = &s->slot[p->seq];
    q->pos += p->n_tokens;
    q->produced += p->wants_logits;
    if (p->wants_logits) q->state = SLOT_DECODE;
    bool end = q->cancelled || (finished != NULL && finished[i] != 0) || q->produced >= q->w.max_tokens;
    if (!end) continue;
    if (ended != NULL) ended[n] = p->request;
    n++;
    release(s, p->seq);
  }
  if (n_ended != NULL) *n_ended = n;
  s->busy[micro_batch] = false;
  assert(sched_check(s));
}

int sched_repeats(const sched *s, int micro_batch) {
  const sched_step *st = &s->flight[micro_batch];
  int least = INT32_MAX;
  if (!s->busy[micro_batch] || st->n_pieces == 0 || st->n_decode < st->n_tokens) return 0;
  for (int i = 0; i < st->n_pieces; i++) {
    const slot *q = &s->slot[st->piece[i].seq];
    int left = q->cancelled ? 0 : q->w.max_tokens - q->produced - 1;
    if (left < least) least = left;
  }
  return least;
}

void sched_repeat(sched *s, int micro_batch, int more) {
  assert(more >= 0 && more <= sched_repeats(s, micro_batch));
  const sched_step *st = &s->flight[micro_batch];
  for (int i = 0; i < st->n_pieces; i++) {
    slot *q = &s->slot[st->piece[i].seq];
    q->pos += more;
    q->produced += more;
  }
}

static bool in_flight(const sched *s, int seq) {
  int m = s->slot[seq].micro_batch;
  if (!s->busy[m]) return false;
  for (int i = 0; i < s->flight[m].n_pieces; i++)
    if (s->flight[m].piece[i].seq == seq) return true;
  return false;
}

void sched_cancel(sched *s, int64_t request) {
  for (size_t i = 0; i < s->n_waiting; i++) {
    waiting *w = &s->queue[(s->head + i) % s->cap];
    if (w->request != request) continue;
    free(w->pages);
    for (size_t k = i; k + 1 < s->n_waiting; k++) s->queue[(s->head + k) % s->cap] = s->queue[(s->head + k + 1) % s->cap];
    s->n_waiting--;
    return;
  }
  for (int i = 0; i < s->o.max_seqs; i++) {
    if (s->slot[i].state == SLOT_FREE || s->slot[i].w.request != request) continue;
    if (in_flight(s, i)) s->slot[i].cancelled = true;
    else release(s, i);
    break;
  }
  assert(sched_check(s));
}

const int32_t *sched_pages(const sched *s, int seq, int *n_pages) {
  const slot *q = &s->slot[seq];
  *n_pages = q->state == SLOT_FREE ? 0 : q->w.n_pages;
  return q->state == SLOT_FREE ? NULL : q->w.pages;
}

int sched_pages_free(const sched *s) {
  return s->n_free;
}
int sched_waiting(const sched *s) {
  return (int)s->n_waiting;
}
int sched_running(const sched *s) {
  return s->n_running;
}
