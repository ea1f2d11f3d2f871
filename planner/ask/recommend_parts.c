/* recommend_parts.c: what is combined: machines without GPU, cards, weight formats. */
#include "planner/ask/recommend_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int64_t search_combos_per_host(const search *s) {
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
  s->out->considered += search_combos_per_host(s);
  s->out->counts[RULE_CONTRADICTORY] += search_combos_per_host(s);
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

hf_status search_add_hosts(search *s) {
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

bool search_is_sold(const card *c, int count) {
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
  for (int i = 0; i < c->n_counts; i++) any = any || search_is_sold(c, c->count[i]);
  if (any || y->n_gpus > 1) return HF_OK;
  char list[64] = "";
  for (int i = 0; i < c->n_boards; i++)
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%.0f", i > 0 ? " or " : "", c->board[i]);
  return hf_fail(HF_INPUT, "option --gpu-counts: %s is sold on boards of %s", c->name, list);
}

hf_status search_add_cards(search *s) {
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
                 .gguf = readable && recipe_runs_on(&recipe, RUNS_LLAMA_CPP),
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

hf_status search_add_formats(search *s) {
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
