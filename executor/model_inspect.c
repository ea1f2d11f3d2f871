/* model_inspect.c: hf-run model inspect: what is in a model, what a token reads of it, and what this build does with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "db/catalog.h"
#include "executor/model_cmd.h"
#include "model/chat.h"
#include "model/tokenizer.h"

/* Where weights live and how often they are read. */
typedef enum { AREA_EMBED, AREA_ATTN, AREA_NORMS, AREA_ROUTER, AREA_DENSE, AREA_SHARED, AREA_EXPERTS, AREA_HEAD, AREA_N } area;
static const char *const area_names[AREA_N] = {"embedding", "attention", "norms", "router", "dense", "shared", "experts", "head"};

/* All tensors of one kind, shape and format. */
typedef struct {
  area where;
  model_tensor_id id;
  fmt format;
  int64_t rows, cols, count; /* count: matrices; each expert's is one */
  int64_t bytes;
} line;

enum { MAX_LINES = 256 };

typedef struct {
  const model *m;
  const model_config *c;
  line v[MAX_LINES];
  int n;
  int64_t bytes[AREA_N], expert_bytes_read, params, total, token_bytes, kv_bytes_f16;
  bool refused[FMT_N], used[FMT_N];
  char verdict[512];
  bool runs;
  bool has_tokenizer, has_template, knows_chat;
  int vocab;
  char no_tokenizer[512];
} inspection;

static area area_of(model_tensor_id id) {
  switch (id) {
    case MT_EMBED: return AREA_EMBED;
    case MT_OUT_NORM:
    case MT_OUTPUT: return AREA_HEAD;
    case MT_ATTN_NORM:
    case MT_FFN_NORM:
    case MT_Q_NORM:
    case MT_K_NORM:
    case MT_Q_A_NORM:
    case MT_KV_A_NORM: return AREA_NORMS;
    case MT_ROUTER:
    case MT_ROUTER_BIAS:
    case MT_ROUTER_LIN_BIAS: return AREA_ROUTER;
    case MT_GATE:
    case MT_UP:
    case MT_DOWN: return AREA_DENSE;
    case MT_SH_GATE:
    case MT_SH_UP:
    case MT_SH_DOWN:
    case MT_SH_GATE_INP: return AREA_SHARED;
    default: return model_tensor_is_expert(id) ? AREA_EXPERTS : AREA_ATTN;
  }
}

/* Format and size of one tensor: the file's, or the recipe's when there are no weights. */
static hf_status describe(const inspection *x, const model_recipe *r, model_tensor_id id, int layer, line *out) {
  model_tensor_info info;
  if (!recipe_tensor_shape(x->c, id, layer, &out->rows, &out->cols)) return HF_NOT_FOUND;
  if (model_has_weights(x->m)) {
    if (!model_has_tensor(x->m, id, layer)) return HF_NOT_FOUND;
    HF_TRY(model_tensor(x->m, id, layer, model_tensor_is_expert(id) ? 0 : -1, &info));
    out->format = info.format;
    out->bytes = (int64_t)info.bytes;
    /* as it lies in the file, not as it is read (model.h) */
    if (id == MT_K_B && x->c->default_format == FMT_FP8_E4M3 && info.derived) out->format = FMT_FP8_E4M3;
    if (out->format == FMT_FP8_E4M3) out->bytes = out->rows * (int64_t)fmt_row_bytes(out->format, out->cols);
  } else {
    out->format = recipe_tensor_format(r, id, layer, out->cols);
    out->bytes = out->rows * (int64_t)fmt_row_bytes(out->format, out->cols);
  }
  if (out->format == FMT_FP8_E4M3) out->bytes += (out->rows + 127) / 128 * ((out->cols + 127) / 128) * 4; /* scales */
  return HF_OK;
}

static hf_status add(inspection *x, const model_recipe *r, model_tensor_id id, int layer) {
  line one = {.where = area_of(id), .id = id};
  hf_status st = describe(x, r, id, layer, &one);
  if (st == HF_NOT_FOUND) {
    hf_clear_error();
    return HF_OK;
  }
  if (st != HF_OK) return st;
  bool expert = model_tensor_is_expert(id), tied = id == MT_OUTPUT && x->c->tied_embeddings;
  int64_t each = one.bytes;
  one.count = expert ? x->c->n_experts : 1;
  one.bytes = tied ? 0 : each * one.count;
  x->used[one.format] = true;
  x->bytes[one.where] += one.bytes;
  if (expert) x->expert_bytes_read += each * x->c->top_k;
  else x->token_bytes += id == MT_EMBED ? each / one.rows : each;
  for (int i = 0; i < x->n; i++) {
    line *l = &x->v[i];
    if (l->id != id || l->format != one.format || l->rows != one.rows || l->cols != one.cols) continue;
    l->count += one.count;
    l->bytes += one.bytes;
    return HF_OK;
  }
  if (x->n == MAX_LINES) return hf_fail(HF_UNSUPPORTED, "%s: more than %d kinds of tensors", model_path(x->m), MAX_LINES);
  x->v[x->n++] = one;
  return HF_OK;
}

/* What a run would say. */
static void judge(inspection *x) {
  size_t n = 0;
  int refused = 0;
  for (int f = 0; f < FMT_N; f++) {
    kern_format k;
    x->refused[f] = x->used[f] && !kern_format_parse(fmt_get((fmt)f)->name, &k);
    refused += x->refused[f];
  }
  if (engine_can_run(x->c) != HF_OK) {
    snprintf(x->verdict, sizeof x->verdict, "not executed: %s", hf_error_line());
    hf_clear_error();
  } else if (refused) {
    n = (size_t)snprintf(x->verdict, sizeof x->verdict, "not executed as it is: no kernel takes");
    for (int f = 0; f < FMT_N; f++)
      if (x->refused[f] && n < sizeof x->verdict)
        n += (size_t)snprintf(x->verdict + n, sizeof x->verdict - n, " %s", fmt_get((fmt)f)->name);
    if (n < sizeof x->verdict)
      snprintf(x->verdict + n, sizeof x->verdict - n, "; take the model in a format that README.md names");
  } else {
    x->runs = true;
    snprintf(x->verdict, sizeof x->verdict, "%s",
             model_has_weights(x->m) ? "executed as it is" : "executed, once the weights are here");
  }
}

static void look_for_tokenizer(inspection *x, const char *name) {
  tokenizer *t = NULL;
  hf_status st = HF_NOT_FOUND;
  if (!strncmp(name, "synth:", 6)) st = hf_fail(HF_NOT_FOUND, "synthetic: prompts are ids");
  else if (access(name, F_OK) != 0) st = hf_fail(HF_NOT_FOUND, "an entry of the catalog");
  else st = tokenizer_open(name, &t);
  if (st != HF_OK) {
    snprintf(x->no_tokenizer, sizeof x->no_tokenizer, "%s", hf_error_line());
    hf_clear_error();
    return;
  }
  x->has_tokenizer = true;
  x->vocab = tokenizer_vocab_size(t);
  x->has_template = tokenizer_chat_template(t) != NULL;
  tokenizer_close(t);
  hf_buf b;
  hf_buf_init(&b, 1 << 16);
  chat_style style = {x->c->family, "", "", "", "2000-01-01"};
  chat_message hello = {CHAT_USER, "x"};
  x->knows_chat = chat_write(&style, &hello, 1, &b) == HF_OK;
  hf_clear_error();
  hf_buf_free(&b);
}

static hf_status inspect(const model *m, const char *name, inspection *x) {
  *x = (inspection){.m = m, .c = model_get_config(m)};
  model_recipe r;
  if (model_get_recipe(m)) r = *model_get_recipe(m);
  else recipe_of(x->c->default_format, x->c, &r);
  for (int layer = -1; layer < x->c->n_layers; layer++)
    for (int id = 0; id < MT_N; id++) HF_TRY(add(x, &r, (model_tensor_id)id, layer));
  for (int a = 0; a < AREA_N; a++) x->total += x->bytes[a];
  x->token_bytes += x->expert_bytes_read;
  x->params = model_total_params(x->c);
  for (int l = 0; l < x->c->n_layers; l++) x->kv_bytes_f16 += model_kv_bytes_per_token(x->c, l, FMT_F16);
  judge(x);
  look_for_tokenizer(x, name);
  return HF_OK;
}

/* ---- for people ---- */

static void print_family(const inspection *x) {
  const model_config *c = x->c;
  char total[32], name[sizeof c->name];
  snprintf(name, sizeof name, "%s", c->name);
  hf_printable(name);
  printf("%s: %s, %.2f billion weights, %s%s\n", name, model_family_name(c->family), (double)x->params * 1e-9,
         model_bytes_text(x->total, total), model_has_weights(x->m) ? "" : " (by its recipe: no weights here)");
  printf("  layers       %d (%d dense first), width %d, vocabulary %d, context up to %d\n", c->n_layers, c->n_dense_layers,
         c->d_model, c->vocab_size, c->max_context);
  if (c->attn == ATTN_MLA)
    printf("  attention    MLA: %d heads, latent %d + %d rotary\n", c->n_heads, c->kv_lora_rank, c->rope_dim);
  else
    printf("  attention    %d heads of %d, %d for keys and values%s\n", c->n_heads, c->head_dim, c->n_kv_heads,
           c->sliding_window ? ", sliding window" : "");
  if (c->n_experts)
    printf("  experts      %d a layer, %d used, width %d%s\n", c->n_experts, c->top_k, c->d_ff_expert,
           c->d_ff_shared ? ", and shared ones" : "");
}

static void print_people(const inspection *x) {
  char a[32], b[32], e[32];
  print_family(x);
  printf("\n  %-10s %-18s %-8s %18s %8s %12s\n", "part", "tensor", "type", "shape", "count", "size");
  for (int w = 0; w < AREA_N; w++)
    for (int i = 0; i < x->n; i++) {
      const line *l = &x->v[i];
      char shape[48];
      if (l->where != (area)w) continue;
      snprintf(shape, sizeof shape, "%lld x %lld", (long long)l->rows, (long long)l->cols);
      printf("  %-10s %-18s %-8s %18s %8lld %12s\n", area_names[w], model_tensor_name(l->id), fmt_get(l->format)->name, shape,
             (long long)l->count, l->bytes ? model_bytes_text(l->bytes, a) : "tied");
    }
  printf("\n  a token reads %s of weights at decode (%s of routed experts) and %s of KV cache for each token before it (f16)\n",
         model_bytes_text(x->token_bytes, a), model_bytes_text(x->expert_bytes_read, b), model_bytes_text(x->kv_bytes_f16, e));
  if (model_file_count(x->m))
    printf("  files        %d, %lld tensors\n", model_file_count(x->m), (long long)model_stored_count(x->m));
  if (model_missing(x->m)) printf("  weights      none: %s\n", model_missing(x->m));
  if (x->has_tokenizer)
    printf("  tokenizer    %d tokens, chat template %s, --chat %s\n", x->vocab, x->has_template ? "there" : "absent",
           x->knows_chat ? "has this family's form" : "knows no form of this family");
  else printf("  tokenizer    none: %s\n", x->no_tokenizer);
  printf("  hf-run       %s\n", x->verdict);
}

static void print_tensors(const model *m) {
  printf("\n");
  for (int64_t i = 0; i < model_stored_count(m); i++) {
    model_stored_tensor t = model_stored(m, i);
    char shape[128] = "", size[32];
    size_t n = 0;
    for (int k = 0; k < t.n_dims && n < sizeof shape; k++)
      n += (size_t)snprintf(shape + n, sizeof shape - n, "%s%lld", k ? " x " : "", (long long)t.dims[k]);
    const char *file = strrchr(t.file, '/');
    char name[512];
    snprintf(name, sizeof name, "%s", t.name);
    hf_printable(name);
    printf("  %-60s %-8s %24s %12s  %s\n", name, t.dtype, shape, model_bytes_text((int64_t)t.bytes, size),
           file ? file + 1 : t.file);
  }
}

/* ---- for scripts ---- */

static void add_json_tensors(json *o, const model *m) {
  json *list = json_add_array(o, "tensors");
  for (int64_t i = 0; i < model_stored_count(m); i++) {
    model_stored_tensor t = model_stored(m, i);
    json *p = json_add_object(list, NULL);
    json_add_str(p, "name", t.name);
    json_add_str(p, "type", t.dtype);
    json *dims = json_add_array(p, "shape");
    for (int k = 0; k < t.n_dims; k++) json_add_int(dims, NULL, t.dims[k]);
    json_add_int(p, "bytes", (int64_t)t.bytes);
    json_add_int(p, "offset", (int64_t)t.offset);
    json_add_str(p, "file", t.file);
  }
}

static void add_json_head(json *o, const inspection *x) {
  const model_config *c = x->c;
  json_add_str(o, "model", c->name);
  json_add_str(o, "family", model_family_name(c->family));
  json_add_bool(o, "weights", model_has_weights(x->m));
  json_add_int(o, "layers", c->n_layers);
  json_add_int(o, "dense_layers", c->n_dense_layers);
  json_add_int(o, "d_model", c->d_model);
  json_add_int(o, "vocab_size", c->vocab_size);
  json_add_int(o, "max_context", c->max_context);
  json_add_int(o, "experts", c->n_experts);
  json_add_int(o, "experts_per_token", c->top_k);
  json_add_int(o, "params", x->params);
  json_add_int(o, "bytes", x->total);
  json_add_int(o, "decode_bytes_per_token", x->token_bytes);
  json_add_int(o, "decode_expert_bytes_per_token", x->expert_bytes_read);
  json_add_int(o, "kv_bytes_per_token_f16", x->kv_bytes_f16);
}

static hf_status print_json(const inspection *x, bool tensors) {
  json *o = json_new_object();
  add_json_head(o, x);
  json *files = json_add_array(o, "files");
  for (int i = 0; i < model_file_count(x->m); i++) json_add_str(files, NULL, model_file_path(x->m, i));
  json *parts = json_add_array(o, "parts");
  for (int i = 0; i < x->n; i++) {
    const line *l = &x->v[i];
    json *p = json_add_object(parts, NULL);
    json_add_str(p, "part", area_names[l->where]);
    json_add_str(p, "tensor", model_tensor_name(l->id));
    json_add_str(p, "type", fmt_get(l->format)->name);
    json_add_int(p, "rows", l->rows);
    json_add_int(p, "cols", l->cols);
    json_add_int(p, "count", l->count);
    json_add_int(p, "bytes", l->bytes);
  }
  json *t = json_add_object(o, "tokenizer");
  json_add_bool(t, "present", x->has_tokenizer);
  json_add_int(t, "tokens", x->vocab);
  json_add_bool(t, "chat_template", x->has_template);
  json_add_bool(t, "chat", x->knows_chat);
  json_add_bool(o, "executable", x->runs);
  json_add_str(o, "verdict", x->verdict);
  json *refused = json_add_array(o, "refused_types");
  for (int f = 0; f < FMT_N; f++)
    if (x->refused[f]) json_add_str(refused, NULL, fmt_get((fmt)f)->name);
  if (tensors) add_json_tensors(o, x->m);
  return json_show(o);
}

hf_status cmd_model_inspect(int argc, char **argv) {
  cli_common common = {0};
  bool tensors = false;
  const cli_option table[] = {{"tensors", 0, CLI_FLAG, &tensors, NULL, "List each tensor of the files.", 0, 0}, {0}};
  const cli_spec spec = {.program = "hf-run",
                         .verb = "model inspect",
                         .synopsis = "MODEL [--tensors] [--json]",
                         .description =
                             "Says what is in a model: family, parts with their weight formats, shapes and bytes, what a token "
                             "reads of it at decode, bytes of "
                             "KV cache per token, tokenizer and chat template, and what this build executes of it; a format "
                             "without kernels is named.\n\n"
                             "MODEL is a Hugging Face folder, a GGUF file (single, or the first of a split), a config.json, "
                             "synth:CONFIG,... or a model of the catalog. "
                             "Weights need not be there: sizes then follow from the config and the format it is published in.",
                         .examples = "  hf-run model inspect examples/tiny-moe\n      A small DeepSeek-V3 in BF16.\n"
                                     "  hf-run model inspect deepseek-r1\n      From the catalog, before any download.\n",
                         .options = table};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(model_operands("inspect", n, rest, 1, "MODEL"));
  model *m = NULL;
  inspection *x = NULL;
  HF_TRY(model_open(rest[0], &m));
  hf_status st = hf_alloc(&x, 1, sizeof *x, "inspection");
  if (st == HF_OK) st = inspect(m, rest[0], x);
  if (st == HF_OK && common.json) st = print_json(x, tensors);
  else if (st == HF_OK) {
    print_people(x);
    if (tensors) print_tensors(m);
  }
  free(x);
  model_close(m);
  return st;
}
