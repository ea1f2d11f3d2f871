/* check.c: see check.h. One `probe` per sequence collects what the engine computed; judging happens afterwards. */
#include "executor/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

#define ROUTING_GAP 1e-4
#define GREEDY_MARGIN 1e-3
#define TOP1_MARGIN 1e-3

typedef struct {
  int n_ids, n_greedy;
  int32_t *ids, *greedy, *top1;
  double *greedy_margin, *top1_margin; /* top1_margin NULL: not given, top1 is not compared */
  float *last_logits;
  int32_t *routing; /* [n_layers][n_ids][top_k]; -1 for dense layers */
  double routing_gap, routing_gap_greedy;
} ref_prompt;

struct check_ref {
  hf_arena *a;
  const model_config *c;
  int n_prompts;
  ref_prompt *prompt;
};

typedef struct {
  const ref_prompt *ref;
  int32_t *routing; /* as in the reference */
  int32_t *top1;    /* [n_ids] */
  float *last_logits;
} probe;

typedef struct {
  const check_ref *r;
  engine *e;
  serve_request *reqs;
  probe *probes;
} checker;

static hf_status int_array(hf_arena *a, const json *obj, const char *where, const char *key, int64_t hi, int32_t **out, int *n) {
  const json *v = json_get(obj, key);
  if (!v || json_type(v) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: field %s: expected an array of numbers", where, key);
  *n = json_len(v);
  HF_TRY(hf_arena_get(a, out, (size_t)*n + 1, sizeof **out));
  int i = 0;
  for (const json *x = json_first(v); x; x = json_next(x), i++) {
    double d = json_number(x, -1);
    if (d < 0 || d > (double)hi || d != floor(d))
      return hf_fail(HF_INPUT, "%s: field %s[%d]: not a whole number up to %lld", where, key, i, (long long)hi);
    (*out)[i] = (int32_t)d;
  }
  return HF_OK;
}

static hf_status num_array(hf_arena *a, const json *obj, const char *where, const char *key, int want, double **out) {
  const json *v = json_get(obj, key);
  if (!v || json_type(v) != JSON_ARRAY || json_len(v) != want)
    return hf_fail(HF_INPUT, "%s: field %s: expected an array of %d numbers", where, key, want);
  HF_TRY(hf_arena_get(a, out, (size_t)want + 1, sizeof **out));
  int i = 0;
  for (const json *x = json_first(v); x; x = json_next(x), i++) {
    if (json_type(x) != JSON_NUMBER) return hf_fail(HF_INPUT, "%s: field %s[%d]: not a number", where, key, i);
    (*out)[i] = json_number(x, 0);
  }
  return HF_OK;
}

/* The experts of one token: as many as the model takes, in rising order (a kernel given the same expert twice would overrun). */
static hf_status read_choice(const model_config *c, const json *tok, const char *where, int layer, int t, int32_t *out) {
  if (json_type(tok) != JSON_ARRAY || json_len(tok) != c->top_k)
    return hf_fail(HF_INPUT, "%s: field routing.%d[%d]: expected an array of %d experts", where, layer, t, c->top_k);
  double last = -1;
  for (const json *x = json_first(tok); x; x = json_next(x)) {
    double e = json_number(x, -1);
    if (e <= last || e >= c->n_experts || e != floor(e))
      return hf_fail(HF_INPUT, "%s: field routing.%d[%d]: expected experts in rising order, 0 to %d", where, layer, t,
                     c->n_experts - 1);
    *out++ = (int32_t)e;
    last = e;
  }
  return HF_OK;
}

static hf_status read_routing(check_ref *r, const json *obj, const char *where, ref_prompt *p) {
  const model_config *c = r->c;
  size_t per_layer = (size_t)p->n_ids * (size_t)c->top_k;
  HF_TRY(hf_arena_get(r->a, &p->routing, (size_t)c->n_layers * per_layer, sizeof(int32_t)));
  memset(p->routing, 0xff, (size_t)c->n_layers * per_layer * sizeof(int32_t));
  const json *routing = json_get(obj, "routing");
  int n_moe = 0;
  for (int layer = 0; layer < c->n_layers; layer++) {
    if (!c->layer_is_moe[layer]) continue;
    char key[16];
    snprintf(key, sizeof key, "%d", layer);
    const json *l = json_get(routing, key);
    n_moe++;
    if (json_type(l) != JSON_ARRAY || json_len(l) != p->n_ids)
      return hf_fail(HF_INPUT, "%s: field routing.%d: expected an array with one entry per prompt token", where, layer);
    int t = 0;
    for (const json *tok = json_first(l); tok; tok = json_next(tok), t++)
      HF_TRY(read_choice(c, tok, where, layer, t, p->routing + (size_t)layer * per_layer + (size_t)t * (size_t)c->top_k));
  }
  if (json_len(routing) != n_moe)
    return hf_fail(HF_INPUT, "%s: field routing: %d layers, this model has %d with routed experts", where, json_len(routing),
                   n_moe);
  return HF_OK;
}

static hf_status read_prompt(check_ref *r, const json *obj, const char *where, ref_prompt *p) {
  int n;
  double *logits;
  HF_TRY(int_array(r->a, obj, where, "ids", r->c->vocab_size - 1, &p->ids, &p->n_ids));
  if (p->n_ids < 1) return hf_fail(HF_INPUT, "%s: field ids: an empty prompt", where);
  HF_TRY(int_array(r->a, obj, where, "greedy", r->c->vocab_size - 1, &p->greedy, &p->n_greedy));
  if (p->n_greedy < 1) return hf_fail(HF_INPUT, "%s: field greedy: empty", where);
  HF_TRY(num_array(r->a, obj, where, "greedy_margins", p->n_greedy, &p->greedy_margin));
  HF_TRY(num_array(r->a, obj, where, "last_logits", r->c->vocab_size, &logits));
  HF_TRY(hf_arena_get(r->a, &p->last_logits, (size_t)r->c->vocab_size, sizeof(float)));
  for (int i = 0; i < r->c->vocab_size; i++) p->last_logits[i] = (float)logits[i];
  if (json_get(obj, "top1_margins")) {
    HF_TRY(int_array(r->a, obj, where, "top1", r->c->vocab_size - 1, &p->top1, &n));
    HF_TRY(num_array(r->a, obj, where, "top1_margins", n, &p->top1_margin));
    if (n != p->n_ids) return hf_fail(HF_INPUT, "%s: field top1: not one entry per prompt token", where);
  }
  p->routing_gap = json_number(json_get(obj, "routing_min_margin"), INFINITY);
  p->routing_gap_greedy = json_number(json_get(obj, "routing_min_margin_with_greedy"), p->routing_gap);
  return read_routing(r, obj, where, p);
}

hf_status check_open(const char *path, const model *m, check_ref **out) {
  hf_status st = HF_OK;
  json *doc = NULL;
  check_ref *r = NULL;
  HF_TRY(json_read_file(path, 256u << 20, &doc));
  HF_GO(end, hf_alloc(&r, 1, sizeof *r, "reference"));
  r->c = model_get_config(m);
  HF_GO(end, hf_arena_new(&r->a, 1u << 30, "reference data"));
  const json *prompts = json_get(doc, "prompts");
  r->n_prompts = json_len(prompts);
  if (json_type(prompts) != JSON_ARRAY || r->n_prompts < 1) {
    st = hf_fail(HF_INPUT, "%s: field prompts: expected a non-empty array", path);
    goto end;
  }
  HF_GO(end, hf_arena_get(r->a, &r->prompt, (size_t)r->n_prompts, sizeof *r->prompt));
  int i = 0;
  for (const json *p = json_first(prompts); p; p = json_next(p), i++) {
    char where[512];
    snprintf(where, sizeof where, "%s: prompts[%d]", path, i);
    HF_GO(end, read_prompt(r, p, where, &r->prompt[i]));
  }
end:
  json_free(doc);
  if (st == HF_OK) *out = r;
  else check_close(r);
  return st;
}

void check_close(check_ref *r) {
  if (!r) return;
  hf_arena_free(r->a);
  free(r);
}

int check_prompts(const check_ref *r) {
  return r->n_prompts;
}

int check_context(const check_ref *r) {
  int n = 0;
  for (int i = 0; i < r->n_prompts; i++) {
    int len = r->prompt[i].n_ids + r->prompt[i].n_greedy;
    if (len > n) n = len;
  }
  return n;
}

static void on_logits(void *user, serve_request *q, int position, const float *logits) {
  checker *c = user;
  probe *p = &c->probes[q - c->reqs];
  if (position >= p->ref->n_ids) return;
  p->top1[position] = sample_argmax(logits, c->r->c->vocab_size);
  if (position == p->ref->n_ids - 1) memcpy(p->last_logits, logits, (size_t)c->r->c->vocab_size * sizeof(float));
}

static void on_step(void *user, const dev_step *s, const sched_step *what, int64_t index) {
  (void)index;
  checker *c = user;
  const model_config *mc = c->r->c;
  int t = 0;
  for (int i = 0; i < what->n_pieces; i++) {
    const sched_piece *piece = &what->piece[i];
    probe *p = &c->probes[piece->request];
    for (int j = 0; j < piece->n_tokens; j++, t++) {
      int pos = piece->start_pos + j;
      if (pos >= p->ref->n_ids) continue;
      for (int l = 0; l < mc->n_layers; l++)
        if (mc->layer_is_moe[l])
          memcpy(p->routing + ((size_t)l * (size_t)p->ref->n_ids + (size_t)pos) * (size_t)mc->top_k,
                 s->route_ids + ((size_t)l * (size_t)s->max_tok + (size_t)t) * (size_t)mc->top_k,
                 (size_t)mc->top_k * sizeof(int32_t));
    }
  }
}

static void fail_once(check_result *out, const char *what, int prompt, int at, double value) {
  if (!out->first_failure[0])
    snprintf(out->first_failure, sizeof out->first_failure, "prompt %d: %s at %d (%.3g)", prompt, what, at, value);
}

/* Compares expert choices; returns 0 equal, 1 a difference where a gap is narrow, 2 a failure. */
static int judge_routing(const check_ref *r, const probe *p, bool exact, int prompt, check_result *out) {
  int verdict = 0;
  if (!exact) return 0; /* imposed: nothing was chosen */
  for (int l = 0; l < r->c->n_layers; l++) {
    if (!r->c->layer_is_moe[l]) continue;
    for (int t = 0; t < p->ref->n_ids; t++) {
      size_t at = ((size_t)l * (size_t)p->ref->n_ids + (size_t)t) * (size_t)r->c->top_k;
      bool same = !memcmp(p->routing + at, p->ref->routing + at, (size_t)r->c->top_k * sizeof(int32_t));
      out->routing_total++;
      out->routing_match += same;
      if (!same && verdict == 0) {
        verdict = p->ref->routing_gap < ROUTING_GAP ? 1 : 2;
        if (verdict == 2) fail_once(out, "expert choice of a token, layer", prompt, l, t);
      }
    }
  }
  return verdict;
}

/* The coarsest rounding of a run decides: that of the activations, which the weights' format says, or that of the KV cache. */
static fmt coarsest(const check_ref *r, const engine_options *o) {
  fmt f = r->c->default_format;
  if (f == FMT_FP8_E4M3 || f == FMT_INT4_G32 || f == FMT_MXFP4) f = FMT_BF16; /* what is beside such experts */
  if ((f == FMT_F32 || f == FMT_F16) && o->kv_type == KV_Q8_0) return FMT_Q8_0;
  if (f == FMT_F32 && o->kv_type == KV_F16) f = FMT_F16;
  return (f == FMT_F32 || f == FMT_F16) && o->kv_type == KV_BF16 ? FMT_BF16 : f;
}

static bool judge_logits(const check_ref *r, const probe *p, bool exact, fmt f, int prompt, check_result *out) {
  double max = 0, err = 0, ref = 0;
  for (int i = 0; i < r->c->vocab_size; i++) {
    double d = (double)p->last_logits[i] - (double)p->ref->last_logits[i];
    if (isnan(d)) d = INFINITY;
    if (!(fabs(d) <= max)) max = fabs(d);
    err += d * d;
    ref += (double)p->ref->last_logits[i] * (double)p->ref->last_logits[i];
  }
  double rms = sqrt(err / (ref > 0 ? ref : 1));
  if (!(max <= out->max_abs_logit_diff)) out->max_abs_logit_diff = max;
  if (!(rms <= out->max_rel_rms)) out->max_rel_rms = rms;
  bool ok;
  if (exact || f == FMT_F32) ok = max <= 5e-4;
  else if (f == FMT_F16) ok = max <= 5e-2;
  else ok = rms <= (f == FMT_BF16 ? 0.08 : 0.05);
  if (!ok) fail_once(out, "logit difference", prompt, p->ref->n_ids - 1, max);
  return ok;
}

static bool judge_tokens(const probe *p, const serve_request *q, int prompt, check_result *out) {
  bool ok = true;
  for (int t = 0; p->ref->top1_margin && t < p->ref->n_ids; t++) {
    if (p->ref->top1_margin[t] <= TOP1_MARGIN) continue;
    out->top1_total++;
    out->top1_match += p->top1[t] == p->ref->top1[t];
    if (p->top1[t] != p->ref->top1[t]) {
      fail_once(out, "most likely token", prompt, t, p->top1[t]);
      ok = false;
    }
  }
  for (int i = 0; i < p->ref->n_greedy; i++) {
    bool same = i < q->n_out && q->out[i] == p->ref->greedy[i];
    if (!same && (p->ref->greedy_margin[i] < GREEDY_MARGIN || p->ref->routing_gap_greedy < ROUTING_GAP)) {
      out->narrow++;
      return ok;
    }
    out->greedy_total++;
    out->greedy_match += same;
    if (!same) {
      fail_once(out, "greedy token", prompt, i, i < q->n_out ? q->out[i] : -1);
      return false;
    }
  }
  return ok;
}

static void judge(const checker *c, int n, bool exact, fmt f, check_result *out) {
  for (int i = 0; i < n; i++) {
    const probe *p = &c->probes[i];
    int prompt = i % c->r->n_prompts;
    int routing = judge_routing(c->r, p, exact, prompt, out);
    bool ok = routing < 2;
    if (routing == 1) out->narrow++;
    else ok = judge_logits(c->r, p, exact, f, prompt, out) && ok;
    if (exact && routing == 0) ok = judge_tokens(p, &c->reqs[i], prompt, out) && ok;
    out->prompts++;
    out->passed += ok;
  }
}

static hf_status make_probe(const check_ref *r, hf_arena *a, int i, bool exact, probe *p, serve_request *q) {
  const ref_prompt *ref = &r->prompt[i % r->n_prompts];
  p->ref = ref;
  HF_TRY(hf_arena_get(a, &p->routing, (size_t)r->c->n_layers * (size_t)ref->n_ids * (size_t)r->c->top_k, sizeof(int32_t)));
  HF_TRY(hf_arena_get(a, &p->top1, (size_t)ref->n_ids, sizeof(int32_t)));
  HF_TRY(hf_arena_get(a, &p->last_logits, (size_t)r->c->vocab_size, sizeof(float)));
  HF_TRY(hf_arena_get(a, &q->out, (size_t)ref->n_greedy, sizeof(int32_t)));
  snprintf(q->ext_id, sizeof q->ext_id, "%d", i);
  q->ids = ref->ids;
  q->n_ids = ref->n_ids;
  q->max_tokens = ref->n_greedy;
  q->ignore_eos = true;
  q->all_logits = ref->top1_margin != NULL;
  q->forced = exact ? NULL : ref->routing;
  return HF_OK;
}

hf_status check_run(const check_ref *r, engine *e, int batch, int chunk_tokens, check_result *out) {
  hf_status st = HF_OK;
  hf_arena *a = NULL;
  checker c = {.r = r, .e = e};
  serve_stats stats = {0};
  bool exact = engine_opts(e)->exact;
  int n = batch > r->n_prompts ? batch : r->n_prompts;
  memset(out, 0, sizeof *out);
  HF_GO(end, hf_arena_new(&a, (size_t)4 << 30, "results of the check"));
  HF_GO(end, hf_arena_get(a, &c.reqs, (size_t)n, sizeof *c.reqs));
  HF_GO(end, hf_arena_get(a, &c.probes, (size_t)n, sizeof *c.probes));
  for (int i = 0; i < n; i++) HF_GO(end, make_probe(r, a, i, exact, &c.probes[i], &c.reqs[i]));
  serve_options so = {.chunk_tokens = chunk_tokens, .users = batch, .user = &c, .on_logits = on_logits, .on_step = on_step};
  HF_GO(end, serve_run(e, c.reqs, n, &so, &stats));
  if (stats.n_losses > 0)
    HF_GO(end, hf_fail(HF_LOST, "the device was lost (%s): what was computed on it cannot be judged", stats.loss[0].why));
  judge(&c, n, exact, coarsest(r, engine_opts(e)), out);
end:
  serve_stats_free(&stats);
  hf_arena_free(a);
  return st;
}
