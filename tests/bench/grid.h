/* grid.h: the grid on which predictions are held against runs: its cells, what a run of one gave, and what the planner says of it. Shared by the
 * benchmark that runs cells (bench_grid.c) and the test that predicts runs that were kept (tests/unit/planner_truth.c). */
#ifndef HF_TESTS_BENCH_GRID_H
#define HF_TESTS_BENCH_GRID_H

#include "planner/plan_inputs.h"
#include "planner/sim/sim.h"

enum { GRID_CHUNK_TOKENS = 128, GRID_STAGES = 6 };
extern const char *const grid_stage[GRID_STAGES]; /* of a step: attn, shared, dexp, cexp, head, step */

/* percent: of the experts on the paced device; -1: no device. */
typedef struct {
  char model[32], format[16]; /* NAME of tests/bench/grid-NAME.json */
  int users, prompt_tokens, percent, depth;
} grid_cell;
/* So many that all users decode together for a while after the last prompt. */
int grid_output_tokens(const grid_cell *c);

/* A run, or what is predicted of it. ns of a decode step by stage, summed over layers, are for finding what is missing; 0 = none. */
typedef struct {
  double decode_tok_per_s, prefill_tok_per_s;
  double stage_ns[2][GRID_STAGES]; /* decode; prompts, of a whole chunk */
} grid_figures;

/* "synth:FOLDER/grid-MODEL.json,format=F,seed=1" */
void grid_model_text(const grid_cell *c, char *out, size_t n);
/* Which experts of a layer live on the device at so many per cent, as the executor places them without a plan. */
bool grid_on_device(int percent, int expert, int n_experts);
/* hf-plan's table and simulation for the cell, with uniform popularity. rows: of this machine, or of the one told to the paced device. */
HF_MUST hf_status grid_predict(const grid_cell *c, const cost_rows *rows, int threads, grid_figures *out);

/* Lines of a file of runs: cell, figures, bandwidth while it ran, the profile's. */
typedef struct {
  grid_cell cell;
  grid_figures measured;
  double bytes_per_s, profile_bytes_per_s; /* read by all threads: around the run, in the profile */
} grid_run;
extern const char grid_csv_head[];
void grid_csv_line(const grid_run *r, char *out, size_t n);
bool grid_csv_read(const char *line, grid_run *out);
/* The same prediction for memory as it was while r ran; of a paced device, which keeps its own times, unchanged. */
HF_MUST hf_status grid_predict_at(const grid_run *r, const cost_rows *rows, grid_figures *out);

/* ---- machines ---- */

/* The one that paces the grid, tests/bench/grid-paced.json. */
HF_MUST hf_status grid_paced_rows(cost_rows **out);
/* Rows of a profile as lines of text, "NAME,...": what predictions of the grid read of it. load finds those of NAME. */
HF_MUST hf_status grid_rows_save(const char *path, const char *name, const cost_rows *r);
HF_MUST hf_status grid_rows_load(const char *path, const char *name, cost_rows **out);

/* ---- errors ---- */

enum { GRID_DECODE_RAW, GRID_DECODE, GRID_PREFILL_RAW, GRID_PREFILL, GRID_METRICS };
extern const char *const grid_metric[GRID_METRICS];
/* Of n runs, [metric][run]: signed, predicted over measured. profiles: file of grid_rows_save, rows of a run under MODEL-FORMAT. */
HF_MUST hf_status grid_errors(const grid_run *r, int n, const char *profiles, double *error[GRID_METRICS]);
/* Nearest rank of the absolute values of v [n], which is sorted by it; *mean signed. */
void grid_percentiles(double *v, int n, double *median, double *p90, double *mean);
#endif
