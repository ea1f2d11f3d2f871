/* Request traces from anybody. What is accepted rises in time and has something to read and to write; and a short simulation of it ends. */
#include "tests/fuzz/fuzz_model.h"

#include <stdlib.h>

#include "planner/sim/sim.h"
#include "planner/sim/trace_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];
static stage_table *table;
static popularity *pop;

static void clean_up(void) {
  unlink(path);
  stage_table_free(table);
  popularity_free(pop);
}

static void prepare(void) {
  fuzz_path(path, sizeof path, "hf-fuzz-trace-%d");
  if (stage_table_new(1, &table) != HF_OK || popularity_new(1, 0, &pop) != HF_OK) abort();
  table->step_fixed_ns = 1e6;
  atexit(clean_up);
}

static void simulate(void) {
  sim_options o = {.table = table,
                   .pop = pop,
                   .depth = 1,
                   .chunk_tokens = 4096,
                   .page_tokens = 64,
                   .arrivals = SIM_TRACE,
                   .trace_path = path,
                   .requests = 50,
                   .max_context = 65536,
                   .resolution = SIM_STEPS};
  sim_result r;
  hf_status st = sim_run(&o, &r);
  if (st != HF_OK && st != HF_INPUT && st != HF_NO) abort();
  if (st == HF_OK && (r.requests < 1 || r.requests > 50 || !(r.wall_s > 0) || r.in_system < 0)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  sim_trace *t = NULL;
  sim_trace_line line;
  bool any = true;
  int64_t last = 0;
  if (path[0] == '\0') prepare();
  if (hf_write_file(path, data, size) != HF_OK || sim_trace_open(path, &t) != HF_OK) abort();
  while (any) {
    if (sim_trace_next(t, &line, &any) != HF_OK) break;
    if (!any) continue;
    if (line.arrival_ns < last || line.prompt < 1 || line.output < 1 || line.cached < 0 || line.cached >= line.prompt) abort();
    last = line.arrival_ns;
  }
  sim_trace_close(t);
  simulate();
  return 0;
}
