/* alike.h: other machines that are alike, as one place of a problem. */
#ifndef HF_PLANNER_ILP_ALIKE_H
#define HF_PLANNER_ILP_ALIKE_H

#include "planner/ilp/ilp_int.h"

typedef struct ilp_alike ilp_alike;
/* *out NULL where no two machines are alike, or the problem is so small that each for itself is no harder. Borrows p. */
HF_MUST hf_status ilp_alike_new(const ilp_problem *p, ilp_alike **out);
void ilp_alike_free(ilp_alike *a); /* NULL ok */
/* The problem with one place for those that are alike. Its bounds are bounds of the problem asked. */
const ilp_problem *ilp_alike_problem(const ilp_alike *a);
/* Its place for one of the problem asked. */
int ilp_alike_place(const ilp_alike *a, int asked);
/* A placement of it as one of the problem asked: of each layer at most `most` machines that are alike get as equal parts as there are, in turn over the
 * layers: each costs its fixed part. May not fit by a few experts. */
HF_MUST hf_status ilp_alike_deal(const ilp_alike *a, int depth, int most, const uint8_t *merged, uint8_t *placement);
#endif
