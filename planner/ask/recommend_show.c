#include "planner/ask/recommend_show.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *parts_name(const recommend_entry *e) {
  return e->parts.name;
}

void recommend_limits(const ask_slo *slo, char out[160]) {
  char s[24];
  size_t used = 0;
  out[0] = '\0';
  if (slo->tok_per_s > 0) used += (size_t)snprintf(out, 160, "at least %.4g tokens/s delivered", slo->tok_per_s);
  if (slo->tpot_s > 0) {
    ask_seconds(slo->tpot_s, s);
    used += (size_t)snprintf(out + used, 160 - used, "%sp95 TPOT within %s", used > 0 ? ", " : "", s);
  }
  if (slo->ttft_s > 0) {
    ask_seconds(slo->ttft_s, s);
    used += (size_t)snprintf(out + used, 160 - used, "%sp95 TTFT within %s", used > 0 ? ", " : "", s);
  }
  if (used == 0) snprintf(out, 160, "anything that runs it");
}

/* "limits 81 % easier: NAME (USD 8,000) gives 1.2 tokens/s delivered, p95 TPOT 1 s, p95 TTFT 2 s." */
static size_t easier_text(const recommend_entry *e, char *out, size_t n) {
  char money[24], tpot[24], ttft[24];
  ask_money(e->c.price.likely, money);
  ask_seconds(e->c.tpot_s.p95, tpot);
  ask_seconds(e->c.ttft_s.p95, ttft);
  return (size_t)snprintf(out, n, "limits %.*f %% easier: %s (USD %s) gives %.1f tokens/s delivered, p95 TPOT %s, p95 TTFT %s.",
                          e->shortfall < 1.01 ? 2 : 0, fmax(0.01, 100 * (e->shortfall - 1)), parts_name(e), money,
                          e->c.tok_per_s_wall, tpot, ttft);
}

/* Of those that were not planned: the nearest within the budget, then the nearest beyond it. */
static size_t unplanned_text(const recommend_result *r, bool beyond, char *out, size_t n) {
  char money[24];
  for (int i = 0; i < r->n_rejected; i++) {
    const recommend_entry *e = &r->rejected[i];
    if (e->beyond != beyond || ((beyond || r->has_over_budget) && e->rule != RULE_ROOFLINE)) continue;
    ask_money(e->c.price.likely, money);
    return (size_t)snprintf(out, n, "%s: %s%s%s%s: %s.", beyond ? " With more money" : "Nearest", parts_name(e),
                            e->c.has_price ? " (USD " : "", e->c.has_price ? money : "", e->c.has_price ? ")" : "", e->why);
  }
  return 0;
}

/* What would make it feasible, by how much: within the budget first, then what more money does. */
static void nearest_text(const recommendation *y, char *out, size_t n) {
  const recommend_result *r = y->r;
  char money[2][24];
  size_t used = 0;
  bool within = r->has_fastest && r->fastest.c.feasible;
  out[0] = '\0';
  if (within) {
    used += (size_t)snprintf(out, n, "%s ", y->q->budget > 0 ? "The nearest within it takes" : "It takes");
    used += easier_text(&r->fastest, out + used, n - used);
  } else {
    used += unplanned_text(r, false, out, n);
  }
  if (r->has_over_budget && used < n) {
    const recommend_entry *o = &r->over_budget;
    ask_money(o->c.price.likely, money[0]);
    ask_money(o->c.price.likely - y->q->budget, money[1]);
    used += (size_t)snprintf(
        out + used, n - used, "%sIt takes USD %s more: the cheapest that %s costs USD %s (%s, %.1f tokens/s delivered).",
        used > 0 ? " " : "", money[1], r->choices ? "runs it" : "meets it", money[0], parts_name(o), o->c.tok_per_s_wall);
    return;
  }
  const recommend_entry *any = r->has_fastest_any && r->fastest_any.c.feasible ? &r->fastest_any : NULL;
  if (any != NULL && (!within || any->shortfall < r->fastest.shortfall) && used < n) {
    used += (size_t)snprintf(out + used, n - used, "%s%s ", used > 0 ? " " : "",
                             r->over_stopped || r->stopped ? "More money: of the cheapest that were looked at the nearest takes"
                                                           : "No machine of the space meets it at any price; the nearest takes");
    used += easier_text(any, out + used, n - used);
  } else if (any == NULL && used < n) {
    used += unplanned_text(r, true, out + used, n - used);
  }
  if (used == 0) snprintf(out, n, "Nothing in the space comes near; widen it.");
}

static double per_1000_usd(const recommend_entry *e) {
  return 1000 * e->c.tok_per_s_wall / e->c.price.likely;
}

/* " Cheapest that runs it: NAME (USD 8,000, 1.2 tokens/s delivered)." */
static size_t choice_text(const recommendation *y, const char *words, int at, char *out, size_t n) {
  const recommend_result *r = y->r;
  const recommend_entry *e = &r->entry[at];
  char money[24];
  if (at == r->knee) return (size_t)snprintf(out, n, " %s: the same.", words);
  ask_money(e->c.price.likely, money);
  return (size_t)snprintf(out, n, " %s: %s (USD %s, %.1f tokens/s delivered).", words, parts_name(e), money, e->c.tok_per_s_wall);
}

/* Why the knee, and what stands at both ends. */
static size_t choices_text(const recommendation *y, char *out, size_t n) {
  size_t used =
      (size_t)snprintf(out, n,
                       " No limit was asked for, so this is the knee: the most delivered tokens/s for the money (%.2f per "
                       "USD 1,000); a dearer machine brings less for each dollar.",
                       per_1000_usd(recommend_lead(y->r)));
  if (used < n) used += choice_text(y, "Cheapest that runs it at all", 0, out + used, n - used);
  if (used < n)
    used += choice_text(y,
                        y->r->stopped      ? "Fastest found before the search stopped"
                        : y->q->budget > 0 ? "Fastest within the budget"
                                           : "Fastest at any price",
                        y->r->quickest, out + used, n - used);
  return used < n ? used : n;
}

/* Where no limit kept it from being slow: people read about five tokens a second. */
static size_t slow_text(const recommendation *y, const ask_case *c, char *out, size_t n) {
  const double reading = 5, patience_s = 60;
  bool tokens = !(y->q->slo.tpot_s > 0) && c->tpot_s.p95 * reading > 1;
  bool first = !(y->q->slo.ttft_s > 0) && c->ttft_s.p95 > patience_s;
  if (!tokens && !first) return 0;
  size_t used = (size_t)snprintf(out, n, " Slow:");
  if (tokens)
    used += (size_t)snprintf(out + used, n - used, " %.1f tokens/s for each user is under reading speed (about %.0f)",
                             1 / c->tpot_s.p95, reading);
  used += (size_t)snprintf(out + used, n - used, "%s%s.", tokens && first ? ", and" : "",
                           first ? " the first token takes over a minute" : "");
  return used;
}

void recommend_verdict(const recommendation *y, char *out, size_t n) {
  const recommend_result *r = y->r;
  char money[24], limits[160], nearest[1100];
  recommend_limits(&y->q->slo, limits);
  if (r->n == 0) {
    nearest_text(y, nearest, sizeof nearest);
    if (r->stopped) {
      snprintf(out, n, "None of the %d cheapest candidates meets it (%s); the search stopped there: narrow the space. %s",
               RECOMMEND_MOST_PLANNED, limits, nearest);
    } else if (y->q->budget > 0) {
      ask_money(y->q->budget, money);
      if (r->choices) snprintf(out, n, "No machine for USD %s runs it. %s", money, nearest);
      else snprintf(out, n, "No machine for USD %s meets it (%s). %s", money, limits, nearest);
    } else {
      if (r->choices) snprintf(out, n, "No machine of the space runs it. %s", nearest);
      else snprintf(out, n, "No machine of the space meets it (%s). %s", limits, nearest);
    }
    return;
  }
  const recommend_entry *e = recommend_lead(r);
  ask_money(e->c.price.likely, money);
  char ttft[24], tpot[24];
  ask_seconds(e->c.ttft_s.p95, ttft);
  ask_seconds(e->c.tpot_s.p95, tpot);
  size_t used =
      (size_t)snprintf(out, n,
                       "Buy %s: about USD %s, %.1f tokens/s delivered, first token within %s, each further one within %s (95 "
                       "%% of requests under sustained load); %.1f tokens/s decode (%.1f to %.1f).",
                       parts_name(e), money, e->c.tok_per_s_wall, ttft, tpot, e->c.decode_tok_per_s.likely,
                       e->c.decode_tok_per_s.low, e->c.decode_tok_per_s.high);
  if (used < n) used += slow_text(y, &e->c, out + used, n - used);
  if (r->choices && used < n) used += choices_text(y, out + used, n - used);
  if (!e->meets_low && used < n)
    used += (size_t)snprintf(out + used, n - used, " At the low end of its figures it misses the demand.");
  const recommend_entry *safe = &r->entry[r->regret.least_regret];
  if (safe != e && used < n) {
    ask_money(safe->c.price.likely, money);
    snprintf(out + used, n - used, " Least to regret: %s (USD %s).", parts_name(safe), money);
  }
}

/* ---- what to do next ---- */

static bool parts_text(const recommend_entry *e, char out[320]) {
  catalog_parts p = e->parts;
  p.name[0] = '\0';
  if (catalog_parts_text(&p, out, 320) == HF_OK) return true;
  hf_clear_error();
  return false;
}

/* For a shell: a text in single quotes. */
static void quoted(const char *text, char *out, size_t n) {
  size_t used = 0;
  if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == strlen(text)) {
    snprintf(out, n, "%s", text);
    return;
  }
  out[used++] = '\'';
  for (const char *c = text; *c != '\0' && used + 6 < n; c++) {
    if (*c == '\'') used += (size_t)snprintf(out + used, n - used, "'\\''");
    else out[used++] = *c;
  }
  out[used++] = '\'';
  out[used] = '\0';
}

/* The line that plans the entry in full: the load, the format and the limits at which it was judged. */
static bool plan_line(const recommendation *y, const recommend_entry *e, char out[700]) {
  char parts[320], named[300], machine[340];
  if (!parts_text(e, parts)) return false;
  quoted(e->c.model[0] != '\0' ? e->c.model : y->model, named, sizeof named);
  quoted(parts, machine, sizeof machine);
  int n = snprintf(
      out, 700,
      "hf-plan plan --model %s --machine %s --format %s --users %lld --context %lld --prompt-tokens %lld --output-tokens %lld",
      named, machine, e->c.format, (long long)e->c.users, (long long)e->c.context, (long long)e->c.prompt_tokens,
      (long long)e->c.output_tokens);
  const double limit[2] = {y->q->slo.ttft_s, y->q->slo.tpot_s};
  static const char *const option[2] = {"--slo-ttft", "--slo-tpot"};
  for (int i = 0; i < 2 && n > 0 && n < 700; i++)
    if (limit[i] > 0) n += snprintf(out + n, 700 - (size_t)n, " %s %.10g", option[i], limit[i]);
  return n > 0 && n < 700;
}

/* Engines that exist and read such weights on a CPU and a GPU; hf-run has no CUDA device yet. */
static const char *engines_of(const recommend_entry *e) {
  bool gpu = e->parts.n_gpu_kinds > 0;
  switch (e->program) {
    case RUNS_HF_RUN:
      if (!e->gguf)
        return gpu ? "engines that read safetensors, such as SGLang with KTransformers' CPU experts (hf-run once it has a CUDA "
                     "device)"
                   : "hf-run";
      return gpu ? "llama.cpp, ik_llama.cpp (hf-run once it has a CUDA device)" : "hf-run, llama.cpp, ik_llama.cpp";
    case RUNS_LLAMA_CPP: return "llama.cpp, ik_llama.cpp; KTransformers where it knows the model";
    case RUNS_IK_LLAMA_CPP: return "ik_llama.cpp";
    case RUNS_NONE: return "none that is known: no program reads all of these types";
    default: return "engines that read safetensors, such as SGLang with KTransformers' CPU experts";
  }
}

static void title_of(const char *kind, const char *name, char out[96]) {
  json *entry = NULL;
  snprintf(out, 96, "%.95s", name);
  if (catalog_get(kind, name, &entry) != HF_OK) {
    hf_clear_error();
    return;
  }
  const char *title = json_string(json_get(entry, "title"));
  if (title != NULL) snprintf(out, 96, "%.95s", title);
  json_free(entry);
}

/* Parts as a dealer names them. */
static void full_name(const recommend_entry *e, char out[480]) {
  const catalog_parts *p = &e->parts;
  char title[96];
  size_t used = 0;
  for (int i = 0; i < p->n_gpu_kinds && used < 480; i++) {
    title_of("gpus", p->gpu[i].gpu, title);
    used += (size_t)snprintf(out + used, 480 - used, "%d x %s, ", p->gpu[i].count, title);
  }
  title_of("cpus", p->cpu, title);
  if (used < 480) used += (size_t)snprintf(out + used, 480 - used, "%s%d x %s, ", used == 0 ? "no GPU, " : "", p->sockets, title);
  title_of("memory", p->memory, title);
  double modules = p->dimm_bytes > 0 ? (double)e->c.memory_bytes / (double)p->dimm_bytes : 0;
  if (used < 480)
    snprintf(out + used, 480 - used, "%.0f x %lld GiB %s; weights %s", modules, (long long)(p->dimm_bytes >> 30), title,
             e->c.format);
}

/* Lines to paste for what the verdict names; the engines of all, each once. */
static double loss_of_format(const recommendation *y, const char *name, bool *own) {
  *own = false;
  for (int i = 0; i < y->n_formats; i++) {
    if (strcmp(y->formats[i].name, name) != 0) continue;
    *own = y->formats[i].own;
    return y->formats[i].known ? y->formats[i].loss : NAN;
  }
  return NAN;
}

/* " at +1.8 % perplexity"; nothing where no table knows it. */
static void perplexity_text(double loss, char out[48]) {
  out[0] = '\0';
  if (isfinite(loss)) snprintf(out, 48, loss > 0 ? " at %+.2g %% perplexity" : " at its own perplexity", 100 * expm1(loss));
}

/* Other formats on the machine that is proposed. */
static void variant_text(const recommendation *y, const recommend_entry *e, const recommend_variant *v, char out[300]) {
  char with[48], without[48], ttft[24], tpot[24];
  bool own, lead_own;
  perplexity_text(loss_of_format(y, v->format, &own), with);
  perplexity_text(loss_of_format(y, e->c.format, &lead_own), without);
  ask_seconds(v->ttft_p95_s, ttft);
  ask_seconds(v->tpot_p95_s, tpot);
  snprintf(out, 300, "The same machine with %s%s: %.1f tokens/s delivered%s (p95 TTFT %s, TPOT %s); %.31s gives %.1f%s",
           v->format, own ? " (the model's own)" : "", v->tok_per_s_wall, with, ttft, tpot, e->c.format, e->c.tok_per_s_wall,
           without);
}

static hf_status text_variants(const recommendation *y, hf_buf *b) {
  const recommend_entry *e = recommend_lead(y->r);
  char line[300];
  for (int i = 0; i < e->n_variants; i++) {
    variant_text(y, e, &e->variant[i], line);
    HF_TRY(hf_buf_printf(b, "%s%s\n", i == 0 ? "\n" : "", line));
  }
  return HF_OK;
}

static bool any_gpu(const recommend_result *r) {
  bool any = false;
  for (int i = 0; i < r->n && i < RECOMMEND_RANKED; i++) any = any || r->entry[i].parts.n_gpu_kinds > 0;
  return any;
}

static hf_status text_next(const recommendation *y, hf_buf *b) {
  const recommend_result *r = y->r;
  const int at[3] = {recommend_lead_at(r), 0, r->quickest};
  int shown = r->n < RECOMMEND_RANKED ? r->n : RECOMMEND_RANKED;
  char line[700];
  HF_TRY(hf_buf_printf(b, "\nTo plan it in full%s\n", shown > 1 ? " (plan_command in --json has the line of every other)" : ""));
  for (int i = 0; i < (r->choices ? 3 : 1); i++) {
    if ((i > 0 && at[i] == at[0]) || (i == 2 && at[2] == at[1]) || !plan_line(y, &r->entry[at[i]], line)) continue;
    HF_TRY(hf_buf_printf(b, "  %2d %s\n", at[i] + 1, line));
  }
  HF_TRY(hf_buf_printf(b, "\nEngines that run it today\n"));
  for (int i = 0; i < shown; i++) {
    const char *engines = engines_of(&r->entry[i]);
    bool before = false;
    int n = 0;
    for (int k = 0; k < i; k++) before = before || strcmp(engines_of(&r->entry[k]), engines) == 0;
    if (before) continue;
    for (int k = i; k < shown; k++) n += strcmp(engines_of(&r->entry[k]), engines) == 0;
    bool all = n == shown;
    HF_TRY(hf_buf_printf(b, " "));
    for (int k = i; k < shown && !all; k++)
      if (strcmp(engines_of(&r->entry[k]), engines) == 0) HF_TRY(hf_buf_printf(b, " %d%s", k + 1, --n > 0 ? "," : ":"));
    HF_TRY(hf_buf_printf(b, " %s\n", engines));
  }
  return any_gpu(r) ? hf_buf_printf(b, "  %s\n", ASK_ENGINE_NOTE) : HF_OK;
}

/* ---- flips and the measurement to make first ---- */

/* How far the factor has moved there: step time for groups, price for prices, on that machine of the two which feels it more. */
static double moved_percent(const recommend_result *r, int f, int side, const regret_choice *c) {
  double share = r->regret.flip_at[f][side];
  if (f < COST_N_GROUPS) return 100 * (exp(share * c->log_effect[f][side]) - 1);
  const double *p = c->price[f - COST_N_GROUPS];
  return p[1] > 0 ? 100 * share * ((side == 0 ? p[2] : p[0]) / p[1] - 1) : 0;
}

static void flip_text(const recommendation *y, int f, int side, char out[300]) {
  const recommend_result *r = y->r;
  const recommend_entry *to = &r->entry[r->regret.flip[f][side]], *of = recommend_lead(r);
  if (fabs(moved_percent(r, f, side, &to->choice)) > fabs(moved_percent(r, f, side, &of->choice))) of = to;
  double percent = moved_percent(r, f, side, &of->choice);
  snprintf(out, 300, "%s %s (from %+.1f %% %s of %s): then %.100s", regret_factor_words(f),
           f < COST_N_GROUPS ? (side == 0 ? "is worse" : "is better")
           : side == 0       ? "is higher"
                             : "is lower",
           percent, f < COST_N_GROUPS ? "step time" : "on that",
           of == to     ? "the latter"
           : r->choices ? "the knee"
                        : "the first",
           parts_name(to));
}

/* The next in price, or the one before it where there is none. */
static const recommend_entry *runner_up(const recommend_result *r) {
  int at = recommend_lead_at(r);
  return &r->entry[at + 1 < r->n ? at + 1 : at - 1];
}

/* Among what can be measured (not bought), the factor whose knowledge is worth most; when none is worth anything, the one that moves first and
 * runner-up apart most. -1: nothing to decide. */
static int measure_first(const recommend_result *r, double *share) {
  int best = -1;
  double most = 0;
  *share = 0;
  for (int f = 0; f < COST_N_GROUPS; f++)
    if (r->regret.value[f] > most) {
      most = r->regret.value[f];
      best = f;
    }
  if (best >= 0) {
    *share = r->regret.value_all > 0 ? fmin(1, most / r->regret.value_all) : 0;
    return best;
  }
  for (int f = 0; f < COST_N_GROUPS && r->n > 1; f++) {
    const double *a = recommend_lead(r)->choice.log_effect[f], *b = runner_up(r)->choice.log_effect[f];
    double apart = fabs((a[0] - a[1]) - (b[0] - b[1])) + 1e-6 * fabs(a[0] - a[1]);
    if (apart > most) {
      most = apart;
      best = f;
    }
  }
  return best;
}

/* What a person can do today: hf-profile measures CPUs, and no GPU before there is a CUDA device. */
static const char *const how_to_measure[COST_N_GROUPS] = {
    "run hf-profile on a machine with this CPU and memory",
    "run hf-profile on a machine with this CPU",
    "hf-profile measures no GPU yet: take an engine's published decode rate on this card, or hold the data sheet against a copy "
    "within "
    "its memory (nvbandwidth of NVIDIA)",
    "hf-profile measures no GPU yet: hold the data sheet against a large matrix product in the vendor's library on this card",
    "hf-profile measures no GPU yet: run nvbandwidth of NVIDIA with this card in this slot, host to device, pinned memory",
    "hf-profile measures the CPU's part on a machine with this CPU; the hand-over to a GPU it cannot measure yet",
    "let hf-run execute your own prompts with a model of this family that it can hold, or give a census of its routing",
};

static hf_status add_flips(const recommendation *y, json *doc) {
  const recommend_result *r = y->r;
  json *list = json_add_array(doc, "flips");
  for (int f = 0; f < REGRET_N_FACTORS && r->n > 0; f++)
    for (int side = 0; side < 2; side++) {
      char text[300];
      if (r->regret.flip_at[f][side] > 1) continue;
      flip_text(y, f, side, text);
      json *o = json_add_object(list, NULL);
      json_add_str(o, "assumption", regret_factor_name(f));
      json_add_str(o, "end", side == 0 ? "bad" : "good");
      json_add_num(o, "at_share_of_interval", r->regret.flip_at[f][side]);
      json_add_str(o, "then", parts_name(&r->entry[r->regret.flip[f][side]]));
      json_add_str(o, "text", text);
    }
  double share = 0;
  int g = measure_first(r, &share);
  if (r->n < 2 || g < 0) {
    json_add_null(doc, "measure_first");
    return HF_OK;
  }
  json *o = json_add_object(doc, "measure_first");
  char text[300];
  snprintf(text, sizeof text, "%s: %s", regret_factor_words(g), how_to_measure[g]);
  json_add_str(o, "group", regret_factor_name(g));
  json_add_str(o, "text", text);
  json_add_num(o, "share", share);
  json_add_num(o, "worth", r->regret.value[g]);
  return HF_OK;
}

/* ---- JSON ---- */

static void add_list(json *o, const char *key, const char (*names)[SPACE_NAME], int n) {
  json *a = json_add_array(o, key);
  for (int i = 0; i < n; i++) json_add_str(a, NULL, names[i]);
}

static void add_question(const recommendation *y, json *doc) {
  const recommend_space *s = &y->q->space;
  json *q = json_add_object(doc, "question");
  json_add_str(q, "model", y->model);
  json_add_int(q, "users", y->users);
  json_add_int(q, "context", y->context);
  ask_add_slo(q, &y->q->slo, "asked");
  if (y->q->budget > 0) json_add_num(q, "budget", y->q->budget);
  else json_add_null(q, "budget");
  json *formats = json_add_array(q, "formats");
  for (int i = 0; i < s->n_formats; i++) json_add_str(formats, NULL, s->format[i]);
  if (s->n_formats == 0) json_add_str(formats, NULL, y->format);
  if (y->floor_text != NULL) json_add_num(q, "perplexity_increase_limit", expm1(y->floor));
  else json_add_null(q, "perplexity_increase_limit");
  json *held = json_add_array(q, "format_losses");
  for (int i = 0; i < y->n_formats; i++) {
    const recommend_format *f = &y->formats[i];
    json *o = json_add_object(held, NULL);
    json_add_str(o, "format", f->name);
    json_add_bool(o, "searched", f->searched);
    json_add_bool(o, "own", f->own);
    if (f->known) json_add_num(o, "perplexity_increase", expm1(f->loss));
    else json_add_null(o, "perplexity_increase");
    json_add_str(o, "quality_tag", f->tag);
  }
  json *z = json_add_object(q, "space");
  add_list(z, "gpus", s->gpu, s->n_gpus);
  json *counts = json_add_array(z, "gpu_counts");
  for (int i = 0; i < s->n_counts; i++) json_add_int(counts, NULL, s->count[i]);
  add_list(z, "cpus", s->cpu, s->n_cpus);
  json *sockets = json_add_array(z, "sockets");
  for (int i = 0; i < s->n_sockets; i++) json_add_int(sockets, NULL, s->sockets[i]);
  if (s->n_memory > 0) add_list(z, "memory", s->memory, s->n_memory);
  else json_add_str(z, "memory", "what each CPU takes");
  json *dimms = json_add_array(z, "dimm_bytes");
  for (int i = 0; i < s->n_dimms; i++) json_add_int(dimms, NULL, s->dimm_bytes[i]);
}

static void add_variants(const recommendation *y, const recommend_entry *e, json *o) {
  json *list = json_add_array(o, "variants");
  for (int i = 0; i < e->n_variants; i++) {
    const recommend_variant *v = &e->variant[i];
    json *x = json_add_object(list, NULL);
    bool own;
    char line[300];
    double loss = loss_of_format(y, v->format, &own);
    variant_text(y, e, v, line);
    json_add_str(x, "format", v->format);
    json_add_bool(x, "own", own);
    json_add_num(x, "tok_per_s_wall", v->tok_per_s_wall);
    json_add_num(x, "ttft_p95_s", v->ttft_p95_s);
    json_add_num(x, "tpot_p95_s", v->tpot_p95_s);
    if (isfinite(loss)) json_add_num(x, "perplexity_increase", expm1(loss));
    else json_add_null(x, "perplexity_increase");
    json_add_str(x, "text", line);
  }
}

static void add_entry(const recommendation *y, const recommend_entry *e, int rank, json *o) {
  char text[320];
  ask_case_to_json(&e->c, o);
  json_add_int(o, "rank", rank);
  json_add_int(o, "rank_by_regret", e->rank_by_regret);
  json *g = json_add_object(o, "regret");
  json_add_num(g, "worst", e->worst_regret);
  json_add_str(g, "when", e->worst_when);
  json *m = json_add_object(o, "meets");
  json_add_bool(m, "low", e->meets_low);
  json_add_bool(m, "likely", e->shortfall <= 1);
  json_add_bool(m, "high", e->meets_high);
  if (parts_text(e, text)) json_add_str(o, "parts_text", text);
  char line[700], full[480];
  full_name(e, full);
  json_add_str(o, "full_name", full);
  if (plan_line(y, e, line)) json_add_str(o, "plan_command", line);
  json_add_str(o, "runs_today", engines_of(e));
  add_variants(y, e, o);
}

static void add_choices(const recommendation *y, json *doc) {
  static const char *const key[3] = {"cheapest", "knee", "fastest"};
  const recommend_result *r = y->r;
  const int at[3] = {0, r->knee, r->quickest};
  if (!r->choices || r->n == 0) {
    json_add_null(doc, "choices");
    return;
  }
  json *all = json_add_object(doc, "choices");
  for (int i = 0; i < 3; i++) {
    const recommend_entry *e = &r->entry[at[i]];
    json *o = json_add_object(all, key[i]);
    json_add_int(o, "rank", at[i] + 1);
    json_add_str(o, "name", parts_name(e));
    json_add_num(o, "price", e->c.price.likely);
    json_add_num(o, "tok_per_s_wall", e->c.tok_per_s_wall);
    json_add_num(o, "tok_per_s_per_1000_usd", per_1000_usd(e));
  }
}

hf_status recommend_to_json(const recommendation *y, json *doc) {
  const recommend_result *r = y->r;
  char nearest[1100];
  add_question(y, doc);
  if (r->n > 0) add_entry(y, recommend_lead(r), recommend_lead_at(r) + 1, json_add_object(doc, "answer"));
  else json_add_null(doc, "answer");
  add_choices(y, doc);
  json *ranking = json_add_array(doc, "ranking");
  for (int i = 0; i < r->n && i < RECOMMEND_RANKED; i++) add_entry(y, &r->entry[i], i + 1, json_add_object(ranking, NULL));
  if (r->n > 1) json_add_str(doc, "runner_up", parts_name(runner_up(r)));
  else json_add_null(doc, "runner_up");
  if (r->n > 0) json_add_str(doc, "by_regret", parts_name(&r->entry[r->regret.least_regret]));
  else json_add_null(doc, "by_regret");
  json *rejected = json_add_array(doc, "rejected");
  for (int i = 0; i < r->n_rejected; i++) {
    json *o = json_add_object(rejected, NULL);
    json_add_str(o, "name", parts_name(&r->rejected[i]));
    json_add_str(o, "reason", recommend_rule_name(r->rejected[i].rule));
    json_add_str(o, "text", r->rejected[i].why);
    if (r->rejected[i].c.has_price) json_add_num(o, "price", r->rejected[i].c.price.likely);
  }
  json *counts = json_add_object(doc, "counts");
  json_add_int(counts, "considered", r->considered);
  for (int k = 0; k < RULE_N; k++) json_add_int(counts, recommend_rule_name((recommend_rule)k), r->counts[k]);
  json_add_int(counts, "planned", r->planned);
  json_add_int(counts, "planned_over_budget", r->planned_over);
  json_add_int(counts, "imagined", r->imagined);
  json_add_bool(doc, "stopped", r->stopped);
  HF_TRY(add_flips(y, doc));
  if (r->n == 0) {
    nearest_text(y, nearest, sizeof nearest);
    json *o = json_add_object(doc, "nearest");
    json_add_str(o, "text", nearest);
    const recommend_entry *e = r->has_over_budget   ? &r->over_budget
                               : r->has_fastest     ? &r->fastest
                               : r->has_fastest_any ? &r->fastest_any
                                                    : NULL;
    if (e != NULL) ask_case_to_json(&e->c, json_add_object(o, "machine"));
    if (r->has_over_budget) json_add_num(o, "needs", r->over_budget.c.price.likely - y->q->budget);
  }
  json_add_num(doc, "seconds", r->seconds);
  ask_add_assumption(doc,
                     "Loss in a corner of all intervals: price of the machine times as many of it as the demand then takes, at "
                     "least one; regret: loss "
                     "above that of the best choice there.",
                     "assumed", "definition");
  ask_add_load(doc);
  ask_add_engine_note(doc, any_gpu(r));
  ask_add_assumption(doc, "Placements of the search are the Lagrangian ones where their proven gap is at most 0.5 %.", "assumed",
                     "hf-plan");
  return HF_OK;
}

/* ---- CSV and text ---- */

hf_status recommend_csv(const recommendation *y, hf_buf *b) {
  HF_TRY(hf_buf_printf(b, "rank,rank_by_regret,worst_regret,meets_low,meets_high,"));
  HF_TRY(ask_csv_case_header(b));
  for (int i = 0; i < y->r->n; i++) {
    const recommend_entry *e = &y->r->entry[i];
    HF_TRY(hf_buf_printf(b, "%d,%d,%.10g,%s,%s,", i + 1, e->rank_by_regret, e->worst_regret, e->meets_low ? "yes" : "no",
                         e->meets_high ? "yes" : "no"));
    HF_TRY(ask_csv_case(b, &e->c));
  }
  return HF_OK;
}

/* Which of the three it is, where no limit was asked for. */
static const char *mark_of(const recommend_result *r, int i) {
  if (!r->choices) return "";
  if (i == r->knee)
    return i == 0 && i == r->quickest ? " (cheapest, knee, fastest)"
           : i == 0                   ? " (cheapest, knee)"
           : i == r->quickest         ? " (knee, fastest)"
                                      : " (knee)";
  return i == 0 ? " (cheapest)" : i == r->quickest ? " (fastest)" : "";
}

static hf_status text_ranking(const recommendation *y, hf_buf *b) {
  const recommend_result *r = y->r;
  char price[24], tpot[24], ttft[24], regret[24];
  HF_TRY(hf_buf_printf(b, "\n  %2s %10s %9s %9s %9s %8s %13s %8s %11s  %s\n", "", "price USD", "delivered", "TTFT p95",
                       "TPOT p95", "decode", "low-high", "USD/M", "regret USD", "machine"));
  for (int i = 0; i < r->n && i < RECOMMEND_RANKED; i++) {
    const recommend_entry *e = &r->entry[i];
    char cost[24] = "-";
    ask_money(e->c.price.likely, price);
    ask_money(e->worst_regret, regret);
    ask_seconds(e->c.tpot_s.p95, tpot);
    ask_seconds(e->c.ttft_s.p95, ttft);
    if (e->c.has_cost) snprintf(cost, sizeof cost, "%.2f", e->c.cost.likely);
    HF_TRY(hf_buf_printf(b, "  %2d %10s %9.1f %9s %9s %8.1f %6.1f-%-6.1f %8s %7s (%d)  %s%s\n", i + 1, price, e->c.tok_per_s_wall,
                         ttft, tpot, e->c.decode_tok_per_s.likely, e->c.decode_tok_per_s.low, e->c.decode_tok_per_s.high, cost,
                         regret, e->rank_by_regret, parts_name(e), mark_of(r, i)));
  }
  return hf_buf_printf(
      b,
      "  USD/M: USD per million tokens, input and output together; regret: the most the choice can cost above the "
      "best one,\n  over all ends of speed and price%s (rank by it)\n",
      r->choices ? ", for as many machines as deliver what the knee does" : "");
}

static hf_status text_doubt(const recommendation *y, hf_buf *b) {
  const recommend_result *r = y->r;
  char text[300], worth[24];
  double share = 0;
  bool any = false;
  for (int f = 0; f < REGRET_N_FACTORS; f++)
    for (int side = 0; side < 2; side++) {
      if (r->regret.flip_at[f][side] > 1) continue;
      flip_text(y, f, side, text);
      HF_TRY(hf_buf_printf(b, "%s  %s\n", any ? "" : "\nWhat would flip the choice\n", text));
      any = true;
    }
  if (!any) HF_TRY(hf_buf_printf(b, "\nNo single assumption within its interval flips the choice.\n"));
  int g = measure_first(r, &share);
  if (g < 0 || r->n < 2) return HF_OK;
  ask_money(r->regret.value[g], worth);
  HF_TRY(hf_buf_printf(b, "\nMeasure first: %s; %s", regret_factor_words(g), how_to_measure[g]));
  if (share >= 0.005)
    HF_TRY(hf_buf_printf(b, "; it takes away %.0f %% of the doubt about the choice, worth about USD %s", 100 * share, worth));
  return hf_buf_printf(b, "\n");
}

/* Which weight formats were searched, and which lose too much. */
static hf_status text_formats(const recommendation *y, hf_buf *b) {
  if (y->floor_text == NULL || y->n_formats == 0) return HF_OK;
  for (int side = 1; side >= 0; side--) {
    int n = 0;
    for (int i = 0; i < y->n_formats; i++) {
      const recommend_format *f = &y->formats[i];
      bool too_much = f->known && f->loss > y->floor;
      if (f->searched != (side == 1) || (side == 0 && !too_much)) continue;
      if (n++ > 0) HF_TRY(hf_buf_printf(b, ", "));
      else if (side == 1)
        HF_TRY(hf_buf_printf(b, "\nWeight formats searched, perplexity at most %s %% above the original's: ", y->floor_text));
      else HF_TRY(hf_buf_printf(b, "; lose too much: "));
      HF_TRY(hf_buf_printf(b, f->loss > 0 ? "%s %+.2g %%%s" : "%s %.2g %%%s", f->name, 100 * expm1(f->loss),
                           f->own ? " (the model's own)" : ""));
    }
  }
  return hf_buf_printf(b, "\n");
}

static hf_status text_counts(const recommend_result *r, hf_buf *b) {
  static const char *const fewer[RULE_N] = {[RULE_ROOFLINE] = "cannot be faster than the fastest, by their bandwidth alone",
                                            [RULE_DOMINATED] =
                                                "no better than one already judged, by their parts or by what like ones reach",
                                            [RULE_DEARER] = "not looked at",
                                            [RULE_SLOW] = "planned: do not fit",
                                            [RULE_MET] = "planned: run it"};
  static const char *const words[RULE_N] = {[RULE_CONTRADICTORY] = "cannot be built",
                                            [RULE_UNPRICED] = "have a part without a price",
                                            [RULE_MEMORY] = "too little memory",
                                            [RULE_BUDGET] = "over the budget",
                                            [RULE_ROOFLINE] = "too slow by their bandwidth alone",
                                            [RULE_DOMINATED] = "no better than one already judged",
                                            [RULE_DEARER] = "dearer than needed",
                                            [RULE_SLOW] = "planned: too slow, or do not fit",
                                            [RULE_SLO] = "planned: miss the SLO",
                                            [RULE_MET] = "planned: meet it"};
  HF_TRY(hf_buf_printf(b, "\n%lld combinations considered, %lld planned", (long long)r->considered, (long long)r->planned));
  if (r->imagined > 0)
    HF_TRY(hf_buf_printf(b, ", %lld imagined (as good as the best of a group in every part: what they miss, all of it miss)",
                         (long long)r->imagined));
  if (r->planned_over > 0)
    HF_TRY(hf_buf_printf(b, " (and %lld of those over the budget, to say what more money does)", (long long)r->planned_over));
  HF_TRY(hf_buf_printf(b, ", %.1f s\n", r->seconds));
  for (int k = 0; k < RULE_N; k++)
    if (r->counts[k] > 0)
      HF_TRY(hf_buf_printf(b, "  %9lld  %s\n", (long long)r->counts[k],
                           r->choices && r->n > 0 && fewer[k] != NULL ? fewer[k] : words[k]));
  if (r->stopped && r->choices && r->n > 0)
    HF_TRY(hf_buf_printf(b, "  stopped after %lld plans: there may be a better knee or a faster machine; narrow the space\n",
                         (long long)r->planned));
  else if (r->stopped)
    HF_TRY(hf_buf_printf(b, "  stopped after %d plans: dearer ones were not looked at\n", RECOMMEND_MOST_PLANNED));
  return HF_OK;
}

hf_status recommend_text(const recommendation *y, hf_buf *b) {
  const recommend_result *r = y->r;
  char verdict[2000], context[24], limits[160], money[24], budget[64] = "";
  recommend_verdict(y, verdict, sizeof verdict);
  recommend_limits(&y->q->slo, limits);
  ask_tokens(y->context, context);
  if (y->q->budget > 0) {
    ask_money(y->q->budget, money);
    snprintf(budget, sizeof budget, ", for at most USD %s", money);
  }
  HF_TRY(hf_buf_printf(b, "%s\n\n%s, %lld user%s, context %s: %s%s\n", verdict, y->model, (long long)y->users,
                       y->users == 1 ? "" : "s", context, limits, budget));
  if (r->n > 0) {
    HF_TRY(text_ranking(y, b));
    HF_TRY(text_variants(y, b));
    HF_TRY(text_next(y, b));
    HF_TRY(text_doubt(y, b));
    HF_TRY(ask_load_text(&recommend_lead(r)->c, b));
  }
  for (int i = 0; i < r->n_rejected; i++)
    HF_TRY(hf_buf_printf(b, "%s  %s: %s\n", i == 0 ? "\nWhy not\n" : "", parts_name(&r->rejected[i]), r->rejected[i].why));
  HF_TRY(text_formats(y, b));
  return text_counts(r, b);
}
