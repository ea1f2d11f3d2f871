/* prefix.c: see prefix.h. A node's children are a list; siblings are as many as texts go on differently. Nodes in pages are in a list by use, so that who makes
 * room does not look through all that is parked. */
#include "sched/prefix.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { NONE = -1 };

typedef struct {
  bool in, named;
  int32_t parent, child, next; /* next: sibling, or the next free node */
  int32_t page, slot;
  int32_t older, newer; /* nodes in pages, by use */
  int n_tokens;
  uint64_t used;
} node;

struct prefix {
  int page_tokens, n_pages, n_nodes, n_in, n_slots;
  uint64_t now;
  int64_t parked;
  int32_t root, free;     /* first child, first free node */
  int32_t oldest, newest; /* in a page */
  node *node;
  int32_t *tokens;  /* [n_nodes][page_tokens] */
  int32_t *at_page; /* [n_pages] node, or NONE */
  prefix_slot_fn *give_back;
  void *user;
};

static void empty(prefix *p) {
  p->root = p->oldest = p->newest = NONE;
  p->free = 0;
  p->n_in = p->n_slots = 0;
  for (int32_t i = 0; i < p->n_nodes; i++) p->node[i] = (node){.next = i + 1 < p->n_nodes ? i + 1 : NONE};
  for (int i = 0; i < p->n_pages; i++) p->at_page[i] = NONE;
}

hf_status prefix_new(int page_tokens, int n_pages, prefix **out) {
  return prefix_new_mirrored(page_tokens, n_pages, 0, NULL, NULL, out);
}

hf_status prefix_new_mirrored(int page_tokens, int n_pages, int n_slots, prefix_slot_fn *give_back, void *user, prefix **out) {
  prefix *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "shared prefixes"));
  p->page_tokens = page_tokens;
  p->n_pages = n_pages;
  p->n_nodes = n_pages + n_slots; /* each has a page or a slot */
  p->give_back = give_back;
  p->user = user;
  const size_t n = (size_t)p->n_nodes;
  hf_status st = hf_alloc(&p->node, n, sizeof *p->node, "shared prefixes");
  if (st == HF_OK) st = hf_alloc(&p->tokens, n * (size_t)page_tokens, sizeof *p->tokens, "shared prefixes");
  if (st == HF_OK) st = hf_alloc(&p->at_page, (size_t)n_pages, sizeof *p->at_page, "shared prefixes");
  if (st != HF_OK) {
    prefix_free(p);
    return st;
  }
  empty(p);
  *out = p;
  return HF_OK;
}

void prefix_free(prefix *p) {
  if (!p) return;
  free(p->node);
  free(p->tokens);
  free(p->at_page);
  free(p);
}

/* ---- nodes ---- */

static int32_t *first_child(prefix *p, int32_t parent) {
  return parent == NONE ? &p->root : &p->node[parent].child;
}

static int32_t first_of(const prefix *p, int32_t parent) {
  return parent == NONE ? p->root : p->node[parent].child;
}

static const int32_t *tokens_of(const prefix *p, int32_t i) {
  return p->tokens + (size_t)i * (size_t)p->page_tokens;
}

static void lose_slot(prefix *p, int32_t i) {
  const int32_t slot = p->node[i].slot;
  if (slot < 0) return;
  p->node[i].slot = NONE;
  p->n_slots--;
  if (p->give_back) p->give_back(p->user, slot);
}

/* ---- in pages, by use ---- */

static void link_page(prefix *p, int32_t i, int32_t page) {
  node *x = &p->node[i];
  x->page = page;
  x->older = p->newest;
  x->newer = NONE;
  *(p->newest == NONE ? &p->oldest : &p->node[p->newest].newer) = i;
  p->newest = i;
  p->at_page[page] = i;
  p->n_in++;
}

static void unlink_page(prefix *p, int32_t i) {
  node *x = &p->node[i];
  if (x->page < 0) return;
  *(x->older == NONE ? &p->oldest : &p->node[x->older].newer) = x->newer;
  *(x->newer == NONE ? &p->newest : &p->node[x->newer].older) = x->older;
  p->at_page[x->page] = NONE;
  p->n_in--;
  x->page = NONE;
}

static void use(prefix *p, int32_t i, uint64_t now) {
  const int32_t page = p->node[i].page;
  p->node[i].used = now;
  if (page < 0 || p->newest == i) return;
  unlink_page(p, i);
  link_page(p, i, page);
}

static int32_t grow(prefix *p, int32_t parent, const int32_t *ids, int n, int32_t page, int32_t slot) {
  const int32_t i = p->free;
  if (i == NONE) return NONE;
  p->free = p->node[i].next;
  int32_t *first = first_child(p, parent);
  p->node[i] = (node){
      .in = true, .parent = parent, .child = NONE, .next = *first, .page = NONE, .slot = slot, .n_tokens = n, .used = ++p->now};
  *first = i;
  memcpy(p->tokens + (size_t)i * (size_t)p->page_tokens, ids, (size_t)n * sizeof *ids);
  if (page >= 0) link_page(p, i, page);
  if (slot >= 0) p->n_slots++;
  return i;
}

/* Takes a node without children out. */
static void cut(prefix *p, int32_t i) {
  int32_t *at = first_child(p, p->node[i].parent);
  while (*at != i) at = &p->node[*at].next;
  *at = p->node[i].next;
  lose_slot(p, i);
  unlink_page(p, i);
  p->node[i] = (node){.next = p->free};
  p->free = i;
}

/* And all behind it, the furthest first. */
static void cut_all(prefix *p, int32_t i) {
  for (int32_t at = i;;) {
    if (p->node[at].child != NONE) {
      at = p->node[at].child;
      continue;
    }
    const int32_t parent = p->node[at].parent;
    cut(p, at);
    if (at == i) return;
    at = parent;
  }
}

void prefix_clear(prefix *p) {
  if (!p) return;
  while (p->root != NONE) cut_all(p, p->root);
  empty(p);
}

/* ---- pages ---- */

/* With a whole page of these tokens. */
static int32_t child(const prefix *p, int32_t parent, const int32_t *ids) {
  const size_t bytes = (size_t)p->page_tokens * sizeof *ids;
  for (int32_t i = first_of(p, parent); i != NONE; i = p->node[i].next)
    if (p->node[i].n_tokens == p->page_tokens && !memcmp(tokens_of(p, i), ids, bytes)) return i;
  return NONE;
}

int prefix_find(prefix *p, const int32_t *ids, int n, int most, int32_t *pages) {
  int32_t at = NONE;
  int k = 0;
  p->now++;
  for (; k < most && (k + 1) * (int64_t)p->page_tokens <= n; k++) {
    int32_t next = child(p, at, ids + (size_t)k * (size_t)p->page_tokens);
    if (next < 0 || p->node[next].page < 0) break;
    use(p, next, p->now);
    if (pages) pages[k] = p->node[next].page;
    at = next;
  }
  return k;
}

prefix_way prefix_behind(const prefix *p, const int32_t *ids, int k) {
  prefix_way w = {.node = NONE};
  for (; w.k < k; w.k++) {
    const int32_t next = child(p, w.node, ids + (size_t)w.k * (size_t)p->page_tokens);
    if (next < 0) break;
    w.node = next;
  }
  return w;
}

/* Ends of texts that a whole page has now. */
static void drop_ends(prefix *p, int32_t parent, const int32_t *ids, int n) {
  for (int32_t i = first_of(p, parent), next; i != NONE; i = next) {
    const node *x = &p->node[i];
    next = x->next;
    if (x->n_tokens < n && !memcmp(tokens_of(p, i), ids, (size_t)x->n_tokens * sizeof *ids)) cut(p, i);
  }
}

static bool bring(prefix *p, int32_t i, int32_t page) {
  node *x = &p->node[i];
  if (x->page >= 0 || (x->parent != NONE && p->node[x->parent].page < 0)) return false;
  x->used = ++p->now;
  link_page(p, i, page);
  return true;
}

bool prefix_add(prefix *p, const int32_t *ids, int k, int32_t page) {
  if (p->at_page[page] != NONE) return false;
  const prefix_way w = prefix_behind(p, ids, k);
  if (w.k < k || (k > 0 && p->node[w.node].page < 0)) return false;
  const int32_t *own = ids + (size_t)k * (size_t)p->page_tokens;
  const int32_t known = child(p, w.node, own);
  if (known != NONE) return bring(p, known, page);
  drop_ends(p, w.node, own, p->page_tokens);
  return grow(p, w.node, own, p->page_tokens, page, NONE) != NONE;
}

static bool ends_in_pages(const prefix *p, const node *n) {
  for (int32_t i = n->child; i != NONE; i = p->node[i].next)
    if (p->node[i].page >= 0) return false;
  return true;
}

static bool ends_in_slots(const prefix *p, const node *n) {
  for (int32_t i = n->child; i != NONE; i = p->node[i].next)
    if (p->node[i].slot >= 0) return false;
  return true;
}

int32_t prefix_forget(prefix *p, bool (*busy)(void *user, int32_t page), void *user) {
  int32_t oldest = p->oldest;
  while (oldest != NONE && (!ends_in_pages(p, &p->node[oldest]) || (busy && busy(user, p->node[oldest].page))))
    oldest = p->node[oldest].newer;
  if (oldest < 0) return -1;
  node *n = &p->node[oldest];
  const int32_t page = n->page;
  if (n->slot < 0) {
    cut_all(p, oldest);
    return page;
  }
  unlink_page(p, oldest);
  p->parked += n->n_tokens;
  return page;
}

int prefix_pages(const prefix *p) {
  return p->n_in;
}

bool prefix_has(const prefix *p, int32_t page) {
  return p->at_page[page] != NONE;
}

/* ---- slots ---- */

int32_t prefix_slot(const prefix *p, int32_t page) {
  return p->at_page[page] == NONE ? NONE : p->node[p->at_page[page]].slot;
}

void prefix_mirror(prefix *p, int32_t page, int32_t slot) {
  p->node[p->at_page[page]].slot = slot;
  p->n_slots++;
}

bool prefix_add_end(prefix *p, const int32_t *ids, int n, int32_t slot) {
  const int whole = n / p->page_tokens, rest = n % p->page_tokens;
  const prefix_way w = prefix_behind(p, ids, whole);
  if (rest == 0 || w.k < whole) return false;
  const int32_t *own = ids + (size_t)whole * (size_t)p->page_tokens;
  for (int32_t i = first_of(p, w.node); i != NONE; i = p->node[i].next)
    if (p->node[i].slot >= 0 && p->node[i].n_tokens >= rest && !memcmp(tokens_of(p, i), own, (size_t)rest * sizeof *own))
      return false;
  drop_ends(p, w.node, own, rest);
  if (grow(p, w.node, own, rest, NONE, slot) == NONE) return false;
  p->parked += rest;
  return true;
}

void prefix_name(prefix *p, const int32_t *ids, int n) {
  prefix_way w = {.node = NONE};
  int32_t slot;
  while (prefix_next(p, ids, n, &w, &slot) == p->page_tokens) p->node[w.node].named = true;
  for (int32_t i = first_of(p, w.node); i != NONE; i = p->node[i].next)
    if (p->node[i].n_tokens < p->page_tokens) p->node[i].named = true;
}

int prefix_next(prefix *p, const int32_t *ids, int n, prefix_way *w, int32_t *slot) {
  const int32_t *own = ids + (size_t)w->k * (size_t)p->page_tokens;
  const int64_t left = n - (int64_t)w->k * p->page_tokens;
  int32_t best = NONE;
  int most = 0;
  for (int32_t i = first_of(p, w->node); i != NONE; i = p->node[i].next) {
    const node *x = &p->node[i];
    const int32_t *have = tokens_of(p, i);
    int same = 0;
    if (x->slot < 0) continue;
    while (same < x->n_tokens && same < left && have[same] == own[same]) same++;
    if (same > most) most = same, best = i;
  }
  if (best == NONE) return 0;
  use(p, best, ++p->now);
  *slot = p->node[best].slot;
  if (most == p->page_tokens) {
    w->node = best;
    w->k++;
  }
  return most;
}

bool prefix_bring(prefix *p, const prefix_way *w, int32_t page) {
  return bring(p, w->node, page);
}

bool prefix_give_back(prefix *p, bool (*busy)(void *user, int32_t page), void *user) {
  int32_t oldest = NONE;
  for (int32_t i = 0; i < p->n_nodes; i++) {
    const node *n = &p->node[i], *o = oldest < 0 ? NULL : &p->node[oldest];
    if (!n->in || n->slot < 0 || !ends_in_slots(p, n) || (n->page >= 0 && busy && busy(user, n->page))) continue;
    if (!o || (n->named == o->named ? n->used < o->used : o->named)) oldest = i;
  }
  if (oldest < 0) return false;
  if (p->node[oldest].page >= 0) lose_slot(p, oldest);
  else cut(p, oldest);
  return true;
}

void prefix_pages_gone(prefix *p, int (*holds)(void *user, int32_t slot), void *user) {
  for (int i = 0; i < p->n_pages; i++)
    if (p->at_page[i] != NONE) unlink_page(p, p->at_page[i]);
  for (int32_t i = 0; i < p->n_nodes; i++) {
    node *n = &p->node[i];
    if (!n->in) continue;
    const int good = n->slot < 0 ? 0 : holds(user, n->slot);
    if (good >= n->n_tokens) continue;
    while (n->child != NONE) cut_all(p, n->child);
    n->n_tokens = good;
    if (good == 0) cut(p, i);
  }
}

int prefix_slots(const prefix *p) {
  return p->n_slots;
}

int64_t prefix_parked(const prefix *p) {
  return p->parked;
}
