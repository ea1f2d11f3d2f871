/* cmd_validate.c: hf-plan validate. */
#include "planner/cmd.h"

/* The form is settled (docs/design.md), the comparison comes with the priors per engine; until then it refuses instead of guessing. */
hf_status cmd_validate(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "validate",
      .synopsis = "CASES.csv [options]",
      .description =
          "Will compare predictions with published measurements, row by row, with signed errors. This version refuses: "
          "it has no priors per engine to predict other people's programs with. Own runs are compared by hf-run "
          "and hf-report.",
      .examples = "  hf-plan validate tests/validation/published-cases.csv --json\n      Exit status 2 in this version.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  return hf_fail(HF_UNSUPPORTED,
                 "validate: this version cannot predict other engines yet; own runs are compared by hf-run and hf-report");
}
