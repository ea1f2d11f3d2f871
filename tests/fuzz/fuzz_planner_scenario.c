/* Fuzz target: any bytes as a scenario. What is taken holds: its inputs, joined with a machine, give finite costs. */
#include <math.h>
#include <stdlib.h>

#include "planner/money/scenario.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  money_scenario s;
  money_fact f[MONEY_N];
  money_machine m = {
      .name = "m", .price = {1, 2, 3, TAG_SPEC, "x"}, .idle_w = {1, 1, 1, TAG_SPEC, "x"}, .active_w = {2, 2, 2, TAG_SPEC, "x"}};
  money_load l = {.tok_per_s = {1, 2, 3}, .prefill_share = 0.1, .input_per_output = 1, .users = 1, .source = "x"};
  money_lever lever[MONEY_N];
  money_decision d;
  double v[MONEY_N];
  if (size > 1 << 20) return 0;
  for (int k = 0; k < MONEY_N_CLASSES; k++) m.part[k].low = m.part[k].likely = m.part[k].high = NAN;
  if (money_scenario_parse((const char *)data, size, "fuzz", &s) != HF_OK || money_inputs(&s, &m, &l, f) != HF_OK) {
    if (hf_error_line()[0] == 0) abort();
    return 0;
  }
  money_likely(f, v);
  money_decide(v, &d);
  if (!isfinite(d.way[MONEY_OWN].per_month) || !isfinite(d.way[MONEY_OWN].tco_5)) abort();
  if (money_tornado(f, lever) > MONEY_N) abort();
  return 0;
}
