/* synth.c: the generator behind synthetic models.
 *
 * A row's numbers come from a counter: word i of a row is mix(key + i * golden), key = mix(seed, tensor, layer, expert, row).
 * No state, no order. Values are uniform with mean 0; the scale makes a product's output about as large as its input
 * (variance 1 / columns), smaller for the two products that add to the residual stream, so that it grows slowly over layers.
 * Router rows give logits of standard deviation about 1: every expert is chosen, none equally often. */
#include "model/config_limits.h"
#include "model/recipe.h"
#include "base/blocks.h"
#include "model/synth.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t GOLDEN = 0x9e3779b97f4a7c15u;

static inline uint64_t mix(uint64_t z) { /* the finaliser of splitmix64 */
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static uint64_t row_key(const model *m, model_tensor_id id, int layer, int expert, int64_t row) {
  uint64_t k = mix(m->seed + GOLDEN);
  k = mix(k ^ ((uint64_t)id << 48 | (uint64_t)(uint32_t)(layer + 1) << 24 | (uint64_t)(uint32_t)(expert + 1)));
  return mix(k + (uint64_t)row * GOLDEN);
}

static inline uint64_t word(uint64_t key, int64_t i) {
  return mix(key + (uint64_t)i * GOLDEN);
}

/* f32_to_f16 with its common case, a normal result, in line. */
static inline uint16_t to_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  uint32_t a = u & 0x7fffffff;
  if (a < 0x38800000 || a >= 0x47000000) return f32_to_f16(f);
  a -= 0x38000000;
  return (uint16_t)((u >> 16 & 0x8000) | (a + 0xfff + (a >> 13 & 1)) >> 13);
}

/* Centre and half-width of a tensor's uniform distribution. */
static void distribution(const model *m, model_tensor_id id, int64_t cols, float *centre, float *half) {
  float unit = sqrtf(3.0f / (float)cols), residual = 1 / sqrtf(2 * (float)m->c.n_layers);
  *centre = 0;
  *half = unit;
  switch (id) {
    case MT_OUT_NORM:
    case MT_ATTN_NORM:
    case MT_FFN_NORM:
    case MT_Q_NORM:
    case MT_K_NORM:
    case MT_Q_A_NORM:
    case MT_KV_A_NORM:
      *centre = 1;
      *half = 0.1f;
      break;
    case MT_EMBED: *half = 1.7320508f; break;
    case MT_O:
    case MT_DOWN:
    case MT_SH_DOWN:
    case MT_EXP_DOWN: *half = unit * residual; break;
    case MT_Q_BIAS:
    case MT_K_BIAS:
    case MT_V_BIAS:
    case MT_O_BIAS:
    case MT_ROUTER_BIAS:
    case MT_ROUTER_LIN_BIAS:
    case MT_EXP_GATE_BIAS:
    case MT_EXP_UP_BIAS:
    case MT_EXP_DOWN_BIAS: *half = 0.05f; break;
    case MT_SINKS: *half = 1; break;
    default: break;
  }
}

/* Four values of 16 bits a word. */
static void row_f32(uint64_t key, int64_t n, float centre, float half, float *out) {
  float scale = half / 32768.0f;
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t w = word(key, i >> 2);
    for (int64_t k = 0; k < 4 && i + k < n; k++) out[i + k] = centre + scale * (float)(int16_t)(w >> 16 * k);
  }
}

static void row_16(fmt f, uint64_t key, int64_t n, float centre, float half, uint8_t *out) {
  float scale = half / 32768.0f;
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t w = word(key, i >> 2);
    for (int64_t k = 0; k < 4 && i + k < n; k++) {
      float v = centre + scale * (float)(int16_t)(w >> 16 * k);
      uint16_t h = f == FMT_BF16 ? f32_to_bf16(v) : to_f16(v);
      memcpy(out + 2 * (i + k), &h, 2);
    }
  }
}

/* Blocks of 32: scale one of 16 near half / 127, then four words of eight int8; -128, which no quantiser writes, becomes -127. */
static void row_q8_0(uint64_t key, int64_t n, float half, uint8_t *out) {
  uint16_t scales[16];
  for (int i = 0; i < 16; i++) scales[i] = f32_to_f16(half / 127 * (0.7f + 0.04f * (float)i));
  for (int64_t b = 0; b < n / 32; b++, out += 34) {
    uint64_t w[4];
    for (int i = 0; i < 4; i++) {
      w[i] = word(key, b * 4 + i);
      uint64_t x = w[i] ^ 0x8080808080808080u; /* a zero byte where int8 is -128 */
      uint64_t low = (x & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu;
      w[i] += ~(low | x) >> 7 & 0x0101010101010101u;
    }
    memcpy(out, &scales[w[0] >> 8 & 15], 2);
    memcpy(out + 2, w, 32);
  }
}

/* Numbers from 1.875 to 448 of either sign, evenly over the codes, so that half of the squares' mean lies near the largest. */
static void row_fp8(uint64_t key, int64_t n, float half, uint8_t *out) {
  for (int64_t c = 0; c < n; c += 128) {
    uint64_t w = word(key, c >> 3);
    float scale = half / 200 * (0.7f + 0.04f * (float)(w & 15));
    memcpy(out, &scale, sizeof scale);
    out += sizeof scale;
    for (int64_t i = 0; i < 128 && c + i < n; i++, out++) {
      if (i % 8 == 0) w = word(key, (c + i) >> 3);
      uint8_t b = (uint8_t)(w >> i % 8 * 8);
      *out = (uint8_t)((b & 0x80) | (0x3f + (b & 0x3f)));
    }
  }
}

/* Any other format in blocks: random quants, scales to suit. */
static void row_blocks(fmt f, uint64_t key, int64_t n, float half, uint8_t *out) {
  size_t bytes = fmt_row_bytes(f, n);
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t w = word(key, (int64_t)(i >> 3));
    memcpy(out + i, &w, bytes - i < 8 ? bytes - i : 8);
  }
  hf_block_scales(fmt_get(f)->name, out, n, half);
}

bool synth_can(fmt f) {
  return f == FMT_F32 || f == FMT_F16 || f == FMT_BF16 || f == FMT_FP8_E4M3 || hf_block_scales(fmt_get(f)->name, NULL, 0, 1);
}

hf_status synth_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t row0, int64_t row1,
                     void *dst) {
  if (s->how != READ_DIRECT)
    return hf_fail(HF_UNSUPPORTED, "%s: layer %d tensor %s: %s", m->path, layer, tensor_name(id), s->why);
  if (id == MT_OUTPUT && m->c.tied_embeddings) id = MT_EMBED;
  float centre, half;
  distribution(m, id, s->cols, &centre, &half);
  size_t bytes = fmt_loaded_row_bytes(s->format, s->cols);
  uint8_t *out = dst;
  for (int64_t r = row0; r < row1; r++, out += bytes) {
    uint64_t key = row_key(m, id, layer, expert, r);
    if (s->format == FMT_FP8_E4M3) row_fp8(key, s->cols, half, out);
    else if (s->format == FMT_Q8_0) row_q8_0(key, s->cols, half, out);
    else if (s->format == FMT_F32) row_f32(key, s->cols, centre, half, (float *)(void *)out);
    else if (fmt_get(s->format)->block > 1) row_blocks(s->format, key, s->cols, half, out);
    else row_16(s->format, key, s->cols, centre, half, out);
  }
  return HF_OK;
}

hf_status synth_bind(model *m, uint64_t seed, fmt format) {
  if (m->c.n_experts == 0)
    return hf_fail(HF_UNSUPPORTED, "%s: %s models have no experts and are for planning; there are no synthetic weights of them",
                   m->path, model_family_name(m->c.family));
  model_recipe recipe; /* of mixtures: each tensor gets its own type */
  recipe_of(format, &m->c, &recipe);
  m->seed = seed;
  m->source = SRC_SYNTH;
  m->synth_format = m->c.default_format = format;
  HF_TRY(slots_alloc(m));
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++) {
      tensor_slot *s = model_slot(m, (model_tensor_id)id, layer);
      if (!tensor_shape(&m->c, (model_tensor_id)id, layer, &s->rows, &s->cols)) continue;
      s->present = true;
      s->how = READ_DIRECT;
      s->format = FMT_F32;
      if (tensor_is_matrix((model_tensor_id)id)) {
        s->format = s->cols % fmt_get(format)->block ? FMT_F16 : format;
        /* as such checkpoints are published */
        bool wide = id == MT_EMBED || id == MT_OUTPUT || id == MT_ROUTER || id == MT_K_B;
        if (format == FMT_FP8_E4M3 && wide) s->format = FMT_BF16;
        if (fmt_is_mixture(format)) s->format = recipe_tensor_format(&recipe, (model_tensor_id)id, layer, s->cols);
        if (!synth_can(s->format)) s->how = READ_REFUSED;
      }
      s->stored = s->format;
      s->bytes = (uint64_t)s->rows * fmt_loaded_row_bytes(s->format, s->cols);
      s->why =
          "there are no synthetic weights in this format, it is for planning; f32, f16, bf16, q8_0, q4_k and others have them";
    }
  return HF_OK;
}

/* ---- names ---- */

static hf_status parse_option(const char *text, const char *key, size_t key_len, const char *value, size_t n, synth_name *out) {
  char v[64], *end;
  if (n == 0 || n >= sizeof v) return hf_fail(HF_INPUT, "%s: option %.*s has no value", text, (int)key_len, key);
  memcpy(v, value, n);
  v[n] = 0;
  if (key_len == 6 && !memcmp(key, "format", 6)) return hf_note(fmt_parse(v, &out->format), "%s", text);
  errno = 0;
  unsigned long long x = strtoull(v, &end, 10);
  bool number = !errno && !*end && v[0] >= '0' && v[0] <= '9';
  if (number && key_len == 4 && !memcmp(key, "seed", 4)) out->seed = x;
  else if (number && x >= 1 && x <= LIM_LAYERS && key_len == 6 && !memcmp(key, "layers", 6)) out->layers = (int)x;
  else if (number && x >= 1 && x <= LIM_EXPERTS && key_len == 7 && !memcmp(key, "experts", 7)) out->experts = (int)x;
  else
    return hf_fail(HF_INPUT, "%s: option '%.*s=%s' is not one of layers=1..%d, experts=1..%d, seed=N, format=NAME", text,
                   (int)key_len, key, v, LIM_LAYERS, LIM_EXPERTS);
  return HF_OK;
}

hf_status synth_parse_name(const char *text, synth_name *out) {
  memset(out, 0, sizeof *out);
  out->format = FMT_DEFAULT;
  out->seed = 1;
  const char *p = text + (strncmp(text, "synth:", 6) ? 0 : 6), *comma = strchrnul(p, ',');
  size_t n = (size_t)(comma - p);
  if (n == 0 || n >= sizeof out->config) return hf_fail(HF_INPUT, "%.200s: no config name after 'synth:'", text);
  memcpy(out->config, p, n);
  while (*comma) {
    const char *key = comma + 1;
    comma = strchrnul(key, ',');
    const char *eq = memchr(key, '=', (size_t)(comma - key));
    if (!eq) return hf_fail(HF_INPUT, "%.200s: option '%.*s' has no '='", text, (int)(comma - key), key);
    HF_TRY(parse_option(text, key, (size_t)(eq - key), eq + 1, (size_t)(comma - eq - 1), out));
  }
  return HF_OK;
}

/* ---- config ---- */

static bool one_of(const char *key, const char *const *list) {
  for (; *list; list++)
    if (!strcmp(key, *list)) return true;
  return false;
}

/* Layers that the shorter model still has. */
static void keep_layers(json *parent, const char *key, const json *list, int layers) {
  json *a = json_add_array(parent, key);
  for (const json *v = json_first(list); v; v = json_next(v))
    if (json_number(v, 0) < layers) json_add_copy(a, NULL, v);
}

hf_status synth_override_config(const json *config, const char *where, int layers, int experts, fmt format, json **out) {
  static const char *const expert_keys[] = {"n_routed_experts", "num_experts", "num_local_experts", NULL};
  /* what describes the original's stored form, and ids of its vocabulary: the synthetic one has begin and end last */
  static const char *const drop[] = {"quantization_config", "torch_dtype",  "dtype",        "num_nextn_predict_layers",
                                     "bos_token_id",        "eos_token_id", "pad_token_id", NULL};
  if (json_type(config) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: no JSON object", where);
  json *o = json_new_object();
  for (const json *e = json_first(config); e; e = json_next(e)) {
    const char *key = json_key(e);
    if (layers && !strcmp(key, "num_hidden_layers")) json_add_int(o, key, layers);
    else if (experts && one_of(key, expert_keys)) json_add_int(o, key, experts);
    else if (layers && !strcmp(key, "layer_types")) continue; /* the family's pattern applies */
    else if (layers && !strcmp(key, "mlp_only_layers")) keep_layers(o, key, e, layers);
    else if (!one_of(key, drop)) json_add_copy(o, key, e);
  }
  double vocab = json_number(json_get(config, "vocab_size"), 0);
  if (vocab >= 2) {
    json_add_num(o, "bos_token_id", vocab - 2);
    json_add_num(o, "eos_token_id", vocab - 1);
  }
  const char *dtype = format == FMT_F32 ? "float32" : format == FMT_F16 ? "float16" : "bfloat16";
  if (!json_add_str(o, "torch_dtype", dtype)) {
    json_free(o);
    return hf_fail(HF_MACHINE, "out of memory for a config");
  }
  *out = o;
  return HF_OK;
}
