/* roi_rent.c: what stands behind the price of rented GPUs: which, how many, what they would deliver, and how little of it is used. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/money/roi_int.h"

/* Of a GPU's memory bandwidth, what a decode step that reads everything reaches at least. */
static const double READ_SHARE = 0.5;

bool roi_rent_of(const roi *r, roi_rent *out) {
  const money_load *l = r->load;
  *out = (roi_rent){.gpus = r->f[MONEY_RENT_GPUS].likely,
                    .per_hour = r->f[MONEY_RENT_HOUR].likely,
                    .up_share = r->f[MONEY_RENT_UP].likely,
                    .demand_tok_per_s = r->f[MONEY_TOK_PER_S].likely * r->f[MONEY_UTILISATION].likely};
  if (isnan(r->decision.way[MONEY_RENT].per_month)) return false;
  out->up_share = fmax(isnan(out->up_share) ? 1 : out->up_share, r->f[MONEY_UTILISATION].likely);
  if (!(l->need_bytes > 0) || !(l->rented_bytes_per_s > 0) || !(out->gpus > 0)) return true;
  out->tok_per_s = l->users * READ_SHARE * out->gpus * l->rented_bytes_per_s / l->need_bytes;
  out->use = out->demand_tok_per_s / (out->tok_per_s * out->up_share);
  return true;
}

void roi_rent_words(const roi *r, char out[ROI_RENT]) {
  roi_rent x;
  char hour[MONEY_TEXT], demand[MONEY_TEXT], rate[MONEY_TEXT];
  size_t n = 0;
  out[0] = '\0';
  if (!roi_rent_of(r, &x)) return;
  money_text(x.per_hour, hour);
  money_text(x.demand_tok_per_s, demand);
  money_text(x.tok_per_s, rate);
  n += (size_t)snprintf(
      out, ROI_RENT, "%g GPU%s%s%s at %s %s an hour each (%s), charged for this machine's demand alone, %s tokens/s on average",
      x.gpus, x.gpus == 1 ? "" : "s", r->load->rented_gpu[0] != '\0' ? " taken as " : "", r->load->rented_gpu, hour,
      r->scenario->currency, db_tag_name(r->f[MONEY_RENT_HOUR].tag), demand);
  if (!(x.tok_per_s > 0)) {
    snprintf(out + n, ROI_RENT - n, "; how fast they are is not known here");
    return;
  }
  n += (size_t)snprintf(
      out + n, ROI_RENT - n,
      "; half their memory bandwidth (%.3g TB/s each, catalog) reads all weights in every step, at least %s tokens/s of "
      "decode for the same %.0f user%s",
      1e-12 * r->load->rented_bytes_per_s, rate, r->load->users, r->load->users == 1 ? "" : "s");
  if (x.use >= ROI_RENT_IDLE) return;
  snprintf(out + n, ROI_RENT - n, ": paid %s for %.2g %% use", x.up_share >= 0.995 ? "around the clock" : "whenever they are up",
           100 * x.use);
}
