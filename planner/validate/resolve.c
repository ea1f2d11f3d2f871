#include "planner/validate/resolve.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_NAMES = 2048, DEFAULT_CONTEXT = 512, WORDS = 400 };
static const double MOST_NUMBER = 1e9; /* fits an int, twice */

/* ---- names in text ---- */

typedef struct {
  char key[96];   /* " words of the name " in lower case */
  char entry[64]; /* catalog name */
} name_key;
struct name_list {
  int n;
  name_key key[MAX_NAMES];
};

/* Lower case, letters apart from digits, everything but both and points inside numbers as one blank, a blank at both ends: "RTX4090D",
 * "rtx-4090d" and "RTX 4090D" are the same words. */
static void words(const char *text, char *out, size_t n) {
  size_t k = 0;
  out[k++] = ' ';
  for (; *text != '\0' && k + 3 < n; text++) {
    unsigned char ch = (unsigned char)*text, last = (unsigned char)out[k - 1];
    bool point = ch == '.' && isdigit((unsigned char)text[1]);
    if ((isdigit(ch) && isalpha(last)) || (isalpha(ch) && isdigit(last))) out[k++] = ' ';
    if (isalnum(ch) || point) out[k++] = (char)tolower(ch);
    else if (out[k - 1] != ' ') out[k++] = ' ';
  }
  if (out[k - 1] != ' ') out[k++] = ' ';
  out[k] = '\0';
}

static hf_status add_name(name_list *l, const char *name, const char *entry) {
  if (name == NULL || strlen(entry) >= sizeof l->key[0].entry) return HF_OK; /* entries of longer names no row can mean */
  if (l->n == MAX_NAMES) return hf_fail(HF_UNSUPPORTED, "the catalog has more than %d names of a kind", (int)MAX_NAMES);
  name_key *k = &l->key[l->n];
  words(name, k->key, sizeof k->key);
  snprintf(k->entry, sizeof k->entry, "%s", entry);
  if (strlen(k->key) > 4) l->n++; /* one or two characters name nothing */
  return HF_OK;
}

static hf_status names_of(const char *kind, name_list **out) {
  char **names = NULL;
  int n = 0;
  HF_TRY(catalog_names(kind, &names, &n));
  hf_status st = hf_alloc(out, 1, sizeof **out, "names of the catalog");
  for (int i = 0; st == HF_OK && i < n; i++) {
    json *doc = NULL;
    st = catalog_get(kind, names[i], &doc);
    if (st != HF_OK) break;
    st = add_name(*out, names[i], names[i]);
    if (st == HF_OK) st = add_name(*out, json_string(json_get(doc, "title")), names[i]);
    for (const json *a = json_first(json_get(doc, "aliases")); a != NULL && st == HF_OK; a = json_next(a))
      st = add_name(*out, json_string(a), names[i]);
    json_free(doc);
  }
  free(names);
  return st;
}

const char *resolve_name(const name_list *l, const char *text) {
  char w[WORDS];
  size_t best = 0;
  const char *found = NULL;
  words(text, w, sizeof w);
  for (int i = 0; i < l->n; i++)
    if (strlen(l->key[i].key) > best && strstr(w, l->key[i].key) != NULL) {
      best = strlen(l->key[i].key);
      found = l->key[i].entry;
    }
  return found;
}

hf_status resolver_new(resolver *r) {
  *r = (resolver){0};
  hf_status st = names_of("models", &r->models);
  if (st == HF_OK) st = names_of("cpus", &r->cpus);
  if (st == HF_OK) st = names_of("gpus", &r->gpus);
  if (st != HF_OK) resolver_free(r);
  return st;
}

void resolver_free(resolver *r) {
  free(r->models);
  free(r->cpus);
  free(r->gpus);
  *r = (resolver){0};
}

/* ---- numbers in text ---- */

/* Digits and one point at s, at most MOST_NUMBER: a row may say anything. */
static double number_at(const char *s) {
  double v = 0, unit = 1;
  for (; isdigit((unsigned char)*s); s++) v = fmin(10 * v + (*s - '0'), MOST_NUMBER);
  if (*s == '.')
    for (s++; isdigit((unsigned char)*s); s++) v += (unit /= 10) * (*s - '0');
  return fmin(v, MOST_NUMBER);
}

/* The number right behind (or before) a phrase, case ignored; -1 when there is none. */
static double number_after(const char *text, const char *phrase) {
  const char *p = strcasestr(text, phrase);
  if (p == NULL) return -1;
  p += strlen(phrase);
  while (*p == ' ' || *p == '-') p++;
  return isdigit((unsigned char)*p) ? number_at(p) : -1;
}

static double number_before(const char *text, const char *phrase) {
  const char *p = strcasestr(text, phrase);
  if (p == NULL) return -1;
  const char *e = p;
  while (e > text && e[-1] == ' ') e--;
  const char *s = e;
  while (s > text && (isdigit((unsigned char)s[-1]) || s[-1] == '.')) s--;
  return s < e && isdigit((unsigned char)*s) ? number_at(s) : -1;
}

/* "2x Xeon" and "dual Xeon" in front, "RTX 4090 24GB x2" behind a blank: how many; 1 when nothing says so. */
static int count_of(const char *text) {
  int n = (int)number_at(text);
  const char *p = text + strspn(text, "0123456789");
  while (*p == ' ') p++;
  if (n > 0 && p > text && (*p == 'x' || *p == 'X') && !isalnum((unsigned char)p[1])) return n;
  if (strncasecmp(text, "dual ", 5) == 0) return 2;
  for (p = strstr(text, " x"); p != NULL; p = strstr(p + 1, " x"))
    if (isdigit((unsigned char)p[2])) return (int)number_at(p + 2);
  return 1;
}

static bool has(const char *text, const char *phrase) {
  return strcasestr(text, phrase) != NULL;
}

static hf_status decline(resolved_case *r, const char *column, const char *text, const char *reason) {
  snprintf(r->why_not, sizeof r->why_not, "%s '%.70s': %.110s", column, text, reason);
  r->used = false;
  return HF_NO;
}

/* ---- columns ---- */

static bool row_interleaved(const published_case *c) {
  return (has(c->placement, "rtr") && !has(c->placement, "no rtr")) || has(c->weights_format, "_R4") ||
         has(c->weights_format, "_R8");
}

static hf_status resolve_engine(resolved_case *r) {
  static const struct {
    const char *begins, *prior;
  } known[] = {{"ktransformers", "ktransformers"},
               {"ik_llama.cpp", "ik-llama-cpp"},
               {"llama.cpp", "llama-cpp"},
               {"SGLang CPU", "sglang-cpu"}};
  const published_case *c = r->c;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strncasecmp(c->engine, known[i].begins, strlen(known[i].begins)) == 0)
      snprintf(r->engine, sizeof r->engine, "%s", known[i].prior);
  if (strcmp(r->engine, "ik-llama-cpp") == 0 && !row_interleaved(c)) snprintf(r->engine, sizeof r->engine, "ik-llama-cpp-no-rtr");
  if (strcmp(r->engine, "ktransformers") == 0 && has(c->placement, "no cuda graph"))
    snprintf(r->engine, sizeof r->engine, "ktransformers-no-graph");
  return r->engine[0] != '\0' ? HF_OK
                              : decline(r, "engine", c->engine, "there are no priors of this engine that other rows support");
}

/* "ddr5-4800", "mrdimm-8800"; false when no speed is named. */
static bool memory_kind(const char *text, char *out, size_t n) {
  static const char *const types[] = {"mrdimm", "ddr5", "ddr4"};
  for (size_t i = 0; i < 3; i++) {
    double speed = number_after(text, types[i]);
    if (speed >= 1600 && speed <= 20000) {
      snprintf(out, n, "%s-%.0f", types[i], speed);
      return true;
    }
  }
  return false;
}

static hf_status resolve_machine(const resolver *rs, resolved_case *r) {
  const published_case *c = r->c;
  const char *cpu = resolve_name(rs->cpus, c->cpu), *gpu = NULL;
  if (cpu == NULL) return decline(r, "cpu", c->cpu, "names no CPU of the catalog");
  r->gpu = !(strncasecmp(c->gpu, "none", 4) == 0);
  if (r->gpu) gpu = resolve_name(rs->gpus, c->gpu);
  if (r->gpu && gpu == NULL) return decline(r, "gpu", c->gpu, "names no GPU of the catalog");
  if (r->gpu && count_of(c->gpu) > 1) return decline(r, "gpu", c->gpu, "several GPUs: which layers are on which is not said");
  int sockets = has(c->placement, "per socket") ? 1 : count_of(c->cpu);
  bool two = sockets == 2;
  if (sockets > 2) return decline(r, "cpu", c->cpu, "more than two sockets");
  catalog_value cores, clock;
  HF_TRY(catalog_fact("cpus", cpu, "cores", &cores));
  HF_TRY(catalog_fact("cpus", cpu, "all_core_turbo_hz", &clock));
  engine_machine *em = &r->em;
  *em = (engine_machine){.sockets = two ? 2 : 1, .cores_per_socket = (int)cores.likely, .clock_hz = clock.likely};
  snprintf(em->cpu, sizeof em->cpu, "%s", cpu);
  snprintf(r->box, sizeof r->box, "%s", cpu);
  double threads = number_before(c->placement, "threads"), read = number_before(c->memory, "GB/s");
  if (threads >= 1 && threads <= em->sockets * cores.likely) em->threads = (int)threads;
  if (read >= 0 && !(read >= 1 && read <= 20000)) return decline(r, "memory", c->memory, "no machine reads that fast or slow");
  double ranks = number_after(c->placement, "TP");
  if (ranks > 1 && ranks <= em->sockets * cores.likely) em->ranks = (int)ranks;
  if (read > 0) em->read_bytes_per_s = read * 1e9;
  char kind[32] = "";
  bool named = !(read > 0) && memory_kind(c->memory, kind, sizeof kind);
  snprintf(r->machine, sizeof r->machine, "%s%s%s%s", two ? "2x " : "", cpu, named ? ", " : "", kind);
  snprintf(r->parts, sizeof r->parts, "cpu=%s,sockets=%d%s%s%s%s", cpu, em->sockets, named ? ",memory=" : "", kind,
           gpu != NULL ? ",gpu=" : "", gpu != NULL ? gpu : "");
  return HF_OK;
}

static hf_status find_simd(resolved_case *r) {
  json *doc = NULL;
  HF_TRY(catalog_get("cpus", r->em.cpu, &doc));
  for (const json *v = json_first(json_get(json_get(doc, "isa"), "value")); v != NULL; v = json_next(v)) {
    const char *s = json_string(v);
    if (s != NULL && (strcmp(s, "avx512_vnni") == 0 || strcmp(s, "amx_int8") == 0)) r->em.fast_simd = true;
  }
  json_free(doc);
  return HF_OK;
}

/* The first run of one to three words of the text that is a format; "GGUF Q8" is Q8_0. */
static hf_status resolve_format(resolved_case *r) {
  const char *t = r->c->weights_format;
  char piece[48];
  for (const char *s = t; *s != '\0';) {
    size_t n = strcspn(s, " (),;/");
    if (n > 0 && n < sizeof piece) {
      snprintf(piece, sizeof piece, "%.*s", (int)n, s);
      for (int attempt = 0; attempt < 4; attempt++) {
        static const char *const same[][2] = {{"Q8", "q8_0"}, {"w8a8", "int8"}};
        if (attempt == 1 && strncasecmp(piece, "UD-", 3) == 0) memmove(piece, piece + 3, strlen(piece + 3) + 1);
        for (size_t i = 0; attempt == 2 && i < 2; i++)
          if (strcasecmp(piece, same[i][0]) == 0) snprintf(piece, sizeof piece, "%s", same[i][1]);
        char *tail = attempt == 3 ? strcasestr(piece, "_R4") : NULL;
        if (tail != NULL) *tail = '\0';
        if (fmt_parse(piece, &r->format) == HF_OK) {
          snprintf(r->format_name, sizeof r->format_name, "%s", fmt_get(r->format)->name);
          r->em.fp8 = r->format == FMT_FP8_E4M3;
          return HF_OK;
        }
        hf_clear_error();
      }
    }
    s += n + (s[n] != '\0');
  }
  return decline(r, "weights_format", t, t[0] == '\0' ? "says nothing" : "names no format whose bits are known");
}

static hf_status resolve_placement(const model_config *m, resolved_case *r) {
  const char *p = r->c->placement;
  int dense = m->n_dense_layers, moe = 0;
  for (int l = 0; l < m->n_layers; l++) moe += m->layer_is_moe[l];
  double on_cpu = number_after(p, "n-cpu-moe"), whole = number_before(p, "expert layers");
  double a = number_after(p, "of layers"), single = number_after(p, "of layer ");
  r->gpu_first = dense;
  if (on_cpu >= 0) { /* llama.cpp counts all layers from the first on */
    r->gpu_first = (int)on_cpu;
    r->gpu_layers = m->n_layers - (int)on_cpu;
  } else if (whole >= 0) {
    r->gpu_layers = (int)whole;
  } else if (a >= 0) {
    double b = number_after(strcasestr(p, "of layers") + 9, "-");
    r->gpu_first = (int)a;
    r->gpu_layers = (int)(b >= a ? b - a + 1 : 1);
  } else if (single >= 0) {
    r->gpu_first = (int)single;
    r->gpu_layers = 1;
  }
  if (r->gpu_layers < 0 || r->gpu_first + r->gpu_layers > m->n_layers || (r->gpu_layers > 0 && !r->gpu))
    return decline(r, "placement", p, "names layers that the model does not have, or a GPU that the row does not");
  int gpu_moe = 0;
  for (int l = r->gpu_first; l < r->gpu_first + r->gpu_layers; l++) gpu_moe += m->layer_is_moe[l];
  r->experts_on_cpu = gpu_moe < moe;
  double buffer = number_after(r->c->weights_format, "CPU buffer");
  if (buffer > 0 && moe > gpu_moe) r->expert_bytes = buffer * 1048576 / (moe - gpu_moe) / m->n_experts;
  if (r->expert_bytes > 0 && !(r->expert_bytes >= 1e3 && r->expert_bytes <= 1e10))
    return decline(r, "weights_format", r->c->weights_format, "experts of such a size the model does not have");
  bool repacked = has(p, "rtr") && !has(p, "no rtr"), iq = strncmp(r->format_name, "iq", 2) == 0;
  double experts = number_before(r->c->notes, " experts");
  if (experts >= 1 && experts != m->top_k && r->c->notes == strpbrk(r->c->notes, "0123456789"))
    return decline(r, "notes", r->c->notes, "another number of experts per token than the model has");
  r->can_upload = r->gpu && !has(p, "op offload off") && !repacked && (iq || !row_interleaved(r->c));
  r->kv = has(p, "q8_0 KV") ? FMT_Q8_0 : FMT_F16;
  return HF_OK;
}

static void resolve_lengths(resolved_case *r) {
  const published_case *c = r->c;
  bool sweep = has(c->notes, "sweep-bench");
  double ub = number_after(c->placement, "ub ");
  r->users = c->concurrency > 0 ? c->concurrency : 1;
  r->prompt = c->prompt_tokens;
  r->context = c->has_context         ? 0.5 * (c->context_from + c->context_to)
               : c->prompt_tokens > 0 ? c->prompt_tokens
                                      : DEFAULT_CONTEXT;
  r->prefill_start = sweep ? r->context : 0;
  bool llama = strstr(r->engine, "llama") != NULL; /* both: 512 tokens a step unless told otherwise */
  r->chunk = sweep ? c->prompt_tokens : ub >= 1 ? ub : llama ? 512 : 8192;
  if (!(c->prefill_tok_s > 0)) snprintf(r->no_prefill, sizeof r->no_prefill, "not published");
  else if (!(c->prompt_tokens > 0)) snprintf(r->no_prefill, sizeof r->no_prefill, "prompt_tokens says nothing");
}

/* A size in the text ("235B", but not "A22B") is the model's. */
static hf_status check_size(resolved_case *r) {
  catalog_value total;
  hf_status st = catalog_fact("models", r->model, "params_total", &total);
  if (st == HF_NOT_FOUND) {
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  const char *text = r->c->model;
  for (const char *p = text; *p != '\0'; p++) {
    if (!isdigit((unsigned char)*p) || (p > text && (isalnum((unsigned char)p[-1]) || p[-1] == '.'))) continue;
    char *end = NULL;
    double size = strtod(p, &end);
    if ((*end == 'B' || *end == 'b') && !isalnum((unsigned char)end[1]) &&
        !(size * 1e9 > 0.85 * total.likely && size * 1e9 < 1.15 * total.likely))
      return decline(r, "model", text, "the catalog's model of that name has another size");
    p = end - 1;
  }
  return HF_OK;
}

hf_status resolve_case(const resolver *rs, const published_case *c, resolved_case *out) {
  json *config = NULL;
  model *m = NULL;
  *out = (resolved_case){.c = c, .used = true};
  hf_status st = HF_OK;
  const char *name = resolve_name(rs->models, c->model);
  if (name == NULL) st = decline(out, "model", c->model, "names no model of the catalog");
  HF_GO(done, st);
  snprintf(out->model, sizeof out->model, "%s", name);
  HF_GO(done, check_size(out));
  HF_GO(done, resolve_engine(out));
  HF_GO(done, resolve_machine(rs, out));
  HF_GO(done, resolve_format(out));
  HF_GO(done, find_simd(out));
  HF_GO(done, catalog_model_config(NULL, name, &config));
  HF_GO(done, model_from_config(config, name, &m));
  HF_GO(done, resolve_placement(model_get_config(m), out));
  resolve_lengths(out);
  if (!(c->decode_tok_s > 0) && out->no_prefill[0] != '\0') st = decline(out, "prefill", "", out->no_prefill);
done:
  model_close(m);
  json_free(config);
  return !out->used && st == HF_NO ? HF_OK : st;
}
