/* formats.h: the search of weight formats: which type for which part, under a stated limit on quality, planned on one machine.
 *
 * Candidates are (1) the named formats, (2) every sensible pair of types for the routed experts' gate-up and down matrices with one type for
 * everything else, (3) mixtures per layer: some layers in one pair, the others in a cheaper one. Layers cost and lose alike as far as any
 * published table knows, so the best mixture for a given loss lies between two neighbours on the convex hull of bytes and loss (the knapsack's
 * Lagrangian solution); the first layers get the better pair, as llama.cpp's own mixtures do. What another candidate beats or equals in bytes
 * of experts, bytes of the rest and loss is dropped; the others are planned, placement included. */
#ifndef HF_PLANNER_FORMATS_FORMATS_H
#define HF_PLANNER_FORMATS_FORMATS_H

#include "planner/ask/command.h"
#include "planner/formats/quality.h"

enum { FORMATS_MAX_PLANNED = 72 };

typedef struct {
  double floor;           /* most loss of ln(perplexity) */
  recipe_program program; /* types that this program does not run are left out; RUNS_SAFETENSORS: none is */
  const char *quality;    /* --quality FILE or NULL */
} formats_options;

typedef struct {
  model_recipe recipe;
  quality_loss quality; /* its source is owned by formats.q */
  int64_t bytes, expert_bytes;
  double bits; /* per weight */
  recipe_program program;
  bool named; /* a format that has a name, or the model's default */
  bool own;   /* what the model was published in */
  bool usual; /* what would be taken without a search: --format, or the model's default */
  bool meets, frontier, chosen;
  ask_case c;
} format_candidate;

typedef struct {
  formats_options options;
  quality *q;
  int considered; /* recipes whose bytes and loss were computed */
  int n;          /* planned; by falling rate, those that do not fit last */
  format_candidate *v;
  int chosen, usual; /* index; -1: none */
  double seconds;
} formats;

/* "2" or "2%" (percent more perplexity) to a loss. HF_INPUT otherwise. */
HF_MUST hf_status formats_parse_floor(const char *text, double *loss);
HF_MUST hf_status formats_parse_program(const char *text, recipe_program *out);

/* m is the model of c->req, opened by ask_open_model; name as typed. HF_OK also when nothing fits or meets the floor: then chosen is -1. */
HF_MUST hf_status formats_search(const ask_command *c, const ask_machine *machine, const model *m, const char *name,
                                 const formats_options *o, formats *out);
void formats_free(formats *f);

/* Members of docs/answers.md, "formats". */
HF_MUST hf_status formats_to_json(const formats *f, json *doc);
/* The frontier and the choice in few members, for extra.formats of a plan. */
void formats_summary_json(const formats *f, json *o);
HF_MUST hf_status formats_text(const formats *f, hf_buf *b);
HF_MUST hf_status formats_csv(const formats *f, hf_buf *b);
void formats_verdict(const formats *f, char *out, size_t n);
/* One line: why nothing was chosen and what would help. */
void formats_refusal(const formats *f, char *out, size_t n);
#endif
