/* plan_worth.h: what a change of a plan is worth in money, and what the catalog asks for the part that brings it.
 *
 * Worth. A change makes decode steps rate_ratio times as fast and prompts take chunk_ratio of their time; what the machine then delivers more
 * in the hours in which it works (scenario: utilisation) is priced as the API would (scenario: api_price_*), a month of today and, over the
 * years of depreciation, as present value with the API's change of price and the discount rate: money_decide (planner/money/money.h) at both
 * speeds, the difference. It is the most the change can be worth: all additional tokens have to be wanted. low and high: all inputs at the end
 * that makes it less, and more.
 * Prices are those of the scenario. They are used for a model of the catalog, or of anybody when the scenario was named by the asker; with the
 * default scenario their tag is assumed, since it prices one API whatever the model. No price: worth is null.
 *
 * Cost. The next card: of the catalog's cards that can be bought new (no `sale`), of the same form and for the same programs, the one that costs
 * least more (or most less) than this one among those with more memory and no less bandwidth, arithmetic and PCIe, and with which the machine
 * can be built. The next module: the slowest the CPU takes that is faster than this one, in the same size. Only for machines of parts; null
 * where there is none or a price is missing.
 * Prices are differences, both at the same end of their intervals. */
#ifndef HF_PLANNER_PLAN_WORTH_H
#define HF_PLANNER_PLAN_WORTH_H

#include "planner/plan_make.h"

typedef struct plan_worth plan_worth;

/* in and p stay the caller's and have to live as long as *out. Where nothing can be priced *out says so by nulls. */
HF_MUST hf_status plan_worth_new(const plan_inputs *in, const planned *p, plan_worth **out);
void plan_worth_free(plan_worth *w);

/* Adds "worth": null or {output_tok_per_s, output_tokens_per_month, currency, per_month, over_depreciation {low, likely, high}, years}. */
void plan_worth_add(const plan_worth *w, double rate_ratio, double chunk_ratio, json *line);
/* Adds "cost": null or {part, instead_of, currency, price {low, likely, high}, tag, amount, unit, per_change, sources}: amount is what the part
 * brings more, per_change the likely price of `change` of it. */
HF_MUST hf_status plan_worth_next_card(const plan_worth *w, int device, double change, json *line);
HF_MUST hf_status plan_worth_next_memory(const plan_worth *w, double change, json *line);
/* Adds "assumptions": array of {name, words, unit, low, likely, high, tag, source}, empty when nothing was priced; and "worth_note". */
void plan_worth_assumptions(const plan_worth *w, json *advice);
#endif
