/* show.c: a search of formats as JSON, text and CSV. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/formats/formats.h"

static double percent(double loss) {
  return 100 * expm1(loss);
}

/* "+1.2 %" */
static void percent_text(double loss, char out[24]) {
  double p = percent(loss);
  snprintf(out, 24, p < 0.005 ? "%.0f %%" : p < 9.95 ? "+%.2f %%" : "+%.0f %%", p < 0.005 ? 0 : p);
}

static void candidate_json(const format_candidate *x, json *o) {
  json_add_str(o, "recipe", x->recipe.name);
  json *parts = json_add_object(o, "parts");
  for (int p = 0; p < PART_N; p++) json_add_str(parts, recipe_part_name((recipe_part)p), fmt_get(x->recipe.part[p])->name);
  json *rules = json_add_array(o, "layers");
  for (int i = 0; i < x->recipe.n_rules; i++) {
    const recipe_rule *r = &x->recipe.rule[i];
    json *e = json_add_object(rules, NULL);
    json_add_str(e, "part", recipe_part_name(r->part));
    json_add_int(e, "first", r->first);
    json_add_int(e, "last", r->last);
    json_add_int(e, "step", r->step);
    json_add_str(e, "type", fmt_get(r->f)->name);
  }
  json_add_str(o, "program", recipe_program_name(x->program));
  json_add_int(o, "bytes", x->bytes);
  json_add_int(o, "expert_bytes", x->expert_bytes);
  json_add_num(o, "bits_per_weight", x->bits);
  json_add_num(o, "perplexity_increase", expm1(x->quality.loss));
  json_add_str(o, "quality_tag", db_tag_name(x->quality.tag));
  if (x->quality.source != NULL) json_add_str(o, "quality_source", x->quality.source);
  json_add_bool(o, "named", x->named);
  json_add_bool(o, "own", x->own);
  json_add_bool(o, "usual", x->usual);
  json_add_bool(o, "meets_floor", x->meets);
  json_add_bool(o, "frontier", x->frontier);
  json_add_bool(o, "chosen", x->chosen);
  json_add_bool(o, "feasible", x->c.feasible);
  ask_case_to_json(&x->c, json_add_object(o, "case"));
}

hf_status formats_to_json(const formats *f, json *doc) {
  static const char *const programs[] = {"hf-run", "llama.cpp", "ik_llama.cpp", "any"};
  char text[400];
  json *q = json_add_object(doc, "question");
  if (f->n > 0) {
    const ask_case *c = &f->v[0].c;
    json_add_str(q, "model", c->model);
    json_add_str(q, "machine", c->machine);
    json_add_int(q, "users", c->users);
    json_add_int(q, "context", c->context);
    json_add_int(q, "prompt_tokens", c->prompt_tokens);
    json_add_int(q, "output_tokens", c->output_tokens);
  }
  json_add_num(q, "perplexity_increase_limit", expm1(f->options.floor));
  json_add_str(q, "program", programs[f->options.program]);
  json_add_int(doc, "considered", f->considered);
  json_add_int(doc, "planned", f->n);
  json_add_num(doc, "seconds", f->seconds);
  if (f->chosen >= 0) json_add_str(doc, "chosen", f->v[f->chosen].recipe.name);
  else json_add_null(doc, "chosen");
  if (f->usual >= 0) json_add_str(doc, "usual", f->v[f->usual].recipe.name);
  json *a = json_add_array(doc, "candidates");
  for (int i = 0; i < f->n; i++) candidate_json(&f->v[i], json_add_object(a, NULL));
  snprintf(text, sizeof text, "loss of quality: %s; %s", f->q->measure,
           f->q->own ? "rows and types of the model's own family" : "no table of this family: relative losses of another one");
  ask_add_assumption(doc, text, f->q->own || f->q->user ? "scaled" : "assumed", f->q->own ? f->q->family : f->q->reference);
  if (f->q->scale != 1) {
    snprintf(text, sizeof text, "this family loses %.2f times what %s loses in the same types", f->q->scale, f->q->reference);
    ask_add_assumption(doc, text, "scaled", f->q->family);
  }
  ask_add_assumption(doc, "losses of parts add up, and layers are alike", "assumed", "planner/formats/quality.h");
  ask_add_assumption(doc, "CPU kernels read every type at the same share of the memory's bandwidth, unless they were measured",
                     "assumed", "hf-plan plan");
  return HF_OK;
}

void formats_summary_json(const formats *f, json *o) {
  json_add_num(o, "perplexity_increase_limit", expm1(f->options.floor));
  json_add_int(o, "considered", f->considered);
  json_add_int(o, "planned", f->n);
  json_add_num(o, "seconds", f->seconds);
  json *a = json_add_array(o, "frontier");
  for (int i = 0; i < f->n; i++) {
    const format_candidate *x = &f->v[i];
    if (!x->frontier && !x->chosen && !x->usual) continue;
    json *e = json_add_object(a, NULL), *rate = json_add_object(e, "decode_tok_per_s");
    json_add_num(rate, "low", x->c.decode_tok_per_s.low);
    json_add_num(rate, "likely", x->c.decode_tok_per_s.likely);
    json_add_num(rate, "high", x->c.decode_tok_per_s.high);
    json_add_str(e, "recipe", x->recipe.name);
    json_add_num(e, "bits_per_weight", x->bits);
    json_add_int(e, "bytes", x->bytes);
    json_add_num(e, "perplexity_increase", expm1(x->quality.loss));
    json_add_str(e, "quality_tag", db_tag_name(x->quality.tag));
    json_add_str(e, "program", recipe_program_name(x->program));
    json_add_bool(e, "usual", x->usual);
    json_add_bool(e, "chosen", x->chosen);
  }
}

static hf_status row(const format_candidate *x, hf_buf *b) {
  char loss[24], bytes[24], rate[80];
  percent_text(x->quality.loss, loss);
  plan_bytes_text(x->bytes, bytes);
  if (x->c.feasible)
    snprintf(rate, sizeof rate, "%9.1f  %6.1f (%.1f - %.1f)", x->c.tok_per_s_wall, x->c.decode_tok_per_s.likely,
             x->c.decode_tok_per_s.low, x->c.decode_tok_per_s.high);
  else snprintf(rate, sizeof rate, "%9s  does not fit", "");
  return hf_buf_printf(b, " %s %-35s %7s %-8s %5.2f  %10s  %-12s %s%s\n",
                       x->chosen  ? ">"
                       : x->usual ? "="
                                  : " ",
                       rate, loss, db_tag_name(x->quality.tag), x->bits, bytes, recipe_program_name(x->program), x->recipe.name,
                       x->own ? " (the model's own)" : "");
}

hf_status formats_text(const formats *f, hf_buf *b) {
  char line[1000];
  formats_verdict(f, line, sizeof line);
  HF_TRY(hf_buf_printf(
      b, "%s\n\nSpeed against quality: nothing faster loses less (of %d recipes considered, %d planned in %.1f s)\n", line,
      f->considered, f->n, f->seconds));
  HF_TRY(hf_buf_printf(b, "   %-35s %7s %-8s %5s  %10s  %-12s %s\n", "delivered  decode tok/s (range)", "ppl", "", "bits",
                       "bytes", "runs in", "recipe"));
  double shown = INFINITY; /* rows within 4 % of the last one are in the document only */
  for (int i = 0; i < f->n; i++) {
    const format_candidate *x = &f->v[i];
    double rate = x->c.feasible ? x->c.decode_tok_per_s.likely : 0;
    if (!x->chosen && !x->usual && !x->own && !(x->frontier && rate < shown / 1.04)) continue;
    if (x->frontier) shown = rate;
    HF_TRY(row(x, b));
  }
  HF_TRY(hf_buf_printf(b, " > chosen, = without a search; ppl: perplexity above the original's, %s\n", f->q->measure));
  if (f->q->scale != 1)
    HF_TRY(
        hf_buf_printf(b, " scaled: types of %s, times %.2f as the rows of %s say\n", f->q->reference, f->q->scale, f->q->family));
  if (!f->q->own && !f->q->user)
    HF_TRY(hf_buf_printf(b, " assumed: no table of this model; relative losses of %s\n", f->q->reference));
  return HF_OK;
}

hf_status formats_csv(const formats *f, hf_buf *b) {
  HF_TRY(hf_buf_printf(b, "recipe,program,bits_per_weight,bytes,expert_bytes,perplexity_increase,quality_tag,meets_floor,"
                          "frontier,chosen,feasible,low,"
                          "likely,high\n"));
  for (int i = 0; i < f->n; i++) {
    const format_candidate *x = &f->v[i];
    HF_TRY(ask_csv_text(b, x->recipe.name, false));
    HF_TRY(hf_buf_printf(b, "%s,%.6g,%lld,%lld,%.6g,%s,%d,%d,%d,%d,%.6g,%.6g,%.6g\n", recipe_program_name(x->program), x->bits,
                         (long long)x->bytes, (long long)x->expert_bytes, expm1(x->quality.loss), db_tag_name(x->quality.tag),
                         x->meets, x->frontier, x->chosen, x->c.feasible, x->c.decode_tok_per_s.low, x->c.decode_tok_per_s.likely,
                         x->c.decode_tok_per_s.high));
  }
  return HF_OK;
}

void formats_refusal(const formats *f, char *out, size_t n) {
  const format_candidate *gentle = NULL, *small = NULL;
  for (int i = 0; i < f->n; i++) {
    const format_candidate *x = &f->v[i];
    if (x->c.feasible && (gentle == NULL || x->quality.loss < gentle->quality.loss)) gentle = x;
    if (x->meets && (small == NULL || x->bytes < small->bytes)) small = x;
  }
  char bytes[24];
  int k = snprintf(out, n, "no recipe both fits and loses at most %.3g %% of perplexity", percent(f->options.floor));
  if (k < 0 || (size_t)k >= n) return;
  if (gentle != NULL)
    k += snprintf(out + k, n - (size_t)k, "; possible: --quality-floor %.3g (%s)",
                  ceil(1000 * percent(gentle->quality.loss)) / 1000, gentle->recipe.name);
  if (small != NULL && k > 0 && (size_t)k < n) {
    plan_bytes_text(small->bytes, bytes);
    snprintf(out + k, n - (size_t)k, "; the smallest that is good enough needs %s (%s): %s", bytes, small->recipe.name,
             small->c.why_not);
  }
}

void formats_verdict(const formats *f, char *out, size_t n) {
  char loss[24];
  if (f->chosen < 0) {
    formats_refusal(f, out, n);
    return;
  }
  const format_candidate *x = &f->v[f->chosen];
  percent_text(x->quality.loss, loss);
  int k = snprintf(out, n, "%s: %.1f tokens/s delivered, %.1f decode (%.1f to %.1f), perplexity %s, %.2f bits per weight.",
                   x->recipe.name, x->c.tok_per_s_wall, x->c.decode_tok_per_s.likely, x->c.decode_tok_per_s.low,
                   x->c.decode_tok_per_s.high, loss, x->bits);
  if (f->usual < 0 || f->usual == f->chosen || k < 0 || (size_t)k >= n) return;
  const format_candidate *u = &f->v[f->usual];
  percent_text(u->quality.loss, loss);
  if (u->c.feasible) snprintf(out + k, n - (size_t)k, " %s would deliver %.1f at %s.", u->recipe.name, u->c.tok_per_s_wall, loss);
  else snprintf(out + k, n - (size_t)k, " %s does not fit.", u->recipe.name);
}
