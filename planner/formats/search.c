#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "planner/formats/formats.h"

/* Types tried for experts, by falling bits, and for all else. */
static const fmt expert_types[] = {FMT_Q8_0,    FMT_Q6_K,   FMT_Q5_1,   FMT_Q5_K,   FMT_Q5_0,  FMT_IQ5_KS, FMT_Q4_K,   FMT_IQ4_K,
                                   FMT_IQ4_NL,  FMT_MXFP4,  FMT_IQ4_XS, FMT_IQ4_KS, FMT_IQ3_K, FMT_Q3_K,   FMT_IQ3_S,  FMT_IQ3_KS,
                                   FMT_IQ3_XXS, FMT_IQ2_KL, FMT_Q2_K,   FMT_IQ2_S,  FMT_IQ2_K, FMT_IQ2_KS, FMT_IQ2_XXS};
static const fmt rest_types[] = {FMT_BF16, FMT_Q8_0, FMT_Q6_K, FMT_Q5_K, FMT_IQ5_KS, FMT_Q4_K, FMT_IQ4_KS};
enum { N_EXPERT = sizeof expert_types / sizeof *expert_types, N_REST = sizeof rest_types / sizeof *rest_types };
static const double DOWN_BITS = 2.1; /* down matrices get at most so many bits more */

hf_status formats_parse_floor(const char *text, double *loss) {
  char *end = NULL;
  double percent = strtod(text, &end);
  if (end != text && *end == '%') end++;
  if (end == text || *end != '\0' || !isfinite(percent) || percent < 0 || percent > 1000)
    return hf_fail(
        HF_INPUT, "option --quality-floor: '%.40s': needs percent of perplexity more than the original, 0 to 1000, for example 2",
        text);
  *loss = log1p(percent / 100);
  return HF_OK;
}

hf_status formats_parse_program(const char *text, recipe_program *out) {
  if (strcmp(text, "any") == 0) {
    *out = RUNS_SAFETENSORS;
    return HF_OK;
  }
  for (int p = RUNS_HF_RUN; p <= RUNS_IK_LLAMA_CPP; p++)
    if (strcmp(text, recipe_program_name((recipe_program)p)) == 0) {
      *out = (recipe_program)p;
      return HF_OK;
    }
  return hf_fail(HF_INPUT, "option --program: '%.40s' is none of hf-run, llama.cpp, ik_llama.cpp, any", text);
}

/* ---- candidates ---- */

typedef struct {
  const model *m;
  const model_config *c;
  const formats_options *o;
  const quality *q;
  double params;
  format_candidate *v;
  int n, cap, considered;
} pool;

static bool program_allows(const formats_options *o, const model_recipe *r) {
  return o->program == RUNS_SAFETENSORS || recipe_runs_on(r, o->program);
}

/* Drops quietly what the program cannot run or no table has a figure for; what is usual stays, for comparison. */
static hf_status add(pool *p, const model_recipe *r, bool named, bool usual) {
  format_candidate x = {.recipe = *r, .program = recipe_program_of(r), .named = named, .usual = usual};
  x.own = named && strcmp(r->name, fmt_get(quality_original(p->c))->name) == 0;
  if (!usual && !x.own && !program_allows(p->o, r)) return HF_OK;
  hf_status st = quality_of(p->q, p->m, r, &x.quality);
  if (st == HF_INPUT && !usual) {
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  p->considered++;
  x.bytes = recipe_total_bytes(p->m, r);
  x.bits = 8.0 * (double)x.bytes / p->params;
  for (int l = 0; l < p->c->n_layers; l++) {
    model_layer_parts parts;
    if (!p->c->layer_is_moe[l]) continue;
    HF_TRY(recipe_layer_parts_of(p->m, r, l, &parts));
    x.expert_bytes += parts.expert.bytes * p->c->n_experts;
  }
  if (p->n == p->cap) {
    int cap = p->cap > 0 ? 2 * p->cap : 256;
    HF_TRY(hf_realloc(&p->v, (size_t)cap, sizeof *p->v, "candidates of formats"));
    p->cap = cap;
  }
  p->v[p->n++] = x;
  return HF_OK;
}

static hf_status add_text(pool *p, const char *text, bool named, bool usual) {
  model_recipe r;
  HF_TRY(recipe_parse(text, p->c, &r));
  return add(p, &r, named, usual);
}

static hf_status add_named(pool *p) {
  for (int f = 0; f < FMT_N; f++) {
    if (f == FMT_F32 || f == FMT_TQ1_0 || f == FMT_TQ2_0) continue;
    HF_TRY(add_text(p, fmt_get((fmt)f)->name, true, false));
  }
  return HF_OK;
}

/* A pair of types for gate-up and down, one type for all else: as text, so that the user can ask for it. */
static void pair_text(fmt rest, fmt in, fmt down, char *to, size_t n) {
  const char *r = fmt_get(rest)->name;
  size_t k = (size_t)snprintf(to, n, "%s:", rest == FMT_BF16 ? "bf16" : "q8_0");
  if (rest != FMT_Q8_0 && rest != FMT_BF16) k += (size_t)snprintf(to + k, n - k, "rest=%s,", r);
  if (in == down) snprintf(to + k, n - k, "experts=%s", fmt_get(in)->name);
  else snprintf(to + k, n - k, "gate_up=%s,down=%s", fmt_get(in)->name, fmt_get(down)->name);
}

typedef struct {
  fmt in, down;
  double bits, loss; /* of all layers */
} pair;

static bool allowed(const pool *p, fmt f) {
  model_recipe r = {.n_rules = 0};
  for (int i = 0; i < PART_N; i++) r.part[i] = f;
  return program_allows(p->o, &r) && p->q->known[f];
}

static int by_bits(const void *a, const void *b) {
  const pair *x = a, *y = b;
  return x->bits < y->bits ? -1 : x->bits > y->bits ? 1 : x->loss < y->loss ? -1 : x->loss > y->loss;
}

/* Lower convex hull of loss over bits, ascending bits; in place. */
static int hull(pair *v, int n) {
  int k = 0;
  qsort(v, (size_t)n, sizeof *v, by_bits);
  for (int i = 0; i < n; i++) {
    if (k > 0 && v[i].loss >= v[k - 1].loss) continue;
    while (k > 1 && (v[k - 1].loss - v[k - 2].loss) * (v[i].bits - v[k - 2].bits) >=
                        (v[i].loss - v[k - 2].loss) * (v[k - 1].bits - v[k - 2].bits))
      k--;
    v[k++] = v[i];
  }
  return k;
}

static hf_status add_pairs(pool *p, fmt rest, const pair *v, int n) {
  char text[RECIPE_NAME];
  for (int i = 0; i < n; i++) {
    pair_text(rest, v[i].in, v[i].down, text, sizeof text);
    HF_TRY(add_text(p, text, false, false));
  }
  return HF_OK;
}

/* Layers of experts first..first+n-1 in the better pair, the rest in the cheaper one. */
static hf_status add_mixed(pool *p, fmt rest, const pair *cheap, const pair *good, int n) {
  char text[RECIPE_NAME], base[RECIPE_NAME];
  int first = 0, moe = 0;
  while (first + 1 < p->c->n_layers && !p->c->layer_is_moe[first]) first++;
  for (int l = 0; l < p->c->n_layers; l++) moe += p->c->layer_is_moe[l];
  if (n <= 0 || n >= moe) return HF_OK;
  pair_text(rest, cheap->in, cheap->down, base, sizeof base);
  int last = first;
  for (int left = n; last < p->c->n_layers; last++)
    if (p->c->layer_is_moe[last] && --left == 0) break;
  int len;
  if (good->in == good->down)
    len = snprintf(text, sizeof text, "%s,experts=%s@%d-%d", base, fmt_get(good->in)->name, first, last);
  else
    len = snprintf(text, sizeof text, "%s,gate_up=%s@%d-%d,down=%s@%d-%d", base, fmt_get(good->in)->name, first, last,
                   fmt_get(good->down)->name, first, last);
  if (len < 0 || (size_t)len >= sizeof text) return HF_OK; /* no name for it */
  return add_text(p, text, false, false);
}

/* Blocks of the type divide the rows of the experts' matrices, so that nothing else is put in their place. */
static bool fits_experts(const pool *p, fmt f) {
  int block = fmt_get(f)->block;
  return p->c->d_model % block == 0 && p->c->d_ff_expert % block == 0;
}

static void sensible_pairs(const pool *p, pair *v, int *n) {
  for (int i = 0; i < N_EXPERT; i++)
    for (int d = 0; d < N_EXPERT; d++) {
      fmt in = expert_types[i], down = expert_types[d];
      double more = fmt_get(down)->bits_per_weight - fmt_get(in)->bits_per_weight;
      if (more < 0 || more > DOWN_BITS || (more == 0 && in != down) || !allowed(p, in) || !allowed(p, down)) continue;
      if (!fits_experts(p, in) || !fits_experts(p, down)) continue;
      v[(*n)++] = (pair){in, down, (2 * fmt_get(in)->bits_per_weight + fmt_get(down)->bits_per_weight) / 3,
                         p->q->scale * (2 * p->q->experts[in] + p->q->experts[down]) / 3};
    }
}

/* Between neighbours on the hull: half of the layers, and as few as the floor allows. */
static hf_status add_layer_mixtures(pool *p, fmt rest, const pair *all, int n_all) {
  pair v[N_EXPERT * N_EXPERT];
  int moe = 0;
  double rest_loss = 0; /* what the other parts lose */
  char text[RECIPE_NAME];
  model_recipe r;
  memcpy(v, all, (size_t)n_all * sizeof *v);
  int n = hull(v, n_all);
  if (n < 2) return HF_OK;
  for (int l = 0; l < p->c->n_layers; l++) moe += p->c->layer_is_moe[l];
  pair_text(rest, v[0].in, v[0].down, text, sizeof text);
  HF_TRY(recipe_parse(text, p->c, &r));
  HF_TRY(quality_composed(p->q, p->m, &r, &rest_loss));
  double left = p->o->floor - (rest_loss - v[0].loss);
  for (int i = 0; i + 1 < n; i++) {
    HF_TRY(add_mixed(p, rest, &v[i], &v[i + 1], moe / 2));
    double span = v[i].loss - v[i + 1].loss;
    if (v[i + 1].loss <= left && v[i].loss > left)
      HF_TRY(add_mixed(p, rest, &v[i], &v[i + 1], (int)ceil(moe * (v[i].loss - left) / span)));
  }
  return HF_OK;
}

/* ---- pruning ---- */

/* a is at least as good everywhere. */
static bool beats(const format_candidate *a, const format_candidate *b) {
  return a->expert_bytes <= b->expert_bytes && a->bytes - a->expert_bytes <= b->bytes - b->expert_bytes &&
         a->quality.loss <= b->quality.loss;
}

static int by_loss(const void *a, const void *b) {
  const format_candidate *x = a, *y = b;
  if (x->quality.loss != y->quality.loss) return x->quality.loss < y->quality.loss ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
  if (x->usual != y->usual) return x->usual ? -1 : 1;
  if (x->named != y->named) return x->named ? -1 : 1;
  return strcmp(x->recipe.name, y->recipe.name);
}

/* Half of the floor to the floor: these decide; where there is none, all that lose less. */
static double near_least(const pool *p) {
  for (int i = 0; i < p->n; i++)
    if (p->v[i].quality.loss >= 0.5 * p->o->floor && p->v[i].quality.loss <= p->o->floor && !p->v[i].usual)
      return 0.5 * p->o->floor;
  return -INFINITY;
}

static bool near_floor(const pool *p, double least, const format_candidate *x) {
  return x->quality.loss >= least && x->quality.loss <= p->o->floor;
}

/* For comparison, whatever it loses and however slow it is. */
static bool stands(const format_candidate *x) {
  return x->usual || x->own;
}

/* Keeps what is usual, the model's own format and what nothing beats that the program runs; where more are left than can be planned, thins out those not measured evenly
 * by loss, those near the floor last. */
static void prune(pool *p) {
  int k = 0, kept = 0, must = 0, count[2] = {0, 0}, seen[2] = {0, 0};
  qsort(p->v, (size_t)p->n, sizeof *p->v, by_loss);
  for (int i = 0; i < p->n; i++) {
    bool beaten = false;
    for (int j = 0; j < k && !beaten; j++) beaten = program_allows(p->o, &p->v[j].recipe) && beats(&p->v[j], &p->v[i]);
    bool twice = p->v[i].own && k > 0 && p->v[k - 1].usual && strcmp(p->v[k - 1].recipe.name, p->v[i].recipe.name) == 0;
    if (!twice && (!beaten || stands(&p->v[i]))) p->v[k++] = p->v[i];
  }
  p->n = k;
  double least = near_least(p);
  for (int i = 0; i < k; i++) {
    bool stays = stands(&p->v[i]) || p->v[i].quality.tag == TAG_MEASURED;
    must += stays;
    if (!stays) count[near_floor(p, least, &p->v[i])]++;
  }
  int room = FORMATS_MAX_PLANNED > must ? FORMATS_MAX_PLANNED - must : 0, share[2];
  share[1] = count[1] < room * 2 / 3 ? count[1] : room * 2 / 3;
  share[0] = count[0] < room - share[1] ? count[0] : room - share[1];
  for (int i = 0; i < k; i++) {
    const format_candidate *x = &p->v[i];
    int g = near_floor(p, least, x);
    bool keep = stands(x) || x->quality.tag == TAG_MEASURED;
    if (!keep) {
      keep = seen[g] * share[g] / count[g] != (seen[g] + 1) * share[g] / count[g];
      seen[g]++;
    }
    if (keep) p->v[kept++] = *x;
  }
  p->n = kept;
}

/* ---- planning ---- */

static hf_status plan_all(const ask_command *c, const ask_machine *machine, format_candidate *v, int n) {
  ask_case_spec *spec = NULL;
  ask_case *answer = NULL;
  hf_status st = HF_OK;
  HF_GO(done, hf_alloc(&spec, (size_t)n, sizeof *spec, "cases"));
  HF_GO(done, hf_alloc(&answer, (size_t)n, sizeof *answer, "answers"));
  for (int i = 0; i < n; i++) {
    spec[i] = (ask_case_spec){.machine = machine, .req = c->req, .slo = c->slo, .quick = true};
    spec[i].req.format = v[i].recipe.name;
    snprintf(spec[i].name, sizeof spec[i].name, "%.90s", v[i].recipe.name);
  }
  HF_GO(done, ask_evaluate_all(spec, n, (int)c->jobs, NULL, NULL, answer));
  for (int i = 0; i < n; i++) v[i].c = answer[i];
done:
  free(spec);
  free(answer);
  return st;
}

static int by_rate(const void *a, const void *b) {
  const format_candidate *x = a, *y = b;
  if (x->c.feasible != y->c.feasible) return x->c.feasible ? -1 : 1;
  double r = x->c.feasible ? x->c.decode_tok_per_s.likely : 0, s = y->c.feasible ? y->c.decode_tok_per_s.likely : 0;
  if (r != s) return r > s ? -1 : 1;
  return by_loss(a, b);
}

/* By falling rate: on the frontier is what loses less than everything faster. */
static void judge(formats *f) {
  double least = INFINITY;
  f->chosen = f->usual = -1;
  qsort(f->v, (size_t)f->n, sizeof *f->v, by_rate);
  for (int i = 0; i < f->n; i++) {
    format_candidate *x = &f->v[i];
    x->meets = x->quality.loss <= f->options.floor;
    bool runs = x->c.feasible && program_allows(&f->options, &x->recipe); /* what is usual may need another program */
    x->frontier = runs && x->quality.loss < least;
    if (x->frontier) least = x->quality.loss;
    if (x->usual) f->usual = i;
    if (f->chosen < 0 && runs && x->meets) f->chosen = i;
  }
  if (f->chosen >= 0) f->v[f->chosen].chosen = true;
}

static hf_status candidates(const ask_command *c, pool *p) {
  const char *usual = c->req.format;
  if (usual == NULL) usual = fmt_get(p->c->default_format)->name;
  HF_TRY(add_text(p, usual, true, true));
  HF_TRY(add_named(p));
  pair v[N_EXPERT * N_EXPERT];
  int n = 0;
  sensible_pairs(p, v, &n);
  for (int i = 0; i < N_REST; i++) {
    if (!allowed(p, rest_types[i])) continue;
    HF_TRY(add_pairs(p, rest_types[i], v, n));
    HF_TRY(add_layer_mixtures(p, rest_types[i], v, n));
  }
  return HF_OK;
}

hf_status formats_search(const ask_command *c, const ask_machine *machine, const model *m, const char *name,
                         const formats_options *o, formats *out) {
  int64_t start = hf_now_ns();
  pool p = {.m = m, .c = model_get_config(m), .o = o};
  hf_status st = HF_OK;
  *out = (formats){.options = *o, .chosen = -1, .usual = -1};
  p.params = (double)model_total_params(p.c);
  HF_TRY(quality_load(m, name, o->quality, &out->q));
  p.q = out->q;
  HF_GO(done, candidates(c, &p));
  out->considered = p.considered;
  prune(&p);
  HF_GO(done, plan_all(c, machine, p.v, p.n));
  out->v = p.v;
  out->n = p.n;
  p.v = NULL;
  judge(out);
  out->seconds = (double)(hf_now_ns() - start) / 1e9;
done:
  free(p.v);
  return st;
}

void formats_free(formats *f) {
  free(f->q);
  free(f->v);
  *f = (formats){.chosen = -1, .usual = -1};
}
