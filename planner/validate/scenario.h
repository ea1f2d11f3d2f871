/* scenario.h: rows of our own name that state no machine (HeteroFlow: "Xeon 6 P-core", MRDIMM, one 24 GB GPU): what plans for the machines
 * that they may mean predict, and whether the published figure lies inside. No such row counts in the error statistics. */
#ifndef HF_PLANNER_VALIDATE_SCENARIO_H
#define HF_PLANNER_VALIDATE_SCENARIO_H
#include "planner/validate/cases.h"
#include "planner/validate/predict.h"

enum { SCENARIOS_PER_ROW = 8 };
typedef struct {
  const published_case *c;
  char machine[128], format[16];
  int sockets, depth;
  predicted_range decode;
  double published;
  bool inside;
  char needs[200]; /* what the published figure would then need; "" when it lies inside */
} scenario;

/* One and two sockets of the two Xeon 6 P-core lines that take MRDIMM, each with Q4_K_M and INT8: a plan for users and lengths as
 * stated, else a prompt of 1536 and an answer of 512 tokens. Modules of 96 GiB where those of the catalog hold too little. */
HF_MUST hf_status scenarios_of(const published_case *c, scenario out[SCENARIOS_PER_ROW]);
bool scenario_applies(const published_case *c);
#endif
