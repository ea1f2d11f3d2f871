/* serve.h: requests through an engine: the loop that joins the scheduler (sched.h), the engine and the clock.
 *
 * Each micro-batch in turn: finished step -> tokens out, sequences end -> sched_done; idle -> sched_next -> step filled -> launch. Nothing here
 * decides policy (sched does) or placement (the plan does). Counters are kept in memory; the caller writes them to the database. */
#ifndef HF_EXECUTOR_SERVE_H
#define HF_EXECUTOR_SERVE_H

#include <signal.h>

#include "executor/engine.h"
#include "executor/sample.h"
#include "executor/standby.h"
#include "sched/prefix.h"
#include "sched/sched.h"

enum { SERVE_LOGPROBS = 20, SERVE_LOSSES = 32 /* devices come back, and are lost again */ };

/* A device that was lost while requests ran. They go on with the tokens that they have; their KV comes from the mirror as far as that has it, and is computed
 * again from those. */
typedef struct {
  double at_s;         /* since the start of serving */
  int64_t recovery_ns; /* from then until the next step of any of them ended */
  int requests;        /* that were running or waiting */
  int64_t tokens;      /* prompt and answer tokens whose KV was gone with it and had to be computed again */
  int64_t restored;    /* those whose KV the mirror had */
  int64_t
      retracted; /* answer tokens written since the last good check of a device that computed wrongly: they are written again */
  int suspect;   /* answers that may hold wrong tokens, because somebody had been told */
  char why[96];
  int devices_left; /* 0: everything is the CPU's since */
  bool planned;     /* by the plan without the device (engine_options.without) */
  int device;
  double back_s;    /* when it was taken back, since the start of serving; 0: it was not */
  int64_t stood_ns; /* that steps stood still for it */
  int probes;       /* how often it was asked */
  int64_t loaded_bytes;
  bool rank; /* no device: the CPU of another machine, whose experts were loaded here (ranks.h) */
} serve_loss;

typedef struct serve_request {
  char ext_id[64];
  int32_t *ids; /* prompt, owned by the caller */
  int n_ids, max_tokens;
  double arrival_s; /* since the start of serving; 0 = at once */
  bool ignore_eos;
  bool all_logits;         /* on_logits for every prompt position, not only the last */
  uint64_t draw;           /* which random numbers it gets: those of an answer do not change with what else is served */
  const char *const *stop; /* texts that end the answer; serving itself does not look at them (serve_options.ends) */
  int n_stop;
  int n_logprobs;        /* with logprob: most likely tokens to note, at most SERVE_LOGPROBS */
  const int32_t *forced; /* imposed routing of the prompt [n_layers][n_ids][top_k] (ids ascending; -1 = free), or NULL */
  const char *
      session; /* with a standby: its KV is parked when it ends, for the next request that goes on from there; NULL = it is not */
  /* It goes on from this one, of the same requests, or behind them in their array, with an answer already: it enters when that has ended for good, arrival_s being then the moment when it could, and is cancelled with
   * it. Until then n_ids is the most that its prompt can become. One that turns out too long for the context ends at once ("length"). NULL = from none */
  const struct serve_request *after;
  /* results */
  int32_t *out; /* [max_tokens], owned by the caller */
  int n_out;
  float *logprob;              /* [max_tokens], or NULL = not wanted; owned by the caller, as the two below */
  int32_t *top_ids;            /* [max_tokens][n_logprobs] */
  float *top_logprob;          /* [max_tokens][n_logprobs] */
  double first_token_s, end_s; /* since the start */
  char finish[16];             /* stop, length, cancelled */
  bool suspect;                /* holds tokens of a device that was found to compute wrongly, and that somebody had been told */
} serve_request;

typedef struct {
  sample_options sample;
  int chunk_tokens;
  int users; /* sequences at once */
  void *user;
  void (*on_token)(void *user, serve_request *r, int32_t id);
  /* true: the answer ends with the token that on_token was just given, as "stop"; NULL = none does */
  bool (*ends)(void *user, serve_request *r, int32_t id);
  void (*on_finish)(void *user, serve_request *r);
  void (*on_logits)(void *user, serve_request *r, int position, const float *logits);
  /* every finished step, before its buffers are reused: trace, routing */
  void (*on_step)(void *user, const dev_step *s, const sched_step *what, int64_t step_index);
  /* Asked between steps of every request that is waiting or running: true ends it as "cancelled", as when whoever wanted the answer is
   * gone. One with a step in flight keeps its place and pages until that step has ended; its token is not wanted. NULL = none goes. */
  bool (*gone)(void *user, const serve_request *r);
  /* Nothing takes this answer back any more: a check has found the device good since, or there is none to come (no device to check, it was lost, serving
   * ends). After on_finish, once; suspect is set by then. */
  void (*on_final)(void *user, serve_request *r);
  /* The last n tokens of r are taken back, n_out being what is left: the device has computed wrongly since, or was lost before
   * a check could tell. With it, on_finish comes with on_final.
   * NULL = what on_token has told cannot be taken back: such answers are marked suspect. */
  void (*on_retract)(void *user, serve_request *r, int n);
  /* A device was lost; told as soon as serving goes on without it, recovery_ns being the time until then. */
  void (*on_loss)(void *user, const serve_loss *l);
  /* A lost device was taken back. */
  void (*on_back)(void *user, const serve_loss *l);
  /* After every finished step and what it ended: the scheduler as it stands, to look at. What that takes counts as no time of serving. */
  void (*on_sched)(void *user, const sched *s);
  /* Beginnings of texts whose KV pages the engine holds: requests that begin alike share them, in this serving and the next. Of this
   * engine; NULL = every prompt is computed whole. Requests with all_logits or imposed routing share nothing. */
  prefix *known;
  /* Writes the prompt of a request that goes on from another (ids, n_ids), which has ended. NULL = there is none such. */
  hf_status (*go_on)(void *user, serve_request *r);
  /* Where KV goes beside the engine's pages; known is standby_known then. NULL = nowhere. */
  standby *standby;
  volatile sig_atomic_t *stop; /* set by a signal handler: running sequences end as "cancelled" */
} serve_options;

/* Sums over the whole serving; arrays are owned, serve_stats_free. Index [phase][layer]…, phase 0 prefill, 1 decode. */
typedef struct {
  int n_layers, n_experts, max_tok;
  int64_t *routing;                                     /* [2][n_layers][n_experts] */
  int64_t *distinct_steps, *distinct_sum, *distinct_sq; /* [2][n_layers][max_tok + 1] by tokens of the step */
  struct serve_stage {
    int64_t steps, tokens, distinct;
    double ns, ns_sq; /* without pauses */
    double last_ns;   /* of the last step */
    int device;       /* of several */
  } * stage;          /* [2][n_layers + 1][DEV_STAGE_N] */
  int64_t steps, decode_steps, prompt_tokens /* computed */, shared_tokens /* of prompts, not computed */, output_tokens;
  int64_t restored_tokens /* of prompts, read back from the mirror */,
      parked_tokens /* whose pages were given back to others while it has them */;
  double decode_tokens, decode_s; /* intervals in which all users decode and nothing prefills; if there were none, any decoding */
  double after_tokens, after_s;   /* those of decode_tokens and decode_s that came while a device was lost */
  double back_tokens, back_s;     /* and those after all were back */
  double prefill_tokens, prefill_s; /* intervals in which something prefills */
  double wall_s;
  serve_loss loss[SERVE_LOSSES];
  int n_losses;
  double planned_tok_per_s; /* set by the caller: what its plan predicts of steady decode with all devices; 0: nothing */
  bool moved;               /* set by the caller: experts changed places (adapt.h), stage times are of several placements */
  int pages_lost;           /* at the end: pages that are neither free nor known to hold a prefix: 0, but after an interruption */
  int slots_lost;           /* the same of the mirror's slots */
  double step_ns_sum[2], step_ns_sq[2];
  int64_t step_n[2];
} serve_stats;

/* Serves all requests to their ends; results of an earlier serving in reqs are forgotten. HF_INPUT when the options exceed what the
 * engine was opened for (sequences, tokens and logit rows of a step), HF_NO for a request longer than its context; else what the
 * engine says. A lost device is no error: its work moves to the CPU (engine_fail_over) and every request goes on; when that fails, what it
 * says is returned. With *stop set it returns HF_OK as soon as the steps in flight have ended, every unfinished request "cancelled".
 * stats is set in every case: serve_stats_free. */
HF_MUST hf_status serve_run(engine *e, serve_request *reqs, int n_reqs, const serve_options *o, serve_stats *stats);
void serve_stats_free(serve_stats *s);
/* Output tokens of all users together per second in steady decode (design's definition). */
double serve_decode_rate(const serve_stats *s);
double
serve_rate_after(const serve_stats *s); /* the same while a device was lost; 0 = none was, or nothing decoded steadily then */
double serve_rate_back(const serve_stats *s); /* and since all are back */
#endif
