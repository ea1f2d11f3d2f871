/* random.h: draws that are the same to the bit on every machine: splitmix64, and logarithm and exponential from sums and products only
 * (those of libm differ in the last bit between systems; frexp, ldexp, floor and sqrt are exact). */
#ifndef HF_PLANNER_SIM_RANDOM_H
#define HF_PLANNER_SIM_RANDOM_H
#include <stdint.h>

typedef struct {
  uint64_t state;
} sim_rng;

/* Draws of one purpose (stream) do not depend on how many were made for another. */
sim_rng sim_rng_of(uint64_t seed, uint64_t stream);
uint64_t sim_rng_next(sim_rng *r);
double sim_uniform(sim_rng *r);             /* [0, 1), 53 bits */
double sim_exponential(sim_rng *r);         /* mean 1 */
double sim_normal(sim_rng *r);              /* mean 0, deviation 1 */
double sim_gamma(sim_rng *r, double shape); /* mean 1; shape > 0 */

/* x > 0 and normal; within 3 units in the last place. */
double sim_log(double x);
/* |x| <= 700. */
double sim_exp(double x);
/* To the nearest whole number, halves up; what is above 2^62 becomes 2^62. */
int64_t sim_round(double x);
#endif
