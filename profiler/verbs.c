#include "profiler/verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/compare.h"
#include "profiler/exchange.h"
#include "profiler/print.h"

static const char program[] = "hf-profile";
static const cli_option no_options[] = {{NULL}};

hf_status verb_open_db(const cli_common *common, bool create, db **out) {
  char path[4096];
  HF_TRY(db_default_path(common->db_path, path, sizeof path));
  return db_open(path, create, out);
}

hf_status verb_print(db *d, const rec_machine *m, bool as_json) {
  prof_view v;
  HF_TRY(prof_load(d, m, &v));
  hf_status st = HF_OK;
  if (as_json) st = prof_print_json(&v);
  else prof_print_table(&v);
  prof_view_free(&v);
  return st;
}

/* NULL: the newest measured here. */
static hf_status find(db *d, const char *name, rec_machine *m) {
  return name ? db_machine_find(d, name, m) : db_machine_latest(d, MACHINE_MEASURED, m);
}

static hf_status load_stored(const cli_common *common, const char *name, prof_view *out) {
  db *d = NULL;
  rec_machine m;
  HF_TRY(verb_open_db(common, false, &d));
  hf_status st = find(d, name, &m);
  if (st == HF_OK) st = prof_load(d, &m, out);
  db_close(d);
  return st;
}

/* ---- show ---- */

hf_status verb_show(int argc, char **argv) {
  static const cli_spec spec = {program,
                                "show",
                                "[ID_OR_NAME] [--db FILE] [--json]",
                                "Prints a measured machine of the database.",
                                "  hf-profile show\n      the newest machine measured here\n"
                                "  hf-profile show 3 --json\n      machine 3, for a script\n",
                                no_options};
  cli_common common;
  int n = 0;
  char **operands = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &operands, &stop));
  if (stop) return HF_OK;
  if (n > 1) return hf_fail(HF_INPUT, "one machine at a time: '%s' is too much; see hf-profile show --help", operands[1]);
  db *d = NULL;
  rec_machine m;
  HF_TRY(verb_open_db(&common, false, &d));
  hf_status st = find(d, n == 1 ? operands[0] : NULL, &m);
  if (st == HF_OK) st = verb_print(d, &m, common.json);
  db_close(d);
  return st;
}

/* ---- compare ---- */

static hf_status read_document(const char *file, prof_view *out) {
  json *doc = NULL;
  HF_TRY(json_read_file(file, EXCHANGE_MAX_BYTES, &doc));
  hf_status st = exchange_read(doc, file, out);
  json_free(doc);
  return st;
}

/* A machine of the database, or a file that hf-profile export wrote. */
static hf_status load_either(const cli_common *common, const char *name, prof_view *out) {
  if (name && access(name, F_OK) == 0) return read_document(name, out);
  size_t n = name ? strlen(name) : 0;
  if (name && (strchr(name, '/') || (n > 5 && !strcmp(name + n - 5, ".json"))))
    return hf_fail(HF_INPUT, "%s: no such file; hf-profile export --out FILE writes one", name);
  return load_stored(common, name, out);
}

hf_status verb_compare(int argc, char **argv) {
  static const cli_spec spec = {program,
                                "compare",
                                "A [B] [--db FILE] [--json]",
                                "Compares two profiles side by side: every figure and every kernel that both have, how much "
                                "faster b is, and how sure that is.\n\n"
                                "A and B are machines of the database, by name or number, or files that hf-profile export wrote. "
                                "Without B, the newest machine "
                                "measured here. Two profiles of one machine show what has changed in it; all threads of one "
                                "machine are compared with all threads "
                                "of the other.",
                                "  hf-profile compare 1 4\n      two profiles of this machine\n"
                                "  hf-profile compare colleague.json\n      a colleague's machine with this one\n",
                                no_options};
  cli_common common;
  int n = 0;
  char **operands = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &operands, &stop));
  if (stop) return HF_OK;
  if (n < 1 || n > 2) return hf_fail(HF_INPUT, "one or two machines are needed; see hf-profile compare --help");
  prof_view a = {.n_device = 0}, b = {.n_device = 0};
  comparison *c = NULL;
  hf_status st;
  HF_GO(out, load_either(&common, operands[0], &a));
  HF_GO(out, load_either(&common, n == 2 ? operands[1] : NULL, &b));
  HF_GO(out, compare_profiles(&a, &b, &c));
  if (common.json) st = compare_print_json(c);
  else compare_print(c);
out:
  compare_free(c);
  prof_view_free(&a);
  prof_view_free(&b);
  return st;
}

/* ---- export ---- */

static hf_status write_document(const prof_view *v, const char *file, bool as_json) {
  json *doc = NULL;
  HF_TRY(exchange_write(v, &doc));
  if (!file) return prof_print_document(doc);
  hf_status st = json_write_file(doc, file);
  json_free(doc);
  HF_TRY(hf_note(st, "option --out"));
  if (!as_json) {
    hf_log(HF_LOG_INFO, "machine %lld (%s) written to %s", (long long)v->machine.id, v->machine.name, file);
    return HF_OK;
  }
  json *said = json_new_object();
  json_add_int(said, "machine_id", v->machine.id);
  json_add_str(said, "machine", v->machine.name);
  json_add_str(said, "file", file);
  json_add_int(said, "figures", v->n_figure);
  json_add_int(said, "kernels", v->n_point);
  json_add_int(said, "links", v->n_link);
  return prof_print_document(said);
}

hf_status verb_export(int argc, char **argv) {
  const char *file = NULL, *name = NULL;
  const cli_option table[] = {
      {"out", 'o', CLI_STR, &file, "FILE", "Write to this file. Default: standard output.", 0, 0},
      {"name", 0, CLI_STR, &name, "NAME", "Name of the machine in the document. Default: its name here.", 0, 0},
      {NULL},
  };
  const cli_spec spec = {program,
                         "export",
                         "[ID_OR_NAME] [--out FILE] [--name NAME] [--db FILE] [--json]",
                         "Writes a measured machine as one JSON document, for a colleague's hf-profile import or compare.",
                         "  hf-profile export --out box.json\n      the newest machine measured here\n"
                         "  hf-profile export 3 --name lab-server\n      machine 3 under another name, on standard output\n",
                         table};
  cli_common common;
  int n = 0;
  char **operands = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &operands, &stop));
  if (stop) return HF_OK;
  if (n > 1) return hf_fail(HF_INPUT, "one machine at a time: '%s' is too much; see hf-profile export --help", operands[1]);
  if (name && (name[0] == '\0' || strlen(name) > 127)) return hf_fail(HF_INPUT, "option --name: 1 to 127 bytes are needed");
  prof_view v;
  HF_TRY(load_stored(&common, n == 1 ? operands[0] : NULL, &v));
  if (name) snprintf(v.machine.name, sizeof v.machine.name, "%s", name);
  hf_status st = write_document(&v, file, common.json);
  prof_view_free(&v);
  return st;
}

/* ---- import ---- */

static hf_status said(const prof_view *v, bool as_json) {
  if (!as_json) {
    printf("machine %lld  %s: %d figures, %d points of kernels, %d of links\n", (long long)v->machine.id, v->machine.name,
           v->n_figure, v->n_point, v->n_link);
    printf("plan with it: hf-plan plan --machine %lld --model NAME_OR_PATH --users N --context N\n", (long long)v->machine.id);
    return HF_OK;
  }
  json *o = json_new_object();
  json_add_int(o, "machine_id", v->machine.id);
  json_add_str(o, "machine", v->machine.name);
  json_add_int(o, "created_s", v->machine.created_ns / 1000000000);
  json_add_int(o, "devices", v->n_device);
  json_add_int(o, "figures", v->n_figure);
  json_add_int(o, "kernels", v->n_point);
  json_add_int(o, "links", v->n_link);
  return prof_print_document(o);
}

hf_status verb_import(int argc, char **argv) {
  const char *name = NULL;
  const cli_option table[] = {
      {"name", 0, CLI_STR, &name, "NAME", "Name of the machine in this database. Default: the one in the document.", 0, 0},
      {NULL},
  };
  const cli_spec spec = {
      program,
      "import",
      "FILE [--name NAME] [--db FILE] [--json]",
      "Takes a machine that hf-profile export wrote into the database, to plan with it by name or number.\n\n"
      "Everything in the document is checked first; nothing is written when anything is wrong. An imported machine "
      "is never taken for this one: hf-plan without --machine and hf-profile show go on with the newest measured here.",
      "  hf-profile import colleague.json --name lab\n      then hf-plan plan --machine lab ...\n",
      table};
  cli_common common;
  int n = 0;
  char **operands = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &operands, &stop));
  if (stop) return HF_OK;
  if (n != 1) return hf_fail(HF_INPUT, "one file is needed; see hf-profile import --help");
  db *d = NULL;
  prof_view v = {.n_device = 0};
  char own[sizeof v.machine.name];
  HF_TRY(read_document(operands[0], &v));
  snprintf(own, sizeof own, "%s", v.machine.name);
  hf_status st;
  HF_GO(out, verb_open_db(&common, true, &d));
  HF_GO(out, hf_note(exchange_store(d, &v, name ? name : own, operands[0]), "%s", operands[0]));
  st = said(&v, common.json);
out:
  db_close(d);
  prof_view_free(&v);
  return st;
}
