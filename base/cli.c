#include "base/cli.h"

#include "base/cli_help.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_LONG = 0x1000 }; /* getopt's value of option i is FIRST_LONG + i, apart from every letter */

static void command_name(const cli_spec *spec, char out[128]) {
  snprintf(out, 128, "%s%s%s", spec->program, spec->verb ? " " : "", spec->verb ? spec->verb : "");
}

/* "hf-plan plan" -> usage error that ends with where to read more. */
static hf_status usage(const cli_spec *spec, const char *fmt, ...) HF_PRINTF(2, 3);
static hf_status usage(const cli_spec *spec, const char *fmt, ...) {
  char message[512], command[128];
  va_list args;
  va_start(args, fmt);
  vsnprintf(message, sizeof message, fmt, args);
  va_end(args);
  command_name(spec, command);
  return hf_fail(HF_INPUT, "%s; see %s --help", message, command);
}

hf_status cli_parse_size(const char *text, const char *what, int64_t *out) {
  static const char units[] = "KMGT";
  char *end;
  double v = strtod(text, &end);
  bool number = end != text && isfinite(v) && v >= 0 && strchr("0123456789.", text[0]) && !strpbrk(text, "xXpP");
  double scale = 1;
  if (number && *end) {
    const char *unit = strchr(units, *end >= 'a' ? *end - 'a' + 'A' : *end);
    number = unit != NULL;
    for (const char *u = units; unit && u <= unit; u++) scale *= 1024;
    end++;
    if (number && end[0] == 'i' && end[1] == 'B') end += 2;
    else if (number && end[0] == 'B') end++;
  }
  double bytes = v * scale;
  if (!number || *end || bytes > 9.0e18) {
    return hf_fail(HF_INPUT, "%s: '%s' is no size such as 4096, 512M or 1.5G", what, text);
  }
  *out = (int64_t)bytes;
  return HF_OK;
}

hf_status cli_parse_seconds(const char *text, const char *what, double most_plain, double *out) {
  static const struct {
    const char *unit;
    double seconds;
  } units[] = {{"", 1}, {"s", 1}, {"sec", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"min", 60}, {"h", 3600}};
  char *end = NULL;
  double v = strtod(text, &end);
  bool number = end != text && isfinite(v) && v >= 0 && strchr("0123456789.", text[0]) && !strpbrk(text, "xXpP");
  size_t at = 0;
  while (number && *end == ' ') end++;
  while (number && at < sizeof units / sizeof *units && strcmp(end, units[at].unit) != 0) at++;
  if (!number || at == sizeof units / sizeof *units)
    return hf_fail(HF_INPUT, "%s: '%.40s' is no time such as 0.15, 150ms, 2s or 5min", what, text);
  if (*end == '\0' && most_plain > 0 && v > most_plain)
    return hf_fail(HF_INPUT, "%s: %.15g without a unit is seconds, which is hardly meant; say %.15gms or %.15gs", what, v, v, v);
  *out = v * units[at].seconds;
  return *out <= CLI_MOST_SECONDS ? HF_OK : hf_fail(HF_INPUT, "%s: '%.40s' is more than 30 years", what, text);
}

/* "40K" -> 40960. */
static bool parse_tokens(const char *text, double *out) {
  char *end = NULL;
  double v = strtod(text, &end);
  if (end == text || !isfinite(v) || !strchr("0123456789.", text[0]) || strpbrk(text, "xXpPeE")) return false;
  if (*end == 'k' || *end == 'K') v *= 1024, end++;
  else if (*end == 'm' || *end == 'M') v *= 1024 * 1024, end++;
  *out = v;
  return *end == '\0' && v == floor(v);
}

/* "between 1 and 4096", "of 0 or more" */
static void range_text(const cli_option *o, char out[96]) {
  if (o->lo == o->hi) snprintf(out, 96, "of 0 or more");
  else snprintf(out, 96, "between %.15g and %.15g", o->lo, o->hi);
}

static bool in_range(const cli_option *o, double v) {
  return o->lo == o->hi ? v >= 0 : v >= o->lo && v <= o->hi;
}

static bool parse_int(const cli_option *o, const char *text, size_t n, int64_t *out) {
  char copy[32];
  if (n == 0 || n >= sizeof copy) return false;
  memcpy(copy, text, n);
  copy[n] = '\0';
  if (!strchr("+-0123456789", copy[0])) return false;
  char *end;
  errno = 0;
  long long v = strtoll(copy, &end, 10);
  if (errno || end == copy || *end || !in_range(o, (double)v)) return false;
  *out = v;
  return true;
}

static hf_status set_list(const cli_spec *spec, const cli_option *o, const char *text) {
  cli_int_list list = {0};
  char range[96];
  range_text(o, range);
  for (const char *at = text;; at++) {
    size_t n = strcspn(at, ",");
    if (list.n == CLI_LIST_MAX) return usage(spec, "option --%s: more than %d numbers", o->name, CLI_LIST_MAX);
    if (!parse_int(o, at, n, &list.v[list.n])) {
      return usage(spec, "option --%s: '%.*s' in '%s' is no whole number %s (a list looks like 1,5,16)", o->name, (int)n, at,
                   text, range);
    }
    list.n++;
    at += n;
    if (!*at) break;
  }
  *(cli_int_list *)o->out = list;
  return HF_OK;
}

static hf_status set_value(const cli_spec *spec, const cli_option *o, const char *text) {
  char range[96], what[96];
  range_text(o, range);
  switch (o->kind) {
    case CLI_FLAG: *(bool *)o->out = true; return HF_OK;
    case CLI_STR: *(const char **)o->out = text; return HF_OK;
    case CLI_LIST: return set_list(spec, o, text);
    case CLI_MANY: {
      cli_texts *many = o->out;
      if (many->n == CLI_TEXTS_MAX) return usage(spec, "option --%s: given more than %d times", o->name, CLI_TEXTS_MAX);
      many->v[many->n++] = text;
      return HF_OK;
    }
    case CLI_INT:
      if (parse_int(o, text, strlen(text), o->out)) return HF_OK;
      return usage(spec, "option --%s: '%s' is no whole number %s", o->name, text, range);
    case CLI_NUM: {
      char *end;
      double v = strtod(text, &end);
      if (end != text && !*end && isfinite(v) && in_range(o, v)) {
        *(double *)o->out = v;
        return HF_OK;
      }
      return usage(spec, "option --%s: '%s' is no number %s", o->name, text, range);
    }
    case CLI_TOKENS: {
      double tokens = 0;
      if (!parse_tokens(text, &tokens) || !in_range(o, tokens))
        return usage(spec, "option --%s: '%s' is no number of tokens %s, such as 8192 or 8K (= 8192)", o->name, text, range);
      *(int64_t *)o->out = (int64_t)tokens;
      return HF_OK;
    }
    case CLI_SECONDS:
      snprintf(what, sizeof what, "option --%s", o->name);
      return cli_parse_seconds(text, what, o->hi, o->out) == HF_OK ? HF_OK : usage(spec, "%s", hf_error_line());
    case CLI_SIZE: {
      int64_t bytes;
      snprintf(what, sizeof what, "option --%s", o->name);
      if (cli_parse_size(text, what, &bytes) != HF_OK) return usage(spec, "%s", hf_error_line());
      if (o->lo != o->hi && !in_range(o, (double)bytes)) {
        return usage(spec, "option --%s: '%s' is no number of bytes %s", o->name, text, range);
      }
      *(int64_t *)o->out = bytes;
      return HF_OK;
    }
  }
  return hf_fail(HF_MACHINE, "option --%s has an unknown kind", o->name);
}

/* All options of a command: its own, then the common ones (letters that are taken are not given twice). */
typedef struct {
  cli_option *all;
  int n;
  struct option *longs;
  char *shorts;
} option_table;

static void free_table(option_table *t) {
  free(t->all);
  free(t->longs);
  free(t->shorts);
}

static hf_status build_table(const cli_spec *spec, const cli_option *common, int n_common, option_table *t) {
  int n_own = 0;
  while (spec->options && spec->options[n_own].name) n_own++;
  HF_TRY(hf_alloc(&t->all, (size_t)(n_own + n_common) + 1, sizeof *t->all, "the option table"));
  HF_TRY(hf_alloc(&t->longs, (size_t)(n_own + n_common) + 1, sizeof *t->longs, "the option table"));
  HF_TRY(hf_alloc(&t->shorts, 2 * (size_t)(n_own + n_common) + 2, 1, "the option table"));
  if (n_own) memcpy(t->all, spec->options, (size_t)n_own * sizeof *t->all);
  t->n = n_own;
  for (int i = 0; i < n_common; i++) {
    cli_option o = common[i];
    for (int j = 0; j < t->n; j++) {
      if (t->all[j].letter == o.letter) o.letter = 0;
    }
    t->all[t->n++] = o;
  }
  char *s = t->shorts;
  *s++ = ':'; /* a missing argument is reported as ':' and nothing is printed */
  for (int i = 0; i < t->n; i++) {
    const cli_option *o = &t->all[i];
    int has_arg = o->kind == CLI_FLAG ? no_argument : required_argument;
    t->longs[i] = (struct option){.name = o->name, .has_arg = has_arg, .val = FIRST_LONG + i};
    if (o->letter) *s++ = o->letter;
    if (o->letter && has_arg) *s++ = ':';
  }
  return HF_OK;
}

static const cli_option *find_option(const option_table *t, int value) {
  if (value >= FIRST_LONG && value < FIRST_LONG + t->n) return &t->all[value - FIRST_LONG];
  for (int i = 0; i < t->n; i++) {
    if (value && t->all[i].letter == value) return &t->all[i];
  }
  return NULL;
}

/* getopt said '?': an unknown, ambiguous or needlessly valued option. */
static hf_status refuse_option(const cli_spec *spec, const option_table *t, const char *word) {
  const cli_option *known = find_option(t, optopt);
  if (known && known->kind == CLI_FLAG) return usage(spec, "option --%s takes no value", known->name);
  if (optopt > 0 && optopt < 0x100) return usage(spec, "unknown option -%c", optopt);
  const char *name = word + strspn(word, "-");
  size_t n = strcspn(name, "=");
  const char *nearest = NULL;
  int least = 3, starts = 0;
  for (int i = 0; i < t->n; i++) {
    int d = hf_edit_distance(name, n, t->all[i].name);
    starts += strncmp(name, t->all[i].name, n) == 0;
    if (d < least) {
      least = d;
      nearest = t->all[i].name;
    }
  }
  if (starts > 1) return usage(spec, "option --%.*s is ambiguous", (int)n, name);
  if (nearest) return usage(spec, "unknown option --%.*s (is --%s meant?)", (int)n, name, nearest);
  return usage(spec, "unknown option --%.*s", (int)n, name);
}

static hf_status read_options(const cli_spec *spec, const option_table *t, int argc, char **argv) {
  optind = 0; /* glibc: start over, also forgetting where in a group of letters the last call stood */
  opterr = 0;
  int value;
  while ((value = getopt_long(argc, argv, t->shorts, t->longs, NULL)) != -1) {
    const cli_option *o = find_option(t, value == ':' ? optopt : value);
    if (value == ':')
      return usage(spec, "option --%s needs a value: --%s %s", o ? o->name : "", o ? o->name : "", o ? o->arg : "");
    if (value == '?' || !o) return refuse_option(spec, t, argv[optind - 1]);
    HF_TRY(set_value(spec, o, optarg));
  }
  return HF_OK;
}

hf_status cli_parse(const cli_spec *spec, int argc, char **argv, cli_common *common, int *n_operands, char ***operands,
                    bool *stop) {
  bool help = false, version = false;
  const cli_option shared[] = {
      {"db", 0, CLI_STR, &common->db_path, "FILE",
       "The database. Default: $HETEROFLOW_DB, else heteroflow/heteroflow.db in the "
       "user's data folder ($XDG_DATA_HOME or ~/.local/share).",
       0, 0},
      {"json", 0, CLI_FLAG, &common->json, NULL, "Print the result as one JSON object on standard output and nothing else there.",
       0, 0},
      {"quiet", 'q', CLI_FLAG, &common->quiet, NULL, "Only warnings and errors on standard error.", 0, 0},
      {"verbose", 'v', CLI_FLAG, &common->verbose, NULL, "Details on standard error.", 0, 0},
      {"help", 'h', CLI_FLAG, &help, NULL, "Print this text.", 0, 0},
      {"version", 'V', CLI_FLAG, &version, NULL, "Print the version.", 0, 0},
  };
  *common = (cli_common){0};
  *stop = false;
  option_table t = {0};
  hf_status st = build_table(spec, shared, (int)(sizeof shared / sizeof *shared), &t);
  if (st == HF_OK) st = read_options(spec, &t, argc, argv);
  if (st == HF_OK && (help || version)) {
    if (help) st = cli_print_help(spec, t.all, t.n);
    else printf("%s (HeteroFlow) %s\nLicence GPL-3.0-or-later; there is no warranty.\n", spec->program, HF_VERSION);
    *stop = true;
  }
  free_table(&t);
  if (st != HF_OK) return st;
  if (common->quiet && common->verbose) return usage(spec, "--quiet and --verbose exclude each other");
  if (common->quiet) hf_log_set_level(HF_LOG_WARN);
  if (common->verbose) hf_log_set_level(HF_LOG_DEBUG);
  *n_operands = argc - optind;
  *operands = argv + optind;
  return HF_OK;
}

int cli_finish(const char *program, hf_status st) {
  if (st == HF_OK && (fflush(stdout) != 0 || ferror(stdout))) {
    st = hf_fail(HF_MACHINE, "standard output cannot be written: %s", strerror(errno));
  }
  if (st == HF_OK) return 0;
  fflush(stdout); /* what is there of the result comes before the reason why there is no more */
  const char *line = hf_error_line();
  fprintf(stderr, "%s: %s\n", program, line[0] ? line : "failed for an unknown reason");
  return hf_exit_status(st);
}
