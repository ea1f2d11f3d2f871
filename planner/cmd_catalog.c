/* cmd_catalog.c: hf-plan catalog: lists with the figures people compare, entries whole, and a check of all of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "db/catalog.h"
#include "model/model.h"
#include "planner/catalog_template.h"
#include "planner/cmd.h"

enum { CELL_BYTES = 96, MAX_COLUMNS = 12 };

/* ---- columns ---- */

/* A column is a fact (key, with factor and decimals for people), or a function that writes text. */
typedef struct {
  const char *kind, *header, *key;
  double factor;
  int decimals;
  void (*text)(const json *doc, char *cell);
} column;

static double number_at(const json *doc, const char *key) {
  return json_number(json_get(json_get(doc, key), "value"), NAN);
}

static void text_of(const json *doc, const char *key, char *cell) {
  const char *s = json_string(json_get(doc, key));
  snprintf(cell, CELL_BYTES, "%.90s", s ? s : "-");
}

static void cell_title(const json *doc, char *cell) {
  text_of(doc, "title", cell);
}
static void cell_class(const json *doc, char *cell) {
  text_of(doc, "class", cell);
}
static void cell_form(const json *doc, char *cell) {
  text_of(doc, "form", cell);
}
static void cell_type(const json *doc, char *cell) {
  text_of(doc, "type", cell);
}
static void cell_base(const json *doc, char *cell) {
  text_of(doc, "base", cell);
}
static void cell_format(const json *doc, char *cell) {
  text_of(doc, "default_format", cell);
}
static void cell_family(const json *doc, char *cell) {
  text_of(json_get(doc, "config"), "model_type", cell);
}
static void cell_context(const json *doc, char *cell) {
  snprintf(cell, CELL_BYTES, "%.0f", json_number(json_get(json_get(doc, "config"), "max_position_embeddings"), NAN));
}
static void cell_pcie(const json *doc, char *cell) {
  snprintf(cell, CELL_BYTES, "%.0f.0 x%.0f", number_at(doc, "pcie_gen"), number_at(doc, "pcie_lanes"));
}

static void cell_amx(const json *doc, char *cell) {
  bool amx = false;
  for (const json *v = json_first(json_get(json_get(doc, "isa"), "value")); v != NULL; v = json_next(v)) {
    const char *s = json_string(v);
    amx = amx || (s != NULL && strncmp(s, "amx", 3) == 0);
  }
  snprintf(cell, CELL_BYTES, "%s", amx ? "yes" : "-");
}

/* "ddr5-6400 mrdimm-8800": what it drives at one module per channel. */
static void cell_speeds(const json *doc, char *cell) {
  size_t used = 0;
  cell[0] = 0;
  for (const json *s = json_first(json_get(doc, "memory_speeds")); s != NULL && used < CELL_BYTES; s = json_next(s)) {
    const char *type = json_string(json_get(s, "type"));
    if (type == NULL || json_number(json_get(s, "dimms_per_channel"), 0) != 1) continue;
    used += (size_t)snprintf(cell + used, CELL_BYTES - used, "%s%s %.0f", used ? ", " : "", type,
                             number_at(s, "transfers_per_s") / 1e6);
  }
}

static void cell_cpu(const json *doc, char *cell) {
  const char *cpu = json_string(json_get(doc, "cpu"));
  if (cpu == NULL) snprintf(cell, CELL_BYTES, "stated figures");
  else snprintf(cell, CELL_BYTES, "%.0f x %.60s", json_number(json_get(doc, "sockets"), 1), cpu);
}
static void cell_memory(const json *doc, char *cell) {
  text_of(json_get(doc, "memory"), "kind", cell);
}

static void cell_gpus(const json *doc, char *cell) {
  size_t used = 0;
  snprintf(cell, CELL_BYTES, "-");
  for (const json *g = json_first(json_get(doc, "gpus")); g != NULL && used < CELL_BYTES; g = json_next(g)) {
    const char *name = json_string(json_get(g, "gpu"));
    used += (size_t)snprintf(cell + used, CELL_BYTES - used, "%s%.0f x %.60s", used ? ", " : "",
                             json_number(json_get(g, "count"), 1), name ? name : "?");
  }
  int stated = 0;
  for (const json *d = json_first(json_get(doc, "devices")); d != NULL; d = json_next(d)) {
    const char *kind = json_string(json_get(d, "kind"));
    stated += kind != NULL && strcmp(kind, "gpu") == 0;
  }
  if (used == 0 && stated > 0) snprintf(cell, CELL_BYTES, "%d stated", stated);
}

static const column columns[] = {
    {"models", "PARAMETERS (G)", "params_total", 1e-9, 1, NULL},
    {"models", "ACTIVE (G)", "params_active", 1e-9, 1, NULL},
    {"models", "CONTEXT", "context", 0, 0, cell_context},
    {"models", "FAMILY", "family", 0, 0, cell_family},
    {"models", "FORMAT", "default_format", 0, 0, cell_format},
    {"gpus", "GiB", "mem_bytes", 1.0 / (1 << 30), 0, NULL},
    {"gpus", "GB/s", "mem_bytes_per_s", 1e-9, 0, NULL},
    {"gpus", "BF16 TFLOP/s", "flops_bf16", 1e-12, 0, NULL},
    {"gpus", "PCIE", "pcie", 0, 0, cell_pcie},
    {"gpus", "FORM", "form", 0, 0, cell_form},
    {"gpus", "WATT", "power_active_w", 1, 0, NULL},
    {"gpus", "USD", "price_usd", 1, 0, NULL},
    {"cpus", "CLASS", "class", 0, 0, cell_class},
    {"cpus", "CORES", "cores", 1, 0, NULL},
    {"cpus", "GHz", "base_clock_hz", 1e-9, 2, NULL},
    {"cpus", "AMX", "amx", 0, 0, cell_amx},
    {"cpus", "CHANNELS", "memory_channels", 1, 0, NULL},
    {"cpus", "MEMORY (MT/s)", "memory", 0, 0, cell_speeds},
    {"cpus", "SOCKETS", "max_sockets", 1, 0, NULL},
    {"cpus", "PCIE", "pcie", 0, 0, cell_pcie},
    {"cpus", "WATT", "power_active_w", 1, 0, NULL},
    {"cpus", "USD", "price_usd", 1, 0, NULL},
    {"memory", "TYPE", "type", 0, 0, cell_type},
    {"memory", "MT/s", "transfers_per_s", 1e-6, 0, NULL},
    {"memory", "LARGEST (GiB)", "dimm_bytes_max", 1.0 / (1 << 30), 0, NULL},
    {"memory", "WATT", "power_active_w_per_dimm", 1, 0, NULL},
    {"memory", "USD/GiB", "price_usd_per_gib", 1, 2, NULL},
    {"platforms", "CLASS", "class", 0, 0, cell_class},
    {"platforms", "SOCKETS", "max_sockets", 1, 0, NULL},
    {"platforms", "GPUS", "max_gpus", 1, 0, NULL},
    {"platforms", "IDLE WATT", "power_idle_w", 1, 0, NULL},
    {"platforms", "WATT", "power_active_w", 1, 0, NULL},
    {"platforms", "USD", "price_usd", 1, 0, NULL},
    {"links", "GB/s", "bytes_per_s", 1e-9, 2, NULL},
    {"links", "LATENCY (us)", "latency_ns", 1e-3, 1, NULL},
    {"links", "WATT", "power_active_w", 1, 0, NULL},
    {"links", "USD", "price_usd", 1, 0, NULL},
    {"machines", "CPU", "cpu", 0, 0, cell_cpu},
    {"machines", "MEMORY", "memory", 0, 0, cell_memory},
    {"machines", "GPUS", "gpus", 0, 0, cell_gpus},
    {"machines", "RAM (GiB)", "ram_bytes", 1.0 / (1 << 30), 0, NULL},
    {"machines", "RAM GB/s", "dram_theoretical_bytes_per_s", 1e-9, 0, NULL},
    {"machines", "WATT", "power_active_w", 1, 0, NULL},
    {"machines", "USD", "price_usd", 1, 0, NULL},
    {"priors", "BASE", "base", 0, 0, cell_base},
    {"priors", "TITLE", "title", 0, 0, cell_title},
    {"quality", "TITLE", "title", 0, 0, cell_title},
    {"scenarios", "TITLE", "title", 0, 0, cell_title},
};
enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

/* ---- one row ---- */

/* Figures of a machine that its entry does not say but that follow from it. */
static hf_status add_machine_figures(const char *name, json *row) {
  static const char *const wanted[] = {"dram_theoretical_bytes_per_s", "power_active_w", "price_usd"};
  catalog_machine m;
  HF_TRY(catalog_machine_build(name, &m));
  double ram = 0;
  for (int i = 0; i < m.n_device; i++) {
    if (strcmp(m.device[i].kind, "cpu") == 0) ram += (double)m.device[i].mem_bytes;
  }
  json_add_num(row, "ram_bytes", ram);
  for (size_t k = 0; k < sizeof wanted / sizeof *wanted; k++) {
    for (int i = 0; i < m.n_figure; i++) {
      const rec_figure *f = &m.figure[i];
      const char *device = k == 0 ? "cpu" : "";
      if (strcmp(f->what, wanted[k]) != 0 || strcmp(f->device, device) != 0) continue;
      json_add_num(row, wanted[k], f->likely);
      if (f->tag == TAG_ASSUMED && k == 2) json_add_bool(row, "price_assumed", true);
    }
  }
  catalog_machine_free(&m);
  return HF_OK;
}

/* The row as JSON: name, title, the facts of the columns in SI units, the texts as they are. */
static hf_status add_row(const char *kind, const char *name, json *list) {
  json *doc = NULL;
  HF_TRY(catalog_get(kind, name, &doc));
  json *row = json_add_object(list, NULL);
  json_add_str(row, "name", name);
  if (json_get(doc, "title") != NULL) json_add_copy(row, "title", json_get(doc, "title"));
  for (int i = 0; i < N_COLUMNS; i++) {
    const column *c = &columns[i];
    char cell[CELL_BYTES];
    if (strcmp(c->kind, kind) != 0 || strcmp(c->key, "title") == 0) continue;
    if (c->text != NULL) {
      c->text(doc, cell);
      json_add_str(row, c->key, cell);
    } else if (json_get(doc, c->key) != NULL) {
      const char *tag = json_string(json_get(json_get(doc, c->key), "tag"));
      json_add_num(row, c->key, number_at(doc, c->key));
      if (strncmp(c->key, "price_usd", 9) == 0 && tag != NULL && strcmp(tag, "assumed") == 0)
        json_add_bool(row, "price_assumed", true);
    }
  }
  hf_status st = strcmp(kind, "machines") == 0 ? add_machine_figures(name, row) : HF_OK;
  json_free(doc);
  return st;
}

static hf_status list_kind(const char *kind, json *o) {
  char **names = NULL;
  int n = 0;
  HF_TRY(catalog_names(kind, &names, &n));
  json *list = json_add_array(o, kind);
  hf_status st = HF_OK;
  for (int i = 0; i < n && st == HF_OK; i++) st = add_row(kind, names[i], list);
  free(names);
  return st;
}

/* ---- the table ---- */

static void cell_text(const json *row, const column *c, char *cell) {
  const json *v = json_get(row, c->key);
  if (json_string(v) != NULL) {
    snprintf(cell, CELL_BYTES, "%.90s", json_string(v));
  } else if (v == NULL) {
    snprintf(cell, CELL_BYTES, "-");
  } else {
    bool assumed = strncmp(c->key, "price_usd", 9) == 0 && json_get(row, "price_assumed") != NULL;
    snprintf(cell, CELL_BYTES, "%s%.*f", assumed ? "~" : "", c->decimals, json_number(v, 0) * c->factor);
  }
}

/* Numbers to the right, texts to the left; no blanks at the end of a line. */
static void print_cell(const column *c, int width, bool last, const char *text) {
  if (c->text == NULL) printf("  %*s", width, text);
  else if (last) printf("  %s", text);
  else printf("  %-*s", width, text);
}

static void print_table(const char *kind, const json *list) {
  const column *use[MAX_COLUMNS];
  int n = 0, name_width = 4, width[MAX_COLUMNS];
  char cell[CELL_BYTES];
  bool assumed = false;
  for (int i = 0; i < N_COLUMNS && n < MAX_COLUMNS; i++) {
    if (strcmp(columns[i].kind, kind) == 0) use[n++] = &columns[i];
  }
  for (int k = 0; k < n; k++) width[k] = (int)strlen(use[k]->header);
  for (const json *row = json_first(list); row != NULL; row = json_next(row)) {
    int used = (int)strlen(json_string(json_get(row, "name")));
    if (used > name_width) name_width = used;
    assumed = assumed || json_get(row, "price_assumed") != NULL;
    for (int k = 0; k < n; k++) {
      cell_text(row, use[k], cell);
      if ((int)strlen(cell) > width[k]) width[k] = (int)strlen(cell);
    }
  }
  printf("%s: %d\n  %-*s", kind, json_len(list), name_width, "NAME");
  for (int k = 0; k < n; k++) print_cell(use[k], width[k], k + 1 == n, use[k]->header);
  printf("\n");
  for (const json *row = json_first(list); row != NULL; row = json_next(row)) {
    printf("  %-*s", name_width, json_string(json_get(row, "name")));
    for (int k = 0; k < n; k++) {
      cell_text(row, use[k], cell);
      print_cell(use[k], width[k], k + 1 == n, cell);
    }
    printf("\n");
  }
  if (assumed) printf("  ~ assumed: no published price, see hf-plan catalog show %s NAME\n", kind);
}

static hf_status catalog_list(int n, char **rest, bool as_json) {
  json *o = json_new_object();
  hf_status st = HF_OK;
  for (const char *const *k = catalog_kinds; *k != NULL && st == HF_OK; k++) {
    if (n == 0 || strcmp(rest[0], *k) == 0) st = list_kind(*k, o);
  }
  if (st == HF_OK && json_len(o) == 0) {
    char **names = NULL;
    int count;
    st = catalog_names(rest[0], &names, &count); /* says which kinds there are */
    free(names);
  }
  if (st == HF_OK && as_json) st = cmd_print_json(o);
  for (const json *k = st == HF_OK && !as_json ? json_first(o) : NULL; k != NULL; k = json_next(k)) {
    print_table(json_key(k), k);
    if (json_next(k) != NULL) printf("\n");
  }
  json_free(o);
  return st;
}

/* ---- entries ---- */

/* A machine of parts has no entry: its rows. */
static hf_status show_parts(const char *text) {
  catalog_parts p;
  catalog_machine m;
  char canonical[1000];
  HF_TRY(catalog_parts_parse(text, &p));
  HF_TRY(catalog_parts_text(&p, canonical, sizeof canonical));
  HF_TRY(catalog_compose(&p, &m));
  json *o = json_new_object(), *facts = NULL;
  hf_status st = json_parse(m.machine.facts_json, strlen(m.machine.facts_json), "machine", &facts);
  json_add_str(o, "parts", canonical);
  if (st == HF_OK) json_add_copy(o, "facts", facts);
  json *devices = json_add_array(o, "devices");
  for (int i = 0; i < m.n_device; i++) {
    json *d = json_add_object(devices, NULL);
    json_add_str(d, "device", m.device[i].device);
    json_add_str(d, "name", m.device[i].name);
    json_add_num(d, "mem_bytes", (double)m.device[i].mem_bytes);
  }
  json *figures = json_add_array(o, "figures");
  for (int i = 0; i < m.n_figure; i++) {
    const rec_figure *f = &m.figure[i];
    json *e = json_add_object(figures, NULL);
    json_add_str(e, "device", f->device);
    json_add_str(e, "what", f->what);
    json_add_num(e, "low", f->low);
    json_add_num(e, "likely", f->likely);
    json_add_num(e, "high", f->high);
    json_add_str(e, "unit", f->unit);
    json_add_str(e, "tag", db_tag_name(f->tag));
    json_add_str(e, "source", f->source);
  }
  if (st == HF_OK) st = cmd_print_json(o);
  json_free(facts);
  json_free(o);
  catalog_machine_free(&m);
  return st;
}

static hf_status nearest_of(const char *asked, const char *kind, int *distance, char *best, size_t n) {
  char **names = NULL;
  int count = 0;
  HF_TRY(catalog_names(kind, &names, &count));
  for (int i = 0; i < count; i++) {
    int d = hf_edit_distance(asked, strlen(asked), names[i]);
    if (d >= *distance) continue;
    *distance = d;
    snprintf(best, n, "%s", names[i]);
  }
  free(names);
  return HF_OK;
}

/* A suggestion further away than half of what was typed would not help. */
static hf_status nothing_named(const char *asked) {
  char best[CELL_BYTES] = "";
  int distance = (int)strlen(asked) / 2 + 1;
  for (const char *const *k = catalog_kinds; *k != NULL; k++) HF_TRY(nearest_of(asked, *k, &distance, best, sizeof best));
  if (best[0] == 0)
    return hf_fail(HF_NOT_FOUND, "catalog show: nothing is named '%.80s'; hf-plan catalog list names all there is", asked);
  return hf_fail(HF_NOT_FOUND, "catalog show: nothing is named '%.80s'; did you mean '%s'?", asked, best);
}

/* "show NAME" looks in every kind, "show KIND NAME" in one. */
static hf_status catalog_show(int n, char **rest) {
  json *doc = NULL;
  hf_status st = HF_NOT_FOUND;
  if (catalog_parts_is_text(rest[n - 1])) return show_parts(rest[n - 1]);
  if (n == 2) {
    st = catalog_get(rest[0], rest[1], &doc);
  } else {
    for (const char *const *k = catalog_kinds; *k != NULL && st == HF_NOT_FOUND; k++) st = catalog_get(*k, rest[0], &doc);
    if (st == HF_NOT_FOUND) return nothing_named(rest[0]);
  }
  HF_TRY(st);
  hf_clear_error();
  st = cmd_print_json(doc);
  json_free(doc);
  return st;
}

/* ---- check ---- */

typedef struct {
  json *problems;
  bool print;
  int checked, found;
} report;

static void add_problem(void *user, const char *line) {
  report *r = user;
  json_add_str(r->problems, NULL, line);
  if (r->print) printf("%s\n", line);
}

/* A model's config must be one that can be planned for, of the size its makers state. */
static hf_status check_model(report *r, const char *where, const json *doc) {
  char line[1200] = "";
  model *m = NULL;
  const json *config = json_get(doc, "config");
  if (config == NULL) return HF_OK;
  hf_status st = model_from_config(config, where, &m);
  if (hf_exit_status(st) == 3) return st;
  if (st != HF_OK) {
    snprintf(line, sizeof line, "%s", hf_error_line());
    hf_clear_error();
  } else {
    double total = (double)model_total_params(model_get_config(m)), says = number_at(doc, "params_total");
    if (fabs(total / says - 1) > 0.03)
      snprintf(line, sizeof line, "%s: field params_total: %g, but the config has %.4g parameters", where, says, total);
    model_close(m);
  }
  if (line[0] == 0) return HF_OK;
  add_problem(r, line);
  r->found++;
  return HF_OK;
}

static hf_status check_entry(report *r, const char *kind, const char *name) {
  int n;
  json *doc = NULL;
  HF_TRY(catalog_check(kind, name, add_problem, r, &n));
  r->checked++;
  r->found += n;
  if (strcmp(kind, "models") != 0) return HF_OK;
  char where[200];
  snprintf(where, sizeof where, "models/%.150s", name);
  hf_status got = catalog_get(kind, name, &doc);
  if (got != HF_OK && n > 0) return hf_exit_status(got) == 3 ? got : HF_OK; /* has its line already */
  HF_TRY(got);
  hf_status st = check_model(r, where, doc);
  json_free(doc);
  return st;
}

static hf_status check_file(report *r, const char *file) {
  enum { MAX_FILE_BYTES = 1 << 20 };
  int n;
  json *doc = NULL;
  HF_TRY(catalog_check(NULL, file, add_problem, r, &n));
  r->checked++;
  r->found += n;
  if (n > 0) return HF_OK;
  HF_TRY(json_read_file(file, MAX_FILE_BYTES, &doc));
  hf_status st = json_get(doc, "config") != NULL ? check_model(r, file, doc) : HF_OK;
  json_free(doc);
  return st;
}

static hf_status check_all(report *r) {
  for (const char *const *k = catalog_kinds; *k != NULL; k++) {
    char **names = NULL;
    int n = 0;
    HF_TRY(catalog_names(*k, &names, &n));
    hf_status st = HF_OK;
    for (int i = 0; i < n && st == HF_OK; i++) st = check_entry(r, *k, names[i]);
    free(names);
    HF_TRY(st);
  }
  return HF_OK;
}

static hf_status run_checks(report *r, int n, char **files) {
  if (n == 0) return check_all(r);
  for (int i = 0; i < n; i++) HF_TRY(check_file(r, files[i]));
  return HF_OK;
}

static hf_status catalog_check_command(int n, char **files, bool as_json) {
  json *o = json_new_object();
  report r = {.problems = json_add_array(o, "problems"), .print = !as_json};
  hf_status st = run_checks(&r, n, files);
  json_add_int(o, "checked", r.checked);
  if (st == HF_OK && as_json) st = cmd_print_json(o);
  if (st == HF_OK && !as_json && r.found == 0) printf("%d entr%s checked, no problem\n", r.checked, r.checked == 1 ? "y" : "ies");
  json_free(o);
  HF_TRY(st);
  if (r.found == 0) return HF_OK;
  return hf_fail(HF_NO, "catalog check: %d problem%s in %d entr%s", r.found, r.found == 1 ? "" : "s", r.checked,
                 r.checked == 1 ? "y" : "ies");
}

/* The entry alone on standard output, so that it can become a file. */
static hf_status print_template(const char *kind) {
  const char *folder = NULL, *text = catalog_template(kind, &folder);
  if (text == NULL) return hf_fail(HF_INPUT, "catalog template: '%.40s' is none of gpu, cpu, memory, machine, model", kind);
  fputs(text, stdout);
  return HF_OK;
}

hf_status cmd_catalog(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "catalog",
      .synopsis = "list [KIND]\nshow [KIND] NAME\ncheck [FILE...]\ntemplate gpu|cpu|memory|machine|model",
      .description =
          "Lists known models and hardware, prints an entry with the source and date of each fact, or looks for mistakes. KIND "
          "is "
          "models, cpus, gpus, memory, platforms, links, machines, priors, quality or scenarios. $HF_CATALOG names a folder "
          "whose "
          "files KIND/NAME.json add to the entries or replace them.\n\n"
          "check without a file goes through all entries, those of $HF_CATALOG included; with files, through these: members, "
          "units, "
          "ranges, sources, figures that contradict each other, machines that cannot be put together, models that cannot be "
          "read. One "
          "line per problem; the exit status is 1 when there is any.\n\n"
          "Wherever a machine is named, a text of parts may stand instead, such as 'cpu=xeon-6787p,sockets=2,gpu=rtx4090*2' or "
          "'machine=xeon6-mrdimm-rtx4090,gpu=rtx5090'. Keys: cpu, sockets, memory, dimm (size of a module), dpc (modules per "
          "channel), "
          "gpu, prior, platform, platform_price, platform_idle, platform_active, speed, read (measured bandwidth), machine, "
          "name. show "
          "prints what such a machine becomes.",
      .examples = "  hf-plan catalog list gpus\n      GPUs with memory, bandwidth, rates, power and price.\n"
                  "  hf-plan catalog show rtx4090\n      One entry.\n"
                  "  hf-plan catalog show 'cpu=epyc-9355,gpu=rtx5090'\n      The rows of a machine of parts.\n"
                  "  hf-plan catalog check my/gpus/prototype.json\n      Mistakes in a file of one's own.\n"
                  "  hf-plan catalog template gpu > my/gpus/my-card.json\n      An entry to change: each member says in its "
                  "source what it means. Then HF_CATALOG=my.\n",
      .options = options,
      .environment = "HF_CATALOG\nfolder with entries KIND/NAME.json of one's own"};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  if (n >= 1 && n <= 2 && strcmp(rest[0], "list") == 0) return catalog_list(n - 1, rest + 1, common.json);
  if (n >= 2 && n <= 3 && strcmp(rest[0], "show") == 0) return catalog_show(n - 1, rest + 1);
  if (n == 2 && strcmp(rest[0], "template") == 0) return print_template(rest[1]);
  if (n >= 1 && strcmp(rest[0], "check") == 0) return catalog_check_command(n - 1, rest + 1, common.json);
  return hf_fail(HF_INPUT,
                 "catalog: say list [KIND], show [KIND] NAME, check [FILE...] or template KIND; see hf-plan catalog --help");
}
