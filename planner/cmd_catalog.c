/* cmd_catalog.c: hf-plan catalog. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/catalog.h"
#include "planner/cmd.h"

static const char *const kinds[] = {"models", "gpus", "cpus", "memory", "machines", "priors"};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static hf_status list_kind(const char *kind, json *o) {
  char **names = NULL;
  int n = 0;
  HF_TRY(catalog_names(kind, &names, &n));
  json *a = json_add_array(o, kind);
  for (int i = 0; i < n; i++) json_add_str(a, NULL, names[i]);
  free(names);
  return HF_OK;
}

static hf_status catalog_list(int n, char **rest, bool as_json) {
  json *o = json_new_object();
  hf_status st = HF_OK;
  for (int i = 0; i < N_KINDS && st == HF_OK; i++)
    if (n == 0 || strcmp(rest[0], kinds[i]) == 0) st = list_kind(kinds[i], o);
  if (st == HF_OK && json_len(o) == 0)
    st = hf_fail(HF_INPUT, "catalog list: '%s' is none of models, gpus, cpus, memory, machines, priors", rest[0]);
  if (st == HF_OK && as_json) st = cmd_print_json(o);
  for (const json *k = st == HF_OK && !as_json ? json_first(o) : NULL; k != NULL; k = json_next(k)) {
    printf("%s\n", json_key(k));
    for (const json *v = json_first(k); v != NULL; v = json_next(v)) printf("  %s\n", json_string(v));
  }
  json_free(o);
  return st;
}

/* "show NAME" looks in every kind, "show KIND NAME" in one. */
static hf_status catalog_show(int n, char **rest) {
  json *doc = NULL;
  hf_status st = HF_NOT_FOUND;
  if (n == 2) {
    st = catalog_get(rest[0], rest[1], &doc);
  } else {
    for (int i = 0; i < N_KINDS && st == HF_NOT_FOUND; i++) st = catalog_get(kinds[i], rest[0], &doc);
    if (st == HF_NOT_FOUND)
      return hf_fail(HF_NOT_FOUND, "catalog show: nothing is named '%s'; see hf-plan catalog list", rest[0]);
  }
  HF_TRY(st);
  hf_clear_error();
  st = cmd_print_json(doc);
  json_free(doc);
  return st;
}

hf_status cmd_catalog(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "catalog",
      .synopsis = "list [KIND] | show [KIND] NAME",
      .description = "Lists known models and hardware, or prints an entry with the source and date of each fact. KIND is models, "
                     "gpus, cpus, memory, machines or priors. $HF_CATALOG names a folder that adds or overrides entries.",
      .examples = "  hf-plan catalog list machines\n      Complete machines by name.\n"
                  "  hf-plan catalog show rtx4090\n      One entry.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  if (n >= 1 && n <= 2 && strcmp(rest[0], "list") == 0) return catalog_list(n - 1, rest + 1, common.json);
  if (n >= 2 && n <= 3 && strcmp(rest[0], "show") == 0) return catalog_show(n - 1, rest + 1);
  return hf_fail(HF_INPUT, "catalog: say list [KIND] or show [KIND] NAME; see hf-plan catalog --help");
}
