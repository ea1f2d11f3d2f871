/* cause.h: why one case is faster or slower than another: which resource got more or less, and what that did to the step. */
#ifndef HF_PLANNER_ASK_CAUSE_H
#define HF_PLANNER_ASK_CAUSE_H

#include "planner/ask/ask.h"

enum { ASK_MAX_CAUSES = 8 };
typedef struct {
  const char *what, *unit;
  double from, to;
  double weight; /* |ln| of what it does to the time of the step's busiest side; causes come in falling order of it */
  char text[200];
} ask_cause;

/* base and c both from ask_evaluate. Returns how many. */
int ask_causes(const ask_case *base, const ask_case *c, ask_cause out[ASK_MAX_CAUSES]);
#endif
