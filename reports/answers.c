#include "reports/answers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

hf_status data_answer_get(db *d, const char *kind, int64_t id, data_answer **out) {
  data_answer *a = NULL;
  char *text = NULL, where[64];
  HF_TRY(hf_alloc(&a, 1, sizeof *a, "answer"));
  hf_status st = id > 0 ? db_answer_get(d, id, &a->row, &text) : db_answer_latest(d, kind, &a->row, &text);
  if (st == HF_OK && strcmp(a->row.kind, kind) != 0)
    st = hf_fail(HF_INPUT, "%s: answer %lld is of kind %s; use hf-report %s %lld", kind, (long long)id, a->row.kind, a->row.kind,
                 (long long)id);
  snprintf(where, sizeof where, "answer %lld", (long long)a->row.id);
  if (st == HF_OK) st = json_parse(text, strlen(text), where, &a->doc);
  if (st == HF_OK && json_type(a->doc) != JSON_OBJECT) st = hf_fail(HF_INPUT, "%s: its document is no object", where);
  free(text);
  if (st != HF_OK) data_answer_free(a);
  else *out = a;
  return st;
}

void data_answer_free(data_answer *a) {
  if (a == NULL) return;
  json_free(a->doc);
  free(a);
}

const json *answer_at(const json *o, const char *path) {
  char key[64];
  while (o != NULL && *path) {
    size_t n = strcspn(path, ".");
    if (n >= sizeof key) return NULL;
    memcpy(key, path, n);
    key[n] = '\0';
    o = json_get(o, key);
    path += n + (path[n] == '.');
  }
  return o;
}

double answer_num(const json *o, const char *path) {
  return json_number(answer_at(o, path), NAN);
}

const char *answer_text(const json *o, const char *path) {
  const char *text = json_string(answer_at(o, path));
  return text != NULL ? text : "";
}

void answer_verdict(page *p, const json *doc) {
  char sentence[1024];
  const char *at = answer_text(doc, "verdict");
  for (int n = 1; *at; n++) {
    size_t len = 0;
    const char *end = at;
    /* a full stop, a blank, a capital letter; the last of a page's facts takes the rest */
    while (n < 8 && (end = strstr(end, ". ")) != NULL && !(end[2] >= 'A' && end[2] <= 'Z')) end++;
    len = n < 8 && end != NULL ? (size_t)(end - at) + 1 : strlen(at);
    snprintf(sentence, sizeof sentence, "%.*s", (int)(len < sizeof sentence ? len : sizeof sentence - 1), at);
    page_verdict(p, "%s", sentence);
    at += len;
    at += strspn(at, " ");
  }
}

void answer_sources(page *p, const json *doc) {
  const json *list = json_get(doc, "assumptions");
  for (const json *a = json_type(list) == JSON_ARRAY ? json_first(list) : NULL; a != NULL; a = json_next(a)) {
    const char *tag = answer_text(a, "tag");
    page_source(p, *tag ? tag : "assumed", answer_text(a, "source"), "%s", answer_text(a, "text"));
  }
}

/* ---- cases ---- */

static bool fits(const json *c) {
  return isfinite(answer_num(c, "decode_tok_per_s.likely"));
}

/* The columns of a case that hold a number, and where it stands in the document. */
static const struct {
  const char *path;
  rep_col col;
} numbers[] = {
    {"users", {"users", "Users", FMT_INT}},
    {"context", {"context", "Context", FMT_INT}},
    {"tok_per_s_wall", {"tok_per_s_wall", "Delivered tokens/s", FMT_TOK_S}},
    {"ttft_s.p95", {"ttft_p95_s", "TTFT p95", FMT_SECONDS}},
    {"tpot_s.p95", {"tpot_p95_s", "TPOT p95", FMT_SECONDS}},
    {"decode_tok_per_s.low", {"decode_tok_per_s_low", "Decode, low", FMT_TOK_S}},
    {"decode_tok_per_s.likely", {"decode_tok_per_s", "Decode tokens/s", FMT_TOK_S}},
    {"decode_tok_per_s.high", {"decode_tok_per_s_high", "Decode, high", FMT_TOK_S}},
    {"ttft_s.p50", {"ttft_p50_s", "TTFT p50", FMT_SECONDS}},
    {"tpot_s.p50", {"tpot_p50_s", "TPOT p50", FMT_SECONDS}},
    {"e2e_s.p95", {"e2e_p95_s", NULL, FMT_SECONDS}},
    {"users_at_slo", {"users_at_slo", NULL, FMT_INT}},
    {"goodput", {"goodput", NULL, FMT_SHARE}},
    {"depth", {"depth", "Depth", FMT_INT}},
    {"gap", {"gap", "Gap", FMT_GAP}},
    {"price.low", {"price_low", NULL, FMT_NUM}},
    {"price.likely", {"price", "Price", FMT_INT}},
    {"price.high", {"price_high", NULL, FMT_NUM}},
    {"power_w.active", {"power_active_w", "Power", FMT_WATTS}},
    {"joule_per_token", {"joule_per_token", NULL, FMT_NUM}},
    {"cost_per_million_tokens.likely", {"cost_per_million_tokens", "Cost per million, in + out", FMT_NUM}},
};
enum { N_NUMBERS = sizeof numbers / sizeof numbers[0], N_TEXTS = 6, N_CASE_COLS = N_NUMBERS + N_TEXTS };

static const rep_col *case_columns(void) {
  static rep_col col[N_CASE_COLS] = {{"name", "Case", FMT_TEXT},       {"machine", NULL, FMT_TEXT},
                                     {"model", NULL, FMT_TEXT},        {"format", "Format", FMT_TEXT},
                                     {"binding", "Binding", FMT_TEXT}, {"why_not", NULL, FMT_TEXT}};
  for (int i = 0; i < N_NUMBERS; i++) col[N_TEXTS + i] = numbers[i].col;
  return col;
}

void tiles_speed(page *p, const json *c, const char *delivers) {
  char v[FORMAT_MAX], lo[FORMAT_MAX], hi[FORMAT_MAX];
  format_number(answer_num(c, "tok_per_s_wall"), FMT_TOK_S, v);
  page_tile(p, delivers, v, "tokens/s, all users together, prompts and waiting included");
  format_number(answer_num(c, "ttft_s.p95"), FMT_SECONDS, v);
  page_tile(p, "First token within", v, "for 95 %% of requests");
  format_number(answer_num(c, "tpot_s.p95"), FMT_SECONDS, v);
  page_tile(p, "Each further token within", v, "for 95 %% of requests");
  format_number(answer_num(c, "decode_tok_per_s.likely"), FMT_TOK_S, v);
  format_number(answer_num(c, "decode_tok_per_s.low"), FMT_TOK_S, lo);
  format_number(answer_num(c, "decode_tok_per_s.high"), FMT_TOK_S, hi);
  page_tile(p, "Decode", v, "tokens/s while all users decode, %s to %s", lo, hi);
}

void table_cases(page *p, const char *id, const json *cases, const char *caption) {
  rep_table *t = page_table(p, id, case_columns(), N_CASE_COLS, "%s", caption);
  for (const json *c = json_type(cases) == JSON_ARRAY ? json_first(cases) : NULL; c != NULL; c = json_next(c)) {
    table_text(p, t, answer_text(c, "name"));
    table_text(p, t, answer_text(c, "machine"));
    table_text(p, t, answer_text(c, "model"));
    table_text(p, t, answer_text(c, "format"));
    table_text(p, t, fits(c) ? answer_text(c, "binding") : "does not fit");
    table_text(p, t, answer_text(c, "why_not"));
    for (int i = 0; i < N_NUMBERS; i++) table_num(p, t, answer_num(c, numbers[i].path));
  }
  page_table_end(p, t, false);
}

void note_load(page *p) {
  page_note(
      p,
      "Delivered tokens/s, TTFT (time to the first token) and TPOT (time per further token) are of a sustained load: every user "
      "sends the next request as soon as the last one is answered, with prompts and answers within a quarter of the lengths "
      "asked for; p95: 95 of 100 requests are at or below. Decode tokens/s are of all users together while every one decodes.");
}

void note_engine(page *p, const json *doc) {
  if (*answer_text(doc, "engine_note")) page_note(p, "%s", answer_text(doc, "engine_note"));
}
