/* recommend_int.h (private to ask): what the files of the search share. recommend.c: bounds, dominance, planning by price; recommend_parts.c: what is
 * combined; recommend_group.c: imagined machines that settle many at once; recommend_choices.c: without limits; recommend_finish.c: the answer. */
#ifndef HF_PLANNER_ASK_RECOMMEND_INT_H
#define HF_PLANNER_ASK_RECOMMEND_INT_H

#include "planner/ask/machine_int.h"
#include "planner/ask/recommend.h"

/* ENOUGH choices: those ranked, and some that turn out no better. */
enum {
  BATCH = 8,
  ENOUGH = 16,
  MOST_OVER_BUDGET = 200,
  MOST_FAILURES = 96, /* that are planned in full to name the nearest */
  HOST_FIGURES = 7,
  LINK = 7,
  GPU_MEMORY = 8,
  CARD_FIGURES = 4,
  N_FIGURES = 13
};
static const double CLEARLY = 1.05; /* a failure by more than this tells about machines that are no better */
static const double WORTH = 1.01;   /* less more than that is no better choice */
static const double NEARLY = PLAN_NEARLY;

typedef struct {
  catalog_parts parts; /* without GPU */
  double price;        /* of CPUs and memory; -1: unknown */
  double ram;
  double figure[HOST_FIGURES]; /* that make a machine faster: read bandwidth low, likely, high, FLOP/s f32, bf16, int8, cores */
  double pcie_gen;
} host;

typedef struct {
  char name[SPACE_NAME];
  double price, mem, bw;       /* price -1: unknown; bw at the datasheet's value, which no prior exceeds */
  double figure[CARD_FIGURES]; /* FLOP/s bf16, fp8, int8, memory bandwidth */
  double pcie_gen, pcie_lanes;
  int n_counts, count[SPACE_COUNTS]; /* that are looked at */
  int n_boards;                      /* of modules: how many are on a board that is sold; 0: cards, one by one */
  double board[SPACE_COUNTS];
} card;

typedef struct {
  const char *name;       /* NULL: as stored */
  char label[SPACE_NAME]; /* what that is */
  double weights;         /* bytes of all */
  double dense, touched;
  recipe_program program;
  bool gguf;   /* llama.cpp runs it, too */
  bool blocks; /* blocks of integers: all of them take the same arithmetic, and none less of it than another */
} weights;

typedef struct {
  double key;
  int host;
  int16_t card, count, format; /* card -1: none */
  bool exact;
} combo;

/* A machine's exact price, without regard to the weight format. */
typedef struct {
  bool known, ok, has_price; /* ok false: the parts contradict each other */
  int host;
  int16_t card, count;
  double price;
} machine_price;

typedef struct {
  double f[N_FIGURES], ram;
  int sockets, count, format;
  double slack; /* it failed by more than this factor; 1: it met the demand */
  bool fits;    /* false: failed because it does not fit */
  int host, card;
  bool met;
  bool twins;  /* it failed by so little that only the same machine with other modules is settled by it */
  double rate; /* delivered tokens/s */
} known;

/* What failed within the budget, and by how much at least. */
typedef struct {
  combo c;
  double miss;
  bool of_group; /* the likeliest to be near of a group that failed together: not planned yet */
} failure;

/* What machines of as many cards that hold about as much of the weights reached of the rate that their bandwidth allows. */
typedef struct {
  int n;
  double most;
} reached;
enum { KEPT_SOME, KEPT_MUCH, KEPT_ALL, KEPT_N, LIKE_ONES = 4 };
static const double SPREAD = 1.25; /* the next of them may reach so much more */

enum { GROUP_SOCKETS = 2 };
typedef struct {
  int host;
  double figure[HOST_FIGURES];
} group_host;

/* Neighbours in the order of read bandwidth among the hosts of as many sockets, with the same GPUs and format. */
typedef struct {
  int16_t card, count, format;
  int sockets, first, n;
} group;

enum { NEAR_BEYOND = RULE_N, NEAR_N }; /* too slow by its bandwidth, and beyond the budget */

typedef struct {
  const recommend_question *q;
  const plan_request *req;
  const money_scenario *scenario;
  int threads;
  host *host;
  int n_hosts;
  card card[SPACE_MAX];
  int n_cards;
  bool without_gpu;
  weights format[16];
  int n_formats;
  combo *heap, *over; /* over: dearer than the budget */
  int n_heap, n_over;
  known *known; /* what failed clearly, or met it */
  int n_known;
  group_host *order[GROUP_SOCKETS]; /* hosts of 1, 2 sockets by bandwidth */
  int n_order[GROUP_SOCKETS];
  group *tried;
  int n_tried;
  machine_price priced;
  combo *later; /* no better than one of the batch being gathered: its result comes first */
  int n_later;
  double demand;                /* tokens per second of all users that the limits imply */
  double best_rate, best_value; /* of all planned: delivered tokens/s, and those per USD */
  reached reach[CATALOG_MAX_GPUS + 1][KEPT_N];
  failure *failed;
  int n_failed;
  double near[NEAR_N];
  combo near_combo[NEAR_N];
  char near_name[NEAR_N][160], near_text[NEAR_N][160];
  recommend_result *out;
  void (*done)(void *user, int64_t planned);
  void *user;
  int64_t finished; /* plans */
} search;

typedef struct {
  combo c;
  catalog_parts parts;
  ask_machine *machine;
  ask_case_spec spec;
  ask_case answer;
  double least_miss; /* the least shortfall that any depth looked at may have */
  known figures;
  bool is_group; /* an imagined machine, for: */
  group group;
  double most_price;
} candidate;

/* ---- recommend.c ---- */

void search_plan_finished(void *user, int i);               /* counts a plan */
bool search_before(const combo *a, const combo *b);         /* by (key, host, card, count, format) */
double search_parts_price(const search *s, const combo *c); /* all but the platform; every part has a price */
roofline search_bandwidths(const search *s, const combo *c);
/* What dominance compares. */
known search_figures(const search *s, const combo *c);
/* Whether a is no better than b, in no figure more than `slack` times as good. */
bool search_no_better(const search *s, const known *a, const known *b, double slack);
bool search_dominated(const search *s, const combo *c);
reached *search_reached(search *s, const combo *c);
/* The machine of a combination; *ok false: contradictory. */
HF_MUST hf_status search_build(const search *s, const combo *c, catalog_parts *parts, ask_machine **m, bool *ok);
/* The exact price of a combination's machine, in s->priced. */
HF_MUST hf_status search_price(search *s, const combo *c);
recommend_rule search_judge(const recommend_question *q, const ask_case *c, char why[160]);
void search_fill_entry(const search *s, const candidate *y, recommend_entry *e);
/* Keeps the nearest failure of each kind of GPU and rule. */
void search_reject(search *s, const candidate *y);
HF_MUST hf_status search_add_failure(search *s, const combo *c, double miss, bool of_group);
void search_drop_entry(recommend_result *o, int i);
double search_value_of(const recommend_entry *e); /* delivered tokens/s per USD */
/* Of entries by price the one that is missed least: not the first, the fastest or that of the best value. */
int search_least_missed(const recommend_result *o);
bool search_same_machine(const recommend_entry *a, const recommend_entry *b);
/* Whether a combination is no better than one of the batch, whose result may settle it. */
bool search_waits_for(const search *s, const combo *c, const candidate *batch, int have);
/* The question of a candidate whose machine is built, at the depth of the best objective. */
ask_case_spec search_first_look_spec(const search *s, const candidate *y);
/* Plans up to BATCH candidates, keeps what came of them, and frees their machines. */
HF_MUST hf_status search_plan_batch(search *s, candidate *batch, int n, bool over_budget);
/* All of a heap, cheapest first, until enough was found. */
HF_MUST hf_status search_visit(search *s, combo *heap, int *n, bool over_budget);

/* ---- recommend_parts.c ---- */

bool search_is_sold(const card *c, int count);
int64_t search_combos_per_host(const search *s);
HF_MUST hf_status search_add_cards(search *s);
HF_MUST hf_status search_add_formats(search *s);
HF_MUST hf_status search_add_hosts(search *s);

/* ---- recommend_group.c ---- */

HF_MUST hf_status search_order_hosts(search *s);
/* *made: an imagined machine of a group around c is to be planned first, and is in *out. */
HF_MUST hf_status search_try_group(search *s, const combo *c, double most_price, candidate *out, bool *made);
HF_MUST hf_status search_learn_group(search *s, const candidate *y);

/* ---- recommend_choices.c ---- */

/* The cheapest first, as with limits; then what more money brings. */
HF_MUST hf_status search_visit_choices(search *s);

/* ---- recommend_finish.c ---- */

HF_MUST hf_status search_finish_entries(search *s);
HF_MUST hf_status search_add_own_format(search *s);
HF_MUST hf_status search_plan_nearer(search *s);
HF_MUST hf_status search_finish_failures(search *s);
HF_MUST hf_status search_find_nearest(search *s);
HF_MUST hf_status search_add_near_misses(search *s);

#endif
