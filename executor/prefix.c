/* prefix.c: see prefix.h. Pages are few thousands at most and looked for once a request, so children are found by going through all
 * of them, their tokens compared only where a hash agrees. */
#include "executor/prefix.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { ROOT = -1 };

typedef struct {
  bool in;
  int32_t parent;
  int children;
  uint64_t hash, used;
} node;

struct prefix {
  int page_tokens, n_pages, n_in;
  uint64_t now;
  node *node;      /* [n_pages] */
  int32_t *tokens; /* [n_pages][page_tokens] */
};

hf_status prefix_new(int page_tokens, int n_pages, prefix **out) {
  prefix *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "shared prefixes"));
  p->page_tokens = page_tokens;
  p->n_pages = n_pages;
  hf_status st = hf_alloc(&p->node, (size_t)n_pages, sizeof *p->node, "shared prefixes");
  if (st == HF_OK) st = hf_alloc(&p->tokens, (size_t)n_pages * (size_t)page_tokens, sizeof *p->tokens, "shared prefixes");
  if (st != HF_OK) {
    prefix_free(p);
    return st;
  }
  *out = p;
  return HF_OK;
}

void prefix_free(prefix *p) {
  if (!p) return;
  free(p->node);
  free(p->tokens);
  free(p);
}

void prefix_clear(prefix *p) {
  if (!p) return;
  memset(p->node, 0, (size_t)p->n_pages * sizeof *p->node);
  p->n_in = 0;
}

static uint64_t hash_of(const int32_t *ids, int n) {
  uint64_t h = 0xcbf29ce484222325u;
  for (int i = 0; i < n; i++) h = (h ^ (uint32_t)ids[i]) * 0x100000001b3u;
  return h;
}

static int32_t child(const prefix *p, int32_t parent, const int32_t *ids) {
  const uint64_t hash = hash_of(ids, p->page_tokens);
  const size_t pt = (size_t)p->page_tokens;
  for (int32_t i = 0; i < p->n_pages; i++)
    if (p->node[i].in && p->node[i].parent == parent && p->node[i].hash == hash &&
        !memcmp(p->tokens + (size_t)i * pt, ids, pt * sizeof *ids))
      return i;
  return -1;
}

int prefix_find(prefix *p, const int32_t *ids, int n, int most, int32_t *pages) {
  int32_t at = ROOT;
  int k = 0;
  p->now++;
  for (; k < most && (k + 1) * (int64_t)p->page_tokens <= n; k++) {
    int32_t next = child(p, at, ids + (size_t)k * (size_t)p->page_tokens);
    if (next < 0) break;
    p->node[next].used = p->now;
    if (pages) pages[k] = next;
    at = next;
  }
  return k;
}

bool prefix_add(prefix *p, const int32_t *ids, int k, int32_t page) {
  int32_t parent = ROOT;
  const size_t pt = (size_t)p->page_tokens;
  if (p->node[page].in) return false;
  for (int i = 0; i < k; i++) {
    parent = child(p, parent, ids + (size_t)i * pt);
    if (parent < 0) return false;
  }
  const int32_t *own = ids + (size_t)k * pt;
  if (child(p, parent, own) >= 0) return false;
  p->node[page] = (node){.in = true, .parent = parent, .hash = hash_of(own, p->page_tokens), .used = ++p->now};
  memcpy(p->tokens + (size_t)page * pt, own, pt * sizeof *own);
  if (parent >= 0) p->node[parent].children++;
  p->n_in++;
  return true;
}

int32_t prefix_forget(prefix *p, bool (*busy)(void *user, int32_t page), void *user) {
  int32_t oldest = -1;
  for (int32_t i = 0; i < p->n_pages; i++) {
    const node *n = &p->node[i];
    if (!n->in || n->children > 0 || (busy && busy(user, i))) continue;
    if (oldest < 0 || n->used < p->node[oldest].used) oldest = i;
  }
  if (oldest < 0) return -1;
  if (p->node[oldest].parent >= 0) p->node[p->node[oldest].parent].children--;
  p->node[oldest] = (node){0};
  p->n_in--;
  return oldest;
}

int prefix_pages(const prefix *p) {
  return p->n_in;
}

bool prefix_has(const prefix *p, int32_t page) {
  return p->node[page].in;
}
