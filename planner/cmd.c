#include "planner/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

hf_status cmd_check_folder(const char *option, const char *file) {
  if (file == NULL) return HF_OK;
  char folder[4096];
  const char *slash = strrchr(file, '/');
  snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - file) + 1 : 1, slash != NULL ? file : ".");
  if (access(folder, W_OK) == 0) return HF_OK;
  return hf_fail(HF_INPUT, "option %s: %s: nothing can be written to %s: %s", option, file, folder, strerror(errno));
}

hf_status cmd_open_db(const cli_common *common, db **d) {
  char path[4096];
  HF_TRY(db_default_path(common->db_path, path, sizeof path));
  return db_open(path, true, d);
}

/* At most 18 digits: what does not fit 64 bits is no stored plan's number. */
static bool is_number(const char *s) {
  size_t n = strspn(s, "0123456789");
  return n > 0 && n <= 18 && s[n] == '\0';
}

static hf_status newest_plan(db *d, int64_t *id) {
  rec_plan_head *heads = NULL;
  int n = 0;
  HF_TRY(db_plan_heads(d, &heads, &n));
  if (n > 0) *id = heads[0].id;
  free(heads);
  return n > 0 ? HF_OK : hf_fail(HF_NOT_FOUND, "the database has no plan yet; run hf-plan plan first");
}

hf_status cmd_read_plan(const cli_common *common, const char *name, plan **out) {
  bool latest = strcmp(name, "latest") == 0;
  if (!latest && !is_number(name)) return hf_note(plan_read_file(name, out), "option --plan");
  db *d = NULL;
  int64_t id = latest ? 0 : atoll(name);
  HF_TRY(cmd_open_db(common, &d));
  hf_status st = latest ? newest_plan(d, &id) : HF_OK;
  if (st == HF_OK) st = db_plan_get(d, id, out);
  db_close(d);
  return hf_note(st, "option --plan");
}
