/* roi.h: everything hf-plan roi answers, computed and written: document (docs/answers.md, "roi"), text, CSV. */
#ifndef HF_PLANNER_MONEY_ROI_H
#define HF_PLANNER_MONEY_ROI_H

#include "base/json.h"
#include "base/mem.h"
#include "planner/money/scenario.h"

enum { ROI_VERDICT = 1500, ROI_SEED = 1 };
/* A way that is the cheapest in this share of the draws, and at the likely values, is the verdict; else it is undecided. */
#define ROI_SURE 0.6

typedef struct {
  const money_scenario *scenario;
  const money_machine *machine;
  const money_load *load;
  const char *model; /* for sentences */
  money_fact f[MONEY_N];
  money_api_origin api_from;
  money_cost cost; /* at the likely values, as the decision */
  money_decision decision;
  money_sample_result sample;
  money_lever lever[MONEY_N]; /* widest first */
  int n_levers;
} roi;

/* Scenario, machine and load stay the caller's and have to live as long as *out. HF_INPUT: see money_inputs. */
HF_MUST hf_status roi_compute(const money_scenario *s, const money_machine *m, const money_load *l, const char *model_name,
                              roi *out);

typedef struct {
  bool alone;              /* nothing to compare with */
  bool decided;            /* see ROI_SURE */
  money_way first, second; /* by share of the draws in which they are the cheapest */
  double share_first, share_second;
  const money_lever
      *lever; /* decided: nearest to flip it; else what decides: most likely to turn it to the other of the two; may be NULL */
} roi_ruling;
void roi_rule(const roi *r, roi_ruling *out);

/* The answer in a few sentences, the cheapest way (or that it is undecided, and what decides) first. */
void roi_verdict(const roi *r, char out[ROI_VERDICT]);
/* Members warnings, currency, scenario, api_price, ruling, levelised, inputs, parts, cost, options, cash, sample, levers, profile. */
void roi_to_json(const roi *r, json *doc);
/* Tables for a terminal. */
HF_MUST hf_status roi_show(const roi *r, hf_buf *out);
/* One header line, then a row for each input and each result: table, name, unit, low, likely, high, tag, source. */
HF_MUST hf_status roi_csv(const roi *r, hf_buf *out);

/* "1,234", "5.70", "0.000123": three significant digits, thousands grouped; "never" for infinity. */
enum { MONEY_TEXT = 40 };
void money_text(double v, char out[MONEY_TEXT]);
#endif
