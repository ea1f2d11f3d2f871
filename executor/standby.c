/* standby.c: see standby.h. A slot belongs to the page that is written to it until the page is in the tree; then to the tree. */
#include "executor/standby.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

enum { NONE = -1 };

struct standby {
  engine *e;
  mirror *m; /* NULL: given up */
  prefix *known;
  sched *sched;
  int page_tokens, n_pages, n_slots;
  int32_t *page_slot; /* [n_pages] slot that the page is copied to; NONE */
  int32_t *slot_page; /* [n_slots] the way back */
  uint8_t *in_tree;   /* [n_slots] */
  int32_t *end_page;  /* [n_reqs] page that a request has written a part of; NONE */
  int64_t restored_tokens, left_out;
  bool settles;          /* HF_STANDBY_SETTLES: no step begins before all is copied, so that tests know what a loss leaves */
  mirror_traffic before; /* of one that was given up */
  char failed[192];
};

static void tie(standby *s, int32_t page, int32_t slot) {
  s->page_slot[page] = slot;
  s->slot_page[slot] = page;
}

static void untie(standby *s, int32_t page) {
  const int32_t slot = s->page_slot[page];
  if (slot == NONE) return;
  s->page_slot[page] = NONE;
  s->slot_page[slot] = NONE;
}

/* The tree does not name it any more. */
static void slot_left_tree(void *user, int32_t slot) {
  standby *s = user;
  s->in_tree[slot] = 0;
  if (s->slot_page[slot] != NONE) untie(s, s->slot_page[slot]);
  if (s->m) mirror_give(s->m, slot);
}

hf_status standby_open(engine *e, const char *path, int n_slots, standby **out) {
  standby *s = NULL;
  hf_status st;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "KV mirror"));
  s->e = e;
  s->page_tokens = engine_opts(e)->page_tokens;
  s->n_pages = engine_opts(e)->n_pages;
  s->n_slots = n_slots;
  s->settles = getenv("HF_STANDBY_SETTLES") != NULL;
  HF_GO(end, mirror_open(e, path, n_slots, &s->m));
  HF_GO(end, prefix_new_mirrored(s->page_tokens, s->n_pages, n_slots, slot_left_tree, s, &s->known));
  HF_GO(end, hf_alloc(&s->page_slot, (size_t)s->n_pages, sizeof *s->page_slot, "KV mirror"));
  HF_GO(end, hf_alloc(&s->slot_page, (size_t)n_slots, sizeof *s->slot_page, "KV mirror"));
  HF_GO(end, hf_alloc(&s->in_tree, (size_t)n_slots, 1, "KV mirror"));
  for (int i = 0; i < s->n_pages; i++) s->page_slot[i] = NONE;
  for (int i = 0; i < n_slots; i++) s->slot_page[i] = NONE;
  *out = s;
  return HF_OK;
end:
  standby_close(s);
  return st;
}

void standby_close(standby *s) {
  if (!s) return;
  mirror_close(s->m);
  prefix_free(s->known);
  free(s->page_slot);
  free(s->slot_page);
  free(s->in_tree);
  free(s->end_page);
  free(s);
}

prefix *standby_known(standby *s) {
  return s->known;
}

hf_status standby_begin(standby *s, int n_reqs) {
  HF_TRY(hf_alloc(&s->end_page, (size_t)n_reqs + 1, sizeof *s->end_page, "KV mirror"));
  for (int i = 0; i < n_reqs; i++) s->end_page[i] = NONE;
  return HF_OK;
}

void standby_end(standby *s) {
  for (int p = 0; p < s->n_pages;
       p++) /* of a serving that was cancelled: nobody holds its pages any more, and the next one writes other texts there */
    if (s->page_slot[p] != NONE && !prefix_has(s->known, p)) standby_page_free(s, p);
  free(s->end_page);
  s->end_page = NULL;
  s->sched = NULL;
}

void standby_sched(standby *s, sched *with) {
  s->sched = with;
}

bool standby_page_busy(void *user, int32_t page) {
  const standby *s = user;
  return sched_holders(s->sched, page) > 1;
}

/* ---- writing ---- */

/* Of the page, a new one if it has none; NONE: there is no room. */
static int32_t slot_for(standby *s, int32_t page) {
  if (s->page_slot[page] != NONE) return s->page_slot[page];
  int32_t slot = mirror_take(s->m);
  if (slot == NONE && prefix_give_back(s->known, standby_page_busy, s)) slot = mirror_take(s->m);
  if (slot == NONE) s->left_out++;
  else tie(s, page, slot);
  return slot;
}

static void told_if_failed(standby *s) {
  const char *why = s->failed[0] ? NULL : mirror_failed(s->m);
  if (!why) return;
  snprintf(s->failed, sizeof s->failed, "%s", why);
  hf_log(HF_LOG_WARN, "KV mirror: %s; requests go on without it", why);
}

/* Whether steps are written through: a device that can be lost, and room to write. */
static bool through(const standby *s) {
  return s->m && !s->failed[0] && engine_has_device(engine_opts(s->e));
}

void standby_before(standby *s, int32_t page) {
  if (s->m) mirror_wait(s->m, page);
}

void standby_wrote(standby *s, int64_t request, const int32_t *pages, int from, int to) {
  const int pt = s->page_tokens, grain = engine_kv_grain(s->e);
  if (s->m) told_if_failed(s);
  s->end_page[request] = to % pt ? pages[to / pt] : NONE;
  for (int k = from / pt; through(s) && k * pt < to; k++) {
    const int n = to - k * pt < pt ? (to - k * pt) / grain * grain : pt;
    const int32_t slot = slot_for(s, pages[k]);
    if (slot != NONE) mirror_save(s->m, slot, pages[k], n);
  }
  if (s->m && s->settles) mirror_settle(s->m);
}

void standby_known_page(standby *s, int32_t page) {
  const int32_t own = s->page_slot[page], other = prefix_slot(s->known, page);
  if (other != NONE) { /* known in the mirror, and computed all the same */
    untie(s, page);
    if (own != NONE && own != other) mirror_give(s->m, own);
    tie(s, page, other);
  } else if (own != NONE) {
    s->in_tree[own] = 1;
    prefix_mirror(s->known, page, own);
  }
}

void standby_page_free(standby *s, int32_t page) {
  const int32_t slot = s->page_slot[page];
  if (slot == NONE) return;
  untie(s, page);
  if (!s->in_tree[slot]) mirror_give(s->m, slot);
}

void standby_park(standby *s, const int32_t *text, int n, const int32_t *pages) {
  const int pt = s->page_tokens;
  if (!s->m || s->failed[0]) return;
  for (int k = 0; k < n / pt; k++) {
    if (!prefix_has(s->known, pages[k]) || prefix_slot(s->known, pages[k]) != NONE) continue;
    const int32_t slot = slot_for(s, pages[k]);
    if (slot == NONE) break;
    mirror_save(s->m, slot, pages[k], pt);
    standby_known_page(s, pages[k]);
  }
  if (n % pt) {
    const int32_t page = pages[n / pt], slot = slot_for(s, page);
    if (slot != NONE) mirror_save(s->m, slot, page, n % pt);
    if (slot != NONE && prefix_add_end(s->known, text, n, slot)) {
      s->in_tree[slot] = 1;
      untie(s, page);
    }
  }
  prefix_name(s->known, text, n);
}

/* ---- reading ---- */

/* What a slot has for a page; tokens of it that are in the page now. */
static int load(standby *s, int32_t slot, int32_t page, int n) {
  const int holds = mirror_holds(s->m, slot);
  if (n > holds) n = holds;
  mirror_wait(s->m, page);
  if (n == 0 || mirror_load(s->m, slot, page, n) == HF_OK) return n;
  hf_clear_error(); /* the file has failed: told below; a lost device tells at the next launch */
  told_if_failed(s);
  return 0;
}

int standby_restore(standby *s, const int32_t *ids, int n_ids, const int32_t *pages, int n_shared) {
  const int pt = s->page_tokens;
  int tokens = n_shared * pt, n;
  int32_t slot;
  if (!s->m) return tokens;
  prefix_way w = prefix_behind(s->known, ids, n_shared);
  while (w.k * pt < n_ids - 1 && (n = prefix_next(s->known, ids, n_ids - 1, &w, &slot)) > 0) {
    const int32_t page = pages[tokens / pt];
    const int got = load(s, slot, page, n);
    tokens += got;
    s->restored_tokens += got;
    if (got < pt) break;
    if (prefix_bring(s->known, &w, page)) {
      sched_keep(s->sched, page);
      tie(s, page, slot);
    }
  }
  return tokens;
}

/* ---- losses ---- */

void standby_settle(standby *s) {
  if (s->m) mirror_settle(s->m);
}

void standby_check(standby *s) {
  if (s->m) mirror_check(s->m);
}

void standby_trust(standby *s) {
  if (s->m) mirror_trust(s->m);
}

void standby_lost(standby *s, bool only_checked) {
  if (s->m) mirror_device_gone(s->m, only_checked);
}

void standby_keep_end(standby *s, int64_t request, const int32_t *text, int n) {
  const int32_t page = s->end_page[request], slot = page == NONE ? NONE : s->page_slot[page];
  s->end_page[request] = NONE;
  if (!s->m || slot == NONE || s->in_tree[slot]) return;
  const int whole = n / s->page_tokens * s->page_tokens, holds = mirror_holds(s->m, slot);
  if (n > whole + holds) n = whole + holds;
  if (n > whole && prefix_add_end(s->known, text, n, slot)) s->in_tree[slot] = 1;
}

static int holds(void *user, int32_t slot) {
  standby *s = user;
  return mirror_holds(s->m, slot);
}

void standby_pages_gone(standby *s) {
  for (int32_t p = 0; p < s->n_pages; p++) {
    const int32_t slot = s->page_slot[p];
    untie(s, p);
    if (s->m && slot != NONE && !s->in_tree[slot]) mirror_give(s->m, slot);
  }
  if (s->m) prefix_pages_gone(s->known, holds, s);
  else prefix_clear(s->known);
}

void standby_give_up(standby *s, const char *why) {
  if (!s->m) return;
  hf_log(HF_LOG_WARN, "KV mirror: %s; requests go on without it", why);
  snprintf(s->failed, sizeof s->failed, "%s", why);
  s->before = mirror_get_traffic(s->m);
  mirror_close(s->m);
  s->m = NULL;
  memset(s->in_tree, 0, (size_t)s->n_slots);
}

void standby_get_stats(standby *s, standby_stats *out) {
  const mirror_traffic t = s->m ? mirror_get_traffic(s->m) : s->before;
  *out = (standby_stats){.restored_tokens = s->restored_tokens,
                         .parked_tokens = prefix_parked(s->known),
                         .mirrored_tokens = t.tokens,
                         .mirrored_bytes = t.bytes,
                         .busy_ns = t.busy_ns,
                         .left_out_pages = s->left_out,
                         .slots = s->n_slots,
                         .slots_lost = s->m ? s->n_slots - mirror_free_slots(s->m) - prefix_slots(s->known) : 0};
  snprintf(out->failed, sizeof out->failed, "%s", s->failed);
}
