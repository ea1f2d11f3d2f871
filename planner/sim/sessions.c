#include "planner/sim/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"
#include "sched/prefix.h"

enum { NONE = -1 };

/* By the place of its key in a table of open addresses. */
typedef struct {
  uint64_t key; /* 0: free */
  int32_t text;
  int64_t tokens; /* of the text so far: prompt and answer of the last turn */
  bool busy;
} conversation;

typedef struct {
  bool in;
  uint64_t key; /* 0: of no conversation */
  int32_t text; /* what its tokens look like behind those that all share */
  int prompt, known;
  int computed; /* NONE: it does not run and is not about to */
} request;

struct sim_sessions {
  const sim_options *o;
  sched *s;
  prefix *known;
  int n_pages, n_slots, n_free;
  int32_t *free_slots;
  int32_t *ids; /* text of one request */
  request *req;
  int64_t n_req;
  conversation *table;
  size_t n_table, n_used;
  sim_demand *late;
  int n_late, cap_late;
  int32_t texts;
  int64_t waited_ns;
  sim_parking r;
};

/* ---- the mirror's slots ---- */

static void give_back(void *user, int32_t slot) {
  sim_sessions *x = user;
  x->free_slots[x->n_free++] = slot;
}

static bool busy_page(void *user, int32_t page) {
  const sim_sessions *x = user;
  return sched_holders(x->s, page) > 1;
}

static int32_t take_slot(sim_sessions *x) {
  if (x->n_free == 0 && x->n_slots > 0) (void)prefix_give_back(x->known, busy_page, x);
  if (x->n_free > 0) return x->free_slots[--x->n_free];
  x->r.left_out_pages += x->n_slots > 0;
  return NONE;
}

/* ---- what the scheduler asks ---- */

static void text_of(sim_sessions *x, const request *q, int n) {
  for (int i = 0; i < n; i++) x->ids[i] = i < x->o->shared_tokens ? 0 : q->text;
}

/* Somebody is computing more of the same beginning. */
static bool better_wait(const sim_sessions *x, const request *q, int found) {
  const int pt = x->o->page_tokens;
  for (int64_t i = 0; x->o->shared_tokens >= pt && i < x->n_req; i++) {
    const request *a = &x->req[i];
    int alike = x->o->shared_tokens < a->prompt ? x->o->shared_tokens : a->prompt;
    if (alike > q->prompt - 1) alike = q->prompt - 1;
    if (a->in && a != q && a->computed != NONE && a->computed < a->prompt && alike / pt > found && alike / pt * pt > a->computed)
      return true;
  }
  return false;
}

static int find(void *user, int64_t id, int32_t *pages) {
  sim_sessions *x = user;
  request *q = &x->req[id];
  text_of(x, q, q->prompt);
  const int n = prefix_find(x->known, x->ids, q->prompt, (q->prompt - 1) / x->o->page_tokens, pages);
  if (better_wait(x, q, n)) return -1;
  q->computed = q->known = n * x->o->page_tokens;
  return n;
}

static void make_room(void *user, int n_pages) {
  sim_sessions *x = user;
  for (int32_t page; n_pages > 0 && (page = prefix_forget(x->known, busy_page, x)) >= 0; n_pages--) sched_drop(x->s, page);
}

static int restore(void *user, int64_t id, const int32_t *pages, int n_shared) {
  sim_sessions *x = user;
  request *q = &x->req[id];
  const int pt = x->o->page_tokens;
  int tokens = n_shared * pt, n;
  int32_t slot;
  text_of(x, q, q->prompt);
  prefix_way w = prefix_behind(x->known, x->ids, n_shared);
  while (w.k * pt < q->prompt - 1 && (n = prefix_next(x->known, x->ids, q->prompt - 1, &w, &slot)) > 0) {
    const int32_t page = pages[tokens / pt];
    tokens += n;
    if (n < pt) break;
    if (prefix_bring(x->known, &w, page)) sched_keep(x->s, page);
  }
  const int back = tokens - n_shared * pt;
  const int64_t ns = sim_round(x->o->kv_token_ns * back);
  x->r.shared_tokens += n_shared * pt;
  x->r.restored_tokens += back;
  x->r.resumed += back > 0;
  x->r.resume_s += 1e-9 * (double)ns;
  x->waited_ns += ns;
  q->computed = q->known = tokens;
  return tokens;
}

/* ---- conversations ---- */

static conversation *place_of(const sim_sessions *x, uint64_t key) {
  size_t i = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (x->n_table - 1);
  while (x->table[i].key != 0 && x->table[i].key != key) i = (i + 1) & (x->n_table - 1);
  return &x->table[i];
}

static hf_status grow_table(sim_sessions *x) {
  if (2 * x->n_used < x->n_table) return HF_OK;
  conversation *was = x->table;
  const size_t n = x->n_table;
  x->n_table = n > 0 ? 2 * n : 256;
  x->table = NULL;
  const hf_status st = hf_alloc(&x->table, x->n_table, sizeof *x->table, "simulated conversations");
  for (size_t i = 0; st == HF_OK && i < n; i++)
    if (was[i].key != 0) *place_of(x, was[i].key) = was[i];
  free(was);
  if (st != HF_OK) x->n_table = 0;
  return st;
}

static int32_t new_text(sim_sessions *x) {
  x->texts = x->texts < INT32_MAX ? x->texts + 1 : 1;
  return x->texts;
}

static hf_status keep_late(sim_sessions *x, const sim_demand *d) {
  if (x->n_late == x->cap_late) {
    const int cap = x->cap_late > 0 ? 2 * x->cap_late : 64;
    HF_TRY(hf_realloc(&x->late, (size_t)cap, sizeof *x->late, "simulated requests"));
    x->cap_late = cap;
  }
  x->late[x->n_late++] = *d;
  return HF_OK;
}

static hf_status room_for(sim_sessions *x, int64_t id) {
  if (id < x->n_req) return HF_OK;
  const int64_t n = id < 2 * SCHED_MAX_SEQS ? 2 * SCHED_MAX_SEQS : 2 * id;
  HF_TRY(hf_realloc(&x->req, (size_t)n, sizeof *x->req, "simulated requests"));
  memset(x->req + x->n_req, 0, (size_t)(n - x->n_req) * sizeof *x->req);
  x->n_req = n;
  return HF_OK;
}

hf_status sim_sessions_enter(sim_sessions *x, int64_t id, const sim_demand *d, bool *enters) {
  *enters = true;
  HF_TRY(room_for(x, id));
  HF_TRY(grow_table(x));
  request *q = &x->req[id];
  *q = (request){.in = true, .key = d->session, .prompt = d->prompt, .computed = NONE};
  if (d->session == 0) {
    q->text = new_text(x);
    return HF_OK;
  }
  conversation *c = place_of(x, d->session);
  if (c->busy) {
    q->in = *enters = false;
    return keep_late(x, d);
  }
  x->n_used += c->key == 0;
  if (c->key == 0 || d->begins || d->prompt < c->tokens) c->text = new_text(x);
  c->key = d->session;
  c->tokens = (int64_t)d->prompt + d->output;
  c->busy = true;
  q->text = c->text;
  return HF_OK;
}

void sim_sessions_leave(sim_sessions *x, int64_t id) {
  request *q = &x->req[id];
  if (q->in && q->key != 0) place_of(x, q->key)->busy = false;
  q->in = false;
}

bool sim_sessions_next(sim_sessions *x, sim_demand *out) {
  for (int i = 0; i < x->n_late; i++) {
    if (place_of(x, x->late[i].session)->busy) continue;
    *out = x->late[i];
    memmove(x->late + i, x->late + i + 1, (size_t)(x->n_late - i - 1) * sizeof *x->late);
    x->n_late--;
    return true;
  }
  return false;
}

int sim_sessions_known(const sim_sessions *x, int64_t id) {
  return x->req[id].known;
}

/* ---- steps ---- */

void sim_sessions_step(sim_sessions *x, const sched_piece *p, int done) {
  request *q = &x->req[p->request];
  const int pt = x->o->page_tokens;
  int n_pages;
  q->computed = done;
  if (!x->o->table->one_resource && x->n_slots > 0) x->r.mirrored_tokens += done - p->start_pos;
  if (done / pt == p->start_pos / pt) return;
  const int32_t *pages = sched_pages(x->s, p->seq, &n_pages);
  text_of(x, q, done);
  for (int k = p->start_pos / pt; k < done / pt; k++)
    if (prefix_add(x->known, x->ids, k, pages[k])) sched_keep(x->s, pages[k]);
}

/* As hf-run parks the session of a request that has ended. */
static void park(sim_sessions *x, const request *q, const int32_t *pages, int n) {
  const int pt = x->o->page_tokens;
  const bool now = x->o->table->one_resource; /* with a device it was written step by step */
  text_of(x, q, n);
  for (int k = 0; k < n / pt; k++) {
    if (!prefix_has(x->known, pages[k]) || prefix_slot(x->known, pages[k]) != NONE) continue;
    const int32_t slot = take_slot(x);
    if (slot == NONE) break;
    prefix_mirror(x->known, pages[k], slot);
    x->r.mirrored_tokens += now ? pt : 0;
  }
  if (n % pt) {
    const int32_t slot = take_slot(x);
    if (slot != NONE && !prefix_add_end(x->known, x->ids, n, slot)) give_back(x, slot);
    else if (slot != NONE && now) x->r.mirrored_tokens += n % pt;
  }
  prefix_name(x->known, x->ids, n);
}

void sim_sessions_end(sim_sessions *x, const sched_piece *p, int done) {
  const request *q = &x->req[p->request];
  int n_pages;
  const int32_t *pages = sched_pages(x->s, p->seq, &n_pages);
  if (q->key != 0 && x->n_slots > 0) park(x, q, pages, done);
  sim_sessions_leave(x, p->request);
}

int64_t sim_sessions_waited(sim_sessions *x) {
  const int64_t ns = x->waited_ns;
  x->waited_ns = 0;
  return ns;
}

/* ---- life ---- */

hf_status sim_sessions_new(const sim_options *o, sched *s, int n_pages, sim_sessions **out) {
  sim_sessions *x = NULL;
  HF_TRY(hf_alloc(&x, 1, sizeof *x, "simulated conversations"));
  x->o = o;
  x->s = s;
  x->n_pages = n_pages;
  x->n_slots = x->n_free = o->standby_pages;
  hf_status st = prefix_new_mirrored(o->page_tokens, n_pages, x->n_slots, give_back, x, &x->known);
  if (st == HF_OK) st = hf_alloc(&x->free_slots, (size_t)x->n_slots + 1, sizeof *x->free_slots, "simulated mirror");
  if (st == HF_OK) st = hf_alloc(&x->ids, (size_t)n_pages * (size_t)o->page_tokens, sizeof *x->ids, "simulated texts");
  if (st != HF_OK) {
    sim_sessions_free(x);
    return st;
  }
  for (int i = 0; i < x->n_slots; i++) x->free_slots[i] = x->n_slots - 1 - i;
  const sched_sharing with = {.user = x, .find = find, .make_room = make_room, .restore = restore};
  sched_share(s, &with);
  *out = x;
  return HF_OK;
}

void sim_sessions_free(sim_sessions *x) {
  if (x == NULL) return;
  prefix_free(x->known);
  free(x->free_slots);
  free(x->ids);
  free(x->req);
  free(x->table);
  free(x->late);
  free(x);
}

void sim_sessions_result(const sim_sessions *x, sim_parking *out) {
  *out = x->r;
  out->any = true;
  out->parked_tokens = prefix_parked(x->known);
  out->pages_lost = x->n_pages - sched_pages_free(x->s) - prefix_pages(x->known);
  out->slots_lost = x->n_slots - x->n_free - prefix_slots(x->known);
  out->slots = x->n_slots;
}
