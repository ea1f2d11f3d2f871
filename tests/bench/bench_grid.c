/* bench_grid run DB MACHINE MODEL FORMAT RUNS.csv SECONDS cpu|paced: runs cells of the grid (grid.h) in a scattered order and appends what was
 *   measured; cells that the file has are not run again, so that a run can be cut into pieces. MACHINE: name of its profile in DB, "MODEL-FORMAT".
 * bench_grid rows DB MACHINE PROFILES.csv: appends that profile as text.
 * bench_grid table PROFILES.csv RUNS.csv: predicted against measured, signed, raw and corrected for drift.
 * bench_grid stages PROFILES.csv RUNS.csv: the same stage by stage. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/stats.h"
#include "executor/prompts.h"
#include "executor/serve.h"
#include "kernels/mem/probe.h"
#include "tests/bench/grid.h"

enum { MOST_RUNS = 2000, PROBE_BYTES = 128 << 20, EVERY_NS = 40000000, MOST_LOOKS = 4096, REPEATS = 3 };
/* Memory read at so many times the rate of the profile, or part of it: before a run and after it. */
static const double ALIKE = 1.15, STILL_ALIKE = 1.25;
/* The same of rows that travel between cores: a virtual machine's cores lie now beside each other, now apart, and a norm of rows that another core
 * wrote takes 0.2 or 0.7 ns a value. */
static const double ALIKE_ROWS = 1.6;
enum { ROWS = 128, WIDTH = 1024, ROW_PASSES = 9 };
static const int users_of[] = {1, 2, 5, 8, 16}, prompt_of[] = {32, 128, 512};

typedef struct {
  grid_run run[MOST_RUNS];
  int n;
} runs;

static hf_status machine_rows(const char *db_path, const char *name, cost_rows **out) {
  db *d = NULL;
  rec_machine m;
  HF_TRY(db_open(db_path, false, &d));
  hf_status st = db_machine_find(d, name, &m);
  if (st == HF_OK) st = cost_rows_load(d, &m, false, out);
  db_close(d);
  return st;
}

static void read_runs(const char *path, runs *r) {
  char line[1024];
  FILE *f = fopen(path, "r");
  while (f && r->n < MOST_RUNS && fgets(line, sizeof line, f))
    if (grid_csv_read(line, &r->run[r->n])) r->n++;
  if (f) fclose(f);
}

static bool same_cell(const grid_cell *a, const grid_cell *b) {
  return !strcmp(a->model, b->model) && !strcmp(a->format, b->format) && a->users == b->users &&
         a->prompt_tokens == b->prompt_tokens && a->percent == b->percent && a->depth == b->depth;
}

/* ---- running ---- */

typedef struct {
  const cost_rows *rows, *paced;
  model *m;
  pool *p;
  mem_probe *probe;
  const char *out;
  double profile_bytes_per_s, profile_norm_ns; /* the latter 0: not known */
  float *rows_of_others;
  int threads;
  bool look; /* at memory while serving: not beside a paced device, which would wait for it */
} bench;

/* Memory is looked at every so often between steps. */
typedef struct {
  const bench *b;
  int64_t next_ns;
  double bytes_per_s[MOST_LOOKS];
  int n;
} watching;

static void look(watching *w) {
  const double v = mem_probe_pass(w->b->probe, w->b->threads);
  if (w->n < MOST_LOOKS) w->bytes_per_s[w->n++] = v;
  w->next_ns = hf_now_ns() + EVERY_NS;
}

static void look_again(void *user, const sched *s) {
  watching *w = user;
  (void)s;
  if (w->b->look && hf_now_ns() >= w->next_ns) look(w);
}

static hf_status pace_table(const bench *b, const grid_cell *c, stage_table **out) {
  char text[256];
  plan_inputs *in = NULL;
  grid_model_text(c, text, sizeof text);
  plan_request q = {.model = text, .gpu = "cuda:0", .users = c->users, .context = 64, .host_rows = b->paced};
  HF_TRY(plan_inputs_open(NULL, &q, &in));
  cost_input ci = plan_cost_input(in);
  hf_status st = cost_table(&ci, (cost_case){0}, out);
  plan_inputs_close(in);
  return st;
}

static void stage_sums(const serve_stats *st, grid_figures *f) {
  static const int of[DEV_STAGE_N] = {
      [DEV_STAGE_ATTN] = 0, [DEV_STAGE_SHARED] = 1, [DEV_STAGE_DEXP] = 2, [DEV_STAGE_CEXP] = 3, [DEV_STAGE_HEAD] = 4};
  for (int phase = 0; phase < 2; phase++) {
    double *ns = f->stage_ns[!phase];
    for (int l = 0; l <= st->n_layers; l++)
      for (int s = 0; s < DEV_STAGE_N; s++) {
        const struct serve_stage *g =
            &st->stage[((size_t)phase * (size_t)(st->n_layers + 1) + (size_t)l) * DEV_STAGE_N + (size_t)s];
        if (g->steps > 0) ns[of[s]] += g->ns / (double)g->steps;
      }
    if (st->step_n[phase] > 0) ns[5] = st->step_ns_sum[phase] / (double)st->step_n[phase];
  }
}

static hf_status run_cell(const bench *b, const grid_cell *c, grid_run *r) {
  engine *e = NULL;
  stage_table *pace = NULL;
  prompt_list list = {0};
  serve_stats stats = {0};
  hf_status st;
  prompt_options po = {.max_tokens = grid_output_tokens(c), .ignore_eos = true};
  engine_options o = {.depth = c->depth,
                      .max_seqs = c->users,
                      .context = c->prompt_tokens + grid_output_tokens(c),
                      .page_tokens = PLAN_PAGE_TOKENS,
                      .max_tok = GRID_CHUNK_TOKENS + c->users,
                      .max_logits = c->users,
                      .kv_type = KV_F16,
                      .experts_on_gpu_percent = c->percent,
                      .device_bytes = 8LL << 30,
                      .ram_limit_bytes = 16LL << 30};
  static watching w;
  const int repeats = c->percent < 0 ? REPEATS : 1; /* a paced device keeps its times */
  double decode[REPEATS], prefill[REPEATS];
  grid_figures of[REPEATS] = {0};
  w = (watching){.b = b};
  serve_options so = {.chunk_tokens = GRID_CHUNK_TOKENS, .users = c->users, .user = &w, .on_sched = look_again};
  o.n_pages = c->users * ((o.context + o.page_tokens - 1) / o.page_tokens);
  snprintf(o.gpu, sizeof o.gpu, c->percent >= 0 ? "paced:grid" : "none");
  *r = (grid_run){.cell = *c, .profile_bytes_per_s = b->profile_bytes_per_s};
  HF_GO(end, prompts_random(c->users, c->prompt_tokens, model_get_config(b->m)->vocab_size, 1, &po, &list));
  if (c->percent >= 0) HF_GO(end, pace_table(b, c, &pace));
  o.pace = pace;
  HF_GO(end, engine_open(b->m, &o, &e));
  /* The middle of several servings: what a neighbour does for a moment is no property of this machine. */
  for (int i = 0; i < repeats; i++) {
    if (b->look) look(&w);
    HF_GO(end, serve_run(e, list.req, list.n, &so, &stats));
    if (b->look) look(&w);
    decode[i] = serve_decode_rate(&stats);
    prefill[i] = stats.prefill_s > 0 ? stats.prefill_tokens / stats.prefill_s : 0;
    stage_sums(&stats, &of[i]);
    serve_stats_free(&stats);
  }
  for (int k = 0; k < 2 * GRID_STAGES; k++) {
    double v[REPEATS];
    for (int i = 0; i < repeats; i++) v[i] = of[i].stage_ns[k / GRID_STAGES][k % GRID_STAGES];
    r->measured.stage_ns[k / GRID_STAGES][k % GRID_STAGES] = hf_percentiles_of(v, (size_t)repeats).p50;
  }
  r->bytes_per_s = w.n > 0 ? hf_percentiles_of(w.bytes_per_s, (size_t)w.n).p50 : b->profile_bytes_per_s;
  r->measured.decode_tok_per_s = hf_percentiles_of(decode, (size_t)repeats).p50;
  r->measured.prefill_tok_per_s = hf_percentiles_of(prefill, (size_t)repeats).p50;
end:
  serve_stats_free(&stats);
  prompts_free(&list);
  engine_close(e);
  stage_table_free(pace);
  return st;
}

static int all_cells(const char *name, const char *format, grid_cell *out) {
  static const int percent_of[] = {-1, 0, 50, 100};
  int n = 0;
  for (int p = 0; p < 4; p++)
    for (int depth = 1; depth <= (percent_of[p] >= 0 ? 2 : 1); depth++)
      for (int u = 0; u < 5; u++)
        for (int c = 0; c < 3; c++) {
          grid_cell *x = &out[n];
          *x = (grid_cell){.users = users_of[u], .prompt_tokens = prompt_of[c], .percent = percent_of[p], .depth = depth};
          snprintf(x->model, sizeof x->model, "%s", name);
          snprintf(x->format, sizeof x->format, "%s", format);
          /* a paced machine is slow: long prompts of many would take minutes; one user has one micro-batch */
          if (x->percent >= 0 && ((int64_t)x->users * x->prompt_tokens > 1024 || x->users < depth)) continue;
          n++;
        }
  uint64_t z = 88172645463325252u;
  for (int i = n - 1; i > 0; i--) {
    z ^= z << 13, z ^= z >> 7, z ^= z << 17;
    int with = (int)(z % (uint64_t)(i + 1));
    grid_cell held = out[i];
    out[i] = out[with], out[with] = held;
  }
  return n;
}

/* Shared machines read memory at one rate for some minutes and at half or twice of it for the next; what a kernel does then is no matter of drift.
 * A cell waits for memory to be as it was when the machine was measured, nearly. */
/* What point "rmsnorm" of a profile is, of one row on one thread. */
typedef struct {
  const bench *b;
  int64_t t0, t1;
} norm_job;

static void norm_rows(void *arg, int thread, int n_threads) {
  norm_job *j = arg;
  float *x = j->b->rows_of_others, *y = x + ROWS * WIDTH, *w = y + ROWS * WIDTH;
  for (int r = 0; r < ROWS; r++)
    for (int i = WIDTH * thread / n_threads; i < WIDTH * (thread + 1) / n_threads; i++) x[r * WIDTH + i] += 1e-6f;
  pool_barrier(j->b->p, thread);
  if (thread == 0) j->t0 = hf_now_ns();
  for (int r = thread; r < ROWS; r += n_threads) kern_get()->rmsnorm(x + r * WIDTH, w, 1e-6f, WIDTH, y + r * WIDTH);
  pool_barrier(j->b->p, thread);
  if (thread == 0) j->t1 = hf_now_ns();
}

static bool rows_as_profiled(const bench *b) {
  double v[ROW_PASSES];
  if (!(b->profile_norm_ns > 0)) return true;
  for (int i = 0; i < ROW_PASSES; i++) {
    norm_job j = {.b = b};
    pool_run(b->p, norm_rows, &j);
    v[i] = (double)(j.t1 - j.t0) * b->threads / ROWS;
  }
  const double now = hf_percentiles_of(v, ROW_PASSES).p50;
  return now < ALIKE_ROWS * b->profile_norm_ns && now > b->profile_norm_ns / ALIKE_ROWS;
}

static double profile_norm_ns(const cost_rows *r, int threads) {
  for (int i = 0; i < r->n_kernel; i++) {
    const rec_kernel_point *k = &r->kernel[i];
    if (strcmp(k->kernel, "rmsnorm") == 0 && k->threads == threads && k->n_in == WIDTH) return k->ns;
  }
  return 0;
}

static bool as_profiled(const bench *b, double bytes_per_s, double within) {
  return bytes_per_s < within * b->profile_bytes_per_s && bytes_per_s > b->profile_bytes_per_s / within;
}

static double bandwidth(const bench *b) {
  enum { PASSES = 5 };
  double v[PASSES];
  for (int i = 0; i < PASSES; i++) v[i] = mem_probe_pass(b->probe, b->threads);
  return hf_percentiles_of(v, PASSES).p50;
}

static hf_status append(const char *path, const grid_run *r) {
  char line[1024];
  FILE *f = fopen(path, "a");
  if (!f) return hf_fail(HF_MACHINE, "%s: cannot be written", path);
  grid_csv_line(r, line, sizeof line);
  if (ftell(f) == 0) fprintf(f, "%s\n", grid_csv_head);
  fprintf(f, "%s\n", line);
  return fclose(f) == 0 ? HF_OK : hf_fail(HF_MACHINE, "%s: cannot be written", path);
}

static hf_status run_cells(bench *b, const char *name, const char *format, double seconds, const char *kind) {
  static runs old;
  static grid_cell cells[256];
  const int n = all_cells(name, format, cells);
  const int64_t start = hf_now_ns(), until = start + (int64_t)(seconds * 1e9);
  int left = 0, waits = 0, elsewhere = 0;
  read_runs(b->out, &old);
  for (int i = 0; i < n; i++) { /* the ones to run, to the front */
    bool done = (cells[i].percent >= 0) != !strcmp(kind, "paced");
    for (int k = 0; k < old.n; k++) done = done || same_cell(&cells[i], &old.run[k].cell);
    if (!done) cells[left++] = cells[i];
  }
  for (int i = 0; i < left && hf_now_ns() < until;) {
    grid_run r;
    b->look = cells[i].percent < 0;
    if (b->look && !(as_profiled(b, bandwidth(b), ALIKE) && rows_as_profiled(b))) {
      hf_sleep_until_ns(hf_now_ns() + EVERY_NS);
      waits++;
      continue;
    }
    HF_TRY(run_cell(b, &cells[i], &r));
    if (b->look && !(as_profiled(b, r.bytes_per_s, STILL_ALIKE) && rows_as_profiled(b))) {
      elsewhere++;
      continue;
    }
    HF_TRY(append(b->out, &r));
    i++;
  }
  fprintf(stderr,
          "%s %s: %d cells to run; waited %d times for memory (%.1f GB/s) and rows of other cores (%.0f ns) as profiled, %d runs "
          "thrown "
          "away as they changed\n",
          name, format, left, waits, b->profile_bytes_per_s / 1e9, b->profile_norm_ns, elsewhere);
  return HF_OK;
}

static hf_status cmd_run(char **argv) {
  static topology topo;
  bench b = {.out = argv[6]};
  cost_rows *rows = NULL, *paced = NULL;
  grid_cell any = {0};
  char text[256];
  hf_status st;
  db_tag tag = TAG_MEASURED;
  snprintf(any.model, sizeof any.model, "%s", argv[4]);
  snprintf(any.format, sizeof any.format, "%s", argv[5]);
  grid_model_text(&any, text, sizeof text);
  HF_GO(end, kern_init(NULL));
  HF_GO(end, topo_get(&topo));
  HF_GO(end, machine_rows(argv[2], argv[3], &rows));
  HF_GO(end, grid_paced_rows(&paced));
  HF_GO(end, model_open(text, &b.m));
  b.rows = rows;
  b.paced = paced;
  b.threads = cost_cpu_cores(rows);
  /* not beside paced devices: a pool of all cores pins this thread to one, and the device's thread, which it starts, would share that */
  if (strcmp(argv[8], "cpu") == 0) {
    HF_GO(end, pool_new(&topo, 0, &b.p));
    HF_GO(end, mem_probe_new(b.p, PROBE_BYTES, &b.probe));
    b.threads = pool_threads(b.p);
  }
  b.profile_norm_ns = profile_norm_ns(rows, b.threads);
  HF_GO(end, hf_alloc(&b.rows_of_others, (2 * ROWS + 1) * WIDTH, sizeof *b.rows_of_others, "rows"));
  b.profile_bytes_per_s =
      cost_unit_bytes_per_s(&(cost_unit){.rows = rows, .cpu = true, .device = "cpu", .threads = b.threads}, (cost_case){0}, &tag);
  st = run_cells(&b, argv[4], argv[5], atof(argv[7]), argv[8]);
end:
  mem_probe_free(b.probe);
  free(b.rows_of_others);
  if (b.p) pool_free(b.p);
  model_close(b.m);
  cost_rows_free(rows);
  cost_rows_free(paced);
  return st;
}

/* ---- tables ---- */

static void summary(const runs *all, double *error[GRID_METRICS]) {
  printf("\n| metric | runs | median | p90 | mean, signed |\n|---|---|---|---|---|\n");
  for (int on = 0; on < 2; on++)
    for (int k = 0; k < GRID_METRICS; k++) {
      double v[MOST_RUNS], median, p90, mean;
      int n = 0;
      for (int i = 0; i < all->n; i++)
        if ((all->run[i].cell.percent >= 0) == on) v[n++] = error[k][i];
      grid_percentiles(v, n, &median, &p90, &mean);
      if (n > 0)
        printf("| %s, %s | %d | %.1f %% | %.1f %% | %+.1f %% |\n", grid_metric[k], on ? "paced device" : "CPU", n, 100 * median,
               100 * p90, 100 * mean);
    }
}

static hf_status cmd_table(const char *profiles, const char *path) {
  static runs all;
  static double v[GRID_METRICS][MOST_RUNS];
  double *error[GRID_METRICS] = {v[0], v[1], v[2], v[3]};
  read_runs(path, &all);
  HF_TRY(grid_errors(all.run, all.n, profiles, error));
  printf("| model | users | prompt | on device | depth | memory | decode tok/s | raw | corrected | prefill tok/s | raw | "
         "corrected |\n"
         "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (int i = 0; i < all.n; i++) {
    const grid_run *r = &all.run[i];
    const grid_cell *c = &r->cell;
    char place[16] = "none", memory[16] = "";
    if (c->percent >= 0) snprintf(place, sizeof place, "%d %%", c->percent);
    else snprintf(memory, sizeof memory, "%.2f", r->bytes_per_s / r->profile_bytes_per_s);
    printf("| %s %s | %d | %d | %s | %d | %s | %.1f | %+.1f %% | %+.1f %% | %.0f | %+.1f %% | %+.1f %% |\n", c->model, c->format,
           c->users, c->prompt_tokens, place, c->depth, memory, r->measured.decode_tok_per_s, 100 * v[0][i], 100 * v[1][i],
           r->measured.prefill_tok_per_s, 100 * v[2][i], 100 * v[3][i]);
  }
  summary(&all, error);
  return HF_OK;
}

/* Measured us of each stage of a step, and how far the prediction is from it. */
static hf_status cmd_stages(const char *profiles, const char *path) {
  static runs all;
  cost_rows *paced = NULL;
  HF_TRY(grid_paced_rows(&paced));
  read_runs(path, &all);
  for (int i = 0; i < all.n; i++) {
    const grid_run *r = &all.run[i];
    const grid_cell *c = &r->cell;
    cost_rows *own = NULL;
    grid_figures p;
    char name[64];
    snprintf(name, sizeof name, "%s-%s", c->model, c->format);
    if (c->percent < 0) HF_TRY(grid_rows_load(profiles, name, &own));
    HF_TRY(grid_predict_at(r, own ? own : paced, &p));
    cost_rows_free(own);
    printf("%-17s %-5s u%-2d c%-4d %3d%% d%d dec %+5.1f%% pre %+5.1f%% |", c->model, c->format, c->users, c->prompt_tokens,
           c->percent, c->depth, 100 * (p.decode_tok_per_s / r->measured.decode_tok_per_s - 1),
           100 * (p.prefill_tok_per_s / r->measured.prefill_tok_per_s - 1));
    for (int s = 0; s < 2 * GRID_STAGES; s++) {
      const double was = r->measured.stage_ns[s / GRID_STAGES][s % GRID_STAGES],
                   is = p.stage_ns[s / GRID_STAGES][s % GRID_STAGES];
      if (was > 0)
        printf("%s %s %.0f %+.0f%%", s == GRID_STAGES ? " |" : "", grid_stage[s % GRID_STAGES], was / 1e3, 100 * (is / was - 1));
    }
    printf("\n");
  }
  cost_rows_free(paced);
  return HF_OK;
}

static hf_status cmd_rows(char **argv) {
  cost_rows *r = NULL;
  HF_TRY(machine_rows(argv[2], argv[3], &r));
  hf_status st = grid_rows_save(argv[4], argv[3], r);
  cost_rows_free(r);
  return st;
}

int main(int argc, char **argv) {
  hf_status st;
  plan_use_catalog();
  if (argc == 9 && !strcmp(argv[1], "run")) st = cmd_run(argv);
  else if (argc == 5 && !strcmp(argv[1], "rows")) st = cmd_rows(argv);
  else if (argc == 4 && !strcmp(argv[1], "table")) st = cmd_table(argv[2], argv[3]);
  else if (argc == 4 && !strcmp(argv[1], "stages")) st = cmd_stages(argv[2], argv[3]);
  else if (argc == 1) {
    printf("bench_grid: see tests/bench/grid.sh\n");
    st = HF_OK;
  } else
    st = hf_fail(HF_INPUT,
                 "usage: bench_grid run DB MACHINE MODEL FORMAT RUNS.csv [SECONDS [cpu|paced]] | rows DB MACHINE PROFILES.csv | "
                 "table|stages PROFILES.csv RUNS.csv");
  if (st != HF_OK) fprintf(stderr, "bench_grid: %s\n", hf_error_line());
  return st == HF_OK ? 0 : hf_exit_status(st);
}
