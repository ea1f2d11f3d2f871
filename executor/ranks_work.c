/* ranks_work.c: what a rank above 0 does (ranks.h): loads what it is told to, computes what it is sent. Its own errors go to rank 0, which tells them. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/commands.h"
#include "executor/ranks.h"
#include "executor/ranks_int.h"
#include "kernels/net/net.h"

enum { LEAST_ROOM = 2 << 20 /* of an order to load: a byte an expert, and kernels */ };

typedef struct {
  net *net;
  const run_options *r;
  model *m;
  engine *e;
  load_order load;
  uint8_t *owner;
  char *in, *out;
  size_t in_room, out_room;
  int number;
  int64_t jobs;
  int fail_kind; /* the signal that the job number fail_at brings; 0: none does */
  int64_t fail_at, silence_ns;
  bool end;
} work;

/* What tests have it suffer (ranks.h). */
static void read_fault(work *w) {
  const char *text = getenv("HF_FAIL_RANK"), *silence = getenv("HF_RANKS_SILENCE_S");
  w->silence_ns = (int64_t)((silence ? strtod(silence, NULL) : RANKS_SILENCE_S) * 1e9);
  for (; text; text = strchr(text, ',') ? strchr(text, ',') + 1 : NULL) {
    char kind[8];
    int rank = 0;
    long long at = 0;
    if (sscanf(text, "%d:%7[a-z]@%lld", &rank, kind, &at) != 3 || rank != net_rank(w->net)) continue;
    w->fail_kind = !strcmp(kind, "hang") ? SIGSTOP : !strcmp(kind, "die") ? SIGKILL : 0;
    w->fail_at = at;
  }
}

/* Frees nothing that MPI may still use: on a failure this process ends. */
static hf_status send(work *w, int tag, const void *data, size_t bytes) {
  net_message m;
  HF_TRY(net_send(w->net, 0, tag, data, bytes, &m));
  return net_wait(w->net, &m, w->silence_ns, NULL);
}

static hf_status say(work *w, state_kind kind, hf_status st, const char *text) {
  static rank_state s; /* MPI's, should it never be sent */
  memset(&s, 0, sizeof s);
  s = (rank_state){.magic = RANKS_MAGIC, .kind = kind, .number = w->number, .status = st};
  s.threads = w->e ? engine_threads(w->e) : 0;
  snprintf(s.version, sizeof s.version, "%s", HF_VERSION);
  (void)gethostname(s.host, sizeof s.host - 1);
  snprintf(s.text, sizeof s.text, "%s", text);
  return send(w, TAG_STATE, &s, sizeof s);
}

static void tell_loading(void *user) {
  if (say(user, STATE_LOADING, HF_OK, "") != HF_OK) hf_clear_error(); /* the next order will not come either, and ends this */
}

static hf_status room(char **p, size_t *have, size_t want) {
  if (*have >= want) return HF_OK;
  free(*p);
  *p = NULL;
  *have = 0;
  HF_TRY(hf_alloc(p, 1, want, "rows of rank 0"));
  *have = want;
  return HF_OK;
}

static void unload(work *w) {
  engine_close(w->e);
  w->e = NULL;
  free(w->owner);
  w->owner = NULL;
}

static hf_status same_model(const work *w) {
  const model_config *c = model_get_config(w->m);
  const load_order *l = &w->load;
  if (c->n_layers != l->n_layers || c->n_experts != l->n_experts || c->top_k != l->top_k || c->d_model != l->d_model ||
      c->d_ff_expert != l->d_ff || model_total_bytes(w->m, FMT_DEFAULT) != l->model_bytes)
    return hf_fail(HF_INPUT, "%s is not the model that rank 0 has", w->r->model);
  return HF_OK;
}

static hf_status load(work *w, const char *text, size_t bytes) {
  unload(w);
  if (bytes < sizeof w->load) return hf_fail(HF_INPUT, "an order to load that is cut short");
  memcpy(&w->load, text, sizeof w->load);
  if (!w->m) HF_TRY(open_model_to_run(w->r->model, &w->m));
  HF_TRY(same_model(w));
  const load_order *l = &w->load;
  const size_t experts = (size_t)l->n_layers * (size_t)l->n_experts, d = (size_t)l->d_model, rows = (size_t)l->max_tok;
  plan_kernel kernel[PLAN_MAX_KERNELS];
  if (l->n_kernels < 0 || l->n_kernels > PLAN_MAX_KERNELS || bytes != sizeof *l + experts + (size_t)l->n_kernels * sizeof *kernel)
    return hf_fail(HF_INPUT, "an order to load that is cut short");
  HF_TRY(hf_alloc(&w->owner, 1, experts, "experts of this rank"));
  memcpy(w->owner, text + sizeof *l, experts);
  memcpy(kernel, text + sizeof *l + experts, (size_t)l->n_kernels * sizeof *kernel);
  prefer_kernels(kernel, l->n_kernels);
  engine_options o = {.exact = l->exact != 0,
                      .dequantise = l->dequantise != 0,
                      .dequantised_to = (fmt)l->dequantised_to,
                      .page_tokens = 1,
                      .max_tok = l->max_tok,
                      .threads = (int)w->r->threads,
                      .gpu = "none",
                      .ram_limit_bytes = ram_bytes(),
                      .owner = w->owner,
                      .rank = net_rank(w->net)};
  HF_TRY(room(&w->out, &w->out_room, sizeof(result) + rows * d * sizeof(float)));
  return engine_open_rank(w->m, &o, tell_loading, w, &w->e);
}

static hf_status compute(work *w, const order *o, size_t bytes) {
  const size_t n = (size_t)o->n_rows, top = (size_t)w->load.top_k, d = (size_t)w->load.d_model;
  if (!w->e || o->number != w->number || o->layer < 0 || o->layer >= w->load.n_layers || o->n_rows < 1 ||
      o->n_rows > w->load.max_tok || bytes != n * (8 * top + 4 * d))
    return hf_fail(HF_MACHINE, "an order that does not fit what is loaded");
  const char *at = w->in + sizeof *o;
  result f = {.magic = RANKS_MAGIC, .number = o->number, .layer = o->layer, .n_rows = o->n_rows};
  if (w->fail_kind && ++w->jobs == w->fail_at) raise(w->fail_kind);
  const int64_t start = hf_now_ns();
  engine_rank_job(w->e, o->layer, o->n_rows, (const float *)(const void *)(at + n * 8 * top), (const int32_t *)(const void *)at,
                  (const float *)(const void *)(at + n * 4 * top), (float *)(void *)(w->out + sizeof f));
  f.busy_ns = hf_now_ns() - start;
  memcpy(w->out, &f, sizeof f);
  return send(w, TAG_RESULT, w->out, sizeof f + n * d * sizeof(float));
}

static hf_status obey(work *w, size_t bytes) {
  order o;
  if (bytes < sizeof o) return hf_fail(HF_MACHINE, "an order that is cut short");
  memcpy(&o, w->in, sizeof o);
  if (o.magic != RANKS_MAGIC) return hf_fail(HF_MACHINE, "rank 0 is another program");
  switch ((order_kind)o.kind) {
    case ORDER_LOAD: {
      w->number = o.number;
      const hf_status st = load(w, w->in + sizeof o, bytes - sizeof o);
      if (st == HF_OK) return say(w, STATE_READY, HF_OK, "");
      char why[512];
      snprintf(why, sizeof why, "%s", hf_error_line());
      unload(w);
      return say(w, STATE_FAILED, st, why);
    }
    case ORDER_JOB: return compute(w, &o, bytes - sizeof o);
    case ORDER_UNLOAD: unload(w); return HF_OK;
    case ORDER_END: w->end = true; return say(w, STATE_BYE, HF_OK, "");
    case ORDER_BEAT: return HF_OK;
  }
  return hf_fail(HF_MACHINE, "an order of another version");
}

static hf_status listen(work *w) {
  while (!w->end) {
    net_message m;
    size_t bytes = 0;
    const size_t job = sizeof(order) + (size_t)w->load.max_tok * (8 * (size_t)w->load.top_k + 4 * (size_t)w->load.d_model);
    HF_TRY(room(&w->in, &w->in_room, job > LEAST_ROOM ? job : LEAST_ROOM));
    HF_TRY(net_receive(w->net, 0, TAG_ORDER, w->in, w->in_room, &m));
    HF_TRY(hf_note(net_wait(w->net, &m, w->silence_ns, &bytes), "rank %d: rank 0 is silent", net_rank(w->net)));
    HF_TRY(obey(w, bytes));
  }
  return HF_OK;
}

/* Ctrl-C and mpirun's end of a job reach every rank: rank 0 finishes what it has and then ends the others. */
static void leave_signals(void) {
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  sigaction(SIGINT, &ignore, NULL);
  sigaction(SIGTERM, &ignore, NULL);
}

hf_status ranks_work(const run_options *r, hf_status before) {
  work w = {.r = r};
  char why[512] = "";
  if (before != HF_OK) snprintf(why, sizeof why, "%s", hf_error_line());
  leave_signals();
  HF_TRY(net_open(&w.net));
  read_fault(&w);
  hf_status st = say(&w, before == HF_OK ? STATE_HERE : STATE_FAILED, before, why);
  if (st == HF_OK) st = listen(&w);
  if (st != HF_OK) {
    hf_log(HF_LOG_ERROR, "%s", hf_error_line());
    net_lose(w.net);
  }
  net_close(w.net, hf_exit_status(st));
  unload(&w);
  model_close(w.m);
  free(w.in);
  free(w.out);
  return st;
}
