/* standby.h: KV of requests beyond the pages of the engine, in one accounting: what is where, and what may go.
 *
 * The mirror (mirror.h) holds copies of pages, the prefix tree (prefix.h) says of which tokens. Together they are three things:
 *   a second home    on a device every step is written through: once the device is lost, requests begin again with the KV that the mirror has
 *   a parking place  what a session (serve_request.session) has computed stays, up to its last token, when its pages go to others; its next request reads it back
 *   a cache          beginnings of other texts that were computed once, as long as there is room
 * Every page of the engine is free, or held (sched.h); every slot of the mirror is free, a page's that is being written, or in the tree.
 * On the CPU alone nothing can be lost: there only sessions are written, when their request ends.
 * Thread rule: the engine's. A standby lives as long as its engine and goes from one serving to the next. */
#ifndef HF_EXECUTOR_STANDBY_H
#define HF_EXECUTOR_STANDBY_H

#include "executor/mirror.h"
#include "sched/prefix.h"
#include "sched/sched.h"

typedef struct standby standby;

/* path NULL: in memory. n_slots: pages that the mirror has room for. */
HF_MUST hf_status standby_open(engine *e, const char *path, int n_slots, standby **out);
void standby_close(standby *s); /* NULL ok; before engine_close */
/* What serving shares pages by. */
prefix *standby_known(standby *s);

/* A serving of n_reqs requests begins, with this scheduler, and goes on with another after a loss. */
HF_MUST hf_status standby_begin(standby *s, int n_reqs);
void standby_end(standby *s);
void standby_sched(standby *s, sched *with);

/* sched_sharing.restore and on_free. ids: the request's prompt. */
int standby_restore(standby *s, const int32_t *ids, int n_ids, const int32_t *pages, int n_shared);
void standby_page_free(standby *s, int32_t page);
bool standby_page_busy(void *user, int32_t page); /* of a standby: a sequence holds it */

/* A step will write the page's first token: waits for what is still being read from it. */
void standby_before(standby *s, int32_t page);
/* A step of a request has written tokens [from, to) of its pages. */
void standby_wrote(standby *s, int64_t request, const int32_t *pages, int from, int to);
/* The page has come into the tree. */
void standby_known_page(standby *s, int32_t page);
/* A request of a session ends: text[0..n) are the tokens whose KV is in its pages. */
void standby_park(standby *s, const int32_t *text, int n, const int32_t *pages);

/* Until nothing is being read from the device's pages. */
void standby_settle(standby *s);
/* Around a check of the device (engine_launch_check), and when it was good. */
void standby_check(standby *s);
void standby_trust(standby *s);
/* The device is lost: first this, before the engine moves; then each request that goes on, with the tokens whose KV it had; then the pages are gone.
 * only_checked: what was written since the last good check is not trusted. */
void standby_lost(standby *s, bool only_checked);
void standby_keep_end(standby *s, int64_t request, const int32_t *text, int n);
void standby_pages_gone(standby *s);
/* Memory has no room for it any more: it is emptied for good. */
void standby_give_up(standby *s, const char *why);

typedef struct {
  int64_t restored_tokens;                 /* read back, and not computed again */
  int64_t parked_tokens;                   /* whose pages went to others, or back, while the mirror has them */
  int64_t mirrored_tokens, mirrored_bytes; /* written through */
  int64_t busy_ns;                         /* that took, beside the steps */
  int64_t left_out_pages;                  /* there was no slot for */
  int slots, slots_lost;                   /* neither free nor in the tree, with no request running: 0 */
  char failed[192];                        /* why there is none any more; "" = there is */
} standby_stats;
void standby_get_stats(standby *s, standby_stats *out);
#endif
