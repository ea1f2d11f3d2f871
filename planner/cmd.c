#include "planner/cmd.h"

#include <stdio.h>
#include <stdlib.h>

hf_status cmd_print_json(const json *o) {
  char *text = NULL;
  HF_TRY(json_print(o, true, &text));
  puts(text);
  free(text);
  return HF_OK;
}

hf_status cmd_no_operands(int n, char **rest, const char *verb) {
  return n > 0 ? hf_fail(HF_INPUT, "unexpected argument '%s'; see hf-plan %s --help", rest[0], verb) : HF_OK;
}

hf_status cmd_open_db(const cli_common *common, db **d) {
  char path[4096];
  HF_TRY(db_default_path(common->db_path, path, sizeof path));
  return db_open(path, true, d);
}
