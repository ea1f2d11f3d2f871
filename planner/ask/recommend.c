/* recommend.c: the search. Combinations wait in a heap by price; a price is first a lower bound (all parts but the platform, which depends on the
 * GPUs), and exact once the machine was composed, which is done only for those that come to the top. */
#include "planner/ask/recommend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "planner/ask/machine_int.h"

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
static const double NEARLY = 1.1;   /* another depth may make up for a miss of at most this */

static const char *const rule_names[RULE_N] = {"contradictory", "unpriced", "memory", "budget", "roofline",
                                               "dominated",     "dearer",   "slow",   "slo",    "met"};

const char *recommend_rule_name(recommend_rule r) {
  return r >= 0 && r < RULE_N ? rule_names[r] : "";
}

/* ---- bounds ----
 *
 * Limits are of a sustained load (plan_sustained.h). Why the bound on bandwidth holds there, too:
 *   tokens/s  A step with k answers in it reads the dense weights and the experts that k tokens touch at least, and bytes per token fall with k.
 *             So no mixture of steps, with prompts in some of them, delivers more than steps of all users do.
 *   TPOT      A token takes a step. Either all users decode in it (or in the other micro-batches, which take turns at the same memory), or some
 *             prompt's chunk is under way: a chunk of more tokens than there are users touches no fewer experts and takes its turn, layer by
 *             layer, at the same resources. Only the last piece of a prompt may be smaller; it is one step of many. So tokens come no faster
 *             than when all decode: users / p95 TPOT is at most the bound. That is an argument, not a proof; the test holds it against every
 *             combination of several spaces.
 * What is given up before its sustained load has ended missed a limit for certain, and p95 is at least what is then known: `dominated` judges
 * by less than the true failure. */

double roofline_tok_per_s(const roofline *r) {
  double cpu = r->cpu_bytes_per_s > 0 ? fmax(0, r->expert_bytes_touched - r->gpu_mem_bytes) / r->cpu_bytes_per_s : 0;
  double all = (r->dense_bytes + r->expert_bytes_touched) / (r->cpu_bytes_per_s + r->gpu_bytes_per_s);
  return r->users / fmax(cpu, all);
}

double recommend_shortfall(const ask_case *c, const ask_slo *slo, double *fixed) {
  double need = 0, ttft = 0;
  if (!c->feasible) return 1e9;
  if (slo->tok_per_s > 0 && !c->given_up) need = slo->tok_per_s / fmax(c->tok_per_s_wall, 1e-9);
  if (slo->tpot_s > 0) need = fmax(need, c->tpot_s.p95 / slo->tpot_s);
  if (slo->ttft_s > 0) ttft = c->ttft_s.p95 / slo->ttft_s;
  if (fixed != NULL) *fixed = ttft;
  return fmax(need, ttft);
}

/* ---- what is combined ---- */

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
} failure;

/* What machines of as many cards that hold about as much of the weights reached of the rate that their bandwidth allows. */
typedef struct {
  int n;
  double most;
} reached;
enum { KEPT_SOME, KEPT_MUCH, KEPT_ALL, KEPT_N, LIKE_ONES = 4 };
static const double SPREAD = 1.25; /* the next of them may reach so much more */

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

static void plan_finished(void *user, int i) {
  search *s = user;
  (void)i;
  s->finished++;
  if (s->done != NULL) s->done(s->user, s->finished);
}

static void search_free(search *s) {
  free(s->host);
  free(s->heap);
  free(s->over);
  free(s->known);
  free(s->failed);
  free(s->later);
}

/* ---- hosts ---- */

static double figure_of(const cost_rows *r, const char *device, const char *what, int end) {
  cost_figure f;
  if (!cost_find(r, device, what, &f)) return 0;
  return end < 0 ? f.low : end > 0 ? f.high : f.likely;
}

static double price_parts(const cost_rows *r, const char *what, const char *kind, bool *known_all) {
  double sum = 0;
  for (int i = 0; i < r->n_device; i++) {
    cost_figure f;
    if (strcmp(r->device[i].kind, kind) != 0) continue;
    if (cost_find(r, r->device[i].device, what, &f)) sum += f.likely;
    else *known_all = false;
  }
  return sum;
}

static hf_status add_host(search *s, const catalog_parts *p) {
  ask_machine *m = NULL;
  catalog_value pcie;
  HF_TRY(ask_machine_from_parts(p, &m));
  const cost_rows *r = ask_machine_rows(m);
  bool priced = true;
  host *h = &s->host[s->n_hosts++];
  *h = (host){.parts = *p, .ram = (double)ask_machine_facts_of(m)->memory_bytes};
  h->price = price_parts(r, "price_usd", "cpu", &priced) + price_parts(r, "price_memory_usd", "cpu", &priced);
  if (!priced) h->price = -1;
  for (int end = -1; end <= 1; end++) h->figure[end + 1] = figure_of(r, "cpu", "dram_read_bytes_per_s", end);
  h->figure[3] = figure_of(r, "cpu", "cpu_flops_f32", 0);
  h->figure[4] = figure_of(r, "cpu", "cpu_flops_bf16", 0);
  h->figure[5] = figure_of(r, "cpu", "cpu_flops_int8", 0);
  h->figure[6] = cost_cpu_cores(r);
  if (catalog_fact("cpus", p->cpu, "pcie_gen", &pcie) == HF_OK) h->pcie_gen = pcie.likely;
  else hf_clear_error();
  ask_machine_free(m);
  return HF_OK;
}

static int64_t combos_per_host(const search *s) {
  int64_t n = s->without_gpu;
  for (int i = 0; i < s->n_cards; i++) n += s->card[i].n_counts;
  return n * s->n_formats;
}

static hf_status try_host(search *s, const char *cpu, int sockets, const char *memory, int64_t dimm) {
  catalog_parts p;
  char text[320];
  snprintf(text, sizeof text, "cpu=%s,sockets=%d,memory=%s,dimm=%lld", cpu, sockets, memory, (long long)dimm);
  hf_status st = catalog_parts_parse(text, &p);
  if (st == HF_OK) st = add_host(s, &p);
  if (st == HF_OK) return HF_OK;
  if (st != HF_INPUT && st != HF_NOT_FOUND && st != HF_UNSUPPORTED) return st;
  hf_clear_error();
  s->out->considered += combos_per_host(s);
  s->out->counts[RULE_CONTRADICTORY] += combos_per_host(s);
  return HF_OK;
}

/* Kinds of memory a CPU takes, sold ones unless there are none (an old CPU): of equally fast ones the cheapest. */
static hf_status memory_of(const search *s, const char *cpu, char kind[SPACE_MAX][SPACE_NAME], int *n) {
  const recommend_space *y = &s->q->space;
  catalog_memory_option *o = NULL;
  int count = 0;
  *n = 0;
  if (y->n_memory > 0) {
    *n = y->n_memory;
    memcpy(kind, y->memory, sizeof y->memory);
    return HF_OK;
  }
  HF_TRY(catalog_memory_options(cpu, 1, &o, &count));
  double speed = -1, price = 0;
  bool sold = false;
  for (int i = 0; i < count; i++) sold = sold || o[i].on_sale;
  for (int i = 0; i < count && *n < SPACE_MAX; i++) {
    catalog_value v = {.likely = INFINITY};
    if (sold && !o[i].on_sale) continue;
    if (catalog_fact("memory", o[i].name, "price_usd_per_gib", &v) != HF_OK) hf_clear_error();
    if (o[i].transfers_per_s == speed && v.likely >= price) continue;
    if (o[i].transfers_per_s == speed) (*n)--;
    speed = o[i].transfers_per_s;
    price = v.likely;
    snprintf(kind[(*n)++], SPACE_NAME, "%.63s", o[i].name);
  }
  free(o);
  return HF_OK;
}

static hf_status add_hosts(search *s) {
  const recommend_space *y = &s->q->space;
  char(*kind)[SPACE_NAME] = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&s->host, (size_t)y->n_cpus * (size_t)y->n_sockets * (size_t)y->n_dimms * SPACE_MAX, sizeof *s->host,
                  "machines without GPU"));
  HF_TRY(hf_alloc(&kind, SPACE_MAX, sizeof *kind, "memory kinds"));
  for (int c = 0; c < y->n_cpus; c++) {
    int n = 0;
    HF_GO(done, memory_of(s, y->cpu[c], kind, &n));
    for (int k = 0; k < n; k++)
      for (int j = 0; j < y->n_sockets; j++)
        for (int d = 0; d < y->n_dimms; d++) HF_GO(done, try_host(s, y->cpu[c], y->sockets[j], kind[k], y->dimm_bytes[d]));
  }
done:
  free(kind);
  return st;
}

/* ---- cards and weights ---- */

static double fact_or(const char *name, const char *key, double none) {
  catalog_value v;
  if (catalog_fact("gpus", name, key, &v) == HF_OK) return v.likely;
  hf_clear_error();
  return none;
}

static bool is_sold(const card *c, int count) {
  bool sold = c->n_boards == 0;
  for (int i = 0; i < c->n_boards; i++) sold = sold || c->board[i] == count;
  return sold;
}

/* Counts that were named, of which boards of modules must be one; else the usual ones of cards, and every board. */
static hf_status add_counts(const recommend_space *y, card *c) {
  bool any = false;
  HF_TRY(catalog_numbers("gpus", c->name, "sold_in", SPACE_COUNTS, c->board, &c->n_boards));
  if (c->n_boards > 0 && !y->named_counts) {
    for (int i = 0; i < c->n_boards; i++)
      if (c->board[i] <= CATALOG_MAX_GPUS) c->count[c->n_counts++] = (int)c->board[i];
    return HF_OK;
  }
  c->n_counts = y->n_counts;
  memcpy(c->count, y->count, sizeof c->count);
  for (int i = 0; i < c->n_counts; i++) any = any || is_sold(c, c->count[i]);
  if (any || y->n_gpus > 1) return HF_OK;
  char list[64] = "";
  for (int i = 0; i < c->n_boards; i++)
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%.0f", i > 0 ? " or " : "", c->board[i]);
  return hf_fail(HF_INPUT, "option --gpu-counts: %s is sold on boards of %s", c->name, list);
}

static hf_status add_cards(search *s) {
  static const char *const keys[CARD_FIGURES] = {"flops_bf16", "flops_fp8", "flops_int8", "mem_bytes_per_s"};
  const recommend_space *y = &s->q->space;
  for (int i = 0; i < y->n_gpus; i++) {
    if (strcmp(y->gpu[i], "none") == 0) {
      s->without_gpu = true;
      continue;
    }
    card *c = &s->card[s->n_cards++];
    snprintf(c->name, sizeof c->name, "%s", y->gpu[i]);
    c->price = fact_or(c->name, "price_usd", -1);
    c->mem = fact_or(c->name, "mem_bytes", 0);
    c->bw = fact_or(c->name, "mem_bytes_per_s", 0);
    for (int k = 0; k < CARD_FIGURES; k++) c->figure[k] = fact_or(c->name, keys[k], 0);
    c->pcie_gen = fact_or(c->name, "pcie_gen", 0);
    c->pcie_lanes = fact_or(c->name, "pcie_lanes", 0);
    HF_TRY(add_counts(y, c));
  }
  return HF_OK;
}

/* Sizes from a plan's own arithmetic, on any machine. */
static hf_status add_format(search *s, const cost_rows *rows, const char *name) {
  plan_request r = *s->req;
  plan_inputs *in = NULL;
  plan_sizes *z = NULL;
  hf_status st = HF_OK;
  r.host_rows = rows;
  r.machine = NULL;
  r.gpu = "none";
  if (name != NULL) r.format = name;
  HF_TRY(plan_inputs_open(NULL, &r, &in));
  HF_GO(done, hf_alloc(&z, 1, sizeof *z, "sizes"));
  HF_GO(done, plan_inputs_popularity(in));
  HF_GO(done, plan_sizes_of(in, z));
  weights *w = &s->format[s->n_formats++];
  cost_figure f;
  double least = in->assumed_popularity && cost_find(rows, "", "distinct_factor", &f) ? fmin(1, f.likely) : 1;
  fmt f8 = in->format;
  if (name != NULL && fmt_parse(name, &f8) != HF_OK) hf_clear_error();
  model_recipe recipe;
  const char *written = name != NULL ? name : in->format_name;
  bool readable = recipe_parse(written, in->c, &recipe) == HF_OK;
  if (!readable) hf_clear_error();
  *w = (weights){.name = name,
                 .program = readable ? recipe_program_of(&recipe) : RUNS_SAFETENSORS,
                 .blocks = f8 >= 0 && f8 != FMT_F32 && f8 != FMT_F16 && f8 != FMT_BF16 && f8 != FMT_FP8_E4M3,
                 .weights = (double)(z->all_experts + z->dense + z->head),
                 .dense = (double)z->dense};
  snprintf(w->label, sizeof w->label, "%.63s", written);
  for (int l = 0; l < in->c->n_layers; l++)
    if (in->c->layer_is_moe[l])
      w->touched +=
          least * (double)z->expert[l] *
          cost_distinct_experts(in->pop->p + (size_t)l * (size_t)in->c->n_experts, in->c->n_experts, (double)in->req.users);
done:
  free(z);
  plan_inputs_close(in);
  return st;
}

static hf_status add_formats(search *s) {
  const recommend_space *y = &s->q->space;
  catalog_parts p;
  char text[128];
  ask_machine *m = NULL;
  hf_status st = HF_OK;
  snprintf(text, sizeof text, "cpu=%s", y->cpu[0]);
  HF_TRY(catalog_parts_parse(text, &p));
  HF_TRY(ask_machine_from_parts(&p, &m));
  if (y->n_formats == 0) st = add_format(s, ask_machine_rows(m), s->req->format);
  for (int i = 0; i < y->n_formats && st == HF_OK; i++) st = add_format(s, ask_machine_rows(m), y->format[i]);
  ask_machine_free(m);
  return st;
}

/* ---- heap by (key, host, card, count, format) ---- */

static bool before(const combo *a, const combo *b) {
  if (a->key != b->key) return a->key < b->key;
  if (a->host != b->host) return a->host < b->host;
  if (a->card != b->card) return a->card < b->card;
  if (a->count != b->count) return a->count < b->count;
  return a->format < b->format;
}

static void push(combo *heap, int *n, combo c) {
  int i = (*n)++;
  for (; i > 0 && before(&c, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = c;
}

static combo pop(combo *heap, int *n) {
  combo top = heap[0], last = heap[--*n];
  int i = 0;
  for (int child; (child = 2 * i + 1) < *n; i = child) {
    if (child + 1 < *n && before(&heap[child + 1], &heap[child])) child++;
    if (!before(&heap[child], &last)) break;
    heap[i] = heap[child];
  }
  heap[i] = last;
  return top;
}

/* ---- pruning ---- */

static void combo_name(const search *s, const combo *c, char out[160]) {
  const host *h = &s->host[c->host];
  char gpu[80] = "no GPU", format[24];
  double dimms = h->parts.dimm_bytes > 0 ? h->ram / (double)h->parts.dimm_bytes : 0;
  if (c->card >= 0) snprintf(gpu, sizeof gpu, "%d x %.60s", c->count, s->card[c->card].name);
  snprintf(format, sizeof format, "%.20s", s->format[c->format].label);
  snprintf(out, 160, "%.60s, %d x %.30s, %d x %dG %.20s, %s", gpu, h->parts.sockets, h->parts.cpu, (int)dimms % 10000,
           (int)(h->parts.dimm_bytes >> 30) % 10000, h->parts.memory, format);
}

/* Remembers the nearest miss of a rule: the one of least `miss`. */
static bool is_nearer(const search *s, int slot, double miss) {
  return s->near_name[slot][0] == '\0' || miss < s->near[slot];
}

static void remember(search *s, int slot, const combo *c, double miss, const char *text) {
  if (!is_nearer(s, slot, miss)) return;
  s->near[slot] = miss;
  s->near_combo[slot] = *c;
  combo_name(s, c, s->near_name[slot]);
  snprintf(s->near_text[slot], sizeof s->near_text[0], "%s", text);
}

static void settle(search *s, recommend_rule rule) {
  s->out->counts[rule]++;
}

static roofline bandwidths(const search *s, const combo *c) {
  const card *g = c->card >= 0 ? &s->card[c->card] : NULL;
  return (roofline){.dense_bytes = s->format[c->format].dense,
                    .expert_bytes_touched = s->format[c->format].touched,
                    .cpu_bytes_per_s = s->host[c->host].figure[1],
                    .gpu_bytes_per_s = g != NULL ? g->bw * c->count : 0,
                    .gpu_mem_bytes = g != NULL ? g->mem * c->count : 0,
                    .users = (double)s->req->users};
}

static hf_status price_of(search *s, const combo *c);

/* What the budget buys and what is beyond it are told apart, by the whole price. */
static hf_status remember_slow(search *s, const combo *c, double most) {
  char text[160];
  double miss = s->demand / most;
  bool beyond = s->q->budget > 0 && c->key > s->q->budget;
  if (!is_nearer(s, beyond ? NEAR_BEYOND : RULE_ROOFLINE, miss)) return HF_OK;
  if (!beyond && s->q->budget > 0) {
    HF_TRY(price_of(s, c));
    if (!s->priced.ok || !s->priced.has_price) return HF_OK;
    beyond = s->priced.price > s->q->budget;
  }
  snprintf(text, sizeof text, "its bandwidth allows at most %.3g tokens/s of %.3g, even with its work spread perfectly", most,
           s->demand);
  remember(s, beyond ? NEAR_BEYOND : RULE_ROOFLINE, c, miss, text);
  return HF_OK;
}

static hf_status first_look(search *s, combo c) {
  const host *h = &s->host[c.host];
  const card *g = c.card >= 0 ? &s->card[c.card] : NULL;
  const weights *w = &s->format[c.format];
  double vram = g != NULL ? g->mem * c.count : 0;
  char text[160];
  s->out->considered++;
  if (g != NULL && g->n_boards > 0 && (!is_sold(g, c.count) || h->pcie_gen < g->pcie_gen)) {
    settle(s, RULE_CONTRADICTORY);
    return HF_OK;
  }
  if (h->price < 0 || (g != NULL && g->price < 0)) {
    settle(s, RULE_UNPRICED);
    return HF_OK;
  }
  c.key = h->price + (g != NULL ? g->price * c.count : 0);
  roofline r = bandwidths(s, &c);
  double most = roofline_tok_per_s(&r);
  if (s->q->prune && w->weights > h->ram + vram) {
    settle(s, RULE_MEMORY);
    snprintf(text, sizeof text, "the weights need %.0f GiB, it has %.0f GiB of RAM and %.0f GiB on GPUs", w->weights / 0x1p30,
             h->ram / 0x1p30, vram / 0x1p30);
    remember(s, RULE_MEMORY, &c, w->weights / (h->ram + vram), text);
  } else if (s->q->prune && most < s->demand) {
    settle(s, RULE_ROOFLINE);
    return remember_slow(s, &c, most);
  } else if (s->q->budget > 0 && c.key > s->q->budget) {
    settle(s, RULE_BUDGET);
    remember(s, RULE_BUDGET, &c, c.key, "");
    push(s->over, &s->n_over, c);
  } else {
    push(s->heap, &s->n_heap, c);
  }
  return HF_OK;
}

static hf_status combine(search *s) {
  size_t n = (size_t)s->n_hosts * (size_t)combos_per_host(s);
  HF_TRY(hf_alloc(&s->heap, n + 1, sizeof *s->heap, "combinations"));
  HF_TRY(hf_alloc(&s->over, n + 1, sizeof *s->over, "combinations"));
  HF_TRY(hf_alloc(&s->later, n + 1, sizeof *s->later, "combinations"));
  for (int h = 0; h < s->n_hosts; h++)
    for (int f = 0; f < s->n_formats; f++) {
      if (s->without_gpu) HF_TRY(first_look(s, (combo){.host = h, .card = -1, .format = (int16_t)f}));
      for (int g = 0; g < s->n_cards; g++)
        for (int k = 0; k < s->card[g].n_counts; k++)
          HF_TRY(
              first_look(s, (combo){.host = h, .card = (int16_t)g, .count = (int16_t)s->card[g].count[k], .format = (int16_t)f}));
    }
  return HF_OK;
}

/* ---- dominance ---- */

/* A lane of each generation carries twice what one of the generation before does; the older end decides. */
static double link_figure(const host *h, const card *g) {
  return g->pcie_lanes * exp2(fmin(h->pcie_gen, g->pcie_gen));
}

static known figures_of(const search *s, const combo *c) {
  const host *h = &s->host[c->host];
  known k = {.ram = h->ram,
             .sockets = h->parts.sockets,
             .count = c->card >= 0 ? c->count : 0,
             .format = c->format,
             .slack = 1,
             .fits = true,
             .host = c->host,
             .card = c->card};
  memcpy(k.f, h->figure, sizeof h->figure);
  if (c->card < 0) return k;
  k.f[LINK] = link_figure(h, &s->card[c->card]);
  k.f[GPU_MEMORY] = s->card[c->card].mem;
  memcpy(&k.f[GPU_MEMORY + 1], s->card[c->card].figure, sizeof s->card[0].figure);
  return k;
}

/* The same format, or one that reads more and computes alike: it fails where a lighter one does (what a lighter one meets is no reason to pass
 * over the better quality). */
static bool no_lighter(const search *s, const known *a, const known *b) {
  const weights *x = &s->format[a->format], *y = &s->format[b->format];
  if (a->format == b->format) return true;
  return !b->met && x->blocks && y->blocks && x->weights >= y->weights && x->dense >= y->dense && x->touched >= y->touched;
}

/* Bytes of a module change neither speed nor placement of what fits, and slower memory makes nothing faster. */
static bool same_but_modules(const search *s, const known *a, const known *b) {
  return a->card == b->card && a->ram >= b->ram && strcmp(s->host[a->host].parts.cpu, s->host[b->host].parts.cpu) == 0;
}

/* Times are amounts of work over figures: with no figure more than `slack` times as good nothing lasts less than 1 / slack of what it did. GPU
 * memory is no rate but moves work, so more of it is never passed over. */
static bool no_better(const search *s, const known *a, const known *b, double slack) {
  if (b->twins && !same_but_modules(s, a, b)) return false;
  if (a->sockets != b->sockets || a->count != b->count || !no_lighter(s, a, b)) return false;
  if (!b->fits && a->ram > b->ram) return false; /* more memory could make it fit */
  for (int i = 0; i < N_FIGURES; i++)
    if (a->f[i] > (i == GPU_MEMORY ? 1 : slack) * b->f[i]) return false;
  return true;
}

static bool dominated(const search *s, const combo *c) {
  known k = figures_of(s, c);
  for (int i = 0; i < s->n_known; i++)
    if (no_better(s, &k, &s->known[i], s->known[i].slack)) return true;
  return false;
}

static reached *reached_by(search *s, const combo *c) {
  double mem = c->card >= 0 ? s->card[c->card].mem * c->count : 0, kept = mem / s->format[c->format].weights;
  return &s->reach[c->card >= 0 ? c->count : 0][kept >= 1 ? KEPT_ALL : kept >= 1.0 / 3 ? KEPT_MUCH : KEPT_SOME];
}

static hf_status learn(search *s, const combo *c, const ask_case *answer, double slack, bool met, bool twins) {
  HF_TRY(hf_realloc(&s->known, (size_t)s->n_known + 1, sizeof *s->known, "results"));
  s->known[s->n_known] = figures_of(s, c);
  s->known[s->n_known].slack = slack;
  s->known[s->n_known].twins = twins;
  s->known[s->n_known].met = met;
  s->known[s->n_known].rate = answer->feasible ? answer->tok_per_s_wall : 0;
  s->known[s->n_known++].fits = answer->feasible;
  if (!answer->feasible || answer->given_up) return HF_OK;
  roofline bound = bandwidths(s, c);
  reached *like = reached_by(s, c);
  like->n++;
  like->most = fmax(like->most, answer->tok_per_s_wall / roofline_tok_per_s(&bound));
  return HF_OK;
}

/* ---- planning ---- */

typedef struct {
  combo c;
  catalog_parts parts;
  ask_machine *machine;
  ask_case_spec spec;
  ask_case answer;
  double least_miss; /* the least shortfall that any depth looked at may have */
} candidate;

/* The machine of a combination; *ok false: contradictory. */
static hf_status build(const search *s, const combo *c, catalog_parts *parts, ask_machine **m, bool *ok) {
  char gpus[96];
  hf_status st = HF_OK;
  *parts = s->host[c->host].parts;
  *ok = true;
  if (c->card >= 0) {
    snprintf(gpus, sizeof gpus, "%.60s*%d", s->card[c->card].name, c->count);
    st = catalog_parts_set(parts, "gpu", gpus);
    parts->note[0] = '\0';
  }
  if (st == HF_OK) {
    char name[160];
    combo_name(s, c, name);
    snprintf(parts->name, sizeof parts->name, "%.127s", name);
    st = ask_machine_from_parts(parts, m);
  }
  if (st != HF_INPUT && st != HF_NOT_FOUND && st != HF_UNSUPPORTED) return st;
  hf_clear_error();
  *ok = false;
  return HF_OK;
}

static recommend_rule judge(const recommend_question *q, const ask_case *c, char why[160]) {
  if (ask_meets(c, &q->slo, why)) return RULE_MET;
  ask_slo rate = {.tok_per_s = q->slo.tok_per_s};
  return !c->feasible || !ask_meets(c, &rate, NULL) ? RULE_SLOW : RULE_SLO;
}

static void fill_entry(const search *s, const candidate *y, recommend_entry *e) {
  memset(e, 0, sizeof *e);
  e->c = y->answer;
  e->parts = y->parts;
  if (s->format[y->c.format].name != NULL) snprintf(e->format, sizeof e->format, "%s", s->format[y->c.format].name);
  e->program = s->format[y->c.format].program;
  e->rule = judge(s->q, &y->answer, e->why);
  e->shortfall = recommend_shortfall(&y->answer, &s->q->slo, NULL);
  if (e->rule == RULE_MET) e->why[0] = '\0';
}

/* Keeps the nearest failure of each kind of GPU and rule. */
static void reject(search *s, const candidate *y) {
  recommend_result *o = s->out;
  recommend_entry e;
  fill_entry(s, y, &e);
  int at = -1;
  for (int i = 0; i < o->n_rejected; i++)
    if (o->rejected[i].rule == e.rule && strcmp(o->rejected[i].c.gpus, e.c.gpus) == 0) at = i;
  if (at >= 0 && o->rejected[at].shortfall <= e.shortfall) return;
  if (at < 0 && o->n_rejected < RECOMMEND_REJECTED) at = o->n_rejected++;
  for (int i = 0; at < 0 && i < o->n_rejected; i++)
    if (o->rejected[i].shortfall > e.shortfall && (at < 0 || o->rejected[i].shortfall > o->rejected[at].shortfall)) at = i;
  if (at >= 0) o->rejected[at] = e;
}

/* Takes entry i out. */
static void drop_entry(recommend_result *o, int i) {
  memmove(&o->entry[i], &o->entry[i + 1], (size_t)(o->n - 1 - i) * sizeof *o->entry);
  o->n--;
}

static double value_of(const recommend_entry *e) {
  return e->c.tok_per_s_wall / e->c.price.likely;
}

/* Of entries by price the one that is missed least: not the first, the fastest or that of the best value. */
static int least_missed(const recommend_result *o) {
  int fastest = 0, best = 0, at = -1;
  double least = INFINITY;
  for (int i = 1; i < o->n; i++) {
    if (o->entry[i].c.tok_per_s_wall > o->entry[fastest].c.tok_per_s_wall) fastest = i;
    if (value_of(&o->entry[i]) > value_of(&o->entry[best])) best = i;
  }
  for (int i = 1; i < o->n; i++) {
    double gain = o->entry[i].c.tok_per_s_wall / o->entry[i - 1].c.tok_per_s_wall;
    if (i == fastest || i == best || gain >= least) continue;
    least = gain;
    at = i;
  }
  return at;
}

/* Keeps, by price, what nothing is as fast as for no more money. */
static void keep_choice(search *s, const candidate *y) {
  recommend_result *o = s->out;
  double price = y->answer.price.likely, rate = y->answer.tok_per_s_wall;
  s->best_rate = fmax(s->best_rate, rate);
  s->best_value = fmax(s->best_value, rate / price);
  int at = 0;
  for (int i = 0; i < o->n; i++) {
    if (o->entry[i].c.price.likely > price) break;
    if (o->entry[i].c.tok_per_s_wall >= rate) return;
    at = i + 1;
  }
  while (at < o->n && o->entry[at].c.tok_per_s_wall <= rate) drop_entry(o, at);
  if (at > 0 && o->entry[at - 1].c.price.likely == price) drop_entry(o, --at);
  if (o->n == REGRET_MAX_CHOICES) {
    int out = least_missed(o);
    drop_entry(o, out);
    at -= out < at;
  }
  memmove(&o->entry[at + 1], &o->entry[at], (size_t)(o->n - at) * sizeof *o->entry);
  fill_entry(s, y, &o->entry[at]);
  o->n++;
}

static hf_status add_failure(search *s, const combo *c, double miss) {
  HF_TRY(hf_realloc(&s->failed, (size_t)s->n_failed + 1, sizeof *s->failed, "machines that failed"));
  s->failed[s->n_failed++] = (failure){*c, miss};
  return HF_OK;
}

static hf_status result_of(search *s, const candidate *y, bool over_budget) {
  recommend_result *o = s->out;
  char why[160];
  recommend_rule rule = judge(s->q, &y->answer, why);
  double short_by = recommend_shortfall(&y->answer, &s->q->slo, NULL);
  if (over_budget) o->planned_over++;
  else o->planned++;
  if (rule == RULE_MET && over_budget) {
    if (!o->has_over_budget) fill_entry(s, y, &o->over_budget);
    o->has_over_budget = true;
    return HF_OK;
  }
  if (!over_budget) settle(s, rule);
  if (rule == RULE_MET && o->choices) keep_choice(s, y);
  else if (rule == RULE_MET && o->n < REGRET_MAX_CHOICES) fill_entry(s, y, &o->entry[o->n++]);
  if (rule != RULE_MET && over_budget && (!o->has_fastest_any || short_by < o->fastest_any.shortfall)) {
    fill_entry(s, y, &o->fastest_any);
    o->has_fastest_any = true;
  }
  if (rule != RULE_MET && !over_budget) {
    reject(s, y);
    if (y->answer.feasible) HF_TRY(add_failure(s, &y->c, short_by));
  }
  bool fits = y->answer.feasible;
  if (s->q->prune)
    return learn(s, &y->c, &y->answer, rule == RULE_MET || !fits ? 1 : fmax(1, y->least_miss / CLEARLY),
                 rule == RULE_MET && !o->choices, rule != RULE_MET && y->least_miss <= CLEARLY);
  return HF_OK;
}

/* What misses the demand by little is planned once more with all depths simulated, one of which may meet it. */
static hf_status look_again(search *s, const ask_case_spec *spec, int n, candidate *batch) {
  ask_case_spec again[BATCH] = {0};
  ask_case better[BATCH] = {0};
  int at[BATCH], k = 0;
  for (int i = 0; i < n; i++) {
    double miss = batch[i].least_miss = recommend_shortfall(&batch[i].answer, &s->q->slo, NULL);
    if (miss <= 1 || miss > NEARLY) continue;
    again[k] = spec[i];
    again[k].one_depth = false;
    again[k].give_up = 1;
    at[k++] = i;
  }
  HF_TRY(ask_evaluate_all(again, k, s->threads, plan_finished, s, better));
  for (int i = 0; i < k; i++) {
    candidate *c = &batch[at[i]];
    double miss = recommend_shortfall(&better[i], &s->q->slo, NULL);
    if (miss < c->least_miss) c->least_miss = miss;
    if (miss <= 1) c->answer = better[i];
  }
  return HF_OK;
}

static hf_status plan_batch(search *s, candidate *batch, int n, bool over_budget) {
  ask_case_spec spec[BATCH] = {0};
  ask_case answer[BATCH] = {0};
  for (int i = 0; i < n; i++) {
    spec[i] = (ask_case_spec){.machine = batch[i].machine,
                              .req = *s->req,
                              .slo = s->q->slo,
                              .quick = true,
                              .one_depth = true,
                              .no_interval = true,
                              .give_up = NEARLY};
    if (s->format[batch[i].c.format].name != NULL) spec[i].req.format = s->format[batch[i].c.format].name;
    if (batch[i].c.card < 0) spec[i].req.gpu = "none";
    snprintf(spec[i].name, sizeof spec[i].name, "%.95s", batch[i].parts.name);
  }
  hf_status st = ask_evaluate_all(spec, n, s->threads, plan_finished, s, answer);
  for (int i = 0; i < n; i++) batch[i].answer = answer[i];
  if (st == HF_OK) st = look_again(s, spec, n, batch);
  for (int i = 0; i < n; i++) {
    if (st == HF_OK) st = result_of(s, &batch[i], over_budget);
    ask_machine_free(batch[i].machine);
    batch[i].machine = NULL;
  }
  return st;
}

/* Whether a combination is no better than one of the batch, whose result may settle it. */
static bool waits_for(const search *s, const combo *c, const candidate *batch, int have) {
  known k = figures_of(s, c);
  for (int i = 0; i < have; i++) {
    known b = figures_of(s, &batch[i].c);
    if (no_better(s, &k, &b, b.slack)) return true;
  }
  return false;
}

/* The exact price of a combination's machine, in s->priced. Formats of one machine come one after the other (their parts cost the same). */
static hf_status price_of(search *s, const combo *c) {
  machine_price *p = &s->priced;
  if (p->known && p->host == c->host && p->card == c->card && p->count == c->count) return HF_OK;
  catalog_parts parts;
  ask_machine *m = NULL;
  *p = (machine_price){.known = true, .host = c->host, .card = c->card, .count = c->count};
  HF_TRY(build(s, c, &parts, &m, &p->ok));
  const ask_machine_facts *f = p->ok ? ask_machine_facts_of(m) : NULL;
  p->has_price = f != NULL && f->has_price;
  p->price = p->has_price ? f->price[1] : 0;
  ask_machine_free(m);
  return HF_OK;
}

static bool same_machine(const recommend_entry *a, const recommend_entry *b) {
  const catalog_parts *x = &a->parts, *y = &b->parts;
  return x->sockets == y->sockets && x->dimm_bytes == y->dimm_bytes && x->n_gpu_kinds == y->n_gpu_kinds &&
         (x->n_gpu_kinds == 0 || (x->gpu[0].count == y->gpu[0].count && strcmp(x->gpu[0].gpu, y->gpu[0].gpu) == 0)) &&
         strcmp(x->cpu, y->cpu) == 0 && strcmp(x->memory, y->memory) == 0;
}

/* Formats of one machine take one place of the ranking. */
static bool enough(const recommend_result *o) {
  int machines = 0;
  for (int i = 0; i < o->n; i++) {
    bool again = false;
    for (int k = 0; k < i && !again; k++) again = same_machine(&o->entry[k], &o->entry[i]);
    machines += !again;
  }
  return machines >= ENOUGH || o->n == REGRET_MAX_CHOICES;
}

/* The next combination that has to be planned, cheapest first; *found false: none is left, or what is left is too dear. */
static hf_status next_candidate(search *s, combo *heap, int *n, bool over_budget, candidate *batch, int have, bool *found) {
  recommend_result *o = s->out;
  candidate *out = &batch[have];
  *found = false;
  while (*n > 0 && !*found) {
    combo c = pop(heap, n);
    bool ok = true;
    if (!c.exact) {
      if (s->q->prune && dominated(s, &c)) { /* before its machine is put together, which takes longest */
        if (!over_budget) settle(s, RULE_DOMINATED);
        continue;
      }
      HF_TRY(price_of(s, &c));
      if (!s->priced.ok || !s->priced.has_price) {
        if (!over_budget) settle(s, s->priced.ok ? RULE_UNPRICED : RULE_CONTRADICTORY);
        continue;
      }
      c.key = s->priced.price;
      c.exact = true;
      if (!over_budget && s->q->budget > 0 && c.key > s->q->budget) {
        settle(s, RULE_BUDGET);
        remember(s, RULE_BUDGET, &c, c.key, "");
        push(s->over, &s->n_over, c);
      } else {
        push(heap, n, c);
      }
      continue;
    }
    double dearest = o->choices && s->q->prune ? 1 : s->q->dearer_factor;
    bool dear = o->n > 0 && (c.key > dearest * o->entry[0].c.price.likely || (!o->choices && enough(o)));
    if (!over_budget && (dear || o->planned >= RECOMMEND_MOST_PLANNED)) {
      o->stopped = o->stopped || !dear;
      settle(s, RULE_DEARER);
      o->counts[RULE_DEARER] += *n;
      *n = 0;
      return HF_OK;
    }
    if (s->q->prune && dominated(s, &c)) {
      if (!over_budget) settle(s, RULE_DOMINATED);
      continue;
    }
    if (s->q->prune && waits_for(s, &c, batch, have)) {
      s->later[s->n_later++] = c;
      continue;
    }
    out->c = c;
    HF_TRY(build(s, &c, &out->parts, &out->machine, &ok));
    *found = ok;
  }
  return HF_OK;
}

static hf_status visit(search *s, combo *heap, int *n, bool over_budget) {
  candidate *batch = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&batch, BATCH, sizeof *batch, "candidates"));
  for (bool more = true; more && st == HF_OK;) {
    int have = 0;
    while (have < BATCH && more && st == HF_OK) {
      st = next_candidate(s, heap, n, over_budget, batch, have, &more);
      have += st == HF_OK && more;
    }
    if (st == HF_OK && have > 0) st = plan_batch(s, batch, have, over_budget);
    else
      for (int i = 0; i < have; i++) ask_machine_free(batch[i].machine);
    more = more || s->n_later > 0;
    while (s->n_later > 0) push(heap, n, s->later[--s->n_later]);
    if (over_budget && more && s->out->planned_over >= MOST_OVER_BUDGET) s->out->over_stopped = !s->out->has_over_budget;
    more = more && !(over_budget && (s->out->has_over_budget || s->out->over_stopped));
  }
  free(batch);
  return st;
}

/* ---- without limits: the knee and the fastest ---- */

typedef enum { FOR_VALUE, FOR_RATE } aim;

typedef struct {
  combo c;
  double most;         /* tokens/s that its bandwidth allows */
  recommend_rule rule; /* RULE_N: not settled */
  bool outdone;        /* in this round */
} spot;

static double bound_of(const spot *p, aim a) {
  return a == FOR_RATE ? p->most : p->most / p->c.key;
}

static int by_bound(const spot *x, const spot *y, aim a) {
  double d = bound_of(y, a) - bound_of(x, a);
  if (d != 0) return d < 0 ? -1 : 1;
  return before(&x->c, &y->c) ? -1 : 1;
}
static int by_value(const void *a, const void *b) {
  return by_bound(a, b, FOR_VALUE);
}
static int by_rate(const void *a, const void *b) {
  return by_bound(a, b, FOR_RATE);
}

/* Whether the bound, what like machines reached of theirs, or a machine that was planned and is as good in every part, says that it gives no more
 * than what was found. */
static bool outdone(search *s, const spot *p, aim a) {
  double need = WORTH * (a == FOR_RATE ? s->best_rate : s->best_value * p->c.key);
  const reached *like = reached_by(s, &p->c);
  if (p->most <= need || (like->n >= LIKE_ONES && p->most * like->most * SPREAD <= need)) return true;
  known k = figures_of(s, &p->c);
  for (int i = 0; i < s->n_known; i++) {
    const known *b = &s->known[i];
    double times = b->fits ? need / b->rate : 1;
    if (times >= 1 && no_better(s, &k, b, fmax(1, times / CLEARLY))) return true;
  }
  return false;
}

/* Puts the machine of a combination together; *taken false: it is settled, or outdone once its whole price is known. */
static hf_status take_spot(search *s, spot *p, aim a, candidate *out, bool *taken) {
  bool ok = true;
  *taken = false;
  HF_TRY(price_of(s, &p->c));
  if (!s->priced.ok || !s->priced.has_price) {
    p->rule = s->priced.ok ? RULE_UNPRICED : RULE_CONTRADICTORY;
    return HF_OK;
  }
  p->c.key = s->priced.price;
  if (s->q->budget > 0 && p->c.key > s->q->budget) {
    p->rule = RULE_BUDGET;
    return HF_OK;
  }
  p->outdone = outdone(s, p, a);
  if (p->outdone) return HF_OK;
  out->c = p->c;
  HF_TRY(build(s, &p->c, &out->parts, &out->machine, &ok));
  *taken = ok;
  if (!ok) p->rule = RULE_CONTRADICTORY;
  return HF_OK;
}

/* Up to BATCH combinations, best bound first, none of which another of them may settle. *first: where the next look begins. */
static hf_status gather(search *s, spot *v, int n, aim a, int *first, candidate *batch, spot **of, int *have) {
  bool behind = false; /* something before i waits */
  *have = 0;
  for (int i = *first; i < n && *have < BATCH; i++) {
    spot *p = &v[i];
    bool taken = false;
    if (p->rule == RULE_N && !p->outdone) p->outdone = outdone(s, p, a);
    if (p->rule == RULE_N && !p->outdone && waits_for(s, &p->c, batch, *have)) {
      behind = true;
      continue;
    }
    if (p->rule == RULE_N && !p->outdone) HF_TRY(take_spot(s, p, a, &batch[*have], &taken));
    if (taken) of[(*have)++] = p;
    if (!behind) *first = i + 1;
  }
  return HF_OK;
}

static hf_status improve(search *s, spot *v, int n, aim a) {
  int64_t limit = s->out->planned + RECOMMEND_MOST_CHOICES;
  candidate *batch = NULL;
  spot *of[BATCH];
  int first = 0, have = 1;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&batch, BATCH, sizeof *batch, "candidates"));
  for (int i = 0; i < n; i++) v[i].outdone = false;
  qsort(v, (size_t)n, sizeof *v, a == FOR_RATE ? by_rate : by_value);
  while (have > 0 && st == HF_OK && s->out->planned < limit) {
    st = gather(s, v, n, a, &first, batch, of, &have);
    if (st == HF_OK && have > 0) st = plan_batch(s, batch, have, false);
    else
      for (int i = 0; i < have; i++) ask_machine_free(batch[i].machine);
    for (int i = 0; i < have && st == HF_OK; i++) of[i]->rule = batch[i].answer.feasible ? RULE_MET : RULE_SLOW;
  }
  s->out->stopped = s->out->stopped || s->out->planned >= limit;
  free(batch);
  return st;
}

/* RULE_N: not yet. */
static recommend_rule planned_as(const search *s, const combo *c) {
  for (int i = 0; i < s->n_known; i++) {
    const known *k = &s->known[i];
    if (k->host == c->host && k->card == c->card && k->count == (c->card >= 0 ? c->count : 0) && k->format == c->format)
      return k->fits ? RULE_MET : RULE_SLOW;
  }
  return RULE_N;
}

/* counts: of what was settled before. */
static hf_status find_choices(search *s, spot *v, int n, const int64_t counts[RULE_N]) {
  recommend_result *o = s->out;
  for (int i = 0; i < n; i++) v[i].rule = planned_as(s, &v[i].c);
  HF_TRY(improve(s, v, n, FOR_VALUE));
  HF_TRY(improve(s, v, n, FOR_RATE));
  memcpy(o->counts, counts, RULE_N * sizeof *counts); /* each is counted once */
  for (int i = 0; i < n; i++) {
    recommend_rule rule = v[i].rule;
    if (rule == RULE_N)
      rule = v[i].most <= WORTH * s->best_rate ? RULE_ROOFLINE : v[i].outdone || !o->stopped ? RULE_DOMINATED : RULE_DEARER;
    o->counts[rule]++;
  }
  return HF_OK;
}

/* The cheapest first, as with limits; then what more money brings. */
static hf_status visit_choices(search *s) {
  recommend_result *o = s->out;
  int64_t counts[RULE_N];
  int n = s->n_heap;
  spot *v = NULL;
  memcpy(counts, o->counts, sizeof counts);
  HF_TRY(hf_alloc(&v, (size_t)n + 1, sizeof *v, "combinations"));
  for (int i = 0; i < n; i++) {
    roofline r = bandwidths(s, &s->heap[i]);
    v[i] = (spot){.c = s->heap[i], .most = roofline_tok_per_s(&r), .rule = RULE_N};
  }
  hf_status st = visit(s, s->heap, &s->n_heap, false);
  if (st == HF_OK && o->n > 0 && s->q->prune) st = find_choices(s, v, n, counts);
  free(v);
  return st;
}

/* ---- ranking ---- */

/* Prices by class; what is left of the machine's price is the platform. */
static void price_classes(const cost_rows *r, regret_choice *c) {
  cost_figure total = {0}, f;
  double known_sum[3] = {0};
  memset(c->price, 0, sizeof c->price);
  for (int i = 0; i < r->n_device; i++) {
    const rec_device *d = &r->device[i];
    int k = strcmp(d->kind, "gpu") == 0 ? REGRET_GPU_PRICE : REGRET_CPU_PRICE;
    for (int part = 0; part < 2; part++) {
      if (!cost_find(r, d->device, part == 0 ? "price_usd" : "price_memory_usd", &f)) continue;
      double *p = c->price[part == 0 ? k : REGRET_MEMORY_PRICE];
      const double v[3] = {f.low, f.likely, f.high};
      for (int e = 0; e < 3; e++) {
        p[e] += v[e];
        known_sum[e] += v[e];
      }
    }
  }
  if (!cost_find(r, "", "price_usd", &total)) return;
  const double v[3] = {total.low, total.likely, total.high};
  for (int e = 0; e < 3; e++) c->price[REGRET_OTHER_PRICE][e] = fmax(0, v[e] - known_sum[e]);
  for (int e = 1; e < 3; e++)
    if (c->price[REGRET_OTHER_PRICE][e] < c->price[REGRET_OTHER_PRICE][e - 1])
      c->price[REGRET_OTHER_PRICE][e] = c->price[REGRET_OTHER_PRICE][e - 1];
}

static int by_price(const void *a, const void *b) {
  const recommend_entry *x = a, *y = b;
  if (x->c.price.likely != y->c.price.likely) return x->c.price.likely < y->c.price.likely ? -1 : 1;
  if (x->shortfall != y->shortfall) return x->shortfall < y->shortfall ? -1 : 1;
  return strcmp(x->parts.name, y->parts.name);
}

static void corner_text(const int *level, char out[200]) {
  size_t used = 0;
  out[0] = '\0';
  for (int f = 0; f < REGRET_N_FACTORS && used < 200; f++)
    if (level[f] != 1)
      used += (size_t)snprintf(out + used, 200 - used, "%s%s %s", used > 0 ? ", " : "", regret_factor_name(f),
                               f < COST_N_GROUPS ? (level[f] == 0 ? "slow" : "fast")
                               : level[f] == 0   ? "dear"
                                                 : "cheap");
}

/* Takes out what costs at least as much as a cheaper one at every end of its price, and is in nothing better: a second GPU that adds nothing. */
static void drop_no_better(recommend_result *o) {
  int kept = 0;
  for (int i = 0; i < o->n; i++) {
    const ask_case *c = &o->entry[i].c;
    bool useless = false;
    for (int k = 0; k < kept && !useless; k++) {
      const ask_case *b = &o->entry[k].c;
      useless = strcmp(c->format, b->format) == 0 && c->price.low >= b->price.low && c->price.likely >= b->price.likely &&
                c->price.high >= b->price.high && c->tok_per_s_wall <= 1.001 * b->tok_per_s_wall &&
                c->decode_tok_per_s.likely <= 1.001 * b->decode_tok_per_s.likely &&
                c->decode_tok_per_s.low <= 1.001 * b->decode_tok_per_s.low &&
                c->decode_tok_per_s.high <= 1.001 * b->decode_tok_per_s.high && c->tpot_s.p95 >= 0.999 * b->tpot_s.p95 &&
                c->ttft_s.p95 >= 0.999 * b->ttft_s.p95;
    }
    if (useless) continue;
    if (kept != i) o->entry[kept] = o->entry[i];
    kept++;
  }
  o->n = kept;
}

static void add_variant(recommend_entry *e, const ask_case *c) {
  if (e->n_variants == RECOMMEND_VARIANTS) return;
  recommend_variant *v = &e->variant[e->n_variants++];
  *v = (recommend_variant){.tok_per_s_wall = c->tok_per_s_wall, .ttft_p95_s = c->ttft_s.p95, .tpot_p95_s = c->tpot_s.p95};
  snprintf(v->format, sizeof v->format, "%s", c->format);
}

/* One machine is one choice: of the formats that meet the demand on it the fastest stands for it, the others beside it. */
static void merge_formats(recommend_result *o) {
  int kept = 0;
  for (int i = 0; i < o->n; i++) {
    int at = 0;
    while (at < kept && !same_machine(&o->entry[at], &o->entry[i])) at++;
    if (at == kept) {
      if (kept != i) o->entry[kept] = o->entry[i];
      kept++;
      continue;
    }
    recommend_entry *e = &o->entry[at];
    if (o->entry[i].c.tok_per_s_wall > e->c.tok_per_s_wall) {
      recommend_entry faster = o->entry[i];
      faster.n_variants = e->n_variants;
      memcpy(faster.variant, e->variant, sizeof e->variant);
      add_variant(&faster, &e->c);
      *e = faster;
    } else {
      add_variant(e, &o->entry[i].c);
    }
  }
  o->n = kept;
}

/* A case of an entry in full, at the depth at which it was judged. */
static ask_case_spec entry_spec(const search *s, const recommend_entry *e, const ask_machine *machine) {
  ask_case_spec spec = {.machine = machine, .req = *s->req, .slo = s->q->slo, .scenario = s->scenario, .quick = true};
  if (e->format[0] != '\0') spec.req.format = e->format;
  if (ask_machine_facts_of(machine)->n_gpus == 0) spec.req.gpu = "none";
  snprintf(spec.name, sizeof spec.name, "%.95s", e->parts.name);
  return spec;
}

/* The search stops at placements that are nearly the best; planned in full one may turn out just over a limit. */
static void drop_missed(recommend_result *o) {
  int kept = 0;
  for (int i = 0; i < o->n; i++) {
    if (o->entry[i].shortfall <= 1) o->entry[kept++] = o->entry[i];
    else {
      o->counts[RULE_MET]--;
      o->counts[RULE_SLO]++;
    }
  }
  o->n = kept;
}

/* The knee and the fastest of what was planned in full. What is held against the others is what serving as much as the knee does costs. */
static void name_choices(recommend_result *o) {
  o->knee = o->quickest = 0;
  for (int i = 1; i < o->n; i++) {
    if (value_of(&o->entry[i]) > value_of(&o->entry[o->knee])) o->knee = i;
    if (o->entry[i].c.tok_per_s_wall > o->entry[o->quickest].c.tok_per_s_wall) o->quickest = i;
  }
  for (int i = 0; i < o->n; i++) o->entry[i].choice.need = o->entry[o->knee].c.tok_per_s_wall / o->entry[i].c.tok_per_s_wall;
}

int recommend_lead_at(const recommend_result *r) {
  return r->choices ? r->knee : 0;
}

const recommend_entry *recommend_lead(const recommend_result *r) {
  return &r->entry[recommend_lead_at(r)];
}

/* Pairs of which one is at most as dear in every part at every end of its price, and as fast at every end of its rate and in the limits. */
static void note_no_worse(recommend_result *o) {
  for (int i = 0; i < o->n; i++) {
    const recommend_entry *a = &o->entry[i];
    o->entry[i].choice.no_worse_than = 0;
    for (int k = 0; k < o->n; k++) {
      const recommend_entry *b = &o->entry[k];
      bool so = k != i && a->c.tok_per_s_wall >= b->c.tok_per_s_wall && a->choice.need <= b->choice.need &&
                a->choice.fixed_need <= fmax(1, b->choice.fixed_need) && a->c.decode_tok_per_s.low >= b->c.decode_tok_per_s.low &&
                a->c.decode_tok_per_s.likely >= b->c.decode_tok_per_s.likely &&
                a->c.decode_tok_per_s.high >= b->c.decode_tok_per_s.high;
      for (int p = 0; p < REGRET_N_PRICES && so; p++)
        for (int e = 0; e < 3; e++) so = so && a->choice.price[p][e] <= b->choice.price[p][e];
      if (so) o->entry[i].choice.no_worse_than |= (uint32_t)1 << k;
    }
  }
}

static hf_status finish_entries(search *s) {
  recommend_result *o = s->out;
  ask_case_spec *spec = NULL;
  ask_case *answer = NULL;
  ask_machine *machine[REGRET_MAX_CHOICES] = {NULL};
  regret_choice choice[REGRET_MAX_CHOICES];
  hf_status st = HF_OK;
  HF_GO(done, hf_alloc(&spec, REGRET_MAX_CHOICES, sizeof *spec, "ranking"));
  HF_GO(done, hf_alloc(&answer, REGRET_MAX_CHOICES, sizeof *answer, "ranking"));
  qsort(o->entry, (size_t)o->n, sizeof *o->entry, by_price);
  while (o->choices && o->n > RECOMMEND_RANKED) drop_entry(o, least_missed(o));
  for (int i = 0; i < o->n; i++) {
    HF_GO(done, ask_machine_from_parts(&o->entry[i].parts, &machine[i]));
    spec[i] = entry_spec(s, &o->entry[i], machine[i]);
  }
  HF_GO(done, ask_evaluate_all(spec, o->n, s->threads, plan_finished, s, answer));
  for (int i = 0; i < o->n; i++) {
    recommend_entry *e = &o->entry[i];
    e->c = answer[i];
    double fixed = 0, need = recommend_shortfall(&e->c, &s->q->slo, &fixed), likely = e->c.decode_tok_per_s.likely;
    ask_slo moving = {.tpot_s = s->q->slo.tpot_s, .tok_per_s = s->q->slo.tok_per_s};
    e->shortfall = need;
    e->choice.need = recommend_shortfall(&e->c, &moving, NULL);
    e->choice.fixed_need = fixed;
    memcpy(e->choice.log_effect, e->c.log_effect, sizeof e->choice.log_effect);
    price_classes(ask_machine_rows(machine[i]), &e->choice);
    e->meets_low = fmax(e->choice.need * likely / e->c.decode_tok_per_s.low, fixed) <= 1;
    e->meets_high = fmax(e->choice.need * likely / e->c.decode_tok_per_s.high, fixed) <= 1;
  }
  drop_missed(o);
  drop_no_better(o);
  merge_formats(o);
  if (o->n == 0) goto done;
  if (o->choices) name_choices(o);
  note_no_worse(o);
  for (int i = 0; i < o->n; i++) choice[i] = o->entry[i].choice;
  regret_of(choice, o->n, &o->regret);
  for (int i = 0; i < o->n; i++) {
    o->entry[i].worst_regret = o->regret.worst[i];
    corner_text(o->regret.worst_at[i], o->entry[i].worst_when);
    o->entry[i].rank_by_regret = 1;
    for (int k = 0; k < o->n; k++)
      o->entry[i].rank_by_regret +=
          o->regret.worst[k] < o->regret.worst[i] || (o->regret.worst[k] == o->regret.worst[i] && k < i);
  }
done:
  for (int i = 0; i < REGRET_MAX_CHOICES; i++) ask_machine_free(machine[i]);
  free(spec);
  free(answer);
  return st;
}

/* The model's own format on the proposed machine, where it is searched and keeps to the limits. */
static hf_status add_own_format(search *s) {
  recommend_entry *e = &s->out->entry[recommend_lead_at(s->out)];
  ask_machine *machine = NULL;
  ask_case answer;
  bool told = s->out->n == 0 || strcmp(e->c.format, s->q->own_format) == 0, searched = false;
  for (int i = 0; i < s->n_formats; i++) searched = searched || strcmp(s->format[i].label, s->q->own_format) == 0;
  for (int i = 0; !told && i < e->n_variants; i++) told = strcmp(e->variant[i].format, s->q->own_format) == 0;
  if (told || !searched) return HF_OK;
  HF_TRY(ask_machine_from_parts(&e->parts, &machine));
  ask_case_spec spec = entry_spec(s, e, machine);
  spec.req.format = s->q->own_format;
  spec.no_interval = spec.one_depth = true;
  spec.scenario = NULL;
  hf_status st = ask_evaluate(&spec, &answer);
  ask_machine_free(machine);
  if (st == HF_OK && ask_meets(&answer, &s->q->slo, NULL)) add_variant(e, &answer);
  return st;
}

static int by_shortfall(const void *a, const void *b) {
  const recommend_entry *x = a, *y = b;
  if (x->shortfall != y->shortfall) return x->shortfall < y->shortfall ? -1 : 1;
  return strcmp(x->parts.name, y->parts.name);
}

/* What is named is planned in full: in the search what failed clearly was given up early. */
static hf_status finish_failures(search *s) {
  enum { MOST = RECOMMEND_REJECTED + 2 };
  recommend_result *o = s->out;
  recommend_entry *e[MOST];
  ask_case_spec spec[MOST] = {0};
  ask_machine *machine[MOST] = {NULL};
  ask_case *answer = NULL;
  int n = 0;
  hf_status st = HF_OK;
  for (int i = 0; i < o->n_rejected; i++)
    if (o->rejected[i].c.feasible) e[n++] = &o->rejected[i];
  if (o->n == 0 && o->has_fastest_any && o->fastest_any.c.feasible) e[n++] = &o->fastest_any;
  if (o->n == 0 && o->has_over_budget) e[n++] = &o->over_budget;
  HF_GO(done, hf_alloc(&answer, MOST, sizeof *answer, "machines that failed"));
  for (int i = 0; i < n; i++) {
    HF_GO(done, ask_machine_from_parts(&e[i]->parts, &machine[i]));
    spec[i] = entry_spec(s, e[i], machine[i]);
    spec[i].no_interval = true;
    spec[i].scenario = NULL;
  }
  HF_GO(done, ask_evaluate_all(spec, n, s->threads, plan_finished, s, answer));
  for (int i = 0; i < n; i++) {
    e[i]->c = answer[i];
    e[i]->rule = judge(s->q, &answer[i], e[i]->why);
    e[i]->shortfall = recommend_shortfall(&answer[i], &s->q->slo, NULL);
  }
done:
  for (int i = 0; i < MOST; i++) ask_machine_free(machine[i]);
  free(answer);
  return st;
}

static int by_miss(const void *a, const void *b) {
  const failure *x = a, *y = b;
  if (x->miss != y->miss) return x->miss < y->miss ? -1 : 1;
  return before(&x->c, &y->c) ? -1 : before(&y->c, &x->c);
}

/* Plans up to BATCH failures in full and keeps the nearest. */
static hf_status plan_failures(search *s, const failure *f, int n) {
  recommend_result *o = s->out;
  candidate *batch = NULL;
  ask_case_spec spec[BATCH] = {0};
  ask_case answer[BATCH] = {0};
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&batch, BATCH, sizeof *batch, "machines that failed"));
  for (int i = 0; i < n; i++) {
    bool ok = true;
    batch[i].c = f[i].c;
    HF_GO(done, build(s, &f[i].c, &batch[i].parts, &batch[i].machine, &ok));
    spec[i] = (ask_case_spec){
        .machine = batch[i].machine, .req = *s->req, .slo = s->q->slo, .quick = true, .one_depth = true, .no_interval = true};
    if (s->format[f[i].c.format].name != NULL) spec[i].req.format = s->format[f[i].c.format].name;
    if (f[i].c.card < 0) spec[i].req.gpu = "none";
  }
  HF_GO(done, ask_evaluate_all(spec, n, s->threads, plan_finished, s, answer));
  for (int i = 0; i < n; i++) {
    batch[i].answer = answer[i];
    double miss = recommend_shortfall(&answer[i], &s->q->slo, NULL);
    if (o->has_fastest && miss >= o->fastest.shortfall) continue;
    fill_entry(s, &batch[i], &o->fastest);
    o->has_fastest = true;
  }
done:
  for (int i = 0; i < n; i++) ask_machine_free(batch[i].machine);
  free(batch);
  return st;
}

/* What failed clearly was given up early, so its miss is known from below only: in the order of that bound, until none can be nearer. */
static hf_status find_nearest(search *s) {
  recommend_result *o = s->out;
  if (o->n > 0 || s->n_failed == 0) return HF_OK;
  qsort(s->failed, (size_t)s->n_failed, sizeof *s->failed, by_miss);
  for (int i = 0; i < s->n_failed && i < MOST_FAILURES && !(o->has_fastest && s->failed[i].miss >= o->fastest.shortfall);
       i += BATCH)
    HF_TRY(plan_failures(s, &s->failed[i], s->n_failed - i < BATCH ? s->n_failed - i : BATCH));
  for (int i = 0; i < o->n_rejected; i++) /* planned in full, too */
    if (o->rejected[i].c.feasible && o->has_fastest && o->rejected[i].shortfall < o->fastest.shortfall)
      o->fastest = o->rejected[i];
  return HF_OK;
}

/* Rules without plans tell their nearest miss too. */
static hf_status add_near_misses(search *s) {
  static const int slots[] = {RULE_ROOFLINE, RULE_BUDGET, NEAR_BEYOND, RULE_MEMORY};
  enum { SLOTS = sizeof slots / sizeof slots[0] };
  recommend_result *o = s->out;
  char money[24];
  qsort(o->rejected, (size_t)o->n_rejected, sizeof *o->rejected, by_shortfall);
  if (o->n_rejected > RECOMMEND_REJECTED - SLOTS) o->n_rejected = RECOMMEND_REJECTED - SLOTS;
  for (int i = 0; i < SLOTS; i++) {
    int slot = slots[i];
    bool settled = slot == RULE_BUDGET && o->has_over_budget; /* then it is the cheapest that meets it */
    if (!settled && s->near_name[slot][0] == '\0') continue;
    recommend_entry *e = &o->rejected[o->n_rejected];
    memset(e, 0, sizeof *e);
    e->rule = slot == NEAR_BEYOND ? RULE_ROOFLINE : (recommend_rule)slot;
    e->beyond = slot == NEAR_BEYOND || slot == RULE_BUDGET;
    snprintf(e->parts.name, sizeof e->parts.name, "%.127s", settled ? o->over_budget.parts.name : s->near_name[slot]);
    snprintf(e->why, sizeof e->why, "%s", s->near_text[slot]);
    if (settled) s->priced = (machine_price){.ok = true, .has_price = true, .price = o->over_budget.c.price.likely};
    else HF_TRY(price_of(s, &s->near_combo[slot]));
    e->c.has_price = s->priced.ok && s->priced.has_price;
    e->c.price.likely = s->priced.price;
    if (slot == RULE_BUDGET) {
      if (!e->c.has_price) continue;
      ask_money(e->c.price.likely - s->q->budget, money);
      snprintf(e->why, sizeof e->why, "USD %.20s over the budget", money);
    }
    o->n_rejected++;
  }
  return HF_OK;
}

hf_status recommend_search(const recommend_question *q, const plan_request *req, const money_scenario *scenario, int threads,
                           void (*done)(void *user, int64_t planned), void *user, recommend_result *out) {
  int64_t start = hf_now_ns();
  plan_request r = *req;
  search *s = NULL;
  hf_status st = HF_OK;
  memset(out, 0, sizeof *out);
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "search"));
  if (r.users == 0) r.users = 1;
  *s = (search){.q = q, .req = &r, .scenario = scenario, .threads = threads, .out = out, .done = done, .user = user};
  s->demand = fmax(q->slo.tok_per_s, q->slo.tpot_s > 0 ? (double)r.users / q->slo.tpot_s : 0);
  HF_GO(done, add_cards(s));
  HF_GO(done, add_formats(s));
  HF_GO(done, add_hosts(s));
  HF_GO(done, combine(s));
  out->choices = !(q->slo.ttft_s > 0) && !(q->slo.tpot_s > 0) && !(q->slo.tok_per_s > 0);
  if (out->choices) HF_GO(done, visit_choices(s));
  else HF_GO(done, visit(s, s->heap, &s->n_heap, false));
  if (out->n == 0 && q->budget > 0) HF_GO(done, visit(s, s->over, &s->n_over, true));
  HF_GO(done, finish_entries(s));
  HF_GO(done, add_own_format(s));
  HF_GO(done, finish_failures(s));
  HF_GO(done, find_nearest(s));
  HF_GO(done, add_near_misses(s));
  out->threads = ask_threads(threads, BATCH);
  out->seconds = 1e-9 * (double)(hf_now_ns() - start);
done:
  search_free(s);
  free(s);
  return st;
}
