/* stages.c: see stages.h. The arithmetic is ordered (sums run over experts in index order), so that the planner, the simulator and the
 * paced device get the same bits from the same table. */
#include "sched/stages.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Above this many tokens the binomial sum leaves out what does not count. */
enum { EXACT_TOKENS = 64, MAX_LAYERS = 4096, MAX_EXPERTS = 1024 };
static const double UNLIKELY = 1e-8;
static const double MAX_NS = 1e18; /* 32 years: what is more is no time of a stage */

/* Tokens of full passes that take as long. */
static double in_full_passes(const stage_curve *c, double tokens) {
  const double full = floor(tokens / c->pass) * c->pass, rest = tokens - full;
  const int r = (int)rest;
  const double next = r + 1 < c->pass ? c->part[r + 1] : c->pass;
  return full + c->part[r] + (rest - r) * (next - c->part[r]);
}

double stage_curve_at(const stage_curve *c, double tokens) {
  int last = c->n - 1;
  if (last < 1 || tokens <= c->tok[0]) return c->ns[0];
  if (c->pass > 0 && tokens > c->pass) tokens = in_full_passes(c, tokens);
  int i = 1;
  while (i < last && tokens > c->tok[i]) i++;
  double slope = (c->ns[i] - c->ns[i - 1]) / (c->tok[i] - c->tok[i - 1]);
  return c->ns[i - 1] + slope * (tokens - c->tok[i - 1]);
}

hf_status stage_table_new(int n_layers, stage_table **out) {
  if (n_layers < 1 || n_layers > MAX_LAYERS)
    return hf_fail(HF_INPUT, "stage table: %d layers is not between 1 and %d", n_layers, (int)MAX_LAYERS);
  stage_table *t = NULL;
  HF_TRY(hf_alloc(&t, 1, sizeof *t, "stage table"));
  hf_status st = hf_alloc(&t->layer, (size_t)n_layers, sizeof *t->layer, "layers of a stage table");
  if (st != HF_OK) {
    free(t);
    return st;
  }
  t->n_layers = n_layers;
  t->n_devices = 1;
  t->contend = t->contend_dma = 1;
  t->prompt.pair = 1;
  for (int l = 0; l < n_layers; l++) {
    stage_layer *y = &t->layer[l];
    y->attn.n = y->shared.n = y->dexp.n = y->cexp.n = 1;
  }
  t->head.n = 1;
  snprintf(t->tag, sizeof t->tag, "assumed");
  *out = t;
  return HF_OK;
}

void stage_table_free(stage_table *t) {
  if (t == NULL) return;
  free(t->layer);
  free(t->place);
  free(t);
}

hf_status stage_table_places(stage_table *t, int n_devices, int n_remotes) {
  if (n_devices < 0 || n_devices > STAGE_MAX_DEVICES || n_remotes < 0 || n_remotes > STAGE_MAX_REMOTES)
    return hf_fail(HF_INPUT, "stage table: %d devices (at most %d) or %d other machines (at most %d) is out of range", n_devices,
                   (int)STAGE_MAX_DEVICES, n_remotes, (int)STAGE_MAX_REMOTES);
  stage_place *p = NULL;
  if (n_devices > 1 || n_remotes > 0)
    HF_TRY(hf_alloc(&p, (size_t)(n_devices + n_remotes) * (size_t)t->n_layers, sizeof *p, "places of a stage table"));
  free(t->place);
  t->place = p;
  t->n_devices = n_devices;
  t->n_remotes = n_remotes;
  for (size_t i = 0; p != NULL && i < (size_t)(n_devices + n_remotes) * (size_t)t->n_layers; i++)
    p[i].exp = (stage_curve){.n = 1, .tok = {1}};
  return HF_OK;
}

stage_place *stage_place_of(const stage_table *t, int layer, int place) {
  return t->place + (size_t)(place - 1) * (size_t)t->n_layers + layer;
}

double stage_overlap_ns(const stage_table *t, double a, double b) {
  return fmax(a, b) + (t->contend - 1) * fmin(a, b);
}

/* ---- JSON ---- */

static void curve_to_json(const stage_curve *c, json *parent, const char *key) {
  json *o = json_add_object(parent, key), *tok = json_add_array(o, "tokens"), *ns = json_add_array(o, "ns");
  for (int i = 0; i < c->n; i++) {
    json_add_num(tok, NULL, c->tok[i]);
    json_add_num(ns, NULL, c->ns[i]);
  }
  json *part = c->pass > 0 ? json_add_array(o, "pass") : NULL;
  for (int r = 1; r <= c->pass; r++) json_add_num(part, NULL, r < c->pass ? c->part[r] : c->pass);
}

/* Tables of earlier versions know nothing of passes. */
static hf_status passes_from_json(const json *list, const char *where, const char *key, stage_curve *out) {
  const int n = list != NULL ? json_len(list) : 0;
  bool fits = list == NULL || (json_type(list) == JSON_ARRAY && n >= 1 && n <= STAGE_PASS_MAX);
  double before = 0;
  const json *a = json_first(list);
  for (int r = 1; fits && r <= n; r++, a = json_next(a)) {
    const double part = json_number(a, -1);
    fits = part >= before && part >= r && part <= n; /* false for NaN */
    before = part;
    if (r < n) out->part[r] = part;
  }
  if (!fits)
    return hf_fail(HF_INPUT,
                   "%s: field %s: pass: needs an array of 1 to %d numbers that rise, the r-th at least r, up to their count",
                   where, key, (int)STAGE_PASS_MAX);
  out->pass = n;
  return HF_OK;
}

static hf_status curve_from_json(const json *obj, const char *where, const char *key, stage_curve *out) {
  const json *o = json_get(obj, key), *tok = json_get(o, "tokens"), *ns = json_get(o, "ns");
  int n = json_len(tok);
  if (json_type(tok) != JSON_ARRAY || json_type(ns) != JSON_ARRAY || n != json_len(ns) || n < 1 || n > STAGE_CURVE_MAX)
    return hf_fail(HF_INPUT, "%s: field %s: needs arrays tokens and ns of one length, 1 to %d", where, key, (int)STAGE_CURVE_MAX);
  out->n = n;
  const json *a = json_first(tok), *b = json_first(ns);
  for (int i = 0; i < n; i++, a = json_next(a), b = json_next(b)) {
    out->tok[i] = json_number(a, -1);
    out->ns[i] = json_number(b, -1);
    double more = i > 0 ? out->tok[i] - out->tok[i - 1] : 1, longer = i > 0 ? out->ns[i] - out->ns[i - 1] : 0;
    bool fits = out->tok[i] >= 0 && out->ns[i] >= 0 && out->ns[i] <= MAX_NS; /* false for NaN too */
    if (!fits || !(more > 0) || !(longer >= 0) || longer > MAX_NS * more)
      return hf_fail(HF_INPUT, "%s: field %s: point %d: tokens must rise; times must not fall, be negative or exceed %g ns",
                     where, key, i, MAX_NS);
  }
  return passes_from_json(json_get(o, "pass"), where, key, out);
}

/* Members once for both directions. */
typedef struct {
  const char *key;
  size_t offset;
} member;
static const member layer_num[] = {
    {"attn_seq_ns", offsetof(stage_layer, attn_seq_ns)}, /* not in tables of earlier versions */
    {"attn_ctx_ns", offsetof(stage_layer, attn_ctx_ns)},
    {"attn_seq_ctx_ns", offsetof(stage_layer, attn_seq_ctx_ns)},
    {"cexp_fixed_ns", offsetof(stage_layer, cexp_fixed_ns)},
    {"dexp_fixed_ns", offsetof(stage_layer, dexp_fixed_ns)},
    {"hand_ns", offsetof(stage_layer, hand_ns)},
    {"hand_tok_ns", offsetof(stage_layer, hand_tok_ns)},
    {"upload_ns", offsetof(stage_layer, upload_ns)},
};
static const member layer_curve[] = {
    {"attn", offsetof(stage_layer, attn)},
    {"shared", offsetof(stage_layer, shared)},
    {"dexp", offsetof(stage_layer, dexp)},
    {"cexp", offsetof(stage_layer, cexp)},
};
/* Members of stage_prompt; plain_query alone may be negative. */
static const member prompt_num[] = {
    {"pair", offsetof(stage_prompt, pair)},
    {"query", offsetof(stage_prompt, query)},
    {"plain_attend", offsetof(stage_prompt, plain_attend)},
    {"plain_expand", offsetof(stage_prompt, plain_expand)},
    {"plain_query", offsetof(stage_prompt, plain_query)},
    {"plain_turn", offsetof(stage_prompt, plain_turn)}, /* last: not in tables of earlier versions */
};
static const member prompt_int[] = {
    {"mla_lora", offsetof(stage_prompt, mla.lora)},
    {"mla_nope", offsetof(stage_prompt, mla.nope)},
    {"mla_rope", offsetof(stage_prompt, mla.rope)},
    {"mla_v", offsetof(stage_prompt, mla.v)},
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

bool stage_curve_same(const stage_curve *a, const stage_curve *b) {
  bool same = a->n == b->n && a->pass == b->pass;
  for (int i = 0; same && i < a->n; i++) same = a->tok[i] == b->tok[i] && a->ns[i] == b->ns[i];
  for (int r = 0; same && r < a->pass; r++) same = a->part[r] == b->part[r];
  return same;
}

bool stage_place_same(const stage_place *a, const stage_place *b) {
  return stage_curve_same(&a->exp, &b->exp) && a->fixed_ns == b->fixed_ns && a->hand_ns == b->hand_ns &&
         a->hand_tok_ns == b->hand_tok_ns;
}

static bool same_layer(const stage_table *t, int l, int m) {
  const stage_layer *a = &t->layer[l], *b = &t->layer[m];
  bool same = a->moe == b->moe && a->slides == b->slides && a->home == b->home;
  for (int p = 1; same && t->place != NULL && p <= t->n_devices + t->n_remotes; p++)
    same = stage_place_same(stage_place_of(t, l, p), stage_place_of(t, m, p));
  for (size_t i = 0; same && i < COUNT(layer_curve); i++)
    same = stage_curve_same((const stage_curve *)((const char *)a + layer_curve[i].offset),
                            (const stage_curve *)((const char *)b + layer_curve[i].offset));
  for (size_t i = 0; same && i < COUNT(layer_num); i++)
    same = *(const double *)((const char *)a + layer_num[i].offset) == *(const double *)((const char *)b + layer_num[i].offset);
  return same;
}

static void places_to_json(const stage_table *t, int l, json *parent) {
  if (t->place == NULL) return;
  json *list = json_add_array(parent, "places");
  for (int p = 1; p <= t->n_devices + t->n_remotes; p++) {
    const stage_place *s = stage_place_of(t, l, p);
    json *o = json_add_object(list, NULL);
    curve_to_json(&s->exp, o, "exp");
    json_add_num(o, "fixed_ns", s->fixed_ns);
    json_add_num(o, "hand_ns", s->hand_ns);
    json_add_num(o, "hand_tok_ns", s->hand_tok_ns);
  }
}

static void prompt_to_json(const stage_prompt *p, json *parent) {
  json *o = json_add_object(parent, "prompt");
  for (size_t i = 0; i < COUNT(prompt_num); i++)
    json_add_num(o, prompt_num[i].key, *(const double *)((const char *)p + prompt_num[i].offset));
  for (size_t i = 0; i < COUNT(prompt_int); i++)
    json_add_int(o, prompt_int[i].key, *(const int *)((const char *)p + prompt_int[i].offset));
}

/* Tables of earlier versions have none: a piece of a prompt is like so many tokens of decode. */
static hf_status prompt_from_json(const json *obj, const char *where, stage_prompt *p) {
  static const double MOST = 1e9;
  const json *o = json_get(obj, "prompt");
  const bool turns = json_get(o, "plain_turn") != NULL;
  for (size_t i = 0; o != NULL && i < COUNT(prompt_num) - !turns; i++)
    HF_TRY(json_get_num(o, where, prompt_num[i].key, -MOST, MOST, (double *)((char *)p + prompt_num[i].offset)));
  for (size_t i = 0; o != NULL && i < COUNT(prompt_int); i++) {
    int64_t n = 0;
    HF_TRY(json_get_int(o, where, prompt_int[i].key, 0, 1 << 20, &n));
    *(int *)((char *)p + prompt_int[i].offset) = (int)n;
  }
  if (!turns) p->plain_turn = p->plain_expand;
  if (p->pair < 0 || p->query < 0 || p->plain_attend < 0 || p->plain_expand < 0 || p->plain_turn < 0)
    return hf_fail(HF_INPUT, "%s: field prompt: only plain_query may be negative", where);
  return HF_OK;
}

hf_status stage_table_to_json(const stage_table *t, json *parent) {
  if (parent == NULL) return hf_fail(HF_MACHINE, "out of memory: JSON of a stage table");
  json_add_int(parent, "n_layers", t->n_layers);
  json_add_int(parent, "n_experts", t->n_experts);
  json_add_int(parent, "top_k", t->top_k);
  json_add_num(parent, "step_fixed_ns", t->step_fixed_ns);
  json_add_bool(parent, "one_resource", t->one_resource);
  json_add_int(parent, "n_devices", t->one_resource ? 0 : t->n_devices);
  json_add_int(parent, "n_remotes", t->n_remotes);
  json_add_int(parent, "window", t->window);
  json_add_num(parent, "near_tokens", t->near_tokens);
  json_add_num(parent, "near_more", t->near_more);
  json_add_num(parent, "contend", t->contend);
  json_add_num(parent, "contend_dma", t->contend_dma);
  json_add_str(parent, "tag", t->tag);
  prompt_to_json(&t->prompt, parent);
  curve_to_json(&t->head, parent, "head");
  json *layers = json_add_array(parent, "layers");
  for (int l = 0, run; l < t->n_layers; l += run) {
    const stage_layer *y = &t->layer[l];
    for (run = 1; l + run < t->n_layers && same_layer(t, l, l + run);) run++;
    json *o = json_add_object(layers, NULL);
    json_add_int(o, "count", run);
    json_add_bool(o, "moe", y->moe);
    json_add_bool(o, "slides", y->slides);
    json_add_int(o, "home", y->home);
    for (size_t i = 0; i < COUNT(layer_curve); i++)
      curve_to_json((const stage_curve *)((const char *)y + layer_curve[i].offset), o, layer_curve[i].key);
    for (size_t i = 0; i < COUNT(layer_num); i++)
      json_add_num(o, layer_num[i].key, *(const double *)((const char *)y + layer_num[i].offset));
    places_to_json(t, l, o);
  }
  return layers != NULL ? HF_OK : hf_fail(HF_MACHINE, "out of memory: JSON of a stage table");
}

static hf_status places_from_json(const json *o, const char *where, int n, stage_place *out) {
  const json *list = json_get(o, "places");
  if (json_type(list) != JSON_ARRAY || json_len(list) != n)
    return hf_fail(HF_INPUT, "%s: field places: needs an array of %d, one for each device and other machine", where, n);
  for (const json *p = json_first(list); p != NULL; p = json_next(p), out++) {
    HF_TRY(curve_from_json(p, where, "exp", &out->exp));
    HF_TRY(json_get_num(p, where, "fixed_ns", 0, MAX_NS, &out->fixed_ns));
    HF_TRY(json_get_num(p, where, "hand_ns", 0, MAX_NS, &out->hand_ns));
    HF_TRY(json_get_num(p, where, "hand_tok_ns", 0, MAX_NS, &out->hand_tok_ns));
  }
  return HF_OK;
}

static hf_status layer_from_json(const json *o, const char *where, int n_devices, stage_layer *y) {
  int64_t home = 0;
  HF_TRY(json_get_bool(o, where, "moe", &y->moe));
  if (json_get(o, "slides") != NULL) HF_TRY(json_get_bool(o, where, "slides", &y->slides));
  HF_TRY(json_opt_int(o, where, "home", 0, n_devices > 0 ? n_devices - 1 : 0, &home));
  y->home = (int)home;
  for (size_t i = 0; i < COUNT(layer_curve); i++)
    HF_TRY(curve_from_json(o, where, layer_curve[i].key, (stage_curve *)((char *)y + layer_curve[i].offset)));
  for (size_t i = json_get(o, layer_num[0].key) == NULL; i < COUNT(layer_num); i++)
    HF_TRY(json_get_num(o, where, layer_num[i].key, 0, MAX_NS, (double *)((char *)y + layer_num[i].offset)));
  return HF_OK;
}

hf_status stage_table_from_json(const json *obj, const char *where, stage_table **out) {
  int64_t n_layers = 0, n_experts = 0, top_k = 0, n_devices = 1, n_remotes = 0, window = 0;
  stage_place place[STAGE_MAX_PLACES] = {0};
  const char *tag = NULL;
  stage_table *t = NULL;
  hf_status st = HF_OK;
  HF_TRY(json_get_int(obj, where, "n_layers", 1, MAX_LAYERS, &n_layers));
  HF_TRY(json_get_int(obj, where, "n_experts", 0, MAX_EXPERTS, &n_experts));
  HF_TRY(json_get_int(obj, where, "top_k", 0, n_experts, &top_k));
  HF_TRY(json_get_str(obj, where, "tag", &tag));
  const json *layers = json_get(obj, "layers");
  if (json_type(layers) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: field layers: needs an array", where);
  HF_TRY(stage_table_new((int)n_layers, &t));
  t->n_experts = (int)n_experts;
  t->top_k = (int)top_k;
  snprintf(t->tag, sizeof t->tag, "%s", tag);
  HF_GO(fail, json_get_num(obj, where, "step_fixed_ns", 0, MAX_NS, &t->step_fixed_ns));
  HF_GO(fail, json_get_bool(obj, where, "one_resource", &t->one_resource));
  HF_GO(fail, prompt_from_json(obj, where, &t->prompt));
  HF_GO(fail, curve_from_json(obj, where, "head", &t->head));
  if (t->one_resource) n_devices = 0;
  HF_GO(fail,
        json_opt_int(obj, where, "n_devices", t->one_resource ? 0 : 1, t->one_resource ? 0 : STAGE_MAX_DEVICES, &n_devices));
  HF_GO(fail, json_opt_int(obj, where, "n_remotes", 0, STAGE_MAX_REMOTES, &n_remotes));
  HF_GO(fail, json_opt_int(obj, where, "window", 0, INT32_MAX, &window));
  if (json_get(obj, "contend") != NULL) HF_GO(fail, json_get_num(obj, where, "contend", 1, 2, &t->contend));
  if (json_get(obj, "contend_dma") != NULL) HF_GO(fail, json_get_num(obj, where, "contend_dma", 1, 2, &t->contend_dma));
  if (json_get(obj, "near_tokens") != NULL) HF_GO(fail, json_get_num(obj, where, "near_tokens", 0, 1e9, &t->near_tokens));
  if (json_get(obj, "near_more") != NULL) HF_GO(fail, json_get_num(obj, where, "near_more", -1, 1e9, &t->near_more));
  t->window = (int)window;
  HF_GO(fail, stage_table_places(t, (int)n_devices, (int)n_remotes));
  int64_t l = 0, index = 0;
  for (const json *o = json_first(layers); o != NULL; o = json_next(o), index++) {
    char at[320];
    int64_t count = 1;
    stage_layer y = {0};
    snprintf(at, sizeof at, "%.255s: layers[%d]", where, (int)index);
    if (l == n_layers) HF_GO(fail, hf_fail(HF_INPUT, "%s: more layers than n_layers = %d", at, (int)n_layers));
    HF_GO(fail, json_opt_int(o, at, "count", 1, n_layers - l, &count));
    HF_GO(fail, layer_from_json(o, at, (int)n_devices, &y));
    if (t->place != NULL) HF_GO(fail, places_from_json(o, at, (int)(n_devices + n_remotes), place));
    if (y.moe && top_k == 0) HF_GO(fail, hf_fail(HF_INPUT, "%s: field moe: true, but n_experts or top_k is 0", at));
    for (int64_t i = 0; i < count; i++, l++) {
      t->layer[l] = y;
      for (int p = 1; t->place != NULL && p <= n_devices + n_remotes; p++) *stage_place_of(t, (int)l, p) = place[p - 1];
    }
  }
  if (l != n_layers) {
    st = hf_fail(HF_INPUT, "%s: field layers: describes %d layers, n_layers is %d", where, (int)l, (int)n_layers);
    goto fail;
  }
  *out = t;
  return HF_OK;
fail:
  stage_table_free(t);
  return st;
}

/* ---- popularity and expected times ---- */

hf_status popularity_new(int n_layers, int n_experts, popularity **out) {
  if (n_layers < 1 || n_layers > MAX_LAYERS || n_experts < 0 || n_experts > MAX_EXPERTS)
    return hf_fail(HF_INPUT, "popularity: %d layers of %d experts is out of range", n_layers, n_experts);
  popularity *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "popularity"));
  size_t n = (size_t)n_layers * (size_t)n_experts;
  hf_status st = hf_alloc(&p->p, n > 0 ? n : 1, sizeof *p->p, "popularity of experts");
  if (st != HF_OK) {
    free(p);
    return st;
  }
  p->n_layers = n_layers;
  p->n_experts = n_experts;
  *out = p;
  return HF_OK;
}

hf_status popularity_copy(const popularity *from, popularity **out) {
  popularity *p = NULL;
  size_t n = (size_t)from->n_layers * (size_t)from->n_experts;
  HF_TRY(popularity_new(from->n_layers, from->n_experts, &p));
  memcpy(p->p, from->p, n * sizeof *p->p);
  memcpy(p->source, from->source, sizeof p->source);
  hf_status st =
      from->prefill != NULL ? hf_alloc(&p->prefill, n > 0 ? n : 1, sizeof *p->prefill, "popularity of experts") : HF_OK;
  if (st != HF_OK) {
    popularity_free(p);
    return st;
  }
  if (p->prefill != NULL) memcpy(p->prefill, from->prefill, n * sizeof *p->prefill);
  *out = p;
  return HF_OK;
}

popularity popularity_of_prompts(const popularity *p) {
  return (popularity){.n_layers = p->n_layers, .n_experts = p->n_experts, .p = p->prefill != NULL ? p->prefill : p->p};
}

void popularity_free(popularity *p) {
  if (p == NULL) return;
  free(p->p);
  free(p->prefill);
  free(p);
}

/* 1 - (1-p)^n from the highest bit of n down: h(2k) = h(k) (2 - h(k)), h(k+1) = h(k) + p (1 - h(k)). All terms are positive, so that small p
 * lose no digits; no library function whose last bit differs between machines. */
static double hit_whole(double p, int64_t n) {
  if (n <= 0) return 0;
  double h = p;
  for (int bit = 62 - __builtin_clzll((unsigned long long)n); bit >= 0; bit--) {
    h *= 2 - h;
    if (n >> bit & 1) h += p * (1 - h);
  }
  return h;
}

double expert_hit(double p, double tokens) {
  static const double MOST = 1e15; /* more tokens than any step has, and exact */
  if (p <= 0 || tokens <= 0) return 0;
  if (p >= 1 && tokens >= 1) return 1;
  int64_t n = (int64_t)fmin(tokens, MOST);
  double h = hit_whole(p, n), rest = fmin(tokens, MOST) - (double)n;
  return h + rest * p * (1 - h);
}

/* q^n, n >= 1; the same bits everywhere. */
static double power(double q, int n) {
  double r = 1;
  for (; n > 0; n >>= 1, q *= q)
    if (n & 1) r *= q;
  return r;
}

/* From the likeliest M to either side, as far as it counts. */
static double likely_time_ns(const stage_curve *c, double p, int tokens) {
  const double odds = p / (1 - p);
  const int mode = (int)((tokens + 1.0) * p) < tokens ? (int)((tokens + 1.0) * p) : tokens;
  double all = 1, sum = mode > 0 ? stage_curve_at(c, mode) : 0, weight = 1;
  for (int m = mode + 1; m <= tokens && weight > UNLIKELY; m++) {
    weight *= (double)(tokens - m + 1) / m * odds;
    all += weight;
    sum += weight * stage_curve_at(c, m);
  }
  weight = 1;
  for (int m = mode - 1; m >= 0 && weight > UNLIKELY; m--) {
    weight *= (m + 1.0) / (tokens - m) / odds;
    all += weight;
    if (m > 0) sum += weight * stage_curve_at(c, m);
  }
  return sum / all;
}

double expert_time_ns(const stage_curve *c, double p, int tokens) {
  if (p <= 0 || tokens <= 0) return 0;
  if (p >= 1) return stage_curve_at(c, tokens);
  if (tokens > EXACT_TOKENS) return likely_time_ns(c, p, tokens);
  /* From the end where the probability cannot underflow: p or 1-p is at least 1/2 and 2^-64 is far from it. */
  double sum = 0, q = 1 - p;
  if (p <= 0.5) {
    double pmf = power(q, tokens);
    for (int m = 1; m <= tokens; m++) {
      pmf *= (double)(tokens - m + 1) / m * (p / q);
      sum += pmf * stage_curve_at(c, m);
    }
  } else {
    double pmf = power(p, tokens);
    for (int m = tokens; m >= 1; m--) {
      sum += pmf * stage_curve_at(c, m);
      pmf *= (double)m / (tokens - m + 1) * (q / p);
    }
  }
  return sum;
}

/* Sum of min(context, window) over the queries that see contexts start + 1 .. start + n. */
static double query_sum(double start, double n, double window) {
  double growing = window - start; /* queries that still see everything */
  if (growing >= n || window <= 0) return n * start + 0.5 * n * (n + 1);
  if (growing <= 0) return n * window;
  return growing * start + 0.5 * growing * (growing + 1) + (n - growing) * window;
}

double stage_context(const stage_table *t, double ctx) {
  return ctx + t->near_more * fmin(ctx, t->near_tokens);
}

/* Of a piece with so many pairs. */
static double piece_pairs(const stage_table *t, double start, double n, double seen) {
  const stage_prompt *p = &t->prompt;
  if (n <= 1) return stage_context(t, seen);
  if (p->mla.lora == 0 || !mla_plain_pays(&p->mla, start, n)) return p->pair * seen + p->query * n;
  const mla_work w = mla_plain_work(&p->mla, start, n);
  return fmax(0, p->plain_attend * w.attend + p->plain_expand * w.expand + p->plain_turn * w.turn + p->plain_query * n);
}

void stage_load_add(stage_load *load, const stage_table *t, int64_t start, int64_t n) {
  double from = (double)start, count = (double)n, window = t->window;
  load->tokens += (int)n;
  load->seqs += 1;
  load->query_context += piece_pairs(t, from, count, query_sum(from, count, 0));
  load->seq_context += from + count;
  load->query_window += piece_pairs(t, from, count, query_sum(from, count, window));
  /* the keys read once per sequence: those of the first query's window up to the last query */
  load->seq_window += window > 0 && from + count > window + count - 1 ? window + count - 1 : from + count;
}

double stage_attn_ns(const stage_table *t, int layer, const stage_load *load) {
  const stage_layer *y = &t->layer[layer];
  if (load->tokens <= 0) return 0;
  double query = y->slides ? load->query_window : load->query_context, seq = y->slides ? load->seq_window : load->seq_context;
  return stage_curve_at(&y->attn, load->tokens) + y->attn_seq_ns * load->seqs + y->attn_ctx_ns * query + y->attn_seq_ctx_ns * seq;
}

/* Place byte of experts on the layer's home device; -1 where there is no device. */
static int home_place(const stage_table *t, const stage_layer *y) {
  return t->n_devices > 0 ? 1 + y->home : -1;
}

/* What an expert asks of where it lives, or for this step is. Experts chosen alike ask alike: those of one place that follow one another, which is
 * all of them where nothing was counted, are worked out once. */
typedef struct {
  bool known;
  double p, ns, upload_ns;
} expert_cost;

static void cost_expert(const stage_table *t, int layer, int place, double p, const stage_load *load, expert_cost *c) {
  const stage_layer *y = &t->layer[layer];
  bool sent = place == 0 && load->upload && y->upload_ns > 0;
  const stage_curve *curve = sent || place == home_place(t, y) ? &y->dexp
                             : place == 0                      ? &y->cexp
                                                               : &stage_place_of(t, layer, place)->exp;
  if (c->known && c->p == p) return;
  *c = (expert_cost){.known = true, .p = p, .ns = expert_time_ns(curve, p, load->tokens)};
  if (sent) c->upload_ns = expert_hit(p, load->tokens) * y->upload_ns;
}

static void add_expert(const stage_table *t, int layer, int place, const stage_load *load, const expert_cost *c, layer_times *r) {
  const stage_layer *y = &t->layer[layer];
  if (place == home_place(t, y) || (place == 0 && load->upload && y->upload_ns > 0)) {
    r->upload_ns += c->upload_ns;
    r->dexp_ns += c->ns;
  } else if (place == 0) {
    r->cexp_ns += c->ns;
  } else {
    r->place_ns[place] += c->ns;
  }
}

/* An expert on another machine is asked for through the CPU, which then computes those that it has, too. */
static bool some_away(const stage_table *t, const uint8_t *on_device, int n_experts) {
  for (int e = 0; t->n_remotes > 0 && on_device != NULL && e < n_experts; e++)
    if (on_device[e] > t->n_devices) return true;
  return false;
}

layer_times stage_layer_times_load(const stage_table *t, const popularity *pop, int layer, const stage_load *asked,
                                   const uint8_t *on_device) {
  const stage_layer *y = &t->layer[layer];
  layer_times r = {0};
  stage_load of = *asked, *load = &of;
  of.upload = of.upload && !some_away(t, on_device, pop->n_experts);
  if (load->tokens <= 0) return r;
  r.attn_ns = stage_attn_ns(t, layer, load);
  r.shared_ns = stage_curve_at(&y->shared, load->tokens);
  if (!y->moe) return r;
  int n = pop->n_experts, count[STAGE_MAX_PLACES] = {0};
  const double *p = pop->p + (size_t)layer * (size_t)n;
  expert_cost cost[STAGE_MAX_PLACES] = {0};
  for (int e = 0; e < n; e++) {
    int place = on_device != NULL ? on_device[e] : 0;
    count[place]++;
    cost_expert(t, layer, place, p[e], load, &cost[place]);
    add_expert(t, layer, place, load, &cost[place], &r);
  }
  bool upload = load->upload && y->upload_ns > 0;
  int home = home_place(t, y);
  if ((home > 0 && count[home] > 0) || (upload && count[0] > 0)) r.dexp_ns += y->dexp_fixed_ns;
  if (count[0] > 0 && !upload) {
    r.cexp_ns += y->cexp_fixed_ns;
    r.hand_ns = y->hand_ns + y->hand_tok_ns * load->tokens;
  }
  for (int q = 1; t->place != NULL && q <= t->n_devices + t->n_remotes; q++) {
    const stage_place *s = stage_place_of(t, layer, q);
    if (q != home && count[q] > 0) r.place_ns[q] += s->fixed_ns + s->hand_ns + s->hand_tok_ns * load->tokens;
  }
  return r;
}

layer_times stage_layer_times(const stage_table *t, const popularity *pop, int layer, int tokens, double ctx,
                              const uint8_t *on_device) {
  double seen = t->window > 0 ? fmin(ctx, t->window) : ctx;
  stage_load load = {.tokens = tokens,
                     .seqs = tokens,
                     .query_context = tokens * stage_context(t, ctx),
                     .seq_context = tokens * ctx,
                     .query_window = tokens * stage_context(t, seen),
                     .seq_window = tokens * seen};
  return stage_layer_times_load(t, pop, layer, &load, on_device);
}
