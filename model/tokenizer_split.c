/* tokenizer_split.c: the pre-tokenizer: a chain of regexes, each cutting every piece the one before left.
 *
 * Each piece is a subject of its own, as in the tokenizers library: look-ahead and $ do not see past its ends.
 * Interpreter, not JIT: prompts are small, and only the interpreter keeps the match limit exactly, which is what stops a regex
 * that backtracks without end. Known difference from Oniguruma: \s also takes U+180E, no white space in Unicode since 6.3. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/text.h"
#include "model/tokenizer_int.h"

#include <pcre2.h>
#include <string.h>

enum { MAX_REGEX_BYTES = 1 << 16, MATCH_LIMIT = 2000000, DEPTH_LIMIT = 100000, HEAP_LIMIT_KIB = 65536 };

/* Oniguruma knows set operations inside a class; PCRE2 would read "&&" as two characters and match something else. */
static bool has_class_intersection(const char *re, size_t n) {
  int depth = 0;
  for (size_t i = 0; i < n; i++) {
    if (re[i] == '\\') i++;
    else if (re[i] == '[') depth++;
    else if (re[i] == ']' && depth > 0) depth--;
    else if (depth > 0 && re[i] == '&' && i + 1 < n && re[i + 1] == '&') return true;
  }
  return false;
}

/* DeepSeek's chains have \s+$ as a step of its own. Searched for from every blank of a run that does not end at a line's end, it
 * costs the square of the run: a megabyte of blanks in a prompt would take hours, each try far below the match limit. A run's
 * longest match is found from its first blank or not at all, so that this says the same and is linear. */
static void linear_form(const char **regex, size_t *n) {
  static const char slow[] = "\\s+$", fast[] = "(?<!\\s)\\s+$";
  if (*n != sizeof slow - 1 || memcmp(*regex, slow, *n) != 0) return;
  *regex = fast;
  *n = sizeof fast - 1;
}

static hf_status compile(const char *where, const char *regex, size_t n, pcre2_code **out) {
  if (n == 0) return hf_fail(HF_INPUT, "%s: an empty regex", where);
  if (has_class_intersection(regex, n)) {
    return hf_fail(HF_UNSUPPORTED, "%s: the regex uses '&&' inside a character class, which is not supported", where);
  }
  linear_form(&regex, &n);
  pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
  if (!cc) return hf_fail(HF_MACHINE, "out of memory: a regex");
  (void)pcre2_set_max_pattern_length(cc, MAX_REGEX_BYTES);
  (void)pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE at = 0;
  /* MULTILINE: Oniguruma's ^ and $ match at lines */
  *out = pcre2_compile((PCRE2_SPTR)regex, n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, cc);
  pcre2_compile_context_free(cc);
  if (*out) return HF_OK;
  PCRE2_UCHAR text[160];
  (void)pcre2_get_error_message(code, text, sizeof text);
  return hf_fail(HF_INPUT, "%s: regex, at byte %zu: %s", where, (size_t)at, (const char *)text);
}

hf_status tok_split_add(tok_splitter *s, const char *where, const char *regex, size_t n, tok_cut cut, bool invert) {
  if (s->n == TOK_MAX_STEPS) return hf_fail(HF_INPUT, "%s: more than %d pre-tokenizer steps", where, TOK_MAX_STEPS);
  pcre2_code *code = NULL;
  HF_TRY(compile(where, regex, n, &code));
  s->step[s->n++] = (tok_step){code, cut, invert};
  return HF_OK;
}

void tok_split_free(tok_splitter *s) {
  for (int i = 0; i < s->n; i++) pcre2_code_free(s->step[i].code);
  s->n = 0;
}

typedef struct {
  const tok_splitter *s;
  tok_piece_fn *fn;
  void *user;
  pcre2_match_context *mc;
  pcre2_match_data *md[TOK_MAX_STEPS]; /* one per step: steps nest */
} run;

static hf_status cut_from(run *r, int step, const char *text, size_t n);

/* The pieces of one step go on to the next; behaviours that join neighbours keep one piece back. */
typedef struct {
  run *r;
  int step;
  tok_cut cut;
  const char *held;
  size_t n_held;
  bool held_match;
} joiner;

static hf_status pass_held(joiner *j) {
  if (j->n_held == 0) return HF_OK;
  size_t n = j->n_held;
  j->n_held = 0;
  return cut_from(j->r, j->step + 1, j->held, n);
}

static hf_status put(joiner *j, const char *piece, size_t n, bool match) {
  if (n == 0) return HF_OK;
  bool join = false;
  switch (j->cut) {
    case CUT_REMOVED:
      if (match) return HF_OK;
      break;
    case CUT_MERGED_WITH_PREVIOUS: join = match && !j->held_match; break;
    case CUT_MERGED_WITH_NEXT: join = !match && j->held_match; break;
    case CUT_CONTIGUOUS: join = match == j->held_match; break;
    case CUT_ISOLATED: break;
  }
  if (join && j->n_held > 0) {
    j->n_held += n;
    j->held_match = match;
    return HF_OK;
  }
  HF_TRY(pass_held(j));
  j->held = piece;
  j->n_held = n;
  j->held_match = match;
  return HF_OK;
}

static hf_status match_error(int rc) {
  if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT) {
    return hf_fail(HF_INPUT, "a pre-tokenizer regex backtracks without end on this text");
  }
  if (rc == PCRE2_ERROR_NOMEMORY) return hf_fail(HF_MACHINE, "out of memory: matching a regex");
  PCRE2_UCHAR text[160];
  (void)pcre2_get_error_message(rc, text, sizeof text);
  return hf_fail(HF_INPUT, "a pre-tokenizer regex failed: %s", (const char *)text);
}

static hf_status cut_from(run *r, int step, const char *text, size_t n) {
  if (step == r->s->n) return r->fn(r->user, text, n);
  const tok_step *st = &r->s->step[step];
  joiner j = {r, step, st->cut, NULL, 0, false};
  size_t done = 0, at = 0; /* done: end of the last match; at: where to look next */
  while (at <= n) {
    int rc = pcre2_match(st->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, r->md[step], r->mc);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) return match_error(rc);
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(r->md[step]);
    size_t begin = o[0], end = o[1]; /* \K can put begin behind end or before `done` */
    if (begin < done || end < begin) return hf_fail(HF_INPUT, "a pre-tokenizer regex moves its match start (\\K)");
    HF_TRY(put(&j, text + done, begin - done, st->invert));
    HF_TRY(put(&j, text + begin, end - begin, !st->invert));
    if (end == begin) HF_TRY(pass_held(&j)); /* an empty match cuts where it stands */
    done = end;
    at = end;
    if (end == begin) {
      at += at < n ? (size_t)hf_utf8(text + at, n - at, NULL) : 1;
    }
  }
  HF_TRY(put(&j, text + done, n - done, st->invert));
  return pass_held(&j);
}

hf_status tok_split(const tok_splitter *s, const char *text, size_t n, tok_piece_fn *fn, void *user) {
  run r = {s, fn, user, NULL, {NULL}};
  hf_status st = HF_OK;
  bool ok = (r.mc = pcre2_match_context_create(NULL)) != NULL;
  for (int i = 0; i < s->n && ok; i++) ok = (r.md[i] = pcre2_match_data_create(1, NULL)) != NULL;
  if (!ok) {
    st = hf_fail(HF_MACHINE, "out of memory: matching a regex");
  } else {
    (void)pcre2_set_match_limit(r.mc, MATCH_LIMIT);
    (void)pcre2_set_depth_limit(r.mc, DEPTH_LIMIT);
    (void)pcre2_set_heap_limit(r.mc, HEAP_LIMIT_KIB);
    st = n > 0 ? cut_from(&r, 0, text, n) : HF_OK;
  }
  for (int i = 0; i < s->n; i++) pcre2_match_data_free(r.md[i]);
  pcre2_match_context_free(r.mc);
  return st;
}
