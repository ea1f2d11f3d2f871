/* prefix.h: which KV pages hold which beginnings of texts, so that a prompt that begins like an earlier one does not compute it again.
 *
 * A tree: a node holds page_tokens tokens behind those of its parent; the roots begin texts. Its KV is in a page of the engine (its KV cache), in a slot of
 * the mirror (mirror.h), or in both. Nodes in pages are there with all before them. A node with fewer tokens, the end of a text, is in a slot alone.
 * A prefix tree lives as long as the engine and goes from one serving to the next. It names pages and slots and holds none of them itself:
 * serving keeps pages that are in the tree (sched_keep, sched_adopt); slots are told to be given back.
 * Thread rule: the engine's. */
#ifndef HF_SCHED_PREFIX_H
#define HF_SCHED_PREFIX_H

#include "base/status.h"

typedef struct prefix prefix;
/* For an engine with n_pages pages. */
HF_MUST hf_status prefix_new(int page_tokens, int n_pages, prefix **out);
/* And a mirror with n_slots; give_back is called with a slot that the tree does not name any more. */
typedef void prefix_slot_fn(void *user, int32_t slot);
HF_MUST hf_status prefix_new_mirrored(int page_tokens, int n_pages, int n_slots, prefix_slot_fn *give_back, void *user,
                                      prefix **out);
void prefix_free(prefix *p);  /* NULL ok */
void prefix_clear(prefix *p); /* pages and slots hold nothing any more; NULL ok */

/* Pages of the longest known beginning of ids[0..n), at most `most`; returns how many. They count as used now. pages NULL: only asked. */
int prefix_find(prefix *p, const int32_t *ids, int n, int most, int32_t *pages);
/* `page` holds tokens [k * page_tokens, (k + 1) * page_tokens) of ids and all before them. False when it is not taken: the same tokens are known
 * in another page already, or what comes before is not known (any more). */
bool prefix_add(prefix *p, const int32_t *ids, int k, int32_t page);
/* The page to forget first: used longest ago, no page behind it, and not busy (busy may be NULL). -1: there is none. It is forgotten, but for what
 * a slot holds of it. */
int32_t prefix_forget(prefix *p, bool (*busy)(void *user, int32_t page), void *user);
int prefix_pages(const prefix *p);
/* The i-th page of the engine is in the tree. */
bool prefix_has(const prefix *p, int32_t page);

/* ---- slots ---- */

/* Slot that holds what the page holds, -1: none. */
int32_t prefix_slot(const prefix *p, int32_t page);
/* `slot` is that one from now on; the page is in the tree and had none. */
void prefix_mirror(prefix *p, int32_t page, int32_t slot);
/* `slot` holds the KV of the last tokens of ids[0..n), those behind the last whole page. A shorter end of the same text is given back. False: not taken (there
 * are none, it is known, or what comes before is not). */
bool prefix_add_end(prefix *p, const int32_t *ids, int n, int32_t slot);
/* Nodes of these tokens are given back after all others. */
void prefix_name(prefix *p, const int32_t *ids, int n);

/* The way along ids through the tree. */
typedef struct {
  int32_t node; /* the one that was gone through last */
  int k;        /* how many there were */
} prefix_way;
/* Behind k pages that are known. */
prefix_way prefix_behind(const prefix *p, const int32_t *ids, int k);
/* Behind w: the slot that holds the most of ids[..n); returns how many tokens, 0: none does. A whole page's worth: *w has gone on. */
int prefix_next(prefix *p, const int32_t *ids, int n, prefix_way *w, int32_t *slot);
/* What was gone through last is in `page`, too. False when it is in another already. */
bool prefix_bring(prefix *p, const prefix_way *w, int32_t page);

/* One slot is given back: used longest ago, no other behind it, its page not busy. False: there is none. */
bool prefix_give_back(prefix *p, bool (*busy)(void *user, int32_t page), void *user);
/* All pages are gone. holds: how many tokens are good in a slot; what is not goes, and all behind it. */
void prefix_pages_gone(prefix *p, int (*holds)(void *user, int32_t slot), void *user);
int prefix_slots(const prefix *p);
/* Tokens whose page was forgotten while a slot held them, since the beginning. */
int64_t prefix_parked(const prefix *p);
#endif
