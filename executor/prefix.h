/* prefix.h: which KV pages hold which beginnings of texts, so that a prompt that begins like an earlier one does not compute it again.
 *
 * A tree: a page holds page_tokens tokens behind those of its parent's page; the roots begin texts. Pages are an engine's (its KV cache):
 * a prefix tree lives as long as the engine and goes from one serving to the next. It names pages and holds none of them itself:
 * serving keeps what is in the tree (sched_keep, sched_adopt).
 * Thread rule: the engine's. */
#ifndef HF_EXECUTOR_PREFIX_H
#define HF_EXECUTOR_PREFIX_H

#include "base/status.h"

typedef struct prefix prefix;
/* For an engine with n_pages pages. */
HF_MUST hf_status prefix_new(int page_tokens, int n_pages, prefix **out);
void prefix_free(prefix *p);  /* NULL ok */
void prefix_clear(prefix *p); /* the pages hold nothing any more; NULL ok */

/* Pages of the longest known beginning of ids[0..n), at most `most`; returns how many. They count as used now. pages NULL: only asked. */
int prefix_find(prefix *p, const int32_t *ids, int n, int most, int32_t *pages);
/* `page` holds tokens [k * page_tokens, (k + 1) * page_tokens) of ids and all before them. False when it is not taken: the same tokens are known
 * in another page already, or what comes before is not known (any more). */
bool prefix_add(prefix *p, const int32_t *ids, int k, int32_t page);
/* The page to forget first: used longest ago, no other behind it, and not busy (busy may be NULL). -1: there is none. It is forgotten. */
int32_t prefix_forget(prefix *p, bool (*busy)(void *user, int32_t page), void *user);
int prefix_pages(const prefix *p);
/* The i-th page of the engine is in the tree. */
bool prefix_has(const prefix *p, int32_t page);
#endif
