/* scenario.h: where the inputs of money.h come from: scenario files, the rows of a machine, a simulated load.
 *
 * A scenario is a JSON object of the catalog (db/catalog/scenarios/NAME.json) or of a file:
 *
 *   {"name": "office", "title": "…", "base": "default", "currency": "EUR",
 *    "energy_price_per_kwh": 0.21,                                        a number: low = likely = high, tag assumed
 *    "pue": {"low": 1.2, "likely": 1.4, "high": 1.6, "tag": "spec", "source": "…", "date": "…"},
 *    "api_price_in_per_million": null, "api_price_out_per_million": null, nothing to compare with
 *    "utilisation_by_hour": [0, 0, … 24 shares],                          its mean is the utilisation; "utilisation" may add low and high
 *    "energy_price_per_kwh": [0.14, 0.14, … 24 prices],                    by hour of the day, weighted by what the machine draws in each
 *    "part_prices": {"gpu": 1800, "memory": {"low": …}}}                  parts of the machine: cpu, memory, gpu, platform, extra
 *
 * Members are the names of money_input (those of the simulation are refused: they come from the plan), name, title, base, source, date, currency,
 * currency_per_usd, part_prices, utilisation_by_hour, notes. What a file does not say is taken from its base, at last from "default". Sums
 * of money taken over from a base with another currency are converted with currency_per_usd, which such a file has to state. Unknown
 * members are refused, the nearest name suggested.
 * API prices: those a scenario other than default states, else the catalog's of the model, else default's.
 * Hardware: hardware_price of the scenario, else the sum of the machine's parts, each at the scenario's part_prices, else at the catalog's
 * price (in USD, converted). Power likewise: the scenario's, else the machine's. */
#ifndef HF_PLANNER_MONEY_SCENARIO_H
#define HF_PLANNER_MONEY_SCENARIO_H

#include "planner/cost/rows.h"
#include "planner/money/money.h"

enum { MONEY_N_CLASSES = 5, MONEY_HOURS = 24, MONEY_MAX_NOTES = 16, MONEY_NOTE = 300 };
extern const char *const money_class_name[MONEY_N_CLASSES]; /* "cpu", "memory", "gpu", "platform", "extra" */

typedef struct {
  char name[96], title[200], currency[24];
  money_fact f[MONEY_N]; /* likely NAN: not said */
  bool stated[MONEY_N];  /* by a scenario above "default", null included */
  money_fact per_usd;    /* currency units of one US dollar */
  money_fact part[MONEY_N_CLASSES];
  double by_hour[MONEY_HOURS]; /* shares; [0] NAN: no profile */
  double tariff[MONEY_HOURS];  /* price of a kWh by hour of the day; [0] NAN: one price, f[MONEY_PER_KWH] */
  int n_notes;
  char note[MONEY_MAX_NOTES][MONEY_NOTE];
} money_scenario;

/* name: NULL ("default"), a name of the catalog, or a path (with a slash or ending in .json). HF_NOT_FOUND, HF_INPUT with file and member. */
HF_MUST hf_status money_scenario_read(const char *name, money_scenario *out);
/* The same from text; where starts error lines. */
HF_MUST hf_status money_scenario_parse(const char *text, size_t n, const char *where, money_scenario *out);

/* What a machine costs and draws: likely NAN where nobody says. Prices in USD. part[MONEY_N_CLASSES - 1] ("extra") is never set. */
typedef struct {
  char name[128];
  money_fact price, part[MONEY_N_CLASSES];
  money_fact idle_w, active_w;
  bool unpriced[MONEY_N_CLASSES]; /* it has a part of this class (cpu, gpu) whose price nobody says */
} money_machine;
void money_machine_of(const cost_rows *rows, money_machine *out);
/* The simulation knows how busy CPU and GPUs are while the machine works: likely power becomes idle plus that share of the rest, device by
 * device, what the platform draws following the busier of the two; the datasheet's sum stays the high end. */
void money_machine_busy(const cost_rows *rows, double cpu_busy, double gpu_busy, money_machine *m);

/* What the simulation gives at the SLO. */
typedef struct {
  plan_range tok_per_s; /* output tokens per second of work */
  double prefill_share, input_per_output;
  double users;        /* served at once */
  double rented_gpus;  /* that hold weights and KV cache; 0 = not known */
  double need_bytes;   /* weights and KV cache; 0 = not known */
  char rented_gpu[64]; /* what a rented GPU is taken as, and how fast it reads its memory; "", 0 = not known */
  double rented_bytes_per_s;
  db_tag tag;
  char source[200];
} money_load;

/* Fills f. HF_INPUT names what neither the machine nor the scenario says, and how to say it. */
HF_MUST hf_status money_inputs(const money_scenario *s, const money_machine *m, const money_load *l, money_fact f[MONEY_N]);
/* Where the API's prices come from. */
typedef enum {
  MONEY_API_NONE,    /* nothing to compare with: one of the two prices that count is not known */
  MONEY_API_STATED,  /* by the scenario, all that count */
  MONEY_API_LISTED,  /* the catalog's list prices of this model (models/NAME.json, member api_prices), as far as not stated */
  MONEY_API_ASSUMED, /* nobody's price of this model is known: those of the scenario default, which are another model's */
} money_api_origin;
extern const char *const money_api_origin_name[]; /* "none", "scenario", "catalog", "assumed" */
/* Puts the API prices of the model into f, filled by money_inputs or from s->f: what a scenario above "default" states stays, then the
 * catalog's list prices in the scenario's currency, else default's, then tagged assumed. A listed model without a price for cached input
 * pays the full one for it. HF_INPUT: a list price of the catalog that is none, entry and member named. */
HF_MUST hf_status money_api_prices(const money_scenario *s, const char *model, money_fact f[MONEY_N], money_api_origin *from);
/* The price of each class in the scenario's currency, likely NAN where it has none; false when hardware_price is stated as a whole. */
bool money_parts(const money_scenario *s, const money_machine *m, money_fact part[MONEY_N_CLASSES]);
/* Values that can be read but are hardly meant (a price in cents, a share in percent): one line each, naming member and remedy. Returns how
 * many. f: the inputs of the answer. 0 is left alone: it means "there already" or "none". */
enum { MONEY_MAX_DOUBTS = 16 };
int money_doubts(const money_scenario *s, const money_fact f[MONEY_N], char line[MONEY_MAX_DOUBTS][MONEY_NOTE]);
/* What a value out of range mostly is, or NULL. */
const char *money_remedy(money_input i);
#endif
