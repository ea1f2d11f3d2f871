#include "planner/sim/random.h"

#include <math.h>

static uint64_t mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

sim_rng sim_rng_of(uint64_t seed, uint64_t stream) {
  return (sim_rng){mix(seed + 0x9e3779b97f4a7c15u) ^ mix(stream * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du)};
}

uint64_t sim_rng_next(sim_rng *r) { /* splitmix64 */
  return mix(r->state += 0x9e3779b97f4a7c15u);
}

double sim_uniform(sim_rng *r) {
  return (double)(sim_rng_next(r) >> 11) * 0x1p-53;
}

/* ln(2^k m) = k ln 2 + 2 atanh((m-1)/(m+1)), m between sqrt(1/2) and sqrt(2): 12 terms of the series reach 2^-53. */
double sim_log(double x) {
  int k = 0;
  double m = frexp(x, &k);
  if (m < 0.70710678118654752) {
    m = 2 * m;
    k--;
  }
  double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * s2 + 1.0 / i;
  return k * 0.693147180559945309417 + 2 * s * sum;
}

double sim_exp(double x) {
  double k = floor(x * 1.44269504088896340736 + 0.5);
  double r = x - k * 0.693147180369123816490 - k * 1.90821492927058770002e-10; /* ln 2 in two parts: the first times k is exact */
  double sum = 1;
  for (int i = 15; i >= 1; i--) sum = 1 + sum * r / i;
  return ldexp(sum, (int)k);
}

int64_t sim_round(double x) {
  if (x >= 0x1p62) return INT64_C(1) << 62;
  return x >= 0 ? (int64_t)(x + 0.5) : (int64_t)floor(x + 0.5);
}

double sim_exponential(sim_rng *r) {
  return -sim_log(1 - sim_uniform(r));
}

/* Marsaglia's polar method; the second of the pair is left out, so that draws need no memory. */
double sim_normal(sim_rng *r) {
  for (;;) {
    double u = 2 * sim_uniform(r) - 1, v = 2 * sim_uniform(r) - 1, s = u * u + v * v;
    if (s > 0 && s < 1) return u * sqrt(-2 * sim_log(s) / s);
  }
}

/* Marsaglia and Tsang (2000); below shape 1 a draw of shape + 1 times U^(1/shape). */
double sim_gamma(sim_rng *r, double shape) {
  double a = shape < 1 ? shape + 1 : shape, d = a - 1.0 / 3, c = 1 / sqrt(9 * d), boost = 1;
  if (shape < 1) {
    double power = -sim_exponential(r) / shape;
    boost = power < -700 ? 0 : sim_exp(power);
  }
  for (;;) {
    double x = sim_normal(r), v = 1 + c * x;
    if (v <= 0) continue;
    v = v * v * v;
    if (sim_log(1 - sim_uniform(r)) < 0.5 * x * x + d - d * v + d * sim_log(v)) return boost * d * v / shape;
  }
}
