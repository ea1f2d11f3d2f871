/* section_machine.c: what a machine is and what was measured on it. */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reports/words.h"

static const char *const kind_name[] = {"measured", "catalog", "what-if"};

const char *section_id(char out[SECTION_ID_MAX], const char *id, const char *suffix) {
  snprintf(out, SECTION_ID_MAX, "%.30s-%.30s", id, suffix);
  return out;
}

const char *machine_title(const data_machine *m) {
  const char *title = m != NULL ? json_string(json_get(m->facts, "title")) : NULL;
  return title != NULL ? title : m != NULL ? m->m.name : "a machine that is no longer in the database";
}

/* ---- facts ---- */

enum { FACT_LIMIT = 1 << 16 };
static const rep_col fact_cols[] = {{"fact", "Fact", FMT_TEXT}, {"value", "Value", FMT_TEXT}};

static rep_format format_of_fact(const char *key) {
  size_t n = strlen(key);
  if (n > 6 && strcmp(key + n - 6, "_bytes") == 0) return FMT_BYTES;
  return strcmp(key, "transfers_per_s") == 0 ? FMT_TRANSFERS : FMT_NUM;
}

/* "memory: dimms" of an object within the facts. */
static void fact_name(page *p, rep_table *t, const char *group, const char *key) {
  char name[200];
  if (group == NULL) {
    table_key(p, t, key);
    return;
  }
  snprintf(name, sizeof name, "%.90s: %.90s", group, key);
  table_shown(p, t, name, "%.90s: %.90s", words_of(group), words_of(key));
}

static void add_fact(page *p, rep_table *t, const char *group, const char *key, const json *v) {
  hf_buf list;
  hf_buf_init(&list, FACT_LIMIT);
  hf_status st = HF_OK;
  switch (json_type(v)) {
    case JSON_STRING: fact_name(p, t, group, key), table_text(p, t, json_string(v)); break;
    case JSON_NUMBER:
      fact_name(p, t, group, key);
      table_as(p, t, json_number(v, NAN), format_of_fact(key));
      break;
    case JSON_ARRAY:
      for (const json *e = json_first(v); e != NULL && st == HF_OK; e = json_next(e)) {
        const char *s = json_string(e);
        if (s != NULL) st = hf_buf_printf(&list, "%s%s", list.len > 0 ? ", " : "", s);
        else if (json_type(e) == JSON_NUMBER) st = hf_buf_printf(&list, "%s%g", list.len > 0 ? ", " : "", json_number(e, 0));
      }
      page_failed(p, st);
      if (list.len > 0) fact_name(p, t, group, key), table_text(p, t, list.data);
      break;
    case JSON_BOOL:
    case JSON_NULL:
    case JSON_OBJECT: break;
  }
  hf_buf_free(&list);
}

void table_facts(page *p, const char *id, const data_machine *m, bool folded) {
  char name[SECTION_ID_MAX];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "facts"), fact_cols, "Facts of %s", m->m.name);
  table_key(p, t, "kind"), table_text(p, t, kind_name[m->m.kind]);
  format_date(m->m.created_ns, name);
  table_key(p, t, "entered"), table_text(p, t, name);
  for (const json *f = json_first(m->facts); f != NULL; f = json_next(f)) {
    const char *key = json_key(f);
    if (strcmp(key, "assumptions") == 0 || strcmp(key, "inputs") == 0) continue;
    if (json_type(f) != JSON_OBJECT) add_fact(p, t, NULL, key, f);
    for (const json *g = json_type(f) == JSON_OBJECT ? json_first(f) : NULL; g != NULL; g = json_next(g))
      add_fact(p, t, key, json_key(g), g);
  }
  page_table_end(p, t, folded);
}

void table_devices(page *p, const char *id, const data_machine *m) {
  static const rep_col cols[] = {{"device", "Device", FMT_TEXT},
                                 {"kind", "Kind", FMT_TEXT},
                                 {"name", "Name", FMT_TEXT},
                                 {"cores", "Cores", FMT_INT},
                                 {"mem_bytes", "Memory", FMT_BYTES}};
  char name[SECTION_ID_MAX];
  if (m->n_device == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "devices"), cols, "Devices of %s", m->m.name);
  for (int i = 0; i < m->n_device; i++) {
    const rec_device *d = &m->device[i];
    table_text(p, t, d->device), table_text(p, t, d->kind), table_text(p, t, d->name);
    table_num(p, t, d->cores > 0 ? d->cores : NAN), table_num(p, t, d->mem_bytes > 0 ? (double)d->mem_bytes : NAN);
  }
  page_table_end(p, t, false);
}

/* ---- figures ---- */

/* A unit that the numbers do not carry stands behind the name. */
static void figure_name(page *p, rep_table *t, const rec_figure *f) {
  bool bare = format_of_unit(f->unit) == FMT_NUM && f->unit[0] && strcmp(f->unit, "1") != 0;
  if (bare) table_shown(p, t, f->what, "%s, %s", words_of(f->what), f->unit);
  else table_key(p, t, f->what);
}

/* "threads=2" as "2 threads"; other conditions as they are. */
static void figure_params(page *p, rep_table *t, const rec_figure *f) {
  int n = 0, end = 0;
  if (sscanf(f->params, "threads=%d%n", &n, &end) == 1 && f->params[end] == 0)
    table_shown(p, t, f->params, "%d thread%s", n, plural(n));
  else table_text(p, t, f->params);
}

void table_figures(page *p, const char *id, const data_machine *m, bool folded) {
  static const rep_col cols[] = {
      {"what", "Figure", FMT_TEXT},    {"device", "Device", FMT_TEXT}, {"params", "Conditions", FMT_TEXT},
      {"low", "Low", FMT_NUM},         {"likely", "Likely", FMT_NUM},  {"high", "High", FMT_NUM},
      {"unit", NULL, FMT_TEXT},        {"tag", "Tag", FMT_TEXT},       {"spread", "Spread", FMT_SHARE},
      {"samples", "Samples", FMT_INT}, {"source", "Source", FMT_TEXT}};
  char name[SECTION_ID_MAX];
  if (m->n_figure == 0) return;
  rep_table *t =
      PAGE_TABLE(p, section_id(name, id, "figures"), cols, "Figures of %s, each with its interval, tag and source", m->m.name);
  for (int tag = 0; tag < TAG_N; tag++) {
    for (int i = 0; i < m->n_figure; i++) {
      const rec_figure *f = &m->figure[i];
      rep_format fmt = format_of_unit(f->unit);
      if (f->tag != (db_tag)tag) continue;
      figure_name(p, t, f), table_text(p, t, f->device[0] ? f->device : "machine"), figure_params(p, t, f);
      table_as(p, t, f->low, fmt), table_as(p, t, f->likely, fmt), table_as(p, t, f->high, fmt);
      table_text(p, t, f->unit), table_text(p, t, db_tag_name(f->tag));
      table_num(p, t, f->n > 0 ? f->spread : NAN), table_num(p, t, f->n > 0 ? f->n : NAN), table_text(p, t, f->source);
    }
  }
  page_table_end(p, t, folded);
}

static const rec_figure *best_bandwidth(const data_machine *m) {
  const rec_figure *best = NULL;
  for (int i = 0; i < m->n_figure; i++) {
    const rec_figure *f = &m->figure[i];
    if (strcmp(f->what, "dram_read_bytes_per_s") == 0 && strcmp(f->device, "cpu") == 0 &&
        (best == NULL || f->likely > best->likely))
      best = f;
  }
  return best;
}

static int threads_of(const rec_figure *f) {
  int n = 0;
  return sscanf(f->params, "threads=%d", &n) == 1 ? n : 0;
}

static void chart_bandwidth(page *p, const char *id, const data_machine *m) {
  char name[SECTION_ID_MAX], best_text[FORMAT_MAX];
  json *chart = NULL;
  const rec_figure *best = best_bandwidth(m);
  int nodes = 0;
  for (int i = 0; i < m->n_device; i++) nodes += strcmp(m->device[i].kind, "cpu") == 0;
  for (int d = -1; d < m->n_device; d++) {
    const char *device = d < 0 ? "cpu" : m->device[d].device;
    json *s = NULL;
    if (d >= 0 && nodes < 2) continue; /* the node is the machine */
    for (int i = 0; i < m->n_figure; i++) {
      const rec_figure *f = &m->figure[i];
      if (strcmp(f->what, "dram_read_bytes_per_s") != 0 || strcmp(f->device, device) != 0 || threads_of(f) == 0) continue;
      format_number(best != NULL ? best->likely : f->likely, FMT_RATE, best_text);
      if (chart == NULL)
        chart = page_chart(p, section_id(name, id, "bandwidth"), "line", "Memory read bandwidth by threads", "threads", "GB/s",
                           CHART_SMALL, "Line chart: read bandwidth over the number of threads; the best is %s.", best_text);
      if (s == NULL) s = chart_series(chart, d < 0 ? "all nodes" : device, d < 0 ? "cpu" : "");
      chart_point(s, threads_of(f), 1e-9 * f->likely);
    }
  }
}

/* ---- kernel curves ---- */

enum { MAX_SHAPES = 3, MAX_SERIES = 6, MAX_POINTS = 10000 };

static bool on_cpu(const rec_kernel_point *k, const char *kernel) {
  return strcmp(k->kernel, kernel) == 0 && strcmp(k->device, "cpu") == 0 && k->load[0] == 0;
}

static int most_threads(const data_machine *m, const char *kernel) {
  int most = 0;
  for (int i = 0; i < m->n_point; i++)
    if (on_cpu(&m->point[i], kernel) && m->point[i].threads > most) most = m->point[i].threads;
  return most;
}

/* The fastest candidate at that point of the curve; first: is this the first row of the point? */
static double best_ns(const data_machine *m, int at, bool *first) {
  const rec_kernel_point *k = &m->point[at];
  double best = k->ns;
  *first = true;
  for (int i = 0; i < m->n_point; i++) {
    const rec_kernel_point *o = &m->point[i];
    if (!on_cpu(o, k->kernel) || o->n_out != k->n_out || o->n_in != k->n_in || o->tokens != k->tokens ||
        o->context != k->context || o->threads != k->threads || strcmp(o->format, k->format) != 0)
      continue;
    if (i < at) *first = false;
    if (o->ns < best) best = o->ns;
  }
  return best;
}

static bool same_shape(const rec_kernel_point *a, const rec_kernel_point *b) {
  return a->n_out == b->n_out && a->n_in == b->n_in;
}

/* Curves of one shape: one series for each weight format. */
static void chart_shape(page *p, const char *id, const char *title, const data_machine *m, const rec_kernel_point *shape,
                        int threads) {
  json *chart = page_chart(
      p, id, "line", title, "tokens at once", "µs per call", CHART_SMALL | CHART_LOG_X | CHART_LOG_Y,
      "Line chart with logarithmic axes: time of one call over the number of tokens, %d threads, one line per weight format.",
      threads);
  const char *seen[MAX_SERIES];
  int n_seen = 0;
  for (int i = 0; i < m->n_point && n_seen < MAX_SERIES; i++) {
    const rec_kernel_point *k = &m->point[i];
    bool known = false, first;
    if (!on_cpu(k, shape->kernel) || !same_shape(k, shape) || k->threads != threads) continue;
    for (int s = 0; s < n_seen; s++) known = known || strcmp(seen[s], k->format) == 0;
    if (known) continue;
    seen[n_seen++] = k->format;
    json *series = chart_series(chart, k->format, "");
    for (int j = i; j < m->n_point; j++) {
      const rec_kernel_point *q = &m->point[j];
      if (!on_cpu(q, shape->kernel) || !same_shape(q, shape) || q->threads != threads || strcmp(q->format, k->format) != 0)
        continue;
      double ns = best_ns(m, j, &first);
      if (first && q->tokens > 0 && ns > 0) chart_point(series, q->tokens, 1e-3 * ns);
    }
  }
}

static void charts_of_kernel(page *p, const char *id, const char *kernel, const char *title_fmt, const data_machine *m) {
  const rec_kernel_point *shapes[MAX_SHAPES];
  int n = 0, threads = most_threads(m, kernel);
  if (m->n_point > MAX_POINTS) return; /* the search below is quadratic */
  for (int i = 0; i < m->n_point && n < MAX_SHAPES; i++) {
    const rec_kernel_point *k = &m->point[i];
    bool known = false;
    if (!on_cpu(k, kernel) || k->threads != threads || k->tokens <= 0) continue;
    for (int s = 0; s < n; s++) known = known || same_shape(shapes[s], k);
    if (known) continue;
    char name[SECTION_ID_MAX], suffix[40], title[96];
    shapes[n] = k;
    snprintf(suffix, sizeof suffix, "%.16s-%d", kernel, n++);
    snprintf(title, sizeof title, "%s %d × %d", title_fmt, k->n_out, k->n_in);
    chart_shape(p, section_id(name, id, suffix), title, m, k, threads);
  }
}

static void table_points(page *p, const char *id, const data_machine *m) {
  static const rep_col cols[] = {
      {"kernel", "Kernel", FMT_TEXT},  {"device", "Device", FMT_TEXT},          {"candidate", "Variant", FMT_TEXT},
      {"format", "Weights", FMT_TEXT}, {"act", "Activations", FMT_TEXT},        {"n_out", "Out", FMT_INT},
      {"n_in", "In", FMT_INT},         {"tokens", "Tokens", FMT_INT},           {"context", "Context", FMT_INT},
      {"threads", "Threads", FMT_INT}, {"load", "Beside it", FMT_TEXT},         {"ns", "Time", FMT_NS},
      {"spread", "Spread", FMT_SHARE}, {"bytes_per_s", "Bytes read", FMT_RATE}, {"tag", "Tag", FMT_TEXT}};
  char name[SECTION_ID_MAX];
  if (m->n_point == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "kernels"), cols, "Kernel curves of %s: every point", m->m.name);
  for (int i = 0; i < m->n_point; i++) {
    const rec_kernel_point *k = &m->point[i];
    table_key(p, t, k->kernel), table_text(p, t, k->device), table_text(p, t, k->candidate), table_text(p, t, k->format);
    table_text(p, t, k->act), table_num(p, t, k->n_out), table_num(p, t, k->n_in), table_num(p, t, k->tokens);
    table_num(p, t, k->context), table_num(p, t, k->threads), table_text(p, t, k->load), table_num(p, t, k->ns);
    table_num(p, t, k->spread), table_num(p, t, k->ns > 0 && k->bytes > 0 ? 1e9 * (double)k->bytes / k->ns : NAN);
    table_text(p, t, db_tag_name(k->tag));
  }
  page_table_end(p, t, true);
}

static void table_links(page *p, const char *id, const data_machine *m) {
  static const rep_col cols[] = {{"src", "From", FMT_TEXT},         {"dst", "To", FMT_TEXT},         {"bytes", "Size", FMT_BYTES},
                                 {"pinned", "Pinned", FMT_TEXT},    {"load", "Beside it", FMT_TEXT}, {"ns", "Time", FMT_NS},
                                 {"bytes_per_s", "Rate", FMT_RATE}, {"tag", "Tag", FMT_TEXT}};
  char name[SECTION_ID_MAX];
  if (m->n_link == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "links"), cols, "Links of %s: transfer times by size", m->m.name);
  for (int i = 0; i < m->n_link; i++) {
    const rec_link_point *l = &m->link[i];
    table_text(p, t, l->src), table_text(p, t, l->dst), table_num(p, t, (double)l->bytes),
        table_text(p, t, l->pinned ? "yes" : "no");
    table_text(p, t, l->load), table_num(p, t, l->ns), table_num(p, t, l->ns > 0 ? 1e9 * (double)l->bytes / l->ns : NAN);
    table_text(p, t, db_tag_name(l->tag));
  }
  page_table_end(p, t, true);
}

/* ---- the section ---- */

hf_status say_machine(const data_machine *m, hf_buf *b) {
  const rec_figure *best = best_bandwidth(m);
  const char *cpu = json_string(json_get(m->facts, "cpu"));
  char rate[FORMAT_MAX];
  int gpus = 0, cores = 0;
  for (int i = 0; i < m->n_device; i++) {
    gpus += strcmp(m->device[i].kind, "gpu") == 0;
    cores += strcmp(m->device[i].kind, "cpu") == 0 ? m->device[i].cores : 0;
  }
  HF_TRY(hf_buf_printf(b, "Machine %s (%s, %d core%s, %d GPU%s)", machine_title(m), cpu != NULL ? cpu : "CPU not named", cores,
                       plural(cores), gpus, plural(gpus)));
  if (best == NULL) return hf_buf_printf(b, " has no figure for memory bandwidth yet.");
  format_number(best->likely, FMT_RATE, rate);
  return hf_buf_printf(b, " reads memory at %s (%s).", rate, db_tag_name(best->tag));
}

static void sources_of_machine(page *p, const data_machine *m) {
  for (int tag = 0; tag < TAG_N; tag++) {
    int n = 0, points = 0;
    const char *source = "";
    for (int i = 0; i < m->n_figure; i++)
      if (m->figure[i].tag == (db_tag)tag) n++, source = m->figure[i].source;
    for (int i = 0; i < m->n_point; i++) points += m->point[i].tag == (db_tag)tag;
    if (n + points == 0) continue;
    page_source(p, db_tag_name((db_tag)tag),
                n == 1                ? source
                : tag == TAG_MEASURED ? "hf-profile; table of figures"
                                      : "catalog and priors; table of figures, column Source",
                "%s: %d figure%s, %d point%s of kernel curves", m->m.name, n, plural(n), points, plural(points));
  }
}

void section_machine(page *p, const char *id, const char *title, const data_machine *m) {
  char rate[FORMAT_MAX], date[FORMAT_MAX];
  const rec_figure *best = best_bandwidth(m);
  page_section(p, id, "%s: %s", title, machine_title(m));
  format_date(m->m.created_ns, date);
  page_tiles(p);
  if (best != NULL) {
    format_number(best->likely, FMT_RATE, rate);
    int threads = threads_of(best);
    if (threads > 0)
      page_tile(p, "Memory read bandwidth", rate, "%s, %d thread%s", db_tag_name(best->tag), threads, plural(threads));
    else page_tile(p, "Memory read bandwidth", rate, "%s%s%s", db_tag_name(best->tag), best->params[0] ? ", " : "", best->params);
  }
  format_number(m->n_figure + m->n_point + m->n_link, FMT_INT, rate);
  page_tile(p, "Figures", rate, "%d scalar, %d points of kernel curves, %d of links", m->n_figure, m->n_point, m->n_link);
  page_tile(p, "Kind", kind_name[m->m.kind], "entered %s", date);
  page_tiles_end(p);
  int before = page_chart_count(p);
  page_charts(p);
  chart_bandwidth(p, id, m);
  charts_of_kernel(p, id, "expert_ffn", "Expert", m);
  charts_of_kernel(p, id, "matmul", "Matrix product", m);
  page_charts_end(p);
  if (page_chart_count(p) > before)
    page_note(p, "Curves show the fastest variant with the most threads; the tables below hold every point.");
  table_devices(p, id, m);
  table_facts(p, id, m, false);
  table_figures(p, id, m, true);
  table_points(p, id, m);
  table_links(p, id, m);
  sources_of_machine(p, m);
}
