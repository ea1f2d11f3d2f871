/* sched.h: the serving policy as a pure library: admission, chunked prefill, micro-batches, KV pages. No clock, no I/O, no
 * threads. The executor runs by it and the simulator predicts by it.
 *
 * Life of a request: waiting -> (pages reserved, micro-batch chosen) -> prefill in chunks -> decode -> finished.
 * Policy: first come, first served. A request is admitted when a sequence slot and all KV pages for prompt + max_tokens are free (so no
 * running request is ever evicted for lack of pages) and goes to the micro-batch with the fewest sequences (lower index on ties).
 * A step of micro-batch m holds one decode token of each of its decoding sequences, then prompt tokens of its oldest prefilling
 * sequences up to chunk_tokens in all. Micro-batches step independently: depth D pipelining falls out.
 *
 * Invariants (asserted): pages_free + pages that somebody holds == pages total; a sequence is in exactly one
 * micro-batch; a micro-batch has at most one step in flight. */
#ifndef HF_SCHED_SCHED_H
#define HF_SCHED_SCHED_H
#include "base/status.h"

enum { SCHED_MAX_SEQS = 64, SCHED_MAX_DEPTH = 8 };
/* Where a plan says that layers upload but neither from how many tokens of a prompt's step on nor through how many slots (stages.h). */
enum { SCHED_UPLOAD_TOKENS = SCHED_MAX_SEQS + 1, SCHED_UPLOAD_SLOTS = 2, SCHED_MOST_SLOTS = 64 };

typedef struct {
  int depth;        /* micro-batches, 1..SCHED_MAX_DEPTH */
  int max_seqs;     /* running at once, 1..SCHED_MAX_SEQS */
  int chunk_tokens; /* most prompt tokens a step */
  int page_tokens;  /* power of two */
  int n_pages;
} sched_options;

typedef struct {
  int seq;         /* slot 0..max_seqs-1 */
  int64_t request; /* caller's id */
  int start_pos;   /* position of the first token of this piece */
  int n_tokens;    /* decode: 1 */
  bool decode;
  bool wants_logits; /* last prompt chunk or decode: a token comes out */
} sched_piece;

typedef struct {
  int n_pieces, n_tokens, n_decode;
  sched_piece piece[SCHED_MAX_SEQS];
} sched_step;

typedef struct sched sched;
HF_MUST hf_status sched_new(const sched_options *o, sched **out);
void sched_free(sched *s);

/* HF_NO when the request can never run (longer than all pages): the error line says how many tokens would fit. HF_INPUT below one prompt
 * token or one token to write. Ids of live requests must differ. */
HF_MUST hf_status sched_add(sched *s, int64_t request, int prompt_tokens, int max_tokens);
/* The same, the first cached_tokens of the prompt being in the KV cache already (a shared prefix): they are not computed again. Pages are
 * reserved for all of it. HF_INPUT unless 0 <= cached_tokens < prompt_tokens. */
HF_MUST hf_status sched_add_cached(sched *s, int64_t request, int prompt_tokens, int max_tokens, int cached_tokens);

/* Shared pages. A page may be held by several sequences and be kept beyond them; it is free when nobody holds it. Whoever keeps pages says
 * which ones hold what: the scheduler knows no tokens. Pages that a sequence shares are whole pages of its prompt, written before; its own
 * begin behind them, so nothing writes to a shared page. */
typedef struct {
  void *user;
  /* Asked when a request is about to be admitted: held pages with the first tokens of its prompt. Returns how many (pages has room for all
   * of the prompt's), fewer than the prompt has tokens for, so that its last token is computed; 0: none; -1: not yet, ask again before
   * the next step (another sequence is computing them). Must not answer -1 when nothing runs. */
  int (*find)(void *user, int64_t request, int32_t *pages);
  /* At least n_pages kept pages that no sequence holds should be dropped, if there are that many. */
  void (*make_room)(void *user, int n_pages);
  /* A request is admitted and has all its pages: n_shared that were found, its own behind them. Whoever has KV of its prompt elsewhere writes it into its own
   * pages now; returns how many tokens of the prompt need not be computed (n_shared pages at least, its last token at most not). Pages that it has filled may
   * be kept. NULL: nobody has. */
  int (*restore)(void *user, int64_t request, const int32_t *pages, int n_shared);
  void (*on_free)(void *user, int32_t page); /* nobody holds it any more; NULL = nobody asks */
} sched_sharing;
void sched_share(sched *s, const sched_sharing *with); /* copied; before the first request */
/* One holder more of a page that is held. */
void sched_keep(sched *s, int32_t page);
/* One holder more of a page that may be free: kept from an earlier scheduler. HF_INPUT when there is no such page. */
HF_MUST hf_status sched_adopt(sched *s, int32_t page);
void sched_drop(sched *s, int32_t page);
int sched_holders(const sched *s, int32_t page);

/* Next step of an idle micro-batch; false when it has nothing to do. Admits waiting requests first. */
bool sched_next(sched *s, int micro_batch, sched_step *out);
/* The step given last to this micro-batch is complete. finished[i] != 0: the sequence of piece i ends now (end token, stop); the
 * scheduler itself ends sequences that reached max_tokens. ended (may be NULL) receives the requests that ended, *n_ended how many. */
void sched_done(sched *s, int micro_batch, const uint8_t *finished, int64_t *ended, int *n_ended);
/* How many more steps like the one in flight would follow it unchanged if nobody came: 0 unless all its pieces decode and none ends with
 * it. sched_repeat lets it stand for that many more (0..sched_repeats), before sched_done: for a simulator that takes equal steps together. */
int sched_repeats(const sched *s, int micro_batch);
void sched_repeat(sched *s, int micro_batch, int more);
/* A waiting or idle request is gone at once; one with a step in flight ends with that step and is then among `ended`. Unknown
 * requests (already ended) are ignored. */
void sched_cancel(sched *s, int64_t request);

/* Page table of a running sequence: entry i is the page of tokens i*page_tokens... */
const int32_t *sched_pages(const sched *s, int seq, int *n_pages);
int sched_pages_free(const sched *s);
int sched_waiting(const sched *s);
int sched_running(const sched *s);
/* The invariants above, for tests and assertions. */
bool sched_check(const sched *s);
#endif
