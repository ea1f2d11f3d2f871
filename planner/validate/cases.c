#include "planner/validate/cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"

enum { COLUMNS = 16 };
static const char *const column_name[COLUMNS] = {
    "id",     "source",    "model",       "params_total",  "weights_format", "gpu",           "cpu",          "memory",
    "engine", "placement", "concurrency", "prompt_tokens", "context_tokens", "prefill_tok_s", "decode_tok_s", "notes"};
enum { ID, SOURCE, MODEL, PARAMS, FORMAT, GPU, CPU, MEMORY, ENGINE, PLACEMENT, USERS, PROMPT, CONTEXT, PREFILL, DECODE, NOTES };

typedef struct {
  const char *where, *at, *end;
  int line;            /* of `at` */
  int column[COLUMNS]; /* which field of a record holds it */
  char field[COLUMNS][CASES_MAX_FIELD + 1];
  int n_fields, first_line; /* of the last record */
  published_cases *out;
} reader;

static hf_status bad(const reader *r, int line, const char *column, const char *reason) {
  return hf_fail(HF_INPUT, "%s: line %d, column %s: %s", r->where, line, column, reason);
}

static const char *field_name(const reader *r, int index) {
  for (int c = 0; c < COLUMNS; c++)
    if (r->column[c] == index) return column_name[c];
  return index < COLUMNS ? column_name[index] : "after the last";
}

/* One field from r->at into out; leaves r->at on the comma, the line end or the end. */
static hf_status read_field(reader *r, int index, char *out) {
  size_t n = 0;
  bool quoted = r->at < r->end && *r->at == '"', closed = !quoted;
  int line = r->line;
  if (quoted) r->at++;
  for (; r->at < r->end; r->at++) {
    char c = *r->at;
    if (quoted && c == '"') {
      if (r->at + 1 == r->end || r->at[1] != '"') {
        closed = true;
        r->at++;
        break;
      }
      r->at++;
    } else if (!quoted && (c == ',' || c == '\n' || c == '\r')) {
      break;
    } else if (!quoted && c == '"') {
      return bad(r, r->line, field_name(r, index), "a quote inside a field that does not start with one");
    }
    if (c == '\n') r->line++;
    if (n == CASES_MAX_FIELD) return bad(r, line, field_name(r, index), "longer than 2048 bytes");
    out[n++] = c;
  }
  out[n] = '\0';
  if (!closed) return bad(r, line, field_name(r, index), "the closing quote is missing");
  if (r->at < r->end && *r->at != ',' && *r->at != '\n' && *r->at != '\r')
    return bad(r, r->line, field_name(r, index), "text after the closing quote");
  for (size_t i = 0; i < n;) {
    uint32_t cp = 0;
    int len = hf_utf8(out + i, n - i, &cp);
    if (len == 0 || cp == 0) return bad(r, line, field_name(r, index), "is not UTF-8 text");
    i += (size_t)len;
  }
  return HF_OK;
}

/* A record into r->field; *more false at the end of the file. Empty lines are skipped. */
static hf_status read_record(reader *r, bool *more) {
  while (r->at < r->end && (*r->at == '\n' || *r->at == '\r')) r->line += *r->at++ == '\n';
  *more = r->at < r->end;
  r->n_fields = 0;
  r->first_line = r->line;
  while (*more) {
    if (r->n_fields == COLUMNS) return bad(r, r->line, "after the last", "more fields than the 16 columns");
    HF_TRY(read_field(r, r->n_fields, r->field[r->n_fields]));
    r->n_fields++;
    if (r->at == r->end) break;
    if (*r->at == ',') {
      r->at++;
      continue;
    }
    if (*r->at == '\r') {
      r->at++;
      if (r->at < r->end && *r->at != '\n') return bad(r, r->line, "the last", "a carriage return without a line end");
    }
    if (r->at < r->end) {
      r->at++;
      r->line++;
    }
    break;
  }
  return HF_OK;
}

static hf_status read_header(reader *r) {
  bool more;
  if (r->end - r->at >= 3 && memcmp(r->at, "\xef\xbb\xbf", 3) == 0) r->at += 3;
  for (int c = 0; c < COLUMNS; c++) r->column[c] = -1;
  HF_TRY(read_record(r, &more));
  if (!more) return hf_fail(HF_INPUT, "%s: line 1, column id: the file is empty; the first line names the columns", r->where);
  for (int i = 0; i < r->n_fields; i++) {
    int c = 0;
    while (c < COLUMNS && strcmp(column_name[c], r->field[i]) != 0) c++;
    hf_printable(r->field[i]);
    if (c == COLUMNS) return hf_fail(HF_INPUT, "%s: line 1, column %.40s: unknown", r->where, r->field[i]);
    if (r->column[c] >= 0) return bad(r, 1, column_name[c], "named twice");
    r->column[c] = i;
  }
  for (int c = 0; c < COLUMNS; c++)
    if (r->column[c] < 0) return bad(r, 1, column_name[c], "missing");
  return HF_OK;
}

/* ---- fields ---- */

static const char *text_of(const reader *r, int c) {
  return r->field[r->column[c]];
}

static hf_status keep(const reader *r, int c, const char **out) {
  char *s = NULL;
  const char *t = text_of(r, c);
  HF_TRY(hf_arena_str(r->out->arena, &s, t, strlen(t)));
  hf_printable(s);
  *out = s;
  return HF_OK;
}

/* A number from *s on, which is moved behind it; -1 when there is none or it is out of range. Digits and one point only: what strtod takes
 * beside them (inf, hexadecimal, exponents) is no number of a table. */
static double number(const char **s, double most) {
  const char *p = *s;
  double v = 0, unit = 1;
  int digits = 0;
  for (; *p >= '0' && *p <= '9' && digits < 15; p++, digits++) v = 10 * v + (*p - '0');
  if (digits > 0 && *p == '.' && p[1] >= '0' && p[1] <= '9') {
    double tail = 0;
    for (p++; *p >= '0' && *p <= '9' && digits < 15; p++, digits++) {
      tail = 10 * tail + (*p - '0');
      unit *= 10;
    }
    v += tail / unit;
  }
  *s = p;
  return digits == 0 || v > most ? -1 : v;
}

static hf_status get_number(const reader *r, int c, double least, double most, double *out) {
  const char *s = text_of(r, c);
  *out = 0;
  if (*s == '\0') return HF_OK;
  double v = number(&s, most);
  if (*s != '\0' || !(v >= least))
    return hf_fail(HF_INPUT, "%s: line %d, column %s: '%.24s' is no number from %g to %g", r->where, r->first_line,
                   column_name[c], text_of(r, c), least, most);
  *out = v;
  return HF_OK;
}

static hf_status get_context(const reader *r, published_case *p) {
  const char *s = text_of(r, CONTEXT);
  p->has_context = *s != '\0';
  if (!p->has_context) return HF_OK;
  p->context_from = p->context_to = number(&s, 1e7);
  if (strncmp(s, "..", 2) == 0) {
    s += 2;
    p->context_to = number(&s, 1e7);
  }
  if (*s == '\0' && p->context_from >= 0 && p->context_to >= p->context_from) return HF_OK;
  return bad(r, r->first_line, "context_tokens", "needs a number of tokens, or a range as 1024..2048");
}

static hf_status add_case(reader *r) {
  static const struct {
    int column;
    size_t offset;
  } texts[] = {{ID, offsetof(published_case, id)},
               {SOURCE, offsetof(published_case, source)},
               {MODEL, offsetof(published_case, model)},
               {PARAMS, offsetof(published_case, params_total)},
               {FORMAT, offsetof(published_case, weights_format)},
               {GPU, offsetof(published_case, gpu)},
               {CPU, offsetof(published_case, cpu)},
               {MEMORY, offsetof(published_case, memory)},
               {ENGINE, offsetof(published_case, engine)},
               {PLACEMENT, offsetof(published_case, placement)},
               {NOTES, offsetof(published_case, notes)}};
  published_cases *out = r->out;
  if (r->n_fields != COLUMNS)
    return hf_fail(HF_INPUT, "%s: line %d, column %s: the record ends after %d of %d fields", r->where, r->first_line,
                   field_name(r, r->n_fields), r->n_fields, (int)COLUMNS);
  if (out->n == CASES_MAX_ROWS) return bad(r, r->first_line, "id", "more than 4096 rows");
  published_case p = {.line = r->first_line};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    HF_TRY(keep(r, texts[i].column, (const char **)((char *)&p + texts[i].offset)));
  double users = 0;
  if (p.id[0] == '\0') return bad(r, p.line, "id", "is empty");
  for (int i = 0; i < out->n; i++)
    if (strcmp(out->row[i].id, p.id) == 0)
      return hf_fail(HF_INPUT, "%s: line %d, column id: %.40s is also on line %d", r->where, p.line, p.id, out->row[i].line);
  HF_TRY(get_number(r, USERS, 1, 4096, &users));
  HF_TRY(get_number(r, PROMPT, 1, 1e7, &p.prompt_tokens));
  HF_TRY(get_number(r, PREFILL, 1e-6, 1e7, &p.prefill_tok_s));
  HF_TRY(get_number(r, DECODE, 1e-6, 1e7, &p.decode_tok_s));
  HF_TRY(get_context(r, &p));
  if (users != floor(users)) return bad(r, p.line, "concurrency", "needs a whole number of users");
  if (!(p.decode_tok_s > 0) && !(p.prefill_tok_s > 0))
    return bad(r, p.line, "decode_tok_s", "is empty, and prefill_tok_s too: there is nothing to compare");
  p.concurrency = (int)users;
  HF_TRY(hf_realloc(&out->row, (size_t)out->n + 1, sizeof *out->row, "published rows"));
  out->row[out->n++] = p;
  return HF_OK;
}

hf_status published_cases_parse(const char *text, size_t n, const char *where, published_cases *out) {
  reader *r = NULL;
  hf_status st = HF_OK;
  bool more = true;
  *out = (published_cases){0};
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "reader of published rows"));
  *r = (reader){.where = where, .at = text, .end = text + n, .line = 1, .out = out};
  HF_GO(done, hf_arena_new(&out->arena, 16u << 20, "published rows"));
  HF_GO(done, read_header(r));
  for (;;) {
    HF_GO(done, read_record(r, &more));
    if (!more) break;
    HF_GO(done, add_case(r));
  }
  if (out->n == 0) st = hf_fail(HF_INPUT, "%s: line 2, column id: there is no row", where);
done:
  free(r);
  if (st != HF_OK) published_cases_free(out);
  return st;
}

hf_status published_cases_read(const char *path, published_cases *out) {
  char *text = NULL;
  size_t n = 0;
  HF_TRY(hf_read_file(path, CASES_MAX_BYTES, &text, &n));
  hf_status st = published_cases_parse(text, n, path, out);
  free(text);
  return st;
}

void published_cases_free(published_cases *c) {
  hf_arena_free(c->arena);
  free(c->row);
  *c = (published_cases){0};
}
