/* regret.h: choosing among machines whose speed and price are known as intervals only.
 *
 * Factors of doubt: the groups of figures (cost_group) and classes of prices. Each is low, likely or high for all choices at once: they share
 * the engine, the prices of memory, and so on. A corner is one level for each factor.
 *   need   how many such machines the demand takes: at likely figures `need`, times the product of the effects of its groups
 *   loss   price * max(1, need): what serving the demand costs
 *   regret loss - least loss of any choice in the same corner
 * Pure; corners are enumerated, so results are exact and the same everywhere. */
#ifndef HF_PLANNER_ASK_REGRET_H
#define HF_PLANNER_ASK_REGRET_H

#include "planner/cost/rows.h"

enum {
  REGRET_CPU_PRICE,
  REGRET_MEMORY_PRICE,
  REGRET_GPU_PRICE,
  REGRET_OTHER_PRICE,
  REGRET_N_PRICES,
  REGRET_N_FACTORS = COST_N_GROUPS + REGRET_N_PRICES,
  REGRET_MAX_CHOICES = 32,
  REGRET_LEVELS = 3 /* 0: bad for the buyer (slow, dear), 1: likely, 2: good */
};
const char *regret_factor_name(int factor);  /* "cpu_memory", ..., "memory_price" */
const char *regret_factor_words(int factor); /* for people */

typedef struct {
  double need;                         /* demand / rate at likely figures; <= 1 meets it */
  double fixed_need;                   /* of limits that do not move with the rate (TTFT); 0 = none */
  double log_effect[COST_N_GROUPS][2]; /* ln(step time / likely), slow end and fast end */
  double price[REGRET_N_PRICES][3];    /* low, likely, high */
  /* Bit b: known to serve at no more cost than choice b at both ends and in between. Effects of groups are multiplied, which can make the faster of
   * two alike look the dearer in a corner; its loss is then that of b. */
  uint32_t no_worse_than;
} regret_choice;

double regret_loss(const regret_choice *c, const int level[REGRET_N_FACTORS]);

typedef struct {
  int best;                                           /* least loss at likely figures; ties: the first */
  double worst[REGRET_MAX_CHOICES];                   /* worst regret over all corners */
  int worst_at[REGRET_MAX_CHOICES][REGRET_N_FACTORS]; /* the first corner where it is so */
  int least_regret;                                   /* choice of the smallest worst regret */
  double expected[REGRET_MAX_CHOICES];                /* mean loss over all corners */
  double value[REGRET_N_FACTORS]; /* what knowing this factor beforehand saves in the mean, choosing with it; >= 0 */
  double value_all;               /* of knowing everything */
  int flip[REGRET_N_FACTORS]
          [2]; /* what becomes the best choice as this factor alone moves to its bad, its good end; best: nothing */
  double flip_at[REGRET_N_FACTORS][2]; /* share of the way there at which it does, 0..1; 2 = never */
} regret_result;
/* n 1..REGRET_MAX_CHOICES. */
void regret_of(const regret_choice *c, int n, regret_result *out);
#endif
