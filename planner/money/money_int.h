/* money_int.h: shared by money.c and money_doubt.c. */
#ifndef HF_PLANNER_MONEY_MONEY_INT_H
#define HF_PLANNER_MONEY_MONEY_INT_H
#include "planner/money/money.h"

/* The cheapest way and the own blended cost: money_decide without what only a document needs. */
money_way money_cheapest(const double v[MONEY_N], double *per_million);
#endif
