/* json.h: JSON over cJSON (whose header appears in base/json.c alone), with limits and errors that name file and field.
 *
 * A `json` is a node of a document; the root owns all of it. Getters take `where`, the text that starts the error
 * line (usually the file name, possibly with a path inside: "plan.json: placement[3]").
 * Thread rule: one document, one thread at a time for writing; reading is free. */
#ifndef HF_BASE_JSON_H
#define HF_BASE_JSON_H

#include "base/mem.h"

typedef struct json json;
typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_kind;

/* A node takes about 100 bytes, so that MB of text could ask for GB ("[0,0,0,..."). No document of ours comes near this many. */
enum { JSON_MAX_DEPTH = 64, JSON_MAX_VALUES = 1 << 23 };

/* Parses n bytes. HF_INPUT with "where: line L: what" on a syntax error, trailing bytes, depth over JSON_MAX_DEPTH,
 * more than JSON_MAX_VALUES values, a NUL byte or \u0000 inside, a member named twice in one object, or invalid UTF-8. *out is
 * set only on success; free with json_free. */
HF_MUST hf_status json_parse(const char *text, size_t n, const char *where, json **out);
/* Reads a whole file first. HF_NOT_FOUND when it does not exist, HF_INPUT over max_bytes, HF_MACHINE on a read error. */
HF_MUST hf_status json_read_file(const char *path, size_t max_bytes, json **out);
/* Reads a whole file into memory (NUL added); free(*out). Shared by every reader of small text files. */
HF_MUST hf_status hf_read_file(const char *path, size_t max_bytes, char **out, size_t *n);
/* Writes a whole file through a temporary one beside it and rename (devices and pipes: directly). On failure the old file is
 * still there. HF_NOT_FOUND: no such folder; HF_INPUT: not allowed; HF_MACHINE: disk full, I/O error. */
HF_MUST hf_status hf_write_file(const char *path, const void *bytes, size_t n);
/* The same for content that nobody has in memory: fill writes it to fd, which it leaves open, and names path in its errors. */
typedef hf_status hf_write_fn(int fd, const char *path, void *user);
HF_MUST hf_status hf_write_file_by(const char *path, hf_write_fn *fill, void *user);
/* Whether hf_write_file may write there, asked before long work: into the folder of the file, or to the pipe or device. HF_NOT_FOUND: no such folder;
 * HF_INPUT: not allowed, or a folder itself. */
HF_MUST hf_status hf_can_write(const char *path);
void json_free(json *root);

json_kind json_type(const json *v);
const json *json_get(const json *obj, const char *key); /* NULL when absent or obj is no object */
int json_len(const json *v);                            /* elements of an array, members of an object, else 0 */
const json *json_first(const json *v);                  /* first element/member or NULL; then json_next: O(1) each */
const json *json_next(const json *v);
const json *json_at(const json *arr, int i);        /* O(i): for loops use json_first/json_next */
const char *json_key(const json *member);           /* "" for array elements */
const char *json_string(const json *v);             /* NULL when v is NULL or not a string */
double json_number(const json *v, double fallback); /* fallback when v is NULL or not a number */

/* Required members; each error names where and key and what was expected. lo <= *out <= hi is checked. */
HF_MUST hf_status json_get_int(const json *obj, const char *where, const char *key, int64_t lo, int64_t hi, int64_t *out);
HF_MUST hf_status json_get_num(const json *obj, const char *where, const char *key, double lo, double hi, double *out);
HF_MUST hf_status json_get_str(const json *obj, const char *where, const char *key, const char **out);
HF_MUST hf_status json_get_bool(const json *obj, const char *where, const char *key, bool *out);
/* Optional members: absent or null leaves *out as it is; present but wrong is an error. */
HF_MUST hf_status json_opt_int(const json *obj, const char *where, const char *key, int64_t lo, int64_t hi, int64_t *out);
HF_MUST hf_status json_opt_num(const json *obj, const char *where, const char *key, double lo, double hi, double *out);
HF_MUST hf_status json_opt_str(const json *obj, const char *where, const char *key, const char **out);
HF_MUST hf_status json_opt_bool(const json *obj, const char *where, const char *key, bool *out);

/* Building. Functions that add return the child, or NULL after an allocation failure; a NULL parent is accepted and gives
 * NULL, so a whole document is built without checks and json_print then reports HF_MACHINE (so does a member added to an
 * array, or an element to an object). Non-finite numbers and NULL strings become null; bytes that are not UTF-8 become U+FFFD.
 * Numbers print shortest-round-trip; integers up to 2^53 exactly. */
json *json_new_object(void);
json *json_new_array(void);
json *json_add_object(json *parent, const char *key); /* key NULL: parent is an array */
json *json_add_array(json *parent, const char *key);
json *json_add_num(json *parent, const char *key, double v);
json *json_add_int(json *parent, const char *key, int64_t v);
json *json_add_str(json *parent, const char *key, const char *s);
json *json_add_bool(json *parent, const char *key, bool v);
json *json_add_null(json *parent, const char *key);
json *json_add_copy(json *parent, const char *key, const json *v);    /* deep copy */
HF_MUST hf_status json_print(const json *v, bool pretty, char **out); /* free(*out) */
/* Writes to path through a temporary file and rename, so that a reader never sees half of it. */
HF_MUST hf_status json_write_file(const json *v, const char *path);

#endif
