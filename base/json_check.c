#include "base/json_check.h"

#include "base/json.h"
#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 60 }; /* cJSON copies a number into 64 bytes */

_Static_assert(JSON_MAX_DEPTH == 64 && JSON_MAX_VALUES == 8388608, "the messages below state these limits");

typedef struct {
  const unsigned char *text;
  size_t n, at;
  const char *where;
  bool is_object[JSON_MAX_DEPTH]; /* the open brackets, outermost first */
  int depth;
  size_t n_values;
} scanner;

static hf_status refuse(const scanner *s, const char *what) {
  size_t line = 1;
  size_t end = s->at < s->n ? s->at : s->n;
  for (size_t i = 0; i < end; i++) line += s->text[i] == '\n';
  return hf_fail(HF_INPUT, "%s: line %zu: %s", s->where, line, what);
}

/* The byte at the read position, -1 at the end. */
static int peek(const scanner *s) {
  return s->at < s->n ? s->text[s->at] : -1;
}

static void skip_space(scanner *s) {
  for (int c = peek(s); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(s)) s->at++;
}

/* Four hexadecimal digits at the read position; -1 when they are not there. */
static int hex4(scanner *s) {
  int v = 0;
  for (int i = 0; i < 4; i++) {
    int c = peek(s);
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    v = v * 16 + digit;
    s->at++;
  }
  return v;
}

/* The part of an escape behind the backslash. */
static hf_status scan_escape(scanner *s) {
  int c = peek(s);
  if (c < 0) return refuse(s, "a string is not closed");
  if (c != 'u') {
    if (!memchr("\"\\/bfnrt", c, 8)) return refuse(s, "unknown escape in a string");
    s->at++;
    return HF_OK;
  }
  s->at++;
  int unit = hex4(s);
  if (unit < 0) return refuse(s, "\\u needs four hexadecimal digits");
  if (unit == 0) return refuse(s, "NUL character in a string");
  if (unit >= 0xdc00 && unit <= 0xdfff) return refuse(s, "second half of a surrogate pair without the first");
  if (unit >= 0xd800 && unit <= 0xdbff) {
    if (s->n - s->at < 2 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u') {
      return refuse(s, "first half of a surrogate pair without the second");
    }
    s->at += 2;
    int low = hex4(s);
    if (low < 0xdc00 || low > 0xdfff) return refuse(s, "first half of a surrogate pair without the second");
  }
  return HF_OK;
}

static hf_status scan_string(scanner *s) {
  s->at++;
  for (;;) {
    int c = peek(s);
    if (c < 0) return refuse(s, "a string is not closed");
    if (c == '"') break;
    if (c == 0) return refuse(s, "NUL byte");
    if (c < 0x20) return refuse(s, "control character in a string");
    if (c == '\\') {
      s->at++;
      HF_TRY(scan_escape(s));
    } else {
      int length = hf_utf8((const char *)s->text + s->at, s->n - s->at, NULL);
      if (length == 0) return refuse(s, "text is not valid UTF-8");
      s->at += (size_t)length;
    }
  }
  s->at++;
  return HF_OK;
}

static size_t skip_digits(scanner *s) {
  size_t from = s->at;
  for (int c = peek(s); c >= '0' && c <= '9'; c = peek(s)) s->at++;
  return s->at - from;
}

static hf_status scan_number(scanner *s) {
  size_t from = s->at;
  if (peek(s) == '-') s->at++;
  bool zero = peek(s) == '0';
  size_t digits = skip_digits(s);
  if (digits == 0) return refuse(s, "a number needs a digit here");
  if (zero && digits > 1) return refuse(s, "a number starts with a needless 0");
  if (peek(s) == '.') {
    s->at++;
    if (skip_digits(s) == 0) return refuse(s, "a number needs a digit after its point");
  }
  if (peek(s) == 'e' || peek(s) == 'E') {
    s->at++;
    if (peek(s) == '+' || peek(s) == '-') s->at++;
    if (skip_digits(s) == 0) return refuse(s, "a number needs a digit in its exponent");
  }
  char copy[NUMBER_MAX + 1];
  size_t length = s->at - from;
  if (length > NUMBER_MAX) return refuse(s, "a number has more than 60 characters");
  memcpy(copy, s->text + from, length);
  copy[length] = '\0';
  if (!isfinite(strtod(copy, NULL))) return refuse(s, "a number is too large");
  return HF_OK;
}

static hf_status scan_word(scanner *s) {
  static const char *const words[] = {"true", "false", "null"};
  for (int i = 0; i < 3; i++) {
    size_t length = strlen(words[i]);
    if (s->n - s->at >= length && memcmp(s->text + s->at, words[i], length) == 0) {
      s->at += length;
      return HF_OK;
    }
  }
  return refuse(s, peek(s) == 0 ? "NUL byte" : "a value is expected here");
}

static hf_status scan_key(scanner *s) {
  skip_space(s);
  if (peek(s) != '"') return refuse(s, "a member name in double quotes is expected here");
  HF_TRY(scan_string(s));
  skip_space(s);
  if (peek(s) != ':') return refuse(s, "':' is expected here");
  s->at++;
  return HF_OK;
}

/* Starts a value: a scalar is scanned whole, a bracket is opened. *open says that a value (or key) must follow. */
static hf_status scan_value(scanner *s, bool *open) {
  *open = false;
  skip_space(s);
  int c = peek(s);
  if (c < 0) return refuse(s, "the text ends where a value is expected");
  if (++s->n_values > JSON_MAX_VALUES) return refuse(s, "more than 8388608 values");
  if (c == '"') return scan_string(s);
  if (c == '-' || (c >= '0' && c <= '9')) return scan_number(s);
  if (c != '{' && c != '[') return scan_word(s);
  if (s->depth == JSON_MAX_DEPTH) return refuse(s, "nested more than 64 deep");
  s->is_object[s->depth++] = c == '{';
  s->at++;
  skip_space(s);
  if (peek(s) == (c == '{' ? '}' : ']')) return HF_OK; /* empty: closed by close_brackets */
  if (c == '{') HF_TRY(scan_key(s));
  *open = true;
  return HF_OK;
}

/* After a value: closes what ends here. *more says that a comma was read and another value follows. */
static hf_status close_brackets(scanner *s, bool *more) {
  *more = false;
  while (s->depth > 0) {
    bool object = s->is_object[s->depth - 1];
    skip_space(s);
    int c = peek(s);
    if (c == ',') {
      s->at++;
      *more = true;
      return object ? scan_key(s) : HF_OK;
    }
    if (c != (object ? '}' : ']')) {
      if (c < 0) return refuse(s, object ? "an object is not closed" : "an array is not closed");
      return refuse(s, object ? "',' or '}' is expected here" : "',' or ']' is expected here");
    }
    s->at++;
    s->depth--;
  }
  return HF_OK;
}

hf_status json_check_text(const char *text, size_t n, const char *where) {
  scanner s = {.text = (const unsigned char *)text, .n = n, .where = where};
  bool more = true;
  while (more) {
    bool open = true;
    while (open) HF_TRY(scan_value(&s, &open));
    HF_TRY(close_brackets(&s, &more));
  }
  skip_space(&s);
  if (s.at < n) return refuse(&s, s.text[s.at] == 0 ? "NUL byte" : "more text after the end of the value");
  return HF_OK;
}
