#include "tests/bench/grid.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "db/catalog.h"

const char *const grid_stage[GRID_STAGES] = {"attn", "shared", "dexp", "cexp", "head", "step"};

void grid_model_text(const grid_cell *c, char *out, size_t n) {
  snprintf(out, n, "synth:tests/bench/grid-%s.json,format=%s,seed=1", c->model, c->format);
}

int grid_output_tokens(const grid_cell *c) {
  return 32 + c->users * c->prompt_tokens / GRID_CHUNK_TOKENS;
}

bool grid_on_device(int percent, int expert, int n_experts) {
  int n = (int)(percent / 100.0 * n_experts + 0.5);
  return (int64_t)(expert + 1) * n / n_experts > (int64_t)expert * n / n_experts;
}

/* Adds `part` of a step with this load to the stages. */
static void add_stages(const stage_table *t, const popularity *pop, const uint8_t *placement, const stage_load *load, double part,
                       double *ns) {
  for (int l = 0; l < t->n_layers; l++) {
    layer_times y = stage_layer_times_load(t, pop, l, load, placement ? placement + (size_t)l * (size_t)t->n_experts : NULL);
    ns[0] += part * y.attn_ns;
    ns[1] += part * y.shared_ns;
    ns[2] += part * y.dexp_ns;
    ns[3] += part * y.cexp_ns;
  }
}

/* Stages of a decode step of one micro-batch, and of steps of prompts: those that a prompt's chunks make, or as many short prompts as fit into one. */
static void stages_of(const grid_cell *c, const stage_table *t, const popularity *pop, const uint8_t *placement,
                      grid_figures *out) {
  const int users = (c->users + c->depth - 1) / c->depth,
            piece = c->prompt_tokens < GRID_CHUNK_TOKENS ? c->prompt_tokens : GRID_CHUNK_TOKENS;
  const int at_once = GRID_CHUNK_TOKENS / piece < users ? GRID_CHUNK_TOKENS / piece : users, steps = c->prompt_tokens / piece;
  memset(out->stage_ns, 0, sizeof out->stage_ns);
  stage_load load = {0};
  for (int i = 0; i < users; i++) stage_load_add(&load, t, c->prompt_tokens + grid_output_tokens(c) / 2, 1);
  add_stages(t, pop, placement, &load, 1, out->stage_ns[0]);
  for (int k = 0; k < steps; k++) {
    load = (stage_load){0};
    for (int i = 0; i < at_once; i++) stage_load_add(&load, t, k * piece, piece);
    add_stages(t, pop, placement, &load, 1.0 / steps, out->stage_ns[1]);
  }
  for (int phase = 0; phase < 2; phase++) {
    double *ns = out->stage_ns[phase];
    ns[4] = stage_curve_at(&t->head, phase ? (double)at_once / steps : users);
    ns[5] = ns[0] + ns[1] + ns[2] + ns[3] + ns[4] + t->step_fixed_ns;
  }
}

static hf_status predict(const grid_cell *c, const plan_inputs *in, const stage_table *t, const uint8_t *placement,
                         grid_figures *out) {
  sim_result sim;
  const int output = grid_output_tokens(c), page = PLAN_PAGE_TOKENS;
  sim_options o = {.table = t,
                   .pop = in->pop,
                   .on_device = placement,
                   .users = c->users,
                   .depth = c->depth,
                   .prompt_tokens = c->prompt_tokens,
                   .output_tokens = output,
                   .requests_per_user = 1,
                   .seed = 1,
                   .chunk_tokens = GRID_CHUNK_TOKENS,
                   .page_tokens = page,
                   .n_pages = c->users * ((c->prompt_tokens + output + page - 1) / page)};
  HF_TRY(sim_run(&o, &sim));
  out->decode_tok_per_s = sim.decode_tok_per_s;
  out->prefill_tok_per_s = sim.prefill_tok_per_s;
  stages_of(c, t, in->pop, placement, out);
  return HF_OK;
}

hf_status grid_predict(const grid_cell *c, const cost_rows *rows, int threads, grid_figures *out) {
  char text[256];
  plan_inputs *in = NULL;
  stage_table *t = NULL;
  uint8_t *placement = NULL;
  grid_model_text(c, text, sizeof text);
  /* a paced device is priced as a real one of the machine that it is told */
  plan_request q = {.model = text,
                    .gpu = c->percent >= 0 ? "cuda:0" : "none",
                    .users = c->users,
                    .context = c->prompt_tokens + grid_output_tokens(c),
                    .prompt_tokens = c->prompt_tokens,
                    .output_tokens = grid_output_tokens(c),
                    .depth = c->depth,
                    .threads = c->percent >= 0 ? 0 : threads,
                    .host_rows = rows};
  hf_status st;
  memset(out, 0, sizeof *out);
  HF_TRY(plan_inputs_open(NULL, &q, &in));
  cost_input ci = plan_cost_input(in);
  const size_t n = (size_t)in->c->n_layers * (size_t)in->c->n_experts;
  HF_GO(done, cost_table(&ci, (cost_case){0}, &t));
  HF_GO(done, hf_alloc(&placement, n, 1, "placement"));
  for (size_t i = 0; i < n; i++)
    placement[i] = c->percent >= 0 && grid_on_device(c->percent, (int)(i % (size_t)in->c->n_experts), in->c->n_experts);
  st = predict(c, in, t, placement, out);
done:
  free(placement);
  stage_table_free(t);
  plan_inputs_close(in);
  return st;
}

/* ---- lines ---- */

const char grid_csv_head[] =
    "model,format,users,prompt_tokens,percent_on_device,depth,decode_tok_per_s,prefill_tok_per_s,bytes_per_s,profile_bytes_per_s,"
    "attn_ns,shared_ns,dexp_ns,cexp_ns,head_ns,step_ns,prompt_attn_ns,prompt_shared_ns,prompt_dexp_ns,prompt_cexp_ns,prompt_head_"
    "ns,"
    "prompt_step_ns";

void grid_csv_line(const grid_run *r, char *out, size_t n) {
  const grid_cell *c = &r->cell;
  int at =
      snprintf(out, n, "%s,%s,%d,%d,%d,%d,%.6g,%.6g,%.5g,%.5g", c->model, c->format, c->users, c->prompt_tokens, c->percent,
               c->depth, r->measured.decode_tok_per_s, r->measured.prefill_tok_per_s, r->bytes_per_s, r->profile_bytes_per_s);
  for (int i = 0; i < 2 * GRID_STAGES && at > 0 && (size_t)at < n; i++)
    at += snprintf(out + at, n - (size_t)at, ",%.5g", r->measured.stage_ns[i / GRID_STAGES][i % GRID_STAGES]);
}

bool grid_csv_read(const char *line, grid_run *r) {
  grid_cell *c = &r->cell;
  int at = 0;
  memset(r, 0, sizeof *r);
  if (sscanf(line, "%31[^,],%15[^,],%d,%d,%d,%d,%lf,%lf,%lf,%lf%n", c->model, c->format, &c->users, &c->prompt_tokens,
             &c->percent, &c->depth, &r->measured.decode_tok_per_s, &r->measured.prefill_tok_per_s, &r->bytes_per_s,
             &r->profile_bytes_per_s, &at) != 10)
    return false;
  for (int i = 0; i < 2 * GRID_STAGES; i++) {
    char *end;
    if (line[at] != ',') return false;
    r->measured.stage_ns[i / GRID_STAGES][i % GRID_STAGES] = strtod(line + at + 1, &end);
    at = (int)(end - line);
  }
  return true;
}

hf_status grid_predict_at(const grid_run *r, const cost_rows *rows, grid_figures *out) {
  cost_rows *then = NULL;
  if (r->cell.percent >= 0) return grid_predict(&r->cell, rows, 0, out);
  HF_TRY(cost_rows_at_rate(rows, r->bytes_per_s, &then));
  hf_status st = grid_predict(&r->cell, then, 0, out);
  cost_rows_free(then);
  return st;
}

/* ---- machines ---- */

hf_status grid_paced_rows(cost_rows **out) {
  catalog_machine m;
  HF_TRY(catalog_machine_build("tests/bench/grid-paced.json", &m));
  hf_status st = cost_rows_from_arrays(&m.machine, m.device, m.n_device, m.figure, m.n_figure, NULL, 0, m.link, m.n_link, out);
  catalog_machine_free(&m);
  return st;
}

hf_status grid_rows_save(const char *path, const char *name, const cost_rows *r) {
  FILE *f = fopen(path, "a");
  if (!f) return hf_fail(HF_MACHINE, "%s: cannot be written", path);
  fprintf(f, "%s,cores,%d\n", name, cost_cpu_cores(r));
  for (int i = 0; i < r->n_figure; i++) {
    const rec_figure *g = &r->figure[i];
    if (strcmp(g->device, "cpu") == 0)
      fprintf(f, "%s,figure,%s,%s;,%.6g,%.6g,%.6g\n", name, g->what, g->params, g->low, g->likely, g->high);
  }
  for (int i = 0; i < r->n_kernel; i++) {
    const rec_kernel_point *k = &r->kernel[i];
    if (k->load[0] == '\0')
      fprintf(f, "%s,point,%s,%s,%s,%s,%d,%d,%d,%d,%d,%.6g,%.6g,%.6g,%lld\n", name, k->kernel, k->candidate, k->format, k->act,
              k->n_out, k->n_in, k->tokens, k->context, k->threads, k->ns_low, k->ns, k->ns_high, (long long)k->bytes);
  }
  return fclose(f) == 0 ? HF_OK : hf_fail(HF_MACHINE, "%s: cannot be written", path);
}

enum { MOST_ROWS = 2000 };
typedef struct {
  rec_figure figure[MOST_ROWS];
  rec_kernel_point point[MOST_ROWS];
  int n_figure, n_point, cores;
} rows_read;

static void read_row(const char *rest, rows_read *t) {
  rec_figure g = {.tag = TAG_MEASURED};
  rec_kernel_point k = {.tag = TAG_MEASURED, .n = 1};
  long long bytes = 0;
  snprintf(g.device, sizeof g.device, "cpu");
  snprintf(k.device, sizeof k.device, "cpu");
  if (sscanf(rest, "cores,%d", &t->cores) == 1) return;
  if (t->n_figure < MOST_ROWS &&
      sscanf(rest, "figure,%47[^,],%31[^,],%lf,%lf,%lf", g.what, g.params, &g.low, &g.likely, &g.high) == 5) {
    g.params[strlen(g.params) - 1] = '\0'; /* the mark that keeps it from being empty */
    t->figure[t->n_figure++] = g;
  }
  if (t->n_point < MOST_ROWS &&
      sscanf(rest, "point,%23[^,],%47[^,],%15[^,],%7[^,],%d,%d,%d,%d,%d,%lf,%lf,%lf,%lld", k.kernel, k.candidate, k.format, k.act,
             &k.n_out, &k.n_in, &k.tokens, &k.context, &k.threads, &k.ns_low, &k.ns, &k.ns_high, &bytes) == 13) {
    k.bytes = bytes;
    t->point[t->n_point++] = k;
  }
}

hf_status grid_rows_load(const char *path, const char *name, cost_rows **out) {
  rows_read *t = NULL;
  char line[512];
  const size_t n = strlen(name);
  rec_machine m = {.kind = MACHINE_MEASURED};
  rec_device cpu = {.device = "cpu0", .kind = "cpu"};
  FILE *f = fopen(path, "r");
  if (!f) return hf_fail(HF_INPUT, "%s: cannot be read", path);
  hf_status st = hf_alloc(&t, 1, sizeof *t, "rows of a profile");
  while (st == HF_OK && fgets(line, sizeof line, f))
    if (strncmp(line, name, n) == 0 && line[n] == ',') read_row(line + n + 1, t);
  fclose(f);
  HF_TRY(st);
  snprintf(m.name, sizeof m.name, "%s", name);
  cpu.cores = t->cores;
  cpu.mem_bytes = 32LL << 30;
  st = t->n_point > 0 ? cost_rows_from_arrays(&m, &cpu, 1, t->figure, t->n_figure, t->point, t->n_point, NULL, 0, out)
                      : hf_fail(HF_INPUT, "%s: has no rows of %s", path, name);
  free(t);
  return st;
}

/* ---- errors ---- */

const char *const grid_metric[GRID_METRICS] = {"decode, raw", "decode, corrected for drift", "prefill, raw",
                                               "prefill, corrected for drift"};

hf_status grid_errors(const grid_run *r, int n, const char *profiles, double *error[GRID_METRICS]) {
  cost_rows *paced = NULL;
  HF_TRY(grid_paced_rows(&paced));
  hf_status st = HF_OK;
  for (int i = 0; i < n && st == HF_OK; i++) {
    cost_rows *own = NULL;
    grid_figures raw, now;
    char name[64];
    snprintf(name, sizeof name, "%s-%s", r[i].cell.model, r[i].cell.format);
    if (r[i].cell.percent < 0) st = grid_rows_load(profiles, name, &own);
    const cost_rows *rows = own != NULL ? own : paced;
    if (st == HF_OK) st = grid_predict(&r[i].cell, rows, 0, &raw);
    if (st == HF_OK) st = grid_predict_at(&r[i], rows, &now);
    cost_rows_free(own);
    if (st != HF_OK) break;
    error[GRID_DECODE_RAW][i] = raw.decode_tok_per_s / r[i].measured.decode_tok_per_s - 1;
    error[GRID_DECODE][i] = now.decode_tok_per_s / r[i].measured.decode_tok_per_s - 1;
    error[GRID_PREFILL_RAW][i] = raw.prefill_tok_per_s / r[i].measured.prefill_tok_per_s - 1;
    error[GRID_PREFILL][i] = now.prefill_tok_per_s / r[i].measured.prefill_tok_per_s - 1;
  }
  cost_rows_free(paced);
  return st;
}

static int by_size(const void *a, const void *b) {
  const double x = fabs(*(const double *)a), y = fabs(*(const double *)b);
  return (x > y) - (x < y);
}

void grid_percentiles(double *v, int n, double *median, double *p90, double *mean) {
  double sum = 0;
  *median = *p90 = *mean = 0;
  if (n == 0) return;
  for (int i = 0; i < n; i++) sum += v[i];
  qsort(v, (size_t)n, sizeof *v, by_size);
  *median = fabs(v[(n - 1) / 2]);
  *p90 = fabs(v[(n * 9 + 9) / 10 - 1]);
  *mean = sum / n;
}
