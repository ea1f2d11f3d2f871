#include "planner/ask/regret.h"

#include <math.h>
#include <string.h>

static const struct {
  const char *name, *words;
} factors[REGRET_N_FACTORS] = {
    {"cpu_memory", "the share of the memory bandwidth that the CPU's expert kernels reach"},
    {"cpu_compute", "the arithmetic rate of the CPU's kernels"},
    {"gpu_memory", "the share of the memory bandwidth that the GPU's kernels reach"},
    {"gpu_compute", "the arithmetic rate of the GPU's kernels"},
    {"link", "the rate of the link to the GPU"},
    {"fixed", "the fixed cost of a layer: hand-over, wake-up, barriers"},
    {"routing", "how many distinct experts real text touches"},
    {"cpu_price", "the price of the CPUs"},
    {"memory_price", "the price of the memory"},
    {"gpu_price", "the price of the GPUs"},
    {"other_price", "the price of board, chassis and power supplies"},
};

const char *regret_factor_name(int factor) {
  return factor >= 0 && factor < REGRET_N_FACTORS ? factors[factor].name : "";
}

const char *regret_factor_words(int factor) {
  return factor >= 0 && factor < REGRET_N_FACTORS ? factors[factor].words : "";
}

/* Time factor of a group `share` of the way to its bad (level 0) or good end. */
static double effect(const regret_choice *c, int group, int level, double share) {
  return level == 1 ? 1 : exp(share * c->log_effect[group][level == 2]);
}

static double price_of(const regret_choice *c, int k, int level, double share) {
  double likely = c->price[k][1], end = c->price[k][level == 0 ? 2 : 0];
  return level == 1 ? likely : likely + share * (end - likely);
}

static double loss_of(double price, double need, double fixed_need) {
  return price * fmax(1, fmax(need, fixed_need));
}

double regret_loss(const regret_choice *c, const int level[REGRET_N_FACTORS]) {
  double need = c->need, price = 0;
  for (int g = 0; g < COST_N_GROUPS; g++) need *= effect(c, g, level[g], 1);
  for (int k = 0; k < REGRET_N_PRICES; k++) price += price_of(c, k, level[COST_N_GROUPS + k], 1);
  return loss_of(price, need, c->fixed_need);
}

/* Loss with one factor alone moved. */
static double loss_alone(const regret_choice *c, int factor, int level, double share) {
  double need = c->need, price = 0;
  if (factor < COST_N_GROUPS) need *= effect(c, factor, level, share);
  for (int k = 0; k < REGRET_N_PRICES; k++) price += price_of(c, k, factor == COST_N_GROUPS + k ? level : 1, share);
  return loss_of(price, need, c->fixed_need);
}

/* No loss is above that of a choice which is known to be no better. */
static void settle_known(const regret_choice *c, int n, double *loss) {
  double own[REGRET_MAX_CHOICES];
  memcpy(own, loss, (size_t)n * sizeof *own);
  for (int a = 0; a < n; a++)
    for (int b = 0; c[a].no_worse_than >> b != 0 && b < n; b++)
      if ((c[a].no_worse_than >> b & 1) != 0) loss[a] = fmin(loss[a], own[b]);
}

static int best_alone(const regret_choice *c, int n, int factor, int level, double share) {
  double loss[REGRET_MAX_CHOICES];
  int best = 0;
  for (int a = 0; a < n; a++) loss[a] = loss_alone(&c[a], factor, level, share);
  settle_known(c, n, loss);
  for (int a = 1; a < n; a++)
    if (loss[a] < loss[best]) best = a;
  return best;
}

static void find_flips(const regret_choice *c, int n, regret_result *out) {
  for (int f = 0; f < REGRET_N_FACTORS; f++)
    for (int side = 0; side < 2; side++) {
      int level = side == 0 ? 0 : 2;
      out->flip[f][side] = best_alone(c, n, f, level, 1);
      out->flip_at[f][side] = 2;
      if (out->flip[f][side] == out->best) continue;
      double lo = 0, hi = 1; /* first change on the way, to a thousandth */
      for (int i = 0; i < 10; i++) {
        double mid = 0.5 * (lo + hi);
        if (best_alone(c, n, f, level, mid) == out->best) lo = mid;
        else hi = mid;
      }
      out->flip_at[f][side] = hi;
      out->flip[f][side] = best_alone(c, n, f, level, hi); /* at the end itself a third may be the best */
    }
}

/* All corners, the factors' levels as digits of a number to the base 3. Sums by (choice, factor, level) give the value of knowing a factor. */
typedef struct {
  double sum[REGRET_MAX_CHOICES], least;
  double by[REGRET_MAX_CHOICES][REGRET_N_FACTORS][REGRET_LEVELS];
  double time[REGRET_MAX_CHOICES][COST_N_GROUPS][REGRET_LEVELS];
  double price[REGRET_MAX_CHOICES][REGRET_N_PRICES][REGRET_LEVELS];
  bool moves[REGRET_N_FACTORS]; /* some choice feels it; the others stay likely */
} corners;

static void prepare(const regret_choice *c, int n, corners *k) {
  memset(k, 0, sizeof *k);
  for (int a = 0; a < n; a++)
    for (int level = 0; level < REGRET_LEVELS; level++) {
      for (int g = 0; g < COST_N_GROUPS; g++) {
        k->time[a][g][level] = effect(&c[a], g, level, 1);
        k->moves[g] = k->moves[g] || fabs(c[a].log_effect[g][0]) + fabs(c[a].log_effect[g][1]) > 1e-4;
      }
      for (int p = 0; p < REGRET_N_PRICES; p++) {
        k->price[a][p][level] = price_of(&c[a], p, level, 1);
        k->moves[COST_N_GROUPS + p] = k->moves[COST_N_GROUPS + p] || c[a].price[p][2] > c[a].price[p][0];
      }
    }
}

static void one_corner(const regret_choice *c, int n, const int *level, corners *k, regret_result *out) {
  double loss[REGRET_MAX_CHOICES], least = INFINITY;
  for (int a = 0; a < n; a++) {
    double need = c[a].need, price = 0;
    for (int g = 0; g < COST_N_GROUPS; g++) need *= k->time[a][g][level[g]];
    for (int p = 0; p < REGRET_N_PRICES; p++) price += k->price[a][p][level[COST_N_GROUPS + p]];
    loss[a] = loss_of(price, need, c[a].fixed_need);
  }
  settle_known(c, n, loss);
  for (int a = 0; a < n; a++) {
    if (loss[a] < least) least = loss[a];
    k->sum[a] += loss[a];
    for (int f = 0; f < REGRET_N_FACTORS; f++) k->by[a][f][level[f]] += loss[a];
  }
  k->least += least;
  for (int a = 0; a < n; a++) {
    if (!(loss[a] - least > out->worst[a])) continue;
    out->worst[a] = loss[a] - least;
    memcpy(out->worst_at[a], level, REGRET_N_FACTORS * sizeof *level);
  }
}

static bool next_corner(const corners *k, int *level) {
  for (int f = 0; f < REGRET_N_FACTORS; f++) {
    if (!k->moves[f]) continue;
    if (++level[f] < REGRET_LEVELS) return true;
    level[f] = 0;
  }
  return false;
}

static double least_of(const double *sum, int n, int stride) {
  double least = INFINITY;
  for (int a = 0; a < n; a++)
    if (sum[(size_t)a * (size_t)stride] < least) least = sum[(size_t)a * (size_t)stride];
  return least;
}

void regret_of(const regret_choice *c, int n, regret_result *out) {
  static const int likely[REGRET_N_FACTORS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  corners k;
  int level[REGRET_N_FACTORS];
  double count = 0;
  memset(out, 0, sizeof *out);
  prepare(c, n, &k);
  for (int a = 1; a < n; a++)
    if (regret_loss(&c[a], likely) < regret_loss(&c[out->best], likely)) out->best = a;
  for (int f = 0; f < REGRET_N_FACTORS; f++) level[f] = k.moves[f] ? 0 : 1;
  do {
    one_corner(c, n, level, &k, out);
    count++;
  } while (next_corner(&k, level));
  for (int a = 0; a < n; a++) {
    out->expected[a] = k.sum[a] / count;
    if (out->worst[a] < out->worst[out->least_regret]) out->least_regret = a;
  }
  double base = least_of(k.sum, n, 1) / count;
  out->value_all = fmax(0, base - k.least / count);
  for (int f = 0; f < REGRET_N_FACTORS; f++) {
    if (!k.moves[f]) continue;
    double known = 0;
    for (int l = 0; l < REGRET_LEVELS; l++) known += least_of(&k.by[0][f][l], n, REGRET_N_FACTORS * REGRET_LEVELS);
    out->value[f] = fmax(0, base - known / count);
  }
  find_flips(c, n, out);
}
