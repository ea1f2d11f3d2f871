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
#endif
