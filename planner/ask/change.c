#include "planner/ask/change.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cli.h"
#include "base/text.h"
#include "planner/ilp/ilp.h"
#include "sched/sched.h"

typedef enum { WORD, COUNT, TOKENS, BYTES, RATE } form;

static const struct {
  const char *name, *other; /* other: a second name people use */
  form form;
  double lo, hi;
} keys[ASK_N_KEYS] = {
    [ASK_MACHINE] = {"machine", NULL, WORD, 0, 0},
    [ASK_CPU] = {"cpu", NULL, WORD, 0, 0},
    [ASK_SOCKETS] = {"sockets", NULL, COUNT, 1, 2},
    [ASK_DIMM] = {"dimm", "memory", WORD, 0, 0},
    [ASK_DIMM_SIZE] = {"dimm-size", "dimm_size", BYTES, 1 << 30, 4398046511104.0},
    [ASK_DIMMS_PER_CHANNEL] = {"dimms-per-channel", "dimms_per_channel", COUNT, 1, 4},
    [ASK_GPU] = {"gpu", "gpus", WORD, 0, 0},
    [ASK_PCIE] = {"pcie", "link", COUNT, 3, 6},
    [ASK_PRIOR] = {"prior", "engine", WORD, 0, 0},
    [ASK_DRAM] = {"dram", "bandwidth", RATE, 1e9, 1e14},
    [ASK_LOST] = {"lost", NULL, WORD, 0, 0},
    [ASK_MODEL] = {"model", NULL, WORD, 0, 0},
    [ASK_FORMAT] = {"format", NULL, WORD, 0, 0},
    [ASK_USERS] = {"users", NULL, COUNT, 1, SCHED_MAX_SEQS},
    [ASK_CONTEXT] = {"context", NULL, TOKENS, 2, 16777216},
    [ASK_PROMPT] = {"prompt", "prompt-tokens", TOKENS, 1, 16777216},
    [ASK_OUTPUT] = {"output", "output-tokens", TOKENS, 1, 16777216},
    [ASK_DEPTH] = {"depth", NULL, COUNT, 1, ILP_MAX_DEPTH},
    [ASK_THREADS] = {"threads", NULL, COUNT, 1, 4096},
    [ASK_SKEW] = {"skew", NULL, WORD, 0, 0},
    [ASK_KV] = {"kv", NULL, WORD, 0, 0},
};

const char *ask_key_name(ask_key k) {
  return k >= 0 && k < ASK_N_KEYS ? keys[k].name : "";
}

void ask_key_list(char *out, size_t n) {
  size_t used = 0;
  for (int k = 0; k < ASK_N_KEYS && used < n; k++)
    used += (size_t)snprintf(out + used, n - used, "%s%s", k > 0 ? ", " : "", keys[k].name);
}

/* Words for memory that are no keys; the nearest spelling would be the bandwidth. */
static bool means_memory(const char *text, size_t n) {
  static const char *const words[] = {"ram", "mem", "memory-size", "memory_size", "ram-size", "mem-size", "dimms"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (strlen(words[i]) == n && strncasecmp(text, words[i], n) == 0) return true;
  return false;
}

static hf_status find_key(const char *option, const char *text, size_t n, ask_key *out) {
  char list[300];
  int best = HF_EDIT_FAR, nearest = 0;
  for (int k = 0; k < ASK_N_KEYS; k++) {
    const char *names[2] = {keys[k].name, keys[k].other};
    for (int i = 0; i < 2 && names[i] != NULL; i++) {
      int d = hf_edit_distance(text, n, names[i]);
      if (d == 0) {
        *out = (ask_key)k;
        return HF_OK;
      }
      if (d < best) {
        best = d;
        nearest = k;
      }
    }
  }
  if (means_memory(text, n))
    return hf_fail(HF_INPUT,
                   "option %s: '%.*s' is no key; is dimm meant? (dimm: kind of module, dimm-size: bytes of one, "
                   "dimms-per-channel: how many)",
                   option, (int)n, text);
  if (best <= 2) return hf_fail(HF_INPUT, "option %s: '%.*s' is no key; is %s meant?", option, (int)n, text, keys[nearest].name);
  ask_key_list(list, sizeof list);
  return hf_fail(HF_INPUT, "option %s: '%.*s' is no key (keys are %s)", option, n > 60 ? 60 : (int)n, text, list);
}

/* "8192", "8K": whole; false otherwise. Multiples are binary for tokens and bytes. */
static bool whole(const char *text, bool suffix, double *out) {
  char *end;
  double v = strtod(text, &end), scale = 1;
  if (end == text || strspn(text, "0123456789.") == 0 || strpbrk(text, "xXpPeE") != NULL || !isfinite(v)) return false;
  if (suffix && *end != '\0') {
    const char *unit = strchr("KMGT", *end >= 'a' ? *end - 'a' + 'A' : *end);
    if (unit == NULL) return false;
    for (const char *u = "KMGT"; *u != '\0'; u++) {
      scale *= 1024;
      if (*u == *unit) break;
    }
    end++;
    if (strcasecmp(end, "iB") == 0 || strcasecmp(end, "B") == 0) end = strchr(end, '\0');
  }
  *out = v * scale;
  return *end == '\0' && *out == floor(*out);
}

/* "614e9", "614GB/s" (decimal: rates are; GiB/s is not), or "x1.5"; a factor is stored as negative. Without "/s" a letter makes a size. */
static bool rate(const char *text, double *out) {
  static const struct {
    const char *name;
    double scale;
  } units[] = {{"", 1},        {"B/s", 1},        {"MB/s", 1e6},     {"GB/s", 1e9},
               {"TB/s", 1e12}, {"MiB/s", 0x1p20}, {"GiB/s", 0x1p30}, {"TiB/s", 0x1p40}};
  char *end;
  bool factor = text[0] == 'x' || text[0] == 'X';
  double v = strtod(text + factor, &end);
  if (end == text + factor || strspn(text + factor, "0123456789.") == 0 || !isfinite(v) || v <= 0) return false;
  for (size_t i = 0; i < (factor ? 1 : sizeof units / sizeof *units); i++) {
    if (strcasecmp(end, units[i].name) != 0) continue;
    *out = factor ? -v : v * units[i].scale;
    return true;
  }
  return false;
}

/* "64G", "64GiB": what a size looks like, and no name of a part. */
static bool is_size(const char *text) {
  double bytes;
  return strpbrk(text, "KMGTkmgt") != NULL && whole(text, true, &bytes);
}

static hf_status refuse_rate(const char *option, const char *value, const char *name) {
  if (is_size(value))
    return hf_fail(HF_INPUT, "option %s: %s is a size, not a bandwidth: %s=%.*sGB/s, or dimm-size=%s for the size of a module",
                   option, value, name, (int)strspn(value, "0123456789."), value, value);
  return hf_fail(HF_INPUT,
                 "option %s: '%s' is no bandwidth for %s: give bytes per second such as 614GB/s, or a factor such as x1.5",
                 option, value, name);
}

hf_status ask_parse_value(const char *option, ask_key key, const char *value, size_t n, ask_change *out) {
  const char *name = keys[key].name;
  double lo = keys[key].lo, hi = keys[key].hi;
  *out = (ask_change){.key = key};
  if (n == 0) return hf_fail(HF_INPUT, "option %s: %s needs a value", option, name);
  if (n >= sizeof out->value)
    return hf_fail(HF_INPUT, "option %s: the value of %s is longer than %d bytes", option, name, ASK_VALUE - 1);
  memcpy(out->value, value, n);
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)value[i] <= ' ' || (unsigned char)value[i] == 0x7f)
      return hf_fail(HF_INPUT, "option %s: the value of %s has a blank or control character", option, name);
  switch (keys[key].form) {
    case WORD:
      if (key != ASK_DIMM || !is_size(out->value)) return HF_OK;
      return hf_fail(HF_INPUT,
                     "option %s: %s is a size: dimm is a kind of module such as ddr5-6400, dimm-size=%s the bytes of one", option,
                     out->value, out->value);
    case RATE:
      if (rate(out->value, &out->number) &&
          (out->number < 0 ? -out->number <= 100 && -out->number >= 0.01 : out->number >= lo && out->number <= hi))
        return HF_OK;
      return refuse_rate(option, out->value, name);
    default: break;
  }
  if (whole(out->value, keys[key].form != COUNT, &out->number) && out->number >= lo && out->number <= hi) return HF_OK;
  return hf_fail(HF_INPUT, "option %s: '%s' is no whole number between %.15g and %.15g for %s", option, out->value, lo, hi, name);
}

static hf_status add_change(const char *option, const char *at, size_t n, ask_changes *out) {
  const char *equals = memchr(at, '=', n);
  ask_key key;
  if (equals == NULL || equals == at)
    return hf_fail(HF_INPUT, "option %s: '%.*s' is not KEY=VALUE, for example gpu=rtx5090", option, n > 60 ? 60 : (int)n, at);
  HF_TRY(find_key(option, at, (size_t)(equals - at), &key));
  if (ask_find_change(out, key) != NULL) return hf_fail(HF_INPUT, "option %s: %s is given twice", option, keys[key].name);
  if (out->n == ASK_MAX_CHANGES) return hf_fail(HF_INPUT, "option %s: more than %d changes", option, ASK_MAX_CHANGES);
  HF_TRY(ask_parse_value(option, key, equals + 1, n - (size_t)(equals + 1 - at), &out->c[out->n]));
  out->n++;
  return HF_OK;
}

hf_status ask_parse_changes(const char *option, const char *text, bool named, ask_changes *out) {
  *out = (ask_changes){0};
  const char *at = text;
  if (named) {
    const char *colon = strchr(text, ':');
    size_t n = colon != NULL ? (size_t)(colon - text) : 0;
    if (n == 0 || n >= sizeof out->name || memchr(text, '=', n) != NULL)
      return hf_fail(HF_INPUT, "option %s: '%.60s' does not start with a name of 1 to %d bytes and a colon: NAME:KEY=VALUE",
                     option, text, ASK_VALUE - 1);
    memcpy(out->name, text, n);
    hf_printable(out->name);
    at = colon + 1;
  }
  for (;; at++) {
    size_t n = strcspn(at, ",");
    HF_TRY(add_change(option, at, n, out));
    at += n;
    if (*at == '\0') break;
  }
  if (!named) snprintf(out->name, sizeof out->name, "%.79s", text);
  return HF_OK;
}

/* ---- axes ---- */

static hf_status add_point(const char *option, const char *at, size_t n, ask_axis *out) {
  if (out->n == ASK_MAX_POINTS) return hf_fail(HF_INPUT, "option %s: more than %d values", option, ASK_MAX_POINTS);
  ask_change *p = &out->point[out->n];
  HF_TRY(ask_parse_value(option, out->key, at, n, p));
  for (int i = 0; i < out->n; i++)
    if (strcasecmp(out->point[i].value, p->value) == 0 || (keys[out->key].form != WORD && out->point[i].number == p->number))
      return hf_fail(HF_INPUT, "option %s: '%s' is given twice", option, p->value);
  out->n++;
  return HF_OK;
}

/* "1:64:x2", "1:16:+3"; without the third part the step is +1. */
static hf_status add_range(const char *option, const char *text, ask_axis *out) {
  const char *c1 = strchr(text, ':'), *c2 = strchr(c1 + 1, ':');
  ask_change first, last;
  HF_TRY(ask_parse_value(option, out->key, text, (size_t)(c1 - text), &first));
  HF_TRY(ask_parse_value(option, out->key, c1 + 1, c2 != NULL ? (size_t)(c2 - c1 - 1) : strlen(c1 + 1), &last));
  const char *how = c2 != NULL ? c2 + 1 : "+1";
  bool times = how[0] == 'x' || how[0] == 'X';
  double step = 0;
  if (!(times || how[0] == '+' || (how[0] >= '0' && how[0] <= '9')) || !whole(how + (times || how[0] == '+'), !times, &step) ||
      step < (times ? 2 : 1))
    return hf_fail(HF_INPUT, "option %s: '%.40s' is no step: FIRST:LAST:xFACTOR with a factor of 2 or more, or FIRST:LAST:+STEP",
                   option, how);
  if (last.number < first.number)
    return hf_fail(HF_INPUT, "option %s: %s to %s goes down; give the smaller number first", option, first.value, last.value);
  for (double v = first.number; v <= last.number; v = times ? v * step : v + step) {
    char value[32];
    int n = snprintf(value, sizeof value, "%.0f", v);
    HF_TRY(add_point(option, value, (size_t)n, out));
  }
  return HF_OK;
}

hf_status ask_parse_axis(const char *option, const char *text, ask_axis *out) {
  *out = (ask_axis){0};
  const char *equals = strchr(text, '=');
  if (equals == NULL || equals == text)
    return hf_fail(HF_INPUT, "option %s: '%.60s' is not KEY=VALUE,VALUE,... such as users=1,2,4,8", option, text);
  HF_TRY(find_key(option, text, (size_t)(equals - text), &out->key));
  bool numbers = keys[out->key].form != WORD && keys[out->key].form != RATE;
  if (numbers && strchr(equals, ':') != NULL) return add_range(option, equals + 1, out);
  for (const char *at = equals + 1;; at++) {
    size_t n = strcspn(at, ",");
    HF_TRY(add_point(option, at, n, out));
    at += n;
    if (*at == '\0') break;
  }
  return HF_OK;
}

/* ---- application to the load ---- */

const ask_change *ask_find_change(const ask_changes *c, ask_key k) {
  for (int i = 0; i < c->n; i++)
    if (c->c[i].key == k) return &c->c[i];
  return NULL;
}

bool ask_changes_machine(const ask_changes *c) {
  for (int i = 0; i < c->n; i++)
    if (c->c[i].key < ASK_N_MACHINE_KEYS) return true;
  return false;
}

void ask_apply_load(const ask_changes *c, plan_request *r) {
  bool context = ask_find_change(c, ASK_CONTEXT) != NULL;
  bool lengths = ask_find_change(c, ASK_PROMPT) != NULL || ask_find_change(c, ASK_OUTPUT) != NULL;
  if (context && !lengths) { /* the prompt fills what the answer leaves */
    r->prompt_tokens = 0;
    if ((double)r->output_tokens >= ask_find_change(c, ASK_CONTEXT)->number) r->output_tokens = 0;
  }
  for (int i = 0; i < c->n; i++) {
    const ask_change *x = &c->c[i];
    int64_t v = (int64_t)x->number;
    switch (x->key) {
      case ASK_MODEL: r->model = x->value; break;
      case ASK_FORMAT: r->format = x->value; break;
      case ASK_USERS: r->users = v; break;
      case ASK_CONTEXT: r->context = v; break;
      case ASK_PROMPT: r->prompt_tokens = v; break;
      case ASK_OUTPUT: r->output_tokens = v; break;
      case ASK_DEPTH: r->depth = v; break;
      case ASK_THREADS: r->threads = v; break;
      case ASK_SKEW: r->skew = x->value; break;
      case ASK_KV: r->kv_type = x->value; break;
      default: break;
    }
  }
}
