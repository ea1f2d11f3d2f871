/* cases.h: published measurements as rows of a CSV file (tests/validation/published-cases.csv says which columns there are). What the file says is
 * text; planner/validate/resolve.h makes sense of it. A file from anybody is refused with row, column and reason, never half read. */
#ifndef HF_PLANNER_VALIDATE_CASES_H
#define HF_PLANNER_VALIDATE_CASES_H
#include "base/mem.h"

enum { CASES_MAX_ROWS = 4096, CASES_MAX_FIELD = 2048, CASES_MAX_BYTES = 4 << 20 };

/* Texts are "" where the file has nothing; numbers 0. */
typedef struct {
  const char *id, *source, *model, *params_total, *weights_format, *gpu, *cpu, *memory, *engine, *placement, *notes;
  int concurrency;
  double prompt_tokens, context_from, context_to; /* "1024..2048" is a range; one number: both */
  bool has_context;                               /* 0 is a depth, nothing is none */
  double prefill_tok_s, decode_tok_s;
  int line;
} published_case;

typedef struct {
  int n;
  published_case *row; /* owned, as are the texts */
  hf_arena *arena;
} published_cases;

/* RFC 4180: quoted fields may hold commas, quotes (doubled) and line ends; a byte order mark and CRLF are accepted. The first record names
 * the columns, in any order; each of the known ones must be there once, others are refused. Ids are unique, decode or prefill is there.
 * HF_INPUT with "where: line L, column C: reason", HF_MACHINE out of memory. where starts error lines. */
HF_MUST hf_status published_cases_parse(const char *text, size_t n, const char *where, published_cases *out);
/* Reads a file of at most CASES_MAX_BYTES first. */
HF_MUST hf_status published_cases_read(const char *path, published_cases *out);
void published_cases_free(published_cases *c);
#endif
