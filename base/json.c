#include "base/json.h"

#include "base/json_check.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A `json` is a cJSON node behind an opaque name. The strict grammar is checked before cJSON sees a text, since cJSON itself is
 * lenient (leading zeros, control characters, strings cut at \u0000); printing is our own, since cJSON rounds numbers to 15
 * digits where that is "nearly" right. */

enum { POISON = 1 << 20 };           /* in cJSON's type, above its own bits: something below this node could not be added */
#define INT_EXACT 9007199254740992.0 /* 2^53 */
#define PRINT_LIMIT ((size_t)1 << 31)

static pthread_once_t hooks_once = PTHREAD_ONCE_INIT;

/* cJSON's allocations go through hf_alloc too, so that tests can fail them. */
static void *cjson_malloc(size_t n) {
  void *p;
  return hf_alloc(&p, n, 1, "a JSON document") == HF_OK ? p : NULL;
}

static void install_hooks(void) {
  cJSON_Hooks hooks = {.malloc_fn = cjson_malloc, .free_fn = free};
  cJSON_InitHooks(&hooks);
}

static const cJSON *node(const json *v) {
  return (const cJSON *)v;
}

static json *wrap(cJSON *v) {
  return (json *)v;
}

static int compare_keys(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A member named twice contradicts itself, and readers disagree on which one counts. n members, n >= 2. */
static hf_status check_members(const cJSON *object, size_t n, const char *where) {
  const char **keys;
  HF_TRY(hf_alloc(&keys, n, sizeof *keys, "JSON member names"));
  size_t i = 0;
  for (const cJSON *m = object->child; m; m = m->next) keys[i++] = m->string;
  qsort(keys, n, sizeof *keys, compare_keys);
  hf_status st = HF_OK;
  for (i = 1; i < n && st == HF_OK; i++) {
    if (strcmp(keys[i - 1], keys[i]) == 0) st = hf_fail(HF_INPUT, "%s: field %s appears twice in one object", where, keys[i]);
  }
  free(keys);
  return st;
}

/* Recursion is bounded by JSON_MAX_DEPTH, checked before. */
static hf_status check_duplicates(const cJSON *v, const char *where) {
  size_t n = 0;
  for (const cJSON *m = v->child; m; m = m->next) {
    n++;
    if (m->child) HF_TRY(check_duplicates(m, where));
  }
  return cJSON_IsObject(v) && n > 1 ? check_members(v, n, where) : HF_OK;
}

hf_status json_parse(const char *text, size_t n, const char *where, json **out) {
  pthread_once(&hooks_once, install_hooks);
  HF_TRY(json_check_text(text, n, where));
  cJSON *root = cJSON_ParseWithLength(text, n);
  /* The grammar has been checked, so what is left is memory. */
  if (!root) return hf_fail(HF_MACHINE, "%s: out of memory while reading %zu bytes of JSON", where, n);
  hf_status st = check_duplicates(root, where);
  if (st != HF_OK) {
    cJSON_Delete(root);
    return st;
  }
  *out = wrap(root);
  return HF_OK;
}

hf_status json_read_file(const char *path, size_t max_bytes, json **out) {
  char *text = NULL;
  size_t n;
  HF_TRY(hf_read_file(path, max_bytes, &text, &n));
  hf_status st = json_parse(text, n, path, out);
  free(text);
  return st;
}

void json_free(json *root) {
  cJSON_Delete((cJSON *)root);
}

json_kind json_type(const json *v) {
  if (!v) return JSON_NULL;
  switch (node(v)->type & 0xff) {
    case cJSON_False:
    case cJSON_True: return JSON_BOOL;
    case cJSON_Number: return JSON_NUMBER;
    case cJSON_String: return JSON_STRING;
    case cJSON_Array: return JSON_ARRAY;
    case cJSON_Object: return JSON_OBJECT;
    default: return JSON_NULL;
  }
}

const json *json_get(const json *obj, const char *key) {
  return cJSON_IsObject(node(obj)) ? wrap(cJSON_GetObjectItemCaseSensitive(node(obj), key)) : NULL;
}

int json_len(const json *v) {
  return v && (cJSON_IsArray(node(v)) || cJSON_IsObject(node(v))) ? cJSON_GetArraySize(node(v)) : 0;
}

const json *json_first(const json *v) {
  return v ? wrap(node(v)->child) : NULL;
}

const json *json_next(const json *v) {
  return v ? wrap(node(v)->next) : NULL;
}

const json *json_at(const json *arr, int i) {
  return arr && i >= 0 ? wrap(cJSON_GetArrayItem(node(arr), i)) : NULL;
}

const char *json_key(const json *member) {
  return member && node(member)->string ? node(member)->string : "";
}

const char *json_string(const json *v) {
  return v && cJSON_IsString(node(v)) ? node(v)->valuestring : NULL;
}

double json_number(const json *v, double fallback) {
  return v && cJSON_IsNumber(node(v)) ? node(v)->valuedouble : fallback;
}

static const char *kind_name(const json *v) {
  static const char *const names[] = {"null", "true or false", "a number", "a string", "an array", "an object"};
  return names[json_type(v)];
}

/* The member if it has the wanted kind; an error that says what is there instead otherwise. */
static hf_status member(const json *obj, const char *where, const char *key, json_kind want, const char *wanted,
                        const json **out) {
  if (!cJSON_IsObject(node(obj))) {
    return hf_fail(HF_INPUT, "%s: field %s: %s stands where an object with it is expected", where, key,
                   obj ? kind_name(obj) : "nothing");
  }
  const json *v = json_get(obj, key);
  if (!v) return hf_fail(HF_INPUT, "%s: field %s is missing (%s is expected)", where, key, wanted);
  if (json_type(v) != want) {
    return hf_fail(HF_INPUT, "%s: field %s: %s where %s is expected", where, key, kind_name(v), wanted);
  }
  *out = v;
  return HF_OK;
}

static bool absent(const json *obj, const char *key) {
  return !obj || (cJSON_IsObject(node(obj)) && json_type(json_get(obj, key)) == JSON_NULL);
}

hf_status json_get_int(const json *obj, const char *where, const char *key, int64_t lo, int64_t hi, int64_t *out) {
  const json *v;
  HF_TRY(member(obj, where, key, JSON_NUMBER, "a whole number", &v));
  double d = node(v)->valuedouble;
  if (d != floor(d) || fabs(d) > INT_EXACT) {
    return hf_fail(HF_INPUT, "%s: field %s: %.17g where a whole number is expected", where, key, d);
  }
  int64_t i = (int64_t)d;
  if (i < lo) {
    return hf_fail(HF_INPUT, "%s: field %s: %lld is below the least allowed, %lld", where, key, (long long)i, (long long)lo);
  }
  if (i > hi) {
    return hf_fail(HF_INPUT, "%s: field %s: %lld is above the most allowed, %lld", where, key, (long long)i, (long long)hi);
  }
  *out = i;
  return HF_OK;
}

hf_status json_get_num(const json *obj, const char *where, const char *key, double lo, double hi, double *out) {
  const json *v;
  HF_TRY(member(obj, where, key, JSON_NUMBER, "a number", &v));
  double d = node(v)->valuedouble;
  if (!(d >= lo)) return hf_fail(HF_INPUT, "%s: field %s: %.10g is below the least allowed, %.10g", where, key, d, lo);
  if (!(d <= hi)) return hf_fail(HF_INPUT, "%s: field %s: %.10g is above the most allowed, %.10g", where, key, d, hi);
  *out = d;
  return HF_OK;
}

hf_status json_get_str(const json *obj, const char *where, const char *key, const char **out) {
  const json *v;
  HF_TRY(member(obj, where, key, JSON_STRING, "a string", &v));
  *out = node(v)->valuestring;
  return HF_OK;
}

hf_status json_get_bool(const json *obj, const char *where, const char *key, bool *out) {
  const json *v;
  HF_TRY(member(obj, where, key, JSON_BOOL, "true or false", &v));
  *out = cJSON_IsTrue(node(v));
  return HF_OK;
}

hf_status json_opt_int(const json *obj, const char *where, const char *key, int64_t lo, int64_t hi, int64_t *out) {
  return absent(obj, key) ? HF_OK : json_get_int(obj, where, key, lo, hi, out);
}

hf_status json_opt_num(const json *obj, const char *where, const char *key, double lo, double hi, double *out) {
  return absent(obj, key) ? HF_OK : json_get_num(obj, where, key, lo, hi, out);
}

hf_status json_opt_str(const json *obj, const char *where, const char *key, const char **out) {
  return absent(obj, key) ? HF_OK : json_get_str(obj, where, key, out);
}

hf_status json_opt_bool(const json *obj, const char *where, const char *key, bool *out) {
  return absent(obj, key) ? HF_OK : json_get_bool(obj, where, key, out);
}

json *json_new_object(void) {
  pthread_once(&hooks_once, install_hooks);
  return wrap(cJSON_CreateObject());
}

json *json_new_array(void) {
  pthread_once(&hooks_once, install_hooks);
  return wrap(cJSON_CreateArray());
}

/* Hangs child below parent. When that cannot be, the parent remembers it for json_print. */
static json *attach(json *parent, const char *key, cJSON *child) {
  cJSON *p = (cJSON *)parent;
  if (!p) {
    cJSON_Delete(child);
    return NULL;
  }
  bool fits = child && (key ? cJSON_IsObject(p) : cJSON_IsArray(p));
  if (!fits || !(key ? cJSON_AddItemToObject(p, key, child) : cJSON_AddItemToArray(p, child))) {
    cJSON_Delete(child);
    p->type |= POISON;
    return NULL;
  }
  return wrap(child);
}

json *json_add_object(json *parent, const char *key) {
  return parent ? attach(parent, key, cJSON_CreateObject()) : NULL;
}

json *json_add_array(json *parent, const char *key) {
  return parent ? attach(parent, key, cJSON_CreateArray()) : NULL;
}

json *json_add_num(json *parent, const char *key, double v) {
  return parent ? attach(parent, key, isfinite(v) ? cJSON_CreateNumber(v) : cJSON_CreateNull()) : NULL;
}

json *json_add_int(json *parent, const char *key, int64_t v) {
  return json_add_num(parent, key, (double)v);
}

json *json_add_str(json *parent, const char *key, const char *s) {
  return parent ? attach(parent, key, s ? cJSON_CreateString(s) : cJSON_CreateNull()) : NULL;
}

json *json_add_bool(json *parent, const char *key, bool v) {
  return parent ? attach(parent, key, cJSON_CreateBool(v)) : NULL;
}

json *json_add_null(json *parent, const char *key) {
  return parent ? attach(parent, key, cJSON_CreateNull()) : NULL;
}

json *json_add_copy(json *parent, const char *key, const json *v) {
  return parent ? attach(parent, key, v ? cJSON_Duplicate(node(v), 1) : NULL) : NULL;
}

/* Printing */

static hf_status print_string(hf_buf *b, const char *s) {
  static const char short_escapes[] = "\bb\ff\nn\rr\tt\"\"\\\\";
  HF_TRY(hf_buf_add(b, "\"", 1));
  const unsigned char *at = (const unsigned char *)s;
  size_t n = strlen(s);
  while (n > 0) {
    size_t plain = 0; /* bytes that stand for themselves go out in one piece */
    while (plain < n && at[plain] >= 0x20 && at[plain] != '"' && at[plain] != '\\') {
      int length = hf_utf8((const char *)at + plain, n - plain, NULL);
      if (length == 0) break;
      plain += (size_t)length;
    }
    HF_TRY(hf_buf_add(b, at, plain));
    at += plain;
    n -= plain;
    if (n == 0) break;
    const char *escape = NULL;
    for (const char *e = short_escapes; *e && !escape; e += 2) {
      if ((unsigned char)e[0] == *at) escape = e + 1;
    }
    if (escape) HF_TRY(hf_buf_printf(b, "\\%c", *escape));
    else if (*at < 0x20) HF_TRY(hf_buf_printf(b, "\\u%04x", *at));
    else HF_TRY(hf_buf_add(b, "\xef\xbf\xbd", 3)); /* not UTF-8: U+FFFD, so that the output always is */
    at++;
    n--;
  }
  return hf_buf_add(b, "\"", 1);
}

static hf_status print_number(hf_buf *b, double v) {
  if (!isfinite(v)) return hf_buf_add(b, "null", 4);
  if (v == floor(v) && fabs(v) <= INT_EXACT) return hf_buf_printf(b, "%.0f", v);
  char text[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, v);
    if (strtod(text, NULL) == v) break;
  }
  return hf_buf_add(b, text, strlen(text));
}

static hf_status print_break(hf_buf *b, bool pretty, int depth) {
  if (!pretty) return HF_OK;
  return hf_buf_printf(b, "\n%*s", 2 * depth, "");
}

static hf_status print_value(hf_buf *b, const cJSON *v, bool pretty, int depth) {
  if (v->type & POISON) return hf_fail(HF_MACHINE, "out of memory while a JSON document was built");
  switch (v->type & 0xff) {
    case cJSON_False: return hf_buf_add(b, "false", 5);
    case cJSON_True: return hf_buf_add(b, "true", 4);
    case cJSON_Number: return print_number(b, v->valuedouble);
    case cJSON_String: return print_string(b, v->valuestring);
    case cJSON_Array:
    case cJSON_Object: break;
    default: return hf_buf_add(b, "null", 4);
  }
  if (depth == JSON_MAX_DEPTH) return hf_fail(HF_INPUT, "JSON document: nested more than %d deep", JSON_MAX_DEPTH);
  bool object = cJSON_IsObject(v);
  bool lines = pretty && v->child; /* an array of scalars stays on one line: placements would fill screens */
  if (!object) {
    bool nested = false;
    for (const cJSON *m = v->child; m && !nested; m = m->next) nested = cJSON_IsArray(m) || cJSON_IsObject(m);
    lines = lines && nested;
  }
  HF_TRY(hf_buf_add(b, object ? "{" : "[", 1));
  for (const cJSON *m = v->child; m; m = m->next) {
    HF_TRY(print_break(b, lines, depth + 1));
    if (object) {
      HF_TRY(print_string(b, m->string));
      HF_TRY(hf_buf_add(b, ": ", pretty ? 2 : 1));
    }
    HF_TRY(print_value(b, m, pretty, depth + 1));
    if (m->next) HF_TRY(hf_buf_add(b, ", ", pretty && !lines ? 2 : 1));
  }
  HF_TRY(print_break(b, lines, depth));
  return hf_buf_add(b, object ? "}" : "]", 1);
}

hf_status json_print(const json *v, bool pretty, char **out) {
  if (!v) return hf_fail(HF_MACHINE, "out of memory while a JSON document was built");
  hf_buf b;
  hf_buf_init(&b, PRINT_LIMIT);
  hf_status st = print_value(&b, node(v), pretty, 0);
  if (st != HF_OK) {
    hf_buf_free(&b);
    return st;
  }
  *out = b.data;
  return HF_OK;
}

hf_status json_write_file(const json *v, const char *path) {
  char *text = NULL;
  hf_status st = json_print(v, true, &text);
  if (st != HF_OK) return hf_note(st, "%s", path);
  size_t n = strlen(text);
  text[n] = '\n'; /* in the place of the NUL: the file gets n + 1 bytes */
  st = hf_write_file(path, text, n + 1);
  free(text);
  return st;
}
