#include "planner/sim/trace_read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "planner/sim/random.h"

#define COLUMNS                                                                                                         \
  "columns for arrival (arrival_s or TIMESTAMP), prompt (prompt_tokens or ContextTokens) and output (output_tokens or " \
  "GeneratedTokens)"
enum { MAX_COLUMNS = 64 };
static const int64_t SECOND = 1000000000, MOST_NS = INT64_C(1) << 60; /* 36 years */

typedef enum { F_NONE, F_ARRIVAL, F_TIMESTAMP, F_PROMPT, F_OUTPUT, F_CACHED, F_SESSION, N_FIELDS } field;
static const struct {
  const char *name;
  field f;
} names[] = {{"arrival_s", F_ARRIVAL},   {"timestamp", F_TIMESTAMP},  {"prompt_tokens", F_PROMPT},   {"contexttokens", F_PROMPT},
             {"input_length", F_PROMPT}, {"output_tokens", F_OUTPUT}, {"generatedtokens", F_OUTPUT}, {"output_length", F_OUTPUT},
             {"max_tokens", F_OUTPUT},   {"cached_tokens", F_CACHED}, {"session", F_SESSION}};

struct sim_trace {
  FILE *f;
  char *path, *line;
  bool json, begun, given; /* given: a request */
  int n_columns;
  field column[MAX_COLUMNS];
  int64_t number, last_ns, origin_ns, left_out;
  bool has_origin;
};

static field field_named(const char *s, size_t n) {
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strlen(names[i].name) == n && strncasecmp(names[i].name, s, n) == 0) return names[i].f;
  return F_NONE;
}

/* ---- numbers ---- */

/* Digits with an optional fraction, as a multiple of 1e-9: no floating point, so that nothing is rounded twice. False on anything else. */
static bool decimal_ns(const char *s, size_t n, int64_t *out) {
  int64_t whole = 0, part = 0, unit = SECOND;
  size_t i = 0;
  for (; i < n && s[i] >= '0' && s[i] <= '9'; i++) {
    whole = 10 * whole + (s[i] - '0');
    if (whole > MOST_NS / SECOND) return false;
  }
  if (i == 0) return false;
  if (i < n && s[i] == '.')
    for (i++; i < n && s[i] >= '0' && s[i] <= '9'; i++)
      if (unit > 1) part += (s[i] - '0') * (unit /= 10);
  *out = whole * SECOND + part;
  return i == n;
}

/* Days since 1970-01-01 of the Gregorian calendar. */
static int64_t days_of(int y, int m, int d) {
  y -= m <= 2;
  int64_t era = y / 400, yoe = y - era * 400;
  int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
  return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static bool two_digits(const char *s, int lo, int hi, int *out) {
  if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9') return false;
  *out = 10 * (s[0] - '0') + s[1] - '0';
  return *out >= lo && *out <= hi;
}

/* "2023-11-16 18:15:46.6805900", perhaps with T for the blank and a zone behind, which is left alone. */
static bool date_ns(const char *s, size_t n, int64_t *out) {
  int century, year, month, day, h, min;
  int64_t sec = 0;
  if (n < 19 || s[4] != '-' || s[7] != '-' || (s[10] != ' ' && s[10] != 'T') || s[13] != ':' || s[16] != ':') return false;
  if (!two_digits(s, 19, 21, &century) || !two_digits(s + 2, 0, 99, &year) || !two_digits(s + 5, 1, 12, &month) ||
      !two_digits(s + 8, 1, 31, &day) || !two_digits(s + 11, 0, 23, &h) || !two_digits(s + 14, 0, 59, &min))
    return false;
  size_t end = 17;
  while (end < n && ((s[end] >= '0' && s[end] <= '9') || s[end] == '.')) end++;
  if (!decimal_ns(s + 17, end - 17, &sec) || sec > 61 * SECOND) return false;
  *out = (days_of(100 * century + year, month, day) * 86400 + h * 3600 + min * 60) * SECOND + sec;
  return end == n || strchr("+-Zz ", s[end]) != NULL;
}

static bool count_of(const char *s, size_t n, int *out) {
  int64_t v = 0;
  if (n == 0 || n > 12) return false;
  for (size_t i = 0; i < n; i++) {
    if (s[i] < '0' || s[i] > '9') return i > 0 && s[i] == '.' && strspn(s + i + 1, "0") >= n - i - 1; /* "512.0" */
    v = 10 * v + (s[i] - '0');
    if (v > SIM_MOST_TOKENS) return false;
    *out = (int)v;
  }
  return true;
}

/* ---- lines ---- */

/* FNV-1a; no name is 0. */
static uint64_t named(const char *s, size_t n) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * UINT64_C(0x100000001b3);
  return n == 0 ? 0 : h | 1;
}

static hf_status bad(const sim_trace *t, const char *name, const char *what) {
  return hf_fail(HF_INPUT, "%s: line %lld: field %s: %s", t->path, (long long)t->number, name, what);
}

/* Parts of a line of CSV; quotes around a part are taken off. Returns how many. */
static int split(char *line, char *part[], size_t len[]) {
  int n = 0;
  for (char *p = line; n < MAX_COLUMNS; p++) {
    char *end = strchr(p, ',');
    size_t k = end != NULL ? (size_t)(end - p) : strlen(p);
    char *from = p;
    p += k;
    while (k > 0 && (*from == ' ' || *from == '\t')) from++, k--;
    while (k > 0 && strchr(" \t\r\n", from[k - 1]) != NULL) k--;
    if (k >= 2 && from[0] == '"' && from[k - 1] == '"') from++, k -= 2;
    part[n] = from;
    len[n++] = k;
    if (end == NULL) break;
  }
  return n;
}

static hf_status read_names(sim_trace *t) {
  char *part[MAX_COLUMNS];
  size_t len[MAX_COLUMNS];
  bool seen[N_FIELDS] = {false};
  t->n_columns = split(t->line, part, len);
  for (int i = 0; i < t->n_columns; i++) {
    field f = t->column[i] = field_named(part[i], len[i]);
    if (f == F_NONE) continue;
    if (seen[f])
      return hf_fail(HF_INPUT, "%s: line %lld: two columns mean the same as '%.*s'", t->path, (long long)t->number,
                     (int)(len[i] < 40 ? len[i] : 40), part[i]);
    seen[f] = true;
  }
  if ((!seen[F_ARRIVAL] && !seen[F_TIMESTAMP]) || !seen[F_PROMPT] || !seen[F_OUTPUT])
    return hf_fail(HF_INPUT, "%s: line %lld: needs " COLUMNS, t->path, (long long)t->number);
  return HF_OK;
}

typedef struct {
  int64_t ns;
  bool from_first; /* counts from the first request */
  sim_trace_line line;
} parsed;

static hf_status read_csv(const sim_trace *t, parsed *r) {
  char *part[MAX_COLUMNS];
  size_t len[MAX_COLUMNS];
  int n = split(t->line, part, len);
  bool arrival = false;
  if (n != t->n_columns)
    return hf_fail(HF_INPUT, "%s: line %lld: %d columns, the first line names %d", t->path, (long long)t->number, n,
                   t->n_columns);
  for (int i = 0; i < n; i++) {
    switch (t->column[i]) {
      case F_ARRIVAL:
        if (!decimal_ns(part[i], len[i], &r->ns)) return bad(t, "arrival_s", "needs seconds, 0 or more");
        arrival = true;
        r->from_first = false;
        break;
      case F_TIMESTAMP:
        if (arrival) break; /* arrival_s is plainer */
        if (!date_ns(part[i], len[i], &r->ns) && !decimal_ns(part[i], len[i], &r->ns))
          return bad(t, "timestamp", "needs a date (2023-11-16 18:15:46.68) or seconds, 0 or more");
        r->from_first = true;
        break;
      case F_PROMPT:
        if (!count_of(part[i], len[i], &r->line.prompt)) return bad(t, "prompt tokens", "needs a whole number up to 16777216");
        break;
      case F_OUTPUT:
        if (!count_of(part[i], len[i], &r->line.output)) return bad(t, "output tokens", "needs a whole number up to 16777216");
        break;
      case F_CACHED:
        if (len[i] > 0 && !count_of(part[i], len[i], &r->line.cached)) return bad(t, "cached_tokens", "needs a whole number");
        break;
      case F_SESSION: r->line.session = named(part[i], len[i]); break;
      default: break;
    }
  }
  return HF_OK;
}

static hf_status read_json_fields(const sim_trace *t, const json *doc, const char *where, parsed *r) {
  double at = -1;
  int64_t v[N_FIELDS];
  memset(v, 0xff, sizeof v); /* -1 */
  (void)t;
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: expected an object", where);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (names[i].f <= F_TIMESTAMP || names[i].f == F_SESSION || v[names[i].f] >= 0) continue;
    for (const json *x = json_first(doc); x != NULL; x = json_next(x))
      if (strcasecmp(json_key(x), names[i].name) == 0)
        HF_TRY(json_get_int(doc, where, json_key(x), 0, SIM_MOST_TOKENS, &v[names[i].f]));
  }
  if (v[F_PROMPT] < 0 || v[F_OUTPUT] < 0)
    return hf_fail(HF_INPUT,
                   "%s: needs prompt tokens (prompt_tokens or input_length) and output tokens (output_tokens or output_length)",
                   where);
  double most = (double)MOST_NS;
  HF_TRY(json_opt_num(doc, where, "arrival_s", 0, most * 1e-9, &at));
  if (at < 0) {
    HF_TRY(json_get_num(doc, where, "timestamp", 0, most * 1e-6, &at));
    at *= 1e-3;
    r->from_first = true;
  }
  r->ns = sim_round(at * 1e9);
  r->line.prompt = (int)v[F_PROMPT];
  r->line.output = (int)v[F_OUTPUT];
  r->line.cached = v[F_CACHED] > 0 ? (int)v[F_CACHED] : 0;
  const char *session = NULL;
  HF_TRY(json_opt_str(doc, where, "session", &session));
  r->line.session = session != NULL ? named(session, strlen(session)) : 0;
  return HF_OK;
}

static hf_status read_json(const sim_trace *t, size_t n, parsed *r) {
  char where[4200];
  json *doc = NULL;
  snprintf(where, sizeof where, "%.4000s: line %lld", t->path, (long long)t->number);
  HF_TRY(json_parse(t->line, n, where, &doc));
  hf_status st = read_json_fields(t, doc, where, r);
  json_free(doc);
  return st;
}

/* The next line that is not empty; *n 0 at the end. */
static hf_status next_line(sim_trace *t, size_t *n) {
  *n = 0;
  if (t->line == NULL) HF_TRY(hf_alloc(&t->line, SIM_TRACE_LINE + 2, 1, "line of a request trace"));
  for (;;) {
    size_t got = 0;
    int c = 0;
    errno = 0;
    while (got <= SIM_TRACE_LINE && (c = getc_unlocked(t->f)) != EOF && c != '\n') t->line[got++] = (char)c;
    if (c == EOF && ferror(t->f)) return hf_fail(HF_MACHINE, "%s: %s", t->path, errno != 0 ? strerror(errno) : "cannot be read");
    if (c == EOF && got == 0) return HF_OK;
    t->line[got] = '\0';
    t->number++;
    if (got > SIM_TRACE_LINE)
      return hf_fail(HF_INPUT, "%s: line %lld: longer than %d bytes", t->path, (long long)t->number, (int)SIM_TRACE_LINE);
    if (memchr(t->line, 0, got) != NULL) return hf_fail(HF_INPUT, "%s: line %lld: a zero byte", t->path, (long long)t->number);
    if (strspn(t->line, " \t\r") == got) continue;
    *n = got;
    return HF_OK;
  }
}

static hf_status read_request(sim_trace *t, size_t n, sim_trace_line *out) {
  parsed r = {0};
  HF_TRY(t->json ? read_json(t, n, &r) : read_csv(t, &r));
  if (!t->has_origin) {
    t->has_origin = true;
    t->origin_ns = r.from_first ? r.ns : 0;
  }
  r.line.arrival_ns = r.ns - t->origin_ns;
  if (r.line.arrival_ns < t->last_ns) return bad(t, "arrival", "earlier than that of the line before; sort the file by it");
  t->last_ns = r.line.arrival_ns;
  *out = r.line;
  return HF_OK;
}

hf_status sim_trace_open(const char *path, sim_trace **out) {
  sim_trace *t = NULL;
  HF_TRY(hf_alloc(&t, 1, sizeof *t, "request trace"));
  hf_status st = hf_strdup(&t->path, path);
  if (st == HF_OK && (t->f = fopen(path, "re")) == NULL)
    st = hf_fail(errno == ENOENT ? HF_NOT_FOUND : HF_INPUT, "%s: %s", path, strerror(errno));
  if (st != HF_OK) {
    sim_trace_close(t);
    return st;
  }
  *out = t;
  return HF_OK;
}

/* The end, and no request was among what came before. */
static hf_status nothing_given(const sim_trace *t) {
  if (t->left_out > 0)
    return hf_fail(HF_INPUT, "%s: none of its %lld requests has a token of prompt and of output", t->path,
                   (long long)t->left_out);
  if (t->begun) return hf_fail(HF_INPUT, "%s: no request follows the names of its columns in the first line", t->path);
  return hf_fail(
      HF_INPUT,
      "%s: empty: no requests; wanted are JSON Lines with arrival_s, prompt_tokens, output_tokens, or CSV with " COLUMNS,
      t->path);
}

hf_status sim_trace_next(sim_trace *t, sim_trace_line *out, bool *any) {
  *any = false;
  for (;;) {
    size_t n = 0;
    HF_TRY(next_line(t, &n));
    if (n == 0) return t->given ? HF_OK : nothing_given(t);
    if (!t->begun) {
      t->begun = true;
      t->json = t->line[strspn(t->line, " \t")] == '{';
      if (!t->json) {
        HF_TRY(read_names(t));
        continue;
      }
    }
    HF_TRY(read_request(t, n, out));
    if (out->prompt < 1 || out->output < 1) {
      t->left_out++;
      continue;
    }
    if (out->cached >= out->prompt) out->cached = out->prompt - 1; /* the last token's logits are needed */
    *any = t->given = true;
    return HF_OK;
  }
}

int64_t sim_trace_left_out(const sim_trace *t) {
  return t->left_out;
}

void sim_trace_close(sim_trace *t) {
  if (t == NULL) return;
  if (t->f != NULL) fclose(t->f);
  free(t->line);
  free(t->path);
  free(t);
}
