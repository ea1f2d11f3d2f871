/* print.c: a machine's rows as JSON for programs and as tables for people. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "profiler/print.h"

/* --- JSON -------------------------------------------------------------------------------------------------------------- */

static void add_measurement(json *list, const char *what, const char *device, const char *params, double value, double low,
                            double high, const char *unit, double spread, int n, db_tag tag) {
  json *o = json_add_object(list, NULL);
  json_add_str(o, "what", what);
  json_add_str(o, "device", device);
  json_add_str(o, "params", params);
  json_add_num(o, "value", value);
  json_add_num(o, "low", low);
  json_add_num(o, "high", high);
  json_add_str(o, "unit", unit);
  json_add_num(o, "spread", spread);
  json_add_int(o, "n", n);
  json_add_str(o, "tag", db_tag_name(tag));
}

static void add_kernel(json *list, const rec_kernel_point *k) {
  char params[256];
  snprintf(params, sizeof params, "candidate=%s,format=%s,act=%s,n_out=%d,n_in=%d,tokens=%d,context=%d,threads=%d%s%s",
           k->candidate, k->format, k->act, k->n_out, k->n_in, k->tokens, k->context, k->threads, k->load[0] ? ",load=" : "",
           k->load);
  add_measurement(list, k->kernel, k->device, params, k->ns, k->ns_low, k->ns_high, "ns", k->spread, k->n, k->tag);
}

hf_status prof_print_document(json *root) {
  char *text = NULL;
  hf_status st = json_print(root, true, &text);
  json_free(root);
  if (st != HF_OK) return st;
  printf("%s\n", text);
  free(text);
  return HF_OK;
}

hf_status prof_print_json(const prof_view *v) {
  json *root = json_new_object(), *facts = NULL;
  json_add_int(root, "machine_id", v->machine.id);
  json_add_str(root, "machine", v->machine.name);
  if (json_parse(v->machine.facts_json, strlen(v->machine.facts_json), "facts", &facts) == HF_OK)
    json_add_copy(root, "facts", facts);
  json_free(facts);
  json *list = json_add_array(root, "measurements");
  for (int i = 0; i < v->n_figure; i++) {
    const rec_figure *f = &v->figure[i];
    add_measurement(list, f->what, f->device, f->params, f->likely, f->low, f->high, f->unit, f->spread, f->n, f->tag);
  }
  for (int i = 0; i < v->n_point; i++) add_kernel(list, &v->point[i]);
  return prof_print_document(root);
}

/* --- tables ------------------------------------------------------------------------------------------------------------ */

const char *prof_human(char out[32], double v, const char *unit) {
  if (strcmp(unit, "ns") == 0) {
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int i = 0;
    for (; i < 3 && v >= 999.5; i++) v /= 1000;
    snprintf(out, 32, "%.3g %s", v, units[i]);
    return out;
  }
  if (strcmp(unit, "1") == 0) {
    snprintf(out, 32, "%.3g", v);
    return out;
  }
  static const char *const prefix[] = {"", "K", "M", "G", "T", "P"};
  int i = 0;
  for (; i < 5 && v >= 999.5; i++) v /= 1000;
  snprintf(out, 32, "%.3g %s%s", v, prefix[i], unit);
  return out;
}

/* Sizes of caches and memory: "1 MiB", "23.5 GiB" */
static const char *human_size(char out[32], double bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int i = 0;
  for (; i < 4 && bytes >= 1024; i++) bytes /= 1024;
  snprintf(out, 32, "%.4g %s", bytes, units[i]);
  return out;
}

static const char *text_of(const json *facts, const char *key) {
  const char *s = json_string(json_get(facts, key));
  return s ? s : "unknown";
}

void prof_one_line(const prof_view *v, char *out, size_t n) {
  json *facts = NULL;
  char day[16] = "";
  struct tm tm;
  time_t s = (time_t)(v->machine.created_ns / 1000000000);
  if (gmtime_r(&s, &tm)) (void)strftime(day, sizeof day, "%Y-%m-%d", &tm);
  if (json_parse(v->machine.facts_json, strlen(v->machine.facts_json), "facts", &facts) != HF_OK) hf_clear_error();
  double cores = json_number(json_get(facts, "cores"), 0), nodes = json_number(json_get(facts, "numa_nodes"), 0);
  char number[24] = "";
  if (v->machine.id > 0) snprintf(number, sizeof number, "%lld ", (long long)v->machine.id);
  snprintf(out, n, "%s%.60s, %s, %.48s, %g core%s on %g NUMA node%s", number, v->machine.name, day, text_of(facts, "cpu"), cores,
           cores == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s");
  json_free(facts);
}

static void print_dimms(const json *facts) {
  const json *list = json_get(facts, "dimms");
  if (!list || json_type(list) != JSON_ARRAY) {
    printf("  memory modules  unknown (%s)\n", text_of(facts, "dimms_why"));
    return;
  }
  for (const json *d = json_first(list); d; d = json_next(d)) {
    char size[32];
    printf("  memory modules  %g x %s", json_number(json_get(d, "count"), 0), text_of(d, "type"));
    double bytes = json_number(json_get(d, "bytes"), 0), speed = json_number(json_get(d, "configured_mt_s"), 0);
    if (bytes > 0) printf(", %s each", human_size(size, bytes));
    if (speed > 0) printf(", %g MT/s", speed);
    printf(", MRDIMM: %s\n", text_of(d, "mrdimm"));
  }
  double channels = json_number(json_get(facts, "channels"), 0);
  if (channels > 0) printf("  channels        %g, %g empty\n", channels, json_number(json_get(facts, "channels_empty"), 0));
  for (const json *r = json_first(json_get(facts, "memory_remarks")); r; r = json_next(r))
    if (json_string(r)) printf("  remark          %s\n", json_string(r));
}

static void print_facts(const prof_view *v) {
  json *facts = NULL;
  printf("machine %lld  %s\n", (long long)v->machine.id, v->machine.name);
  if (json_parse(v->machine.facts_json, strlen(v->machine.facts_json), "facts", &facts) != HF_OK) return;
  char l2[32], l3[32], mem[32];
  if (json_get(facts, "imported")) printf("  imported        from %s\n", text_of(facts, "imported"));
  printf("  cpu             %s\n", text_of(facts, "cpu"));
  double nodes = json_number(json_get(facts, "numa_nodes"), 0);
  printf("  cores           %g on %g NUMA node%s\n", json_number(json_get(facts, "cores"), 0), nodes, nodes == 1 ? "" : "s");
  printf("  caches          L2 %s, L3 %s\n", human_size(l2, json_number(json_get(facts, "l2_bytes"), 0)),
         human_size(l3, json_number(json_get(facts, "l3_bytes"), 0)));
  printf("  memory          %s\n", human_size(mem, json_number(json_get(facts, "mem_bytes"), 0)));
  print_dimms(facts);
  printf("  kernels         %s; AMX %s\n", text_of(facts, "isa_used"), text_of(facts, "amx"));
  if (json_get(facts, "library")) printf("  library         %s\n", text_of(facts, "library"));
  printf("  gpu             %s\n", text_of(facts, "gpu"));
  json_free(facts);
}

static void print_figures(const prof_view *v) {
  printf("\n%-34s %-6s %-20s %12s %12s %12s %8s %5s  %s\n", "figure", "device", "params", "median", "p10", "p90", "spread", "n",
         "tag");
  for (int i = 0; i < v->n_figure; i++) {
    const rec_figure *f = &v->figure[i];
    char a[32], b[32], c[32];
    printf("%-34s %-6s %-20s %12s %12s %12s %7.1f%% %5d  %s\n", f->what, f->device, f->params, prof_human(a, f->likely, f->unit),
           prof_human(b, f->low, f->unit), prof_human(c, f->high, f->unit), 100 * f->spread, f->n, db_tag_name(f->tag));
  }
}

static bool same_row(const rec_kernel_point *a, const rec_kernel_point *b) {
  return strcmp(a->kernel, b->kernel) == 0 && strcmp(a->candidate, b->candidate) == 0 && strcmp(a->format, b->format) == 0 &&
         strcmp(a->act, b->act) == 0 && a->n_out == b->n_out && a->n_in == b->n_in && a->threads == b->threads &&
         strcmp(a->load, b->load) == 0;
}

static bool same_table(const rec_kernel_point *a, const rec_kernel_point *b) {
  return strcmp(a->kernel, b->kernel) == 0 && a->n_out == b->n_out && a->n_in == b->n_in && a->threads == b->threads &&
         strcmp(a->load, b->load) == 0;
}

static int column_of(const rec_kernel_point *k) {
  return k->context ? k->context : k->tokens;
}

/* One line: a candidate's times over the columns of its table, and the rate at which it reads at the first. */
static void print_row(const prof_view *v, int first, const int *columns, int n) {
  const rec_kernel_point *k = &v->point[first];
  printf("  %-22s %-5s %-6s", k->candidate, k->format, k->act);
  double best = 0;
  for (int c = 0; c < n; c++) {
    const rec_kernel_point *found = NULL;
    for (int i = first; i < v->n_point && !found; i++) {
      if (same_row(&v->point[i], k) && column_of(&v->point[i]) == columns[c]) found = &v->point[i];
    }
    char t[32];
    printf(" %9s", found ? prof_human(t, found->ns, "ns") : "-");
    if (found && found->ns > 0 && 1e9 * (double)found->bytes / found->ns > best) best = 1e9 * (double)found->bytes / found->ns;
  }
  char rate[32];
  printf(" %11s\n", prof_human(rate, best, "B/s"));
}

/* What n_out and n_in stand for differs by kernel (db/records.h). */
static void print_title(const rec_kernel_point *k) {
  char shape[96];
  const char *one = "call";
  if (strcmp(k->kernel, "expert_ffn") == 0) {
    snprintf(shape, sizeof shape, "d_ff %d, d_model %d", k->n_out, k->n_in);
    one = "active expert";
  } else if (strcmp(k->kernel, "attn_mla") == 0 || strcmp(k->kernel, "prompt_mla") == 0 ||
             strcmp(k->kernel, "prompt_plain") == 0) {
    snprintf(shape, sizeof shape, "latent %d + rotary %d, %s heads", k->n_out, k->n_in, k->act + (k->act[0] == 'h'));
    one = k->tokens > 1 ? "piece of a prompt" : "query token";
  } else if (strcmp(k->kernel, "attn_gqa") == 0 || strcmp(k->kernel, "prompt_gqa") == 0) {
    snprintf(shape, sizeof shape, "%s heads of %d, %d KV heads", k->act + (k->act[0] == 'h'), k->n_out, k->n_in);
    one = k->tokens > 1 ? "piece of a prompt" : "query token";
  } else if (strcmp(k->kernel, "rmsnorm") == 0) {
    snprintf(shape, sizeof shape, "%d values", k->n_out);
  } else {
    snprintf(shape, sizeof shape, "%d x %d", k->n_out, k->n_in);
  }
  printf("\n%s, %s; %d thread%s%s%s; time of one %s\n", k->kernel, shape, k->threads, k->threads == 1 ? "" : "s",
         k->load[0] ? ", beside " : "", k->load, one);
}

enum { MOST_COLUMNS = 12 };

static void print_kernel_table(const prof_view *v, int first) {
  const rec_kernel_point *k = &v->point[first];
  int columns[MOST_COLUMNS], n = 0;
  for (int i = first; i < v->n_point; i++) {
    if (!same_table(&v->point[i], k)) continue;
    int c = 0, at = column_of(&v->point[i]);
    while (c < n && columns[c] < at) c++;
    if ((c < n && columns[c] == at) || n == MOST_COLUMNS) continue;
    memmove(&columns[c + 1], &columns[c], (size_t)(n - c) * sizeof columns[0]);
    columns[c] = at;
    n++;
  }
  print_title(k);
  printf("  %-22s %-5s %-6s", k->context ? "context" : "tokens", "", "");
  for (int c = 0; c < n; c++) printf(" %9d", columns[c]);
  printf(" %11s\n", "most read");
  for (int i = first; i < v->n_point; i++) {
    bool seen = !same_table(&v->point[i], k);
    for (int j = first; j < i && !seen; j++) seen = same_row(&v->point[j], &v->point[i]);
    if (!seen) print_row(v, i, columns, n);
  }
}

void prof_print_table(const prof_view *v) {
  print_facts(v);
  if (v->n_figure > 0) print_figures(v);
  for (int i = 0; i < v->n_point; i++) {
    bool seen = false;
    for (int j = 0; j < i && !seen; j++) seen = same_table(&v->point[j], &v->point[i]);
    if (!seen) print_kernel_table(v, i);
  }
}
