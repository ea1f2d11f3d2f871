/* machine.h: a machine in memory that can be changed: catalog parts exchanged, or the rows of a measured machine scaled, and said so. */
#ifndef HF_PLANNER_ASK_MACHINE_H
#define HF_PLANNER_ASK_MACHINE_H

#include "planner/cost/rows.h"

typedef struct ask_machine ask_machine;
#endif
