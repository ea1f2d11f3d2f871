/* recipe.c: published mixtures, part by part, and the names that users give their own.
 *
 * Sources. llama.cpp's rules for Q*_K_S/M/L, Q2_K, IQ*: function llama_tensor_get_type of src/llama-quant.cpp (read in src/llama-quantize.cpp of
 * ik_llama.cpp, commit 8337e4c, which has the same rules beside its own). Mixtures published by single authors: counts of tensors per type
 * and sizes of buffers in the logs of ik_llama.cpp's discussions 258 (UD-Q2_K_XL, UD-Q4_K_XL, Q4_K_M-V2, Q2_K_R4, IQ2_K_R4, IQ4_K_R4, DQ4_K_R4),
 * 357 (mix-IQ3_K) and 477 (R1-0528). tests/unit/model_recipe.c compares with the sizes of the files. */
#include "model/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

static const struct {
  const char *name;
  unsigned mask;
} part_names[] = {{"q", 1u << PART_Q},
                  {"k", 1u << PART_K},
                  {"v", 1u << PART_V},
                  {"kv_a", 1u << PART_KV_A},
                  {"kv_b", 1u << PART_KV_B},
                  {"o", 1u << PART_O},
                  {"dense_in", 1u << PART_DENSE_IN},
                  {"dense_down", 1u << PART_DENSE_DOWN},
                  {"shared_in", 1u << PART_SHARED_IN},
                  {"shared_down", 1u << PART_SHARED_DOWN},
                  {"gate_up", 1u << PART_EXPERT_IN},
                  {"down", 1u << PART_EXPERT_DOWN},
                  {"embed", 1u << PART_EMBED},
                  {"output", 1u << PART_OUTPUT},
                  {"attn", 1u << PART_Q | 1u << PART_K | 1u << PART_V | 1u << PART_KV_A | 1u << PART_KV_B | 1u << PART_O},
                  {"dense", 1u << PART_DENSE_IN | 1u << PART_DENSE_DOWN},
                  {"shared", 1u << PART_SHARED_IN | 1u << PART_SHARED_DOWN},
                  {"experts", 1u << PART_EXPERT_IN | 1u << PART_EXPERT_DOWN},
                  {"rest", ((1u << PART_N) - 1) & ~(1u << PART_EXPERT_IN | 1u << PART_EXPERT_DOWN)}};
enum { N_PART_NAMES = sizeof part_names / sizeof *part_names };

const char *recipe_part_name(recipe_part p) {
  return (unsigned)p < PART_N ? part_names[p].name : "vectors";
}

bool recipe_parts_named(const char *name, size_t n, unsigned *mask) {
  for (int i = 0; i < N_PART_NAMES; i++)
    if (strlen(part_names[i].name) == n && memcmp(part_names[i].name, name, n) == 0) {
      *mask |= part_names[i].mask;
      return true;
    }
  return false;
}

recipe_part recipe_part_of(model_tensor_id id) {
  switch (id) {
    case MT_Q:
    case MT_Q_A:
    case MT_Q_B: return PART_Q;
    case MT_K: return PART_K;
    case MT_V: return PART_V;
    case MT_KV_A: return PART_KV_A;
    case MT_K_B:
    case MT_V_B: return PART_KV_B;
    case MT_O: return PART_O;
    case MT_GATE:
    case MT_UP: return PART_DENSE_IN;
    case MT_DOWN: return PART_DENSE_DOWN;
    case MT_SH_GATE:
    case MT_SH_UP: return PART_SHARED_IN;
    case MT_SH_DOWN: return PART_SHARED_DOWN;
    case MT_EXP_GATE:
    case MT_EXP_UP: return PART_EXPERT_IN;
    case MT_EXP_DOWN: return PART_EXPERT_DOWN;
    case MT_EMBED: return PART_EMBED;
    case MT_OUTPUT: return PART_OUTPUT;
    default: return PART_N;
  }
}

/* ---- making recipes ---- */

static void set(model_recipe *r, unsigned mask, fmt f) {
  for (int p = 0; p < PART_N; p++)
    if (mask >> p & 1) r->part[p] = f;
}

/* The recipes below need at most 13 rules; false can only come from a user's text. */
static bool add_rule(model_recipe *r, recipe_part p, int first, int last, int step, fmt f) {
  if (last < first) return true;
  if (r->n_rules == RECIPE_MAX_RULES) return false;
  r->rule[r->n_rules++] = (recipe_rule){p, first, last, step, f};
  return true;
}

static void raise(model_recipe *r, unsigned mask, int first, int last, int step, fmt f) {
  for (int p = 0; p < PART_N; p++)
    if (mask >> p & 1) (void)add_rule(r, (recipe_part)p, first, last, step, f);
}

#define BIT(p) (1u << (p))
enum {
  ALL = (1 << PART_N) - 1,
  ATTENTION = 1 << PART_Q | 1 << PART_K | 1 << PART_V | 1 << PART_KV_A | 1 << PART_KV_B | 1 << PART_O,
  DENSE = 1 << PART_DENSE_IN | 1 << PART_DENSE_DOWN,
  SHARED = 1 << PART_SHARED_IN | 1 << PART_SHARED_DOWN,
  EXPERTS = 1 << PART_EXPERT_IN | 1 << PART_EXPERT_DOWN,
  DOWNS = 1 << PART_DENSE_DOWN | 1 << PART_SHARED_DOWN | 1 << PART_EXPERT_DOWN
};

/* llama.cpp's "more bits": the first and the last eighth of the layers and every third between. */
static void more_bits(model_recipe *r, const model_config *c, unsigned mask, fmt f) {
  int n = c->n_layers;
  raise(r, mask, 0, n / 8 - 1, 1, f);
  raise(r, mask, n / 8 + 2, 7 * n / 8 - 1, 3, f);
  raise(r, mask, 7 * n / 8, n - 1, 1, f);
}

/* A K-quant or I-quant mixture of llama.cpp: base everywhere, the output matrix in `output`. Models of eight experts get more for attention. */
static void llama_base(model_recipe *r, const model_config *c, fmt base, fmt output) {
  set(r, ALL, base);
  r->part[PART_OUTPUT] = output;
  if (c->n_experts != 8) return;
  set(r, BIT(PART_K) | BIT(PART_V), FMT_Q8_0);
  r->part[PART_O] = FMT_Q5_K;
}

static int queries_per_kv(const model_config *c) {
  return c->attn == ATTN_GQA && c->n_kv_heads > 0 ? c->n_heads / c->n_kv_heads : 1;
}

static void low_bit(model_recipe *r, const model_config *c, fmt base) {
  bool s = base == FMT_IQ2_S;
  llama_base(r, c, base, FMT_Q5_K);
  r->part[PART_EMBED] = s ? FMT_IQ3_S : FMT_Q2_K;
  if (c->n_experts != 8) r->part[PART_V] = queries_per_kv(c) >= 4 ? FMT_Q4_K : s ? FMT_IQ3_S : FMT_Q2_K;
  raise(r, DOWNS, 0, c->n_layers / 8 - 1, 1, s ? FMT_IQ3_S : FMT_Q2_K);
}

static bool llama_mixture(fmt f, const model_config *c, model_recipe *r) {
  int n = c->n_layers, gqa = queries_per_kv(c);
  bool eight = c->n_experts == 8;
  switch (f) {
    case FMT_Q2_K:
    case FMT_Q2_K_S:
      llama_base(r, c, FMT_Q2_K, FMT_Q6_K);
      if (!eight) r->part[PART_V] = gqa >= 4 ? FMT_Q4_K : f == FMT_Q2_K ? FMT_Q3_K : FMT_Q2_K;
      if (f == FMT_Q2_K_S) raise(r, DOWNS, 0, n / 8 - 1, 1, FMT_Q4_K);
      else set(r, DOWNS | (eight ? 0 : BIT(PART_O)), FMT_Q3_K);
      return true;
    case FMT_Q3_K_S: llama_base(r, c, FMT_Q3_K, FMT_Q6_K); return true;
    case FMT_Q3_K_M:
      llama_base(r, c, FMT_Q3_K, FMT_Q6_K);
      set(r, DOWNS | (eight ? 0 : BIT(PART_V) | BIT(PART_O)), FMT_Q4_K);
      raise(r, DOWNS, 0, n / 16 - 1, 1, FMT_Q5_K);
      if (!eight) raise(r, BIT(PART_V), 0, 1, 1, FMT_Q5_K);
      return true;
    case FMT_Q3_K_L:
      llama_base(r, c, FMT_Q3_K, FMT_Q6_K);
      set(r, DOWNS | (eight ? 0 : BIT(PART_V) | BIT(PART_O)), FMT_Q5_K);
      return true;
    case FMT_Q4_K_S:
      llama_base(r, c, FMT_Q4_K, FMT_Q6_K);
      raise(r, DOWNS, 0, n / 8 - 1, 1, FMT_Q5_K);
      if (!eight) raise(r, BIT(PART_V), 0, 3, 1, FMT_Q5_K);
      return true;
    case FMT_Q4_K_M:
    case FMT_Q4_K_M_V2:
      llama_base(r, c, FMT_Q4_K, FMT_Q6_K);
      more_bits(r, c, eight ? DOWNS : DOWNS | BIT(PART_V), FMT_Q6_K);
      return true;
    case FMT_Q5_K_S: llama_base(r, c, FMT_Q5_K, FMT_Q6_K); return true;
    case FMT_Q5_K_M:
      llama_base(r, c, FMT_Q5_K, FMT_Q6_K);
      more_bits(r, c, eight ? DOWNS : DOWNS | BIT(PART_V), FMT_Q6_K);
      return true;
    case FMT_Q4_0:
    case FMT_Q4_1:
    case FMT_Q5_0:
    case FMT_Q5_1: llama_base(r, c, f, FMT_Q6_K); return true;
    case FMT_IQ4_XS:
    case FMT_IQ4_NL:
      llama_base(r, c, f, FMT_Q6_K);
      if (gqa >= 4 && !eight) r->part[PART_V] = FMT_Q5_K;
      return true;
    case FMT_IQ3_S:
      llama_base(r, c, f, FMT_Q6_K);
      if (gqa >= 4 && !eight) r->part[PART_V] = FMT_Q4_K;
      return true;
    case FMT_IQ3_XXS:
      llama_base(r, c, f, FMT_Q5_K);
      r->part[PART_EMBED] = FMT_IQ3_S;
      if (eight) return true;
      set(r, BIT(PART_Q) | BIT(PART_K), FMT_IQ2_S);
      r->part[PART_V] = gqa >= 4 ? FMT_Q4_K : FMT_IQ3_S;
      r->part[PART_O] = FMT_IQ3_S;
      return true;
    case FMT_IQ1_S:
    case FMT_IQ1_M:
    case FMT_IQ2_XXS:
    case FMT_IQ2_XS:
    case FMT_IQ2_S: low_bit(r, c, f); return true;
    default: return false;
  }
}

/* Mixtures of single authors for large models: routed experts in two types, the rest in `rest`. */
static bool author_mixture(fmt f, const model_config *c, model_recipe *r) {
  static const struct {
    fmt name, rest, in, down;
  } simple[] = {{FMT_Q2_K_R4, FMT_Q8_0, FMT_Q2_K, FMT_Q3_K},      {FMT_DQ4_K, FMT_Q8_0, FMT_Q4_K, FMT_Q6_K},
                {FMT_IQ2_K, FMT_Q8_0, FMT_IQ2_K, FMT_IQ3_K},      {FMT_IQ3_K, FMT_IQ5_KS, FMT_IQ3_K, FMT_IQ4_K},
                {FMT_IQ4_K, FMT_Q8_0, FMT_IQ4_K, FMT_IQ5_K},      {FMT_IQ4_KS, FMT_Q8_0, FMT_IQ4_KS, FMT_IQ5_KS},
                {FMT_IQ3_KS, FMT_IQ5_KS, FMT_IQ3_KS, FMT_IQ4_KS}, {FMT_IQ2_KS, FMT_IQ5_KS, FMT_IQ2_KS, FMT_IQ2_K},
                {FMT_IQ2_KL, FMT_IQ5_KS, FMT_IQ2_KL, FMT_IQ3_KS}, {FMT_MIX_IQ3_K, FMT_IQ6_K, FMT_IQ3_K, FMT_IQ4_K}};
  for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
    if (f == simple[i].name) {
      set(r, ALL, simple[i].rest);
      r->part[PART_EXPERT_IN] = simple[i].in;
      r->part[PART_EXPERT_DOWN] = simple[i].down;
      if (f == FMT_MIX_IQ3_K) set(r, BIT(PART_EMBED) | BIT(PART_OUTPUT), FMT_Q8_0);
      return true;
    }
  int moe = 0; /* first layer with experts */
  while (moe + 1 < c->n_layers && !c->layer_is_moe[moe]) moe++;
  if (f == FMT_Q2_K_XL) { /* counted: 3 of the 174 expert tensors are Q3_K; attention and embedding Q4_K, the rest Q6_K */
    set(r, ALL, FMT_Q6_K);
    set(r, ATTENTION | BIT(PART_EMBED), FMT_Q4_K);
    set(r, EXPERTS, FMT_Q2_K);
    raise(r, BIT(PART_EXPERT_DOWN), moe, moe + 2, 1, FMT_Q3_K);
    return true;
  }
  if (f == FMT_Q4_K_XL) { /* counted: 11 of the expert tensors are Q5_K, k_b and v_b Q8_0, some others Q5_K or Q6_K */
    set(r, ALL, FMT_Q4_K);
    r->part[PART_KV_B] = FMT_Q8_0;
    r->part[PART_O] = FMT_Q5_K;
    r->part[PART_OUTPUT] = FMT_Q6_K;
    raise(r, BIT(PART_EXPERT_DOWN), moe, moe + 2, 1, FMT_Q5_K);
    raise(r, BIT(PART_EXPERT_DOWN), c->n_layers - 8, c->n_layers - 1, 1, FMT_Q5_K);
    return true;
  }
  return false;
}

void recipe_of(fmt f, const model_config *c, model_recipe *r) {
  memset(r, 0, sizeof *r);
  snprintf(r->name, sizeof r->name, "%s", fmt_get(f)->name);
  r->base = f;
  if (llama_mixture(f, c, r)) {
    if (f == FMT_Q4_K_M_V2) { /* counted: attention and shared experts get more than Q4_K_M's */
      set(r, BIT(PART_KV_A) | BIT(PART_KV_B), FMT_Q8_0);
      set(r, BIT(PART_Q) | BIT(PART_DENSE_DOWN) | BIT(PART_SHARED_DOWN), FMT_Q6_K);
      set(r, BIT(PART_O) | BIT(PART_SHARED_IN), FMT_Q5_K);
    }
    return;
  }
  if (author_mixture(f, c, r)) return;
  set(r, ALL, f);
  if (f == FMT_INT4_G32 || f == FMT_MXFP4) set(r, ALL & ~(unsigned)EXPERTS, FMT_BF16);
  if (f == FMT_FP8_E4M3 || f == FMT_INT8) set(r, BIT(PART_EMBED) | BIT(PART_OUTPUT), FMT_BF16);
}

/* ---- names ---- */

static hf_status parse_layers(const char *text, size_t n, const model_config *c, int *first, int *last) {
  char buf[24];
  char *end = buf;
  snprintf(buf, sizeof buf, "%.*s", (int)(n < 23 ? n : 23), text);
  long a = strtol(buf, &end, 10), b = a;
  bool ok = end != buf;
  if (ok && *end == '-') {
    char *from = end + 1;
    b = strtol(from, &end, 10);
    ok = end != from;
  }
  if (!ok || *end != '\0' || a < 0 || b < a || b >= c->n_layers)
    return hf_fail(HF_INPUT, "layers '%.24s' of a weight format: needs FIRST-LAST between 0 and %d", buf, c->n_layers - 1);
  *first = (int)a;
  *last = (int)b;
  return HF_OK;
}

/* PART=FORMAT[@FIRST-LAST], n bytes. */
static hf_status parse_item(const char *s, size_t n, const model_config *c, model_recipe *r) {
  const char *eq = memchr(s, '=', n);
  unsigned mask = 0;
  if (eq == NULL || !recipe_parts_named(s, (size_t)(eq - s), &mask)) {
    char known[256] = "";
    for (int i = 0; i < N_PART_NAMES; i++) {
      size_t len = strlen(known);
      snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", part_names[i].name);
    }
    return hf_fail(HF_INPUT, "weight format: '%.*s' is no PART=FORMAT; parts are %s", (int)(n < 60 ? n : 60), s, known);
  }
  size_t left = n - (size_t)(eq + 1 - s);
  const char *at = memchr(eq + 1, '@', left);
  size_t name_len = at != NULL ? (size_t)(at - eq - 1) : left;
  char name[40];
  fmt f;
  snprintf(name, sizeof name, "%.*s", (int)(name_len < 39 ? name_len : 39), eq + 1);
  HF_TRY(fmt_parse(name, &f));
  if (fmt_is_mixture(f))
    return hf_fail(HF_INPUT, "weight format: %s is a mixture; a part needs one type, such as %s", fmt_get(f)->name, "q4_k");
  int first = 0, last = c->n_layers - 1;
  if (at != NULL) HF_TRY(parse_layers(at + 1, left - name_len - 1, c, &first, &last));
  for (int p = 0; p < PART_N; p++) {
    if (!(mask >> p & 1)) continue;
    bool global = p == PART_EMBED || p == PART_OUTPUT;
    if (global && at != NULL) return hf_fail(HF_INPUT, "weight format: %s belongs to no layer", recipe_part_name((recipe_part)p));
    int kept = 0; /* rules that no longer count make room */
    for (int i = 0; i < r->n_rules; i++)
      if (r->rule[i].part != (recipe_part)p || r->rule[i].first < first || r->rule[i].last > last) r->rule[kept++] = r->rule[i];
    r->n_rules = kept;
    if (at == NULL) r->part[p] = f;
    else if (!add_rule(r, (recipe_part)p, first, last, 1, f))
      return hf_fail(HF_INPUT, "weight format: more than %d ranges of layers", RECIPE_MAX_RULES);
  }
  return HF_OK;
}

hf_status recipe_parse(const char *text, const model_config *c, model_recipe *out) {
  const char *colon = strchr(text, ':');
  char base[40];
  fmt f;
  if (strlen(text) >= RECIPE_NAME) return hf_fail(HF_INPUT, "weight format: longer than %d characters", RECIPE_NAME - 1);
  snprintf(base, sizeof base, "%.*s", colon != NULL && colon - text < 39 ? (int)(colon - text) : 39, text);
  HF_TRY(fmt_parse(base, &f));
  recipe_of(f, c, out);
  if (colon == NULL) return HF_OK;
  for (const char *s = colon + 1;;) {
    size_t n = strcspn(s, ",");
    HF_TRY(parse_item(s, n, c, out));
    if (s[n] == '\0') break;
    s += n + 1;
  }
  snprintf(out->name, sizeof out->name, "%s:%s", fmt_get(f)->name, colon + 1);
  return HF_OK;
}

/* ---- formats of tensors ---- */

/* Blocks of 256 do not fit every row; llama.cpp then takes a type of blocks of 32 with at least as many bits. */
static fmt fitting(fmt f, int64_t cols) {
  if (cols % fmt_get(f)->block == 0) return f;
  if (cols % 32) return FMT_F16;
  double bits = fmt_get(f)->bits_per_weight;
  switch (f) {
    case FMT_Q4_K:
    case FMT_IQ4_K:
    case FMT_IQ5_KS: return FMT_Q5_0;
    case FMT_Q5_K:
    case FMT_IQ5_K: return FMT_Q5_1;
    default: return bits > 6 ? FMT_Q8_0 : FMT_IQ4_NL;
  }
}

static bool keeps_bf16(fmt f) {
  return f == FMT_FP8_E4M3 || f == FMT_INT4_G32 || f == FMT_INT8 || f == FMT_MXFP4 || f == FMT_BF16;
}

fmt recipe_tensor_format(const model_recipe *r, model_tensor_id id, int layer, int64_t cols) {
  recipe_part p = recipe_part_of(id);
  if (p == PART_N) return r->base == FMT_F16 ? FMT_F16 : keeps_bf16(r->base) ? FMT_BF16 : FMT_F32;
  fmt f = r->part[p];
  for (int i = 0; i < r->n_rules; i++)
    if (r->rule[i].part == p && layer >= r->rule[i].first && layer <= r->rule[i].last &&
        (layer - r->rule[i].first) % r->rule[i].step == 0)
      f = r->rule[i].f;
  return fitting(f, cols);
}

bool recipe_tensor_shape(const model_config *c, model_tensor_id id, int layer, int64_t *rows, int64_t *cols) {
  return tensor_shape(c, id, layer, rows, cols);
}

/* ---- programs ---- */

/* A program and the kind of file that it reads: all parts of a model lie in files of one kind. */
enum { HF_RUN_GGUF = 1, HF_RUN_SAFETENSORS = 2, LLAMA_CPP = 4, IK_LLAMA_CPP = 8, OTHER_SAFETENSORS = 16 };

static unsigned type_readers(fmt f) {
  const fmt_info *i = fmt_get(f);
  const bool runs = i->executable && !i->slow, gguf = i->ggml_type >= 0;
  unsigned readers = 0;
  if (gguf) readers |= (runs ? HF_RUN_GGUF : 0) | IK_LLAMA_CPP;
  if (gguf && i->ggml_type < 128) readers |= LLAMA_CPP; /* ik_llama.cpp numbers its own types from 133 */
  if (keeps_bf16(f) || f == FMT_F16 || f == FMT_F32) readers |= (runs ? HF_RUN_SAFETENSORS : 0) | OTHER_SAFETENSORS;
  return readers;
}

bool recipe_runs_on(const model_recipe *r, recipe_program p) {
  static const unsigned reads[] = {HF_RUN_GGUF | HF_RUN_SAFETENSORS, LLAMA_CPP, IK_LLAMA_CPP, OTHER_SAFETENSORS};
  unsigned readers = ~0u;
  for (int k = 0; k < PART_N; k++) readers &= type_readers(r->part[k]);
  for (int i = 0; i < r->n_rules; i++) readers &= type_readers(r->rule[i].f);
  return readers & reads[p];
}

recipe_program recipe_program_of(const model_recipe *r) {
  int p = RUNS_HF_RUN;
  while (p < RUNS_NONE && !recipe_runs_on(r, (recipe_program)p)) p++;
  return (recipe_program)p;
}

const char *recipe_program_name(recipe_program p) {
  static const char *const names[] = {"hf-run", "llama.cpp", "ik_llama.cpp", "sglang", "none"};
  return names[p];
}
