/* Plan JSON from anybody. What is accepted must survive a round trip: writing it, reading that, writing again gives the same
 * text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static plan *read_text(const char *text, size_t n) {
  json *doc;
  plan *p = NULL;
  if (json_parse(text, n, "fuzz.json", &doc) != HF_OK) return NULL;
  if (plan_read_json(doc, "fuzz.json", &p) != HF_OK) p = NULL;
  json_free(doc);
  return p;
}

static char *write_text(const plan *p) {
  json *doc;
  char *text = NULL;
  if (plan_to_json(p, &doc) != HF_OK || json_print(doc, true, &text) != HF_OK) {
    fprintf(stderr, "accepted, but not written: %s\n", hf_error_line());
    abort();
  }
  json_free(doc);
  return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  plan *p = read_text((const char *)data, size);
  if (!p) return 0;
  char *first = write_text(p);
  plan *q = read_text(first, strlen(first));
  if (!q) {
    fprintf(stderr, "written, but not accepted: %s\n", hf_error_line());
    abort();
  }
  char *second = write_text(q);
  if (strcmp(first, second) != 0) abort();
  free(first);
  free(second);
  plan_free(p);
  plan_free(q);
  return 0;
}
