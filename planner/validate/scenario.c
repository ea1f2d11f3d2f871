#include "planner/validate/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "planner/plan_make.h"

static const struct { const char *cpu, *memory; } lines[] = {{"xeon-6787p", "mrdimm-8000"}, {"xeon-6980p", "mrdimm-8800"}};
static const char *const formats[] = {"q4_k_m", "int8"};
/* The catalog's modules; larger ones where the weights do not fit these. */
static const struct { const char *part, *words; } modules[] = {{"", ""}, {",dimm=96G", " of 96 GiB"}};
enum { PROMPT = 1536, OUTPUT = 512, DEPTHS = 4 };

bool scenario_applies(const published_case *c) {
  return strncasecmp(c->engine, "HeteroFlow", 10) == 0 && c->decode_tok_s > 0 && strcasestr(c->cpu, "Xeon 6") != NULL &&
         strcasestr(c->memory, "MRDIMM") != NULL && strcasestr(c->model, "R1") != NULL;
}

static void say_needs(scenario *s) {
  if (s->inside) return;
  const char *which = s->published > s->decode.high ? "faster" : "slower";
  snprintf(
      s->needs, sizeof s->needs, "a step %.2f times as fast as likely, %.2f times the %s end: %s",
      s->published / s->decode.likely, s->published / (s->published > s->decode.high ? s->decode.high : s->decode.low), which,
      s->published > s->decode.high ? "more bandwidth or fewer bytes per token than assumed" : "less of either than assumed");
}

/* One plan at one depth; kept where it is the first or faster by the margin that plans of all depths use, too. */
static hf_status try_depth(const plan_request *req, scenario *s) {
  plan_inputs *in = NULL;
  planned *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "plan of a scenario"));
  hf_status st = plan_inputs_open(NULL, req, &in);
  if (st == HF_OK) st = plan_inputs_popularity(in);
  if (st == HF_OK) {
    st = plan_make(in, &(planned_options){.quick = true}, p);
    if (st == HF_OK && p->p->decode_tok_per_s.likely > PLAN_DEPTH_MARGIN * s->decode.likely) {
      plan_range r = p->p->decode_tok_per_s;
      s->decode = (predicted_range){r.low, r.likely, r.high};
      s->depth = p->ilp->depth;
    }
    planned_free(p);
  }
  plan_inputs_close(in);
  free(p);
  return st;
}

static hf_status plan_one(const published_case *c, const char *text, scenario *s) {
  catalog_parts parts;
  catalog_machine machine = {0};
  cost_rows *rows = NULL;
  hf_status st = HF_OK;
  HF_GO(done, catalog_parts_parse(text, &parts));
  HF_GO(done, catalog_compose(&parts, &machine));
  HF_GO(done, cost_rows_from_arrays(&machine.machine, machine.device, machine.n_device, machine.figure, machine.n_figure, NULL, 0,
                                    machine.link, machine.n_link, &rows));
  int64_t prompt = c->prompt_tokens > 0 ? (int64_t)c->prompt_tokens : PROMPT;
  plan_request req = {.model = "deepseek-r1",
                      .machine = text,
                      .format = s->format,
                      .host_rows = rows,
                      .users = c->concurrency > 0 ? c->concurrency : 1,
                      .context = prompt + OUTPUT,
                      .prompt_tokens = prompt,
                      .output_tokens = OUTPUT};
  for (req.depth = 1; st == HF_OK && req.depth <= DEPTHS && req.depth <= req.users; req.depth++) st = try_depth(&req, s);
  if (st == HF_NO && s->depth > 0) { /* a deeper pipeline's buffers do not fit: the shallower ones stand */
    hf_clear_error();
    st = HF_OK;
  }
  if (st == HF_NO) {
    snprintf(s->needs, sizeof s->needs, "%.190s", hf_error_line());
    hf_clear_error();
    st = HF_OK;
  } else if (st == HF_OK) {
    s->inside = s->published >= s->decode.low && s->published <= s->decode.high;
    s->needs[0] = '\0';
    say_needs(s);
  }
done:
  cost_rows_free(rows);
  catalog_machine_free(&machine);
  return st;
}

hf_status scenarios_of(const published_case *c, scenario out[SCENARIOS_PER_ROW]) {
  int n = 0;
  for (int line = 0; line < 2; line++)
    for (int sockets = 1; sockets <= 2; sockets++)
      for (int f = 0; f < 2; f++) {
        scenario *s = &out[n++];
        *s = (scenario){.c = c, .sockets = sockets, .published = c->decode_tok_s};
        snprintf(s->format, sizeof s->format, "%s", formats[f]);
        for (size_t m = 0; m < sizeof modules / sizeof *modules && s->depth == 0; m++) {
          char text[160];
          snprintf(text, sizeof text, "cpu=%s,sockets=%d,memory=%s%s,gpu=rtx4090", lines[line].cpu, sockets, lines[line].memory,
                   modules[m].part);
          snprintf(s->machine, sizeof s->machine, "%d x %s, %s%s, rtx4090", sockets, lines[line].cpu, lines[line].memory,
                   modules[m].words);
          HF_TRY(hf_note(plan_one(c, text, s), "row %s, %s %s", c->id, s->machine, s->format));
        }
      }
  return HF_OK;
}
