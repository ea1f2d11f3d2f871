/* serve.c: see serve.h. */
#include "executor/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

typedef struct {
  sched_step step;
  bool in_flight, prefills;
  bool check; /* in flight: no step of requests, the device is being checked (engine_launch_check) */
} slot;

/* What a request is known to have, [n_reqs] of them. */
typedef struct {
  int held;           /* tokens of a running request whose KV is in its pages */
  int shared;         /* prompt tokens in pages that others have computed */
  int lost;           /* tokens whose KV was gone with the last device, until it runs again */
  int good, at_check; /* answer tokens at the last good check, at the launch of the one at work */
  bool told, final;   /* on_finish, on_final were called */
  bool waits;         /* its time has come, but the request that it goes on from has not ended */
} progress;

typedef struct {
  engine *e;
  const serve_options *o;
  serve_request *reqs;
  int n_reqs, next_arrival;
  int *order; /* requests by arrival */
  sched *s;
  slot mb[SCHED_MAX_DEPTH];
  int depth;
  int32_t *forced[SCHED_MAX_DEPTH]; /* imposed routing of the step, allocated when any request has one */
  float *scratch;
  serve_stats *st;
  int64_t start_ns, last_ns;
  bool waited;   /* for a request to come: no time of decoding */
  int full;      /* users that decode when the place is full */
  int *computed; /* [n_reqs] tokens of a request whose KV is there; -1: it does not run and is not about to */
  int *first;    /* [n_reqs] those of them that it shares, or the mirror had */
  progress *has; /* [n_reqs] */
  int32_t *text; /* prompt and answer of one request, one after another */
  double any_tokens, any_s;
  int64_t check_ns, checked_ns; /* when the next check is due, when the one at work was launched (0: none is) */
  int64_t unchecked;            /* steps since the last good check */
  int64_t parked_before;        /* tokens, in earlier servings */
  int64_t lost_ns;              /* when a device was lost that no step has ended since; 0: none */
} server;

static double seconds(int64_t ns) {
  return (double)ns / 1e9;
}

static hf_status stats_new(const engine *e, serve_stats *st) {
  const model_config *c = engine_config(e);
  int max_tok = engine_opts(e)->max_tok;
  size_t nl = (size_t)c->n_layers, ne = (size_t)(c->n_experts > 0 ? c->n_experts : 1), nt = (size_t)max_tok + 1;
  memset(st, 0, sizeof *st);
  st->n_layers = c->n_layers;
  st->n_experts = c->n_experts;
  st->max_tok = max_tok;
  HF_TRY(hf_alloc(&st->routing, 2 * nl * ne, sizeof *st->routing, "routing counts"));
  HF_TRY(hf_alloc(&st->distinct_steps, 2 * nl * nt, sizeof(int64_t), "routing counts"));
  HF_TRY(hf_alloc(&st->distinct_sum, 2 * nl * nt, sizeof(int64_t), "routing counts"));
  HF_TRY(hf_alloc(&st->distinct_sq, 2 * nl * nt, sizeof(int64_t), "routing counts"));
  return hf_alloc(&st->stage, 2 * (nl + 1) * DEV_STAGE_N, sizeof *st->stage, "stage times");
}

void serve_stats_free(serve_stats *s) {
  free(s->routing);
  free(s->distinct_steps);
  free(s->distinct_sum);
  free(s->distinct_sq);
  free(s->stage);
  memset(s, 0, sizeof *s);
}

double serve_rate_after(const serve_stats *s) {
  return s->after_s > 0 ? s->after_tokens / s->after_s : 0;
}

double serve_rate_back(const serve_stats *s) {
  return s->back_s > 0 ? s->back_tokens / s->back_s : 0;
}

double serve_decode_rate(const serve_stats *s) {
  return s->decode_s > 0 ? s->decode_tokens / s->decode_s : 0;
}

/* --- shared prefixes --------------------------------------------------------------------------------------------------- */

static bool shares(const serve_request *r) {
  return !r->all_logits && !r->forced;
}

/* Whole pages of tokens with which both prompts begin; the last token of r is always computed. */
static int pages_alike(const serve_request *r, const serve_request *q, int page_tokens) {
  const int most = r->n_ids - 1 < q->n_ids ? r->n_ids - 1 : q->n_ids;
  int n = 0;
  while (n < most && r->ids[n] == q->ids[n]) n++;
  return n / page_tokens;
}

/* v->text: its first n tokens. */
static void tokens_of(server *v, const serve_request *r, int n) {
  memcpy(v->text, r->ids, (size_t)(n < r->n_ids ? n : r->n_ids) * sizeof *v->text);
  if (n > r->n_ids) memcpy(v->text + r->n_ids, r->out, (size_t)(n - r->n_ids) * sizeof *v->text);
}

static int find_shared(void *user, int64_t request, int32_t *pages) {
  server *v = user;
  const serve_request *r = &v->reqs[request];
  const int n_all = r->n_ids + r->n_out; /* begun again after a loss: the answer so far belongs to the prompt */
  const int pt = engine_opts(v->e)->page_tokens;
  v->first[request] = v->has[request].shared = 0;
  if (!shares(r)) return 0;
  tokens_of(v, r, n_all);
  const int n = prefix_find(v->o->known, v->text, n_all, (n_all - 1) / pt, pages);
  for (int i = 0; i < v->n_reqs; i++) { /* one that is computing more of the same: wait for it */
    const serve_request *q = &v->reqs[i];
    if (v->computed[i] >= 0 && v->computed[i] < q->n_ids && i != request && shares(q) && pages_alike(r, q, pt) > n &&
        pages_alike(r, q, pt) * pt > v->computed[i])
      return -1;
  }
  v->computed[request] = v->first[request] = v->has[request].shared = n * pt;
  return n;
}

static bool held_by_a_sequence(void *user, int32_t page) {
  const server *v = user;
  return sched_holders(v->s, page) > 1;
}

static void make_room(void *user, int n_pages) {
  server *v = user;
  for (int32_t page; n_pages > 0 && (page = prefix_forget(v->o->known, held_by_a_sequence, v)) >= 0; n_pages--)
    sched_drop(v->s, page);
}

/* What the mirror has of a prompt behind the pages that it shares: the request is computed from there on. */
static int restore(void *user, int64_t request, const int32_t *pages, int n_shared) {
  server *v = user;
  const serve_request *r = &v->reqs[request];
  const int shared = n_shared * engine_opts(v->e)->page_tokens, lost = v->has[request].lost;
  if (!shares(r)) return shared;
  tokens_of(v, r, r->n_ids + r->n_out);
  const int n = standby_restore(v->o->standby, v->text, r->n_ids + r->n_out, pages, n_shared);
  v->computed[request] = v->first[request] = n;
  v->st->restored_tokens += n - shared;
  v->has[request].lost = 0;
  if (v->st->n_losses == 0 || lost == 0) return n;
  serve_loss *l = &v->st->loss[v->st->n_losses - 1];
  l->restored += n < lost ? n : lost;
  l->tokens -= n < lost ? n : lost;
  return n;
}

static void page_free(void *user, int32_t page) {
  const server *v = user;
  standby_page_free(v->o->standby, page);
}

static void share(server *v, sched *s) {
  sched_sharing with = {.user = v, .find = find_shared, .make_room = make_room};
  if (v->o->standby) {
    with.restore = restore;
    with.on_free = page_free;
    standby_sched(v->o->standby, s);
  }
  sched_share(s, &with);
}

static hf_status open_sharing(server *v) {
  const int n_pages = engine_opts(v->e)->n_pages;
  if (!v->o->known) return HF_OK;
  HF_TRY(hf_alloc(&v->computed, (size_t)v->n_reqs + 1, sizeof *v->computed, "shared prefixes"));
  HF_TRY(hf_alloc(&v->first, (size_t)v->n_reqs + 1, sizeof *v->first, "shared prefixes"));
  HF_TRY(hf_alloc(&v->text, (size_t)engine_opts(v->e)->context, sizeof *v->text, "shared prefixes"));
  for (int i = 0; i < v->n_reqs; i++) v->computed[i] = -1;
  for (int32_t p = 0; p < n_pages; p++)
    if (prefix_has(v->o->known, p)) HF_TRY(sched_adopt(v->s, p));
  if (v->o->standby) HF_TRY(standby_begin(v->o->standby, v->n_reqs));
  v->parked_before = prefix_parked(v->o->known);
  share(v, v->s);
  return HF_OK;
}

/* Pages that a finished step has filled become known, prompt and answer alike; before their sequence may end. */
static void learn_pages(server *v, const sched_piece *piece) {
  const serve_request *r = &v->reqs[piece->request];
  const int pt = engine_opts(v->e)->page_tokens, done = piece->start_pos + piece->n_tokens;
  int n_pages;
  if (!v->o->known) return;
  if (piece->start_pos == v->first[piece->request]) v->st->shared_tokens += v->has[piece->request].shared; /* its first step */
  if (!shares(r)) return;
  v->computed[piece->request] = done;
  const int32_t *pages = sched_pages(v->s, piece->seq, &n_pages);
  if (v->o->standby) standby_wrote(v->o->standby, piece->request, pages, piece->start_pos, done);
  if (done / pt == piece->start_pos / pt) return;
  tokens_of(v, r, done);
  for (int k = piece->start_pos / pt; k < done / pt; k++) {
    if (!prefix_add(v->o->known, v->text, k, pages[k])) continue;
    sched_keep(v->s, pages[k]);
    if (v->o->standby) standby_known_page(v->o->standby, pages[k]);
  }
}

/* KV of sessions whose request has ended with this step, before its pages go. */
static void park(server *v, const sched_step *step) {
  int n_pages;
  for (int p = 0; v->o->standby && p < step->n_pieces; p++) {
    const sched_piece *piece = &step->piece[p];
    const serve_request *r = &v->reqs[piece->request];
    if (!r->session || !r->finish[0] || !shares(r)) continue;
    const int32_t *pages = sched_pages(v->s, piece->seq, &n_pages);
    tokens_of(v, r, v->has[piece->request].held);
    standby_park(v->o->standby, v->text, v->has[piece->request].held, pages);
  }
}

static void tell_finish(server *v, int64_t at) {
  if (v->has[at].told) return;
  v->has[at].told = true;
  if (v->o->on_finish) v->o->on_finish(v->o->user, &v->reqs[at]);
}

static void tell_final(server *v, int64_t at) {
  tell_finish(v, at);
  if (v->has[at].final) return;
  v->has[at].final = true;
  if (v->o->on_final) v->o->on_final(v->o->user, &v->reqs[at]);
}

static bool is_waiting(const server *v, int at) {
  const serve_request *before = v->reqs[at].after;
  return before && before - v->reqs < v->n_reqs && !v->has[before - v->reqs].final; /* beyond them: of an earlier run */
}

/* One that goes on from another gets its prompt now; with what came before it may be too long, or have nothing to go on from. */
static hf_status enter(server *v, int at) {
  serve_request *r = &v->reqs[at];
  const double now = seconds(hf_now_ns() - v->start_ns);
  const char *end = NULL;
  v->has[at].waits = is_waiting(v, at);
  if (v->has[at].waits) {
    if (r->after->finish[0]) v->check_ns = 0; /* it is through, but for a check of the device */
    return HF_OK;
  }
  if (r->after) {
    if (r->arrival_s < now) r->arrival_s = now;
    if (!strcmp(r->after->finish, "cancelled")) end = "cancelled";
    else HF_TRY(hf_note(v->o->go_on(v->o->user, r), "request %s", r->ext_id));
    if (!end && (int64_t)r->n_ids + r->max_tokens > engine_opts(v->e)->context) end = "length";
  }
  if (!end) return hf_note(sched_add(v->s, at, r->n_ids, r->max_tokens), "request %s", r->ext_id);
  snprintf(r->finish, sizeof r->finish, "%s", end);
  r->end_s = now;
  tell_final(v, at);
  return HF_OK;
}

/* Those that waited for the end of others; one may be what the next waits for. */
static hf_status enter_waiting(server *v) {
  for (bool any = v->o->go_on != NULL; any;) {
    any = false;
    for (int i = 0; i < v->next_arrival; i++) {
      const int at = v->order[i];
      if (!v->has[at].waits) continue;
      HF_TRY(enter(v, at));
      any = any || !v->has[at].waits;
    }
  }
  return HF_OK;
}

/* Requests whose time has come enter the scheduler. Returns the ns until the next one, -1 when there is none. */
static hf_status admit(server *v, int64_t *next_ns) {
  *next_ns = -1;
  int64_t now = hf_now_ns();
  while (v->next_arrival < v->n_reqs) {
    serve_request *r = &v->reqs[v->order[v->next_arrival]];
    int64_t at = v->start_ns + (int64_t)(r->arrival_s * 1e9);
    if (at > now) {
      *next_ns = at - now;
      break;
    }
    HF_TRY(enter(v, v->order[v->next_arrival]));
    v->next_arrival++;
  }
  return enter_waiting(v);
}

/* Of every prompt position, unless they are known and the prompt is computed again for a device that was lost. */
static bool wants_all(const serve_request *r) {
  return r->all_logits && r->n_out == 0;
}

static void impose(server *v, int m, dev_step *s, const serve_request *r, int pos, int t) {
  if (!v->forced[m]) return;
  const model_config *c = engine_config(v->e);
  for (int l = 0; l < c->n_layers; l++) {
    int32_t *to = v->forced[m] + ((size_t)l * (size_t)s->max_tok + (size_t)t) * (size_t)c->top_k;
    if (r->forced && pos < r->n_ids)
      memcpy(to, r->forced + ((size_t)l * (size_t)r->n_ids + (size_t)pos) * (size_t)c->top_k, (size_t)c->top_k * sizeof *to);
    else to[0] = -1;
  }
}

/* Tokens, positions and wanted logits of the step that the scheduler gave. */
static void fill(server *v, int m) {
  const engine_options *eo = engine_opts(v->e);
  slot *k = &v->mb[m];
  dev_step *s = engine_step(v->e, m);
  s->n_tok = s->n_logits = 0;
  s->n_seq = k->step.n_pieces;
  k->prefills = false;
  for (int p = 0; p < k->step.n_pieces; p++) {
    const sched_piece *piece = &k->step.piece[p];
    const serve_request *r = &v->reqs[piece->request];
    int n_row, n_pages;
    int32_t *row = engine_page_row(v->e, piece->seq, &n_row);
    const int32_t *pages = sched_pages(v->s, piece->seq, &n_pages);
    memcpy(row, pages, (size_t)(n_pages < n_row ? n_pages : n_row) * sizeof *row);
    k->prefills = k->prefills || !piece->decode;
    for (int i = 0; i < piece->n_tokens; i++) {
      int t = s->n_tok++, pos = piece->start_pos + i;
      s->ids[t] = pos < r->n_ids ? r->ids[pos] : r->out[pos - r->n_ids];
      s->pos[t] = pos;
      s->seq[t] = piece->seq;
      if (v->o->standby && pos % eo->page_tokens == 0) standby_before(v->o->standby, pages[pos / eo->page_tokens]);
      if (s->plain) s->plain[t] = engine_plain(v->e, pos, r->n_ids, v->o->chunk_tokens);
      impose(v, m, s, r, pos, t);
      bool last = i == piece->n_tokens - 1 && piece->wants_logits;
      if (last || (wants_all(r) && !piece->decode)) s->logit_rows[s->n_logits++] = t;
    }
  }
  s->forced_ids = v->forced[m];
  s->upload = engine_uploads(v->e, s->n_tok, k->prefills);
}

static void count_routing(server *v, const dev_step *s, const sched_step *what) {
  serve_stats *st = v->st;
  const model_config *c = engine_config(v->e);
  int step_phase = what->n_decode == what->n_tokens;
  uint8_t seen[1024];
  for (int l = 0; l < c->n_layers; l++) {
    if (!c->layer_is_moe[l]) continue;
    memset(seen, 0, sizeof seen);
    int distinct = 0, t = 0;
    for (int p = 0; p < what->n_pieces; p++) {
      int64_t *count = st->routing + ((size_t)what->piece[p].decode * (size_t)c->n_layers + (size_t)l) * (size_t)c->n_experts;
      for (int i = 0; i < what->piece[p].n_tokens; i++, t++) {
        const int32_t *ids = s->route_ids + ((size_t)l * (size_t)s->max_tok + (size_t)t) * (size_t)c->top_k;
        for (int k = 0; k < c->top_k; k++) {
          count[ids[k]]++;
          distinct += !seen[ids[k]];
          seen[ids[k]] = 1;
        }
      }
    }
    size_t at = ((size_t)step_phase * (size_t)c->n_layers + (size_t)l) * ((size_t)st->max_tok + 1) + (size_t)s->n_tok;
    st->distinct_steps[at]++;
    st->distinct_sum[at] += distinct;
    st->distinct_sq[at] += (int64_t)distinct * distinct;
  }
}

static void count_times(server *v, const dev_step *s, const sched_step *what) {
  serve_stats *st = v->st;
  int phase = what->n_decode == what->n_tokens;
  for (int i = 0; i < s->n_trace; i++) {
    const dev_trace *t = &s->trace[i];
    struct serve_stage *of_layer = &st->stage[((size_t)phase * ((size_t)st->n_layers + 1) + (size_t)t->layer) * DEV_STAGE_N];
    struct serve_stage *g = &of_layer[t->stage];
    /* experts on another device than the layer's, whose records come after its own: no part of what the home took */
    if (t->stage == DEV_STAGE_DEXP && t->device != of_layer[DEV_STAGE_ATTN].device) continue;
    double ns = (double)(t->end_ns - t->start_ns), before = t->more ? g->last_ns : 0;
    g->steps += !t->more;
    g->device = t->more ? g->device : t->device;
    g->tokens += t->more ? 0 : t->tokens;
    g->distinct += t->distinct;
    g->ns += ns;
    g->last_ns = before + ns;
    g->ns_sq += g->last_ns * g->last_ns - before * before;
  }
  double ns = (double)(s->finished_ns - s->launched_ns);
  st->step_ns_sum[phase] += ns;
  st->step_ns_sq[phase] += ns * ns;
  st->step_n[phase]++;
}

static bool all_back(const server *v) {
  bool all = true;
  for (int i = 0; i < v->st->n_losses; i++) all = all && v->st->loss[i].back_s > 0;
  return all;
}

/* The interval since the last event belongs to prefill when anything prefilled in it, to steady decode when all users decoded. */
static void account_interval(server *v, const slot *ended) {
  int64_t now = hf_now_ns();
  bool prefill = false;
  int decoding = 0;
  for (int m = 0; m < v->depth; m++) {
    if (!v->mb[m].in_flight || v->mb[m].check) continue;
    prefill = prefill || v->mb[m].prefills;
    decoding += v->mb[m].step.n_decode;
  }
  double dt = seconds(now - v->last_ns);
  v->last_ns = now;
  if (prefill) {
    v->st->prefill_s += dt;
    v->st->prefill_tokens += ended->step.n_tokens - ended->step.n_decode;
    return;
  }
  v->any_s += dt;
  v->any_tokens += ended->step.n_decode;
  if (decoding == v->full) {
    v->st->decode_s += dt;
    v->st->decode_tokens += ended->step.n_decode;
    if (v->st->n_losses == 0) return;
    *(all_back(v) ? &v->st->back_s : &v->st->after_s) += dt;
    *(all_back(v) ? &v->st->back_tokens : &v->st->after_tokens) += ended->step.n_decode;
  }
}

static bool is_eos(const model_config *c, int32_t id) {
  for (int i = 0; i < c->n_eos; i++)
    if (c->eos_ids[i] == id) return true;
  return false;
}

/* Samples, and notes the probabilities where they are wanted; the token is r's next. */
static int32_t next_token(server *v, serve_request *r, const float *logits, int vocab) {
  const sample_options *o = &v->o->sample;
  const float *from = logits;
  if (o->repetition_penalty > 0 && o->repetition_penalty != 1) {
    float *own = v->scratch + 2 * (size_t)vocab;
    memcpy(own, logits, (size_t)vocab * sizeof *own);
    sample_penalise(o->repetition_penalty, r->ids, r->n_ids, logits, own);
    sample_penalise(o->repetition_penalty, r->out, r->n_out, logits, own);
    from = own;
  }
  int32_t id = sample_token(o, r->draw, r->n_out, from, vocab, v->scratch);
  size_t at = (size_t)r->n_out * (size_t)r->n_logprobs;
  if (r->logprob) sample_logprobs(logits, vocab, id, r->n_logprobs, &r->logprob[r->n_out], r->top_ids + at, r->top_logprob + at);
  return id;
}

static void tell_all_final(server *v) {
  for (int i = 0; i < v->n_reqs; i++)
    if (v->reqs[i].finish[0]) tell_final(v, i);
}

/* Takes the tokens of a finished step; finished[i] = 1 ends piece i. */
static void take_tokens(server *v, int m, uint8_t *finished) {
  slot *k = &v->mb[m];
  const dev_step *s = engine_step(v->e, m);
  const model_config *c = engine_config(v->e);
  size_t vocab = (size_t)c->vocab_size;
  int row = 0;
  double now = seconds(hf_now_ns() - v->start_ns);
  for (int p = 0; p < k->step.n_pieces; p++) {
    const sched_piece *piece = &k->step.piece[p];
    serve_request *r = &v->reqs[piece->request];
    finished[p] = 0;
    int rows = wants_all(r) && !piece->decode ? piece->n_tokens : piece->wants_logits;
    for (int i = 0; i < rows && v->o->on_logits; i++)
      v->o->on_logits(v->o->user, r, piece->start_pos + piece->n_tokens - rows + i, s->logits + (size_t)(row + i) * vocab);
    row += rows;
    if (!piece->wants_logits || r->finish[0]) continue;
    int32_t id = next_token(v, r, s->logits + (size_t)(row - 1) * vocab, c->vocab_size);
    if (r->n_out == 0) r->first_token_s = now;
    r->out[r->n_out++] = id;
    v->st->output_tokens++;
    if (v->o->on_token) v->o->on_token(v->o->user, r, id);
    bool stop = (!r->ignore_eos && is_eos(c, id)) || (v->o->ends && v->o->ends(v->o->user, r, id));
    bool cancelled = v->o->stop && *v->o->stop;
    if (stop || cancelled || r->n_out == r->max_tokens) {
      snprintf(r->finish, sizeof r->finish, "%s", stop ? "stop" : cancelled ? "cancelled" : "length");
      r->end_s = now;
      finished[p] = 1;
    }
    if (finished[p] && !engine_can_check(v->e)) tell_final(v, piece->request);
    else if (finished[p] && !v->o->on_retract) tell_finish(v, piece->request);
  }
}

/* Requests that nobody waits for any more leave the queue or their place. */
static void let_go(server *v) {
  const double now = seconds(hf_now_ns() - v->start_ns);
  for (int i = 0; v->o->gone && i < v->next_arrival; i++) {
    const int at = v->order[i];
    serve_request *r = &v->reqs[at];
    if (r->finish[0] || !v->o->gone(v->o->user, r)) continue;
    snprintf(r->finish, sizeof r->finish, "cancelled");
    r->end_s = now;
    if (v->computed) v->computed[at] = -1;
    v->has[at].waits = false;
    sched_cancel(v->s, at);
    tell_final(v, at);
  }
}

static void finish_step(server *v, int m) {
  slot *k = &v->mb[m];
  const dev_step *s = engine_step(v->e, m);
  uint8_t finished[SCHED_MAX_SEQS];
  int64_t ended[SCHED_MAX_SEQS];
  int n_ended = 0;
  if (v->lost_ns) v->st->loss[v->st->n_losses - 1].recovery_ns = hf_now_ns() - v->lost_ns;
  v->lost_ns = 0;
  account_interval(v, k);
  count_routing(v, s, &k->step);
  count_times(v, s, &k->step);
  if (v->o->on_step) v->o->on_step(v->o->user, s, &k->step, v->st->steps);
  v->st->steps++;
  v->unchecked++;
  if (k->step.n_decode == k->step.n_tokens) v->st->decode_steps++;
  v->st->prompt_tokens += k->step.n_tokens - k->step.n_decode;
  for (int p = 0; p < k->step.n_pieces; p++) {
    const sched_piece *piece = &k->step.piece[p];
    v->has[piece->request].held = piece->start_pos + piece->n_tokens;
    learn_pages(v, piece);
  }
  take_tokens(v, m, finished);
  park(v, &k->step);
  for (int p = 0; v->computed && p < k->step.n_pieces; p++)
    if (v->reqs[k->step.piece[p].request].finish[0]) v->computed[k->step.piece[p].request] = -1;
  k->in_flight = false;
  sched_done(v->s, m, finished, ended, &n_ended);
  let_go(v);
  if (!v->o->on_sched) return;
  const int64_t looked_ns = hf_now_ns();
  v->o->on_sched(v->o->user, v->s);
  v->last_ns += hf_now_ns() - looked_ns;
}

/* What did not come to an end when serving was stopped ends now; requests that had not arrived yet end as they arrive. */
static void cancel_rest(server *v) {
  double now = seconds(hf_now_ns() - v->start_ns);
  for (int i = 0; i < v->n_reqs; i++) {
    serve_request *r = &v->reqs[i];
    if (!r->finish[0]) {
      snprintf(r->finish, sizeof r->finish, "cancelled");
      r->end_s = now > r->arrival_s ? now : r->arrival_s;
    }
    tell_final(v, i);
  }
}

static void scheduler_options(const server *v, sched_options *so) {
  const engine_options *eo = engine_opts(v->e);
  *so = (sched_options){.depth = eo->depth,
                        .max_seqs = v->o->users,
                        .chunk_tokens = v->o->chunk_tokens,
                        .page_tokens = eo->page_tokens,
                        .n_pages = eo->n_pages};
}

/* All KV is gone: whoever has not ended starts again, in the order of arrival, with the tokens that it has as its prompt. */
static hf_status begin_again(server *v, serve_loss *l) {
  sched_options so;
  sched *fresh = NULL;
  scheduler_options(v, &so);
  HF_TRY(sched_new(&so, &fresh));
  v->checked_ns = 0;
  v->depth = so.depth;
  if (v->o->standby) standby_pages_gone(v->o->standby);
  else prefix_clear(v->o->known);
  if (v->o->known) share(v, fresh);
  sched_free(v->s);
  v->s = fresh;
  for (int i = 0; i < v->next_arrival; i++) {
    const int at = v->order[i];
    const serve_request *r = &v->reqs[at];
    if (v->computed) v->computed[at] = -1;
    if (r->finish[0] || v->has[at].waits) continue;
    l->requests++;
    l->tokens += v->has[at].held;
    v->has[at].lost = v->has[at].held;
    v->has[at].held = 0;
    HF_TRY(sched_add(v->s, at, r->n_ids + r->n_out, r->max_tokens - r->n_out));
  }
  return HF_OK;
}

/* What a device wrote since it was last found good is taken back: one that fails may have computed wrongly before. Where it was found to do so (wrong), what
 * somebody knows already is marked. */
static void take_back(server *v, serve_loss *l, bool wrong) {
  for (int i = 0; i < v->n_reqs; i++) {
    serve_request *r = &v->reqs[i];
    if (r->n_out == v->has[i].good) continue;
    if (v->has[i].told || !v->o->on_retract) {
      l->suspect += wrong && !r->suspect;
      r->suspect = r->suspect || wrong;
      continue;
    }
    const int n = r->n_out - v->has[i].good;
    l->retracted += n;
    v->st->output_tokens -= n;
    r->n_out = v->has[i].good;
    r->finish[0] = 0;
    if (r->n_out == 0) r->first_token_s = 0;
    v->o->on_retract(v->o->user, r, n);
  }
}

/* Before the engine moves, while the old pages still have names. */
static void keep_in_mirror(server *v) {
  standby *sb = v->o->standby;
  standby_lost(sb, engine_opts(v->e)->check_every_ns > 0); /* as tokens are taken back */
  for (int i = 0; i < v->n_reqs; i++) {
    const serve_request *r = &v->reqs[i];
    if (r->finish[0] || !shares(r) || v->has[i].held == 0) continue;
    tokens_of(v, r, v->has[i].held);
    standby_keep_end(sb, i, v->text, v->has[i].held);
  }
}

/* engine_on_tight */
static void give_mirror_up(void *user) {
  standby_give_up(user, "memory has no room for it beside what was lost");
}

/* st: what the engine said. HF_OK when it was a loss that serving has survived. */
static hf_status survive(server *v, hf_status st) {
  serve_stats *all = v->st;
  const bool wrong = engine_lost_wrong(v->e);
  if (st != HF_LOST || all->n_losses == SERVE_LOSSES) return st;
  const int64_t now = hf_now_ns();
  serve_loss *l = &all->loss[all->n_losses++];
  *l = (serve_loss){.at_s = seconds(now - v->start_ns)};
  snprintf(l->why, sizeof l->why, "%s", engine_lost_reason(v->e));
  l->rank = engine_lost_rank(v->e);
  l->device = engine_lost_device(v->e);
  hf_clear_error();
  if (engine_opts(v->e)->check_every_ns > 0) take_back(v, l, wrong);
  tell_all_final(v); /* no check will come that they could wait for */
  for (int m = 0; m < v->depth; m++) v->mb[m].in_flight = v->mb[m].check = false;
  if (v->o->stop && *v->o->stop) return HF_OK; /* nothing will be launched any more */
  if (v->o->standby) keep_in_mirror(v);
  HF_TRY(engine_fail_over(v->e));
  l->devices_left = engine_devices_left(v->e);
  const plan *without = engine_opts(v->e)->without[l->device];
  l->planned = l->devices_left > 0 && without && engine_opts(v->e)->placement == without;
  HF_TRY(begin_again(v, l));
  if (!v->lost_ns) v->lost_ns = now;
  l->recovery_ns = hf_now_ns() - now;
  v->last_ns = hf_now_ns(); /* no time of decoding */
  if (v->o->on_loss) v->o->on_loss(v->o->user, l);
  return HF_OK;
}

/* Steps of another depth: whoever has not ended enters a new scheduler with its tokens as its prompt; pages that are known are found by that. */
static hf_status change_depth(server *v) {
  const int n_pages = engine_opts(v->e)->n_pages;
  sched_options so;
  sched *fresh = NULL;
  scheduler_options(v, &so);
  HF_TRY(sched_new(&so, &fresh));
  for (int i = 0; i < v->next_arrival; i++) sched_cancel(v->s, v->order[i]);
  if (v->o->known) share(v, fresh);
  sched_free(v->s);
  v->s = fresh;
  v->depth = so.depth;
  for (int32_t p = 0; v->o->known && p < n_pages; p++)
    if (prefix_has(v->o->known, p)) HF_TRY(sched_adopt(v->s, p));
  for (int i = 0; i < v->next_arrival; i++) {
    const int at = v->order[i];
    const serve_request *r = &v->reqs[at];
    if (v->computed) v->computed[at] = -1;
    if (r->finish[0] || v->has[at].waits) continue;
    v->has[at].held = 0;
    HF_TRY(sched_add(v->s, at, r->n_ids + r->n_out, r->max_tokens - r->n_out));
  }
  return HF_OK;
}

/* Its last one that it has not come back from; or, where it was lost with others, the one that took the last device. NULL: none. */
static serve_loss *loss_of(const server *v, int device) {
  serve_loss *with_others = NULL;
  for (int i = v->st->n_losses - 1; i >= 0; i--) {
    serve_loss *l = &v->st->loss[i];
    if (l->rank || l->back_s > 0) continue;
    if (l->device == device) return l;
    if (l->devices_left == 0 && !with_others) with_others = l;
  }
  return with_others;
}

/* No step is in flight. */
static hf_status welcome(server *v) {
  const int64_t now = hf_now_ns();
  engine_return back;
  if (v->o->standby) standby_settle(v->o->standby);
  for (int i = 0; i < v->n_reqs && engine_devices_left(v->e) == 0; i++) v->has[i].good = v->reqs[i].n_out; /* the CPU wrote it */
  const hf_status st = engine_take_back(v->e, &back);
  if (st != HF_OK) return survive(v, st);
  if (engine_opts(v->e)->depth != v->depth) HF_TRY(change_depth(v));
  v->last_ns = hf_now_ns(); /* no time of decoding */
  v->check_ns = v->last_ns + engine_opts(v->e)->check_every_ns;
  serve_loss *l = loss_of(v, back.device);
  if (!l) return HF_OK; /* of an earlier serving, or lost with another one that is back already */
  l->back_s = seconds(v->last_ns - v->start_ns);
  l->stood_ns = v->last_ns - now;
  l->probes = back.probes;
  l->loaded_bytes = back.loaded_bytes;
  if (v->o->on_back) v->o->on_back(v->o->user, l);
  return HF_OK;
}

/* A check is due, or the last of all is: the place of an idle micro-batch is taken for it. */
static hf_status launch_check(server *v, int m) {
  v->checked_ns = hf_now_ns();
  v->mb[m].in_flight = v->mb[m].check = true;
  if (v->o->standby) standby_check(v->o->standby);
  v->unchecked = 0; /* steps that end meanwhile are for the next one */
  for (int i = 0; i < v->n_reqs; i++) v->has[i].at_check = v->reqs[i].n_out;
  return engine_launch_check(v->e, m);
}

static hf_status finish_check(server *v, int m) {
  enum { LEAST_TIMES = 100 }; /* checks take a hundredth of the time at most */
  const int64_t now = hf_now_ns(), every = engine_opts(v->e)->check_every_ns, least = LEAST_TIMES * (now - v->checked_ns);
  v->mb[m].in_flight = v->mb[m].check = false;
  v->checked_ns = 0;
  HF_TRY(engine_check_good(v->e, m));
  if (v->o->standby) standby_trust(v->o->standby);
  v->check_ns = now + (every > least ? every : least);
  for (int i = 0; i < v->n_reqs; i++) {
    v->has[i].good = v->has[i].at_check;
    if (v->reqs[i].finish[0] && v->reqs[i].n_out == v->has[i].good) tell_final(v, i);
  }
  return HF_OK;
}

/* Launches what is idle and has something to do. */
static hf_status launch_idle(server *v, bool stop, bool *busy) {
  *busy = false;
  const bool waits = engine_returning(v->e) && !stop; /* for the steps in flight to end */
  for (int m = 0; m < v->depth; m++) {
    slot *k = &v->mb[m];
    *busy = *busy || k->in_flight;
    if (waits) continue;
    if (!k->in_flight && v->unchecked > 0 && !v->checked_ns && engine_can_check(v->e) && hf_now_ns() >= v->check_ns) {
      HF_TRY(launch_check(v, m));
    } else if (!k->in_flight && !stop && sched_next(v->s, m, &k->step)) {
      fill(v, m);
      if (v->waited) v->last_ns = hf_now_ns();
      v->waited = false;
      k->in_flight = true;
      HF_TRY(engine_launch(v->e, m));
    }
    *busy = *busy || k->in_flight;
  }
  return HF_OK;
}

/* A micro-batch's step has ended. */
static hf_status take_step(server *v, int m) {
  if (!v->mb[m].check) {
    finish_step(v, m);
    return HF_OK;
  }
  return finish_check(v, m);
}

/* The same while the driver's thread computes experts for another one (engine_on_over): the device gets its next step at once. */
static hf_status step_over(void *user, int m) {
  server *v = user;
  int64_t next_ns;
  bool busy;
  HF_TRY(take_step(v, m));
  HF_TRY(admit(v, &next_ns));
  return launch_idle(v, v->o->stop && *v->o->stop, &busy);
}

static hf_status loop(server *v) {
  for (;;) {
    int64_t next_ns;
    bool stop = v->o->stop && *v->o->stop;
    HF_TRY(admit(v, &next_ns));
    bool busy;
    hf_status st = launch_idle(v, stop, &busy);
    if (st != HF_OK) {
      HF_TRY(survive(v, st));
      continue;
    }
    if (!busy && engine_returning(v->e) && !stop) {
      HF_TRY(welcome(v));
      continue;
    }
    if (!busy) {
      if ((stop || next_ns < 0) && v->unchecked > 0 && engine_can_check(v->e)) {
        v->check_ns = 0; /* the last answers wait for it */
        continue;
      }
      if (stop || next_ns < 0) {
        if (stop) cancel_rest(v);
        return HF_OK;
      }
      hf_sleep_until_ns(hf_now_ns() + (next_ns < 50000000 ? next_ns : 50000000));
      v->waited = true;
      continue;
    }
    int m;
    st = engine_poll(v->e, &m);
    if (st == HF_OK && m >= 0) st = take_step(v, m);
    if (st != HF_OK) HF_TRY(survive(v, st));
  }
}

/* fill() writes into the engine's buffers, so the options must fit what the engine was opened for. */
static hf_status check_options(const server *v, const engine_options *eo) {
  const serve_options *o = v->o;
  for (int i = 0; i < v->n_reqs; i++)
    if (v->reqs[i].after && !o->go_on)
      return hf_fail(HF_INPUT, "request %s goes on from another: nobody says how", v->reqs[i].ext_id);
  if (o->standby && o->known != standby_known(o->standby))
    return hf_fail(HF_INPUT, "serving with a KV mirror needs the shared prefixes that go with it");
  if (o->users > eo->max_seqs)
    return hf_fail(HF_INPUT, "serving %d sequences at once: the engine was opened for %d", o->users, eo->max_seqs);
  if (o->chunk_tokens > eo->max_tok - o->users)
    return hf_fail(HF_INPUT, "serving with chunks of %d tokens beside %d sequences: the engine was opened for steps of %d tokens",
                   o->chunk_tokens, o->users, eo->max_tok);
  bool all_logits = false;
  for (int i = 0; i < v->n_reqs; i++) {
    const serve_request *r = &v->reqs[i];
    all_logits = all_logits || r->all_logits;
    if ((int64_t)r->n_ids + r->max_tokens > eo->context)
      return hf_fail(HF_NO, "request %s: %d prompt tokens and up to %d more are over the context of %d", r->ext_id, r->n_ids,
                     r->max_tokens, eo->context);
  }
  int rows = all_logits ? o->chunk_tokens + o->users : o->users;
  if (rows > eo->max_logits)
    return hf_fail(HF_INPUT, "serving needs logits of %d rows a step: the engine was opened for %d", rows, eo->max_logits);
  return HF_OK;
}

static int by_arrival(const void *a, const void *b, void *reqs) {
  int i = *(const int *)a, j = *(const int *)b;
  const serve_request *r = reqs;
  if (r[i].arrival_s != r[j].arrival_s) return r[i].arrival_s < r[j].arrival_s ? -1 : 1;
  return i - j;
}

static hf_status prepare(server *v) {
  const engine_options *eo = engine_opts(v->e);
  const model_config *c = engine_config(v->e);
  sched_options so;
  scheduler_options(v, &so);
  HF_TRY(sched_new(&so, &v->s));
  HF_TRY(check_options(v, eo));
  HF_TRY(hf_alloc(&v->scratch, 3 * (size_t)c->vocab_size, sizeof(float), "sampling scratch"));
  HF_TRY(hf_alloc(&v->order, (size_t)v->n_reqs + 1, sizeof *v->order, "arrivals"));
  HF_TRY(hf_alloc(&v->has, (size_t)v->n_reqs + 1, sizeof *v->has, "arrivals"));
  bool any_forced = false;
  for (int i = 0; i < v->n_reqs; i++) {
    v->order[i] = i;
    any_forced = any_forced || v->reqs[i].forced;
  }
  qsort_r(v->order, (size_t)v->n_reqs, sizeof *v->order, by_arrival, v->reqs);
  for (int m = 0; any_forced && m < SCHED_MAX_DEPTH; m++) /* a device that comes back may make it deeper */
    HF_TRY(hf_alloc(&v->forced[m], (size_t)c->n_layers * (size_t)eo->max_tok * (size_t)c->top_k, sizeof(int32_t),
                    "imposed routing"));
  v->full = v->n_reqs < v->o->users ? v->n_reqs : v->o->users;
  HF_TRY(open_sharing(v));
  return stats_new(v->e, v->st);
}

static void end_standby(server *v, bool good) {
  standby_stats now;
  standby_end(v->o->standby);
  standby_get_stats(v->o->standby, &now);
  v->st->parked_tokens = now.parked_tokens - v->parked_before;
  if (good) v->st->slots_lost = now.slots_lost;
}

hf_status serve_run(engine *e, serve_request *reqs, int n_reqs, const serve_options *o, serve_stats *stats) {
  server v = {.e = e, .o = o, .reqs = reqs, .n_reqs = n_reqs, .st = stats, .depth = engine_opts(e)->depth};
  memset(stats, 0, sizeof *stats);
  for (int i = 0; i < n_reqs; i++) {
    reqs[i].n_out = 0;
    reqs[i].first_token_s = reqs[i].end_s = 0;
    reqs[i].finish[0] = 0;
    reqs[i].suspect = false;
  }
  hf_status st = prepare(&v);
  v.start_ns = v.last_ns = hf_now_ns();
  v.check_ns = v.start_ns + engine_opts(e)->check_every_ns;
  engine_on_over(e, step_over, &v);
  if (o->standby) engine_on_tight(e, give_mirror_up, o->standby);
  if (st == HF_OK) st = loop(&v);
  engine_on_over(e, NULL, NULL);
  engine_on_tight(e, NULL, NULL);
  if (st != HF_OK) engine_drain(e); /* steps in flight read what is freed below */
  if (v.has) tell_all_final(&v);
  if (st == HF_OK) stats->pages_lost = engine_opts(e)->n_pages - sched_pages_free(v.s) - (o->known ? prefix_pages(o->known) : 0);
  if (o->standby) end_standby(&v, st == HF_OK);
  stats->wall_s = seconds(hf_now_ns() - v.start_ns);
  if (stats->decode_s == 0) {
    stats->decode_s = v.any_s;
    stats->decode_tokens = v.any_tokens;
  }
  for (int m = 0; m < SCHED_MAX_DEPTH; m++) {
    engine_step(e, m)->forced_ids = NULL;
    free(v.forced[m]);
  }
  free(v.scratch);
  free(v.order);
  free(v.computed);
  free(v.first);
  free(v.has);
  free(v.text);
  sched_free(v.s);
  return st;
}
