/* JSON: no input crashes; what is accepted prints to text that is accepted again and prints to the same text. */
#include "base/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
  if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json *first = NULL, *second = NULL;
  if (json_parse((const char *)data, size, "input", &first) != HF_OK) {
    require(first == NULL && hf_error_line()[0] != '\0' && strchr(hf_error_line(), '\n') == NULL);
    return 0;
  }
  for (int pretty = 0; pretty < 2; pretty++) {
    char *text = NULL, *again = NULL;
    require(json_print(first, pretty, &text) == HF_OK);
    require(json_parse(text, strlen(text), "printed", &second) == HF_OK);
    require(json_print(second, pretty, &again) == HF_OK);
    require(strcmp(text, again) == 0);
    json_free(second);
    second = NULL;
    free(text);
    free(again);
  }
  int64_t whole;
  double number;
  const char *string;
  bool flag;
  for (const json *m = json_first(first); m; m = json_next(m)) {
    hf_status st = json_opt_int(first, "input", json_key(m), -5, 1 << 20, &whole);
    st = json_opt_num(first, "input", json_key(m), -1, 1e9, &number);
    st = json_opt_bool(first, "input", json_key(m), &flag);
    st = json_opt_str(first, "input", json_key(m), &string);
    require(st != HF_OK || json_type(first) == JSON_OBJECT);
  }
  json_free(first);
  return 0;
}
