/* roi_int.h: shared by roi.c and roi_verdict.c. */
#ifndef HF_PLANNER_MONEY_ROI_INT_H
#define HF_PLANNER_MONEY_ROI_INT_H
#include "planner/money/roi.h"

extern const char *const roi_way_words[MONEY_N_WAYS]; /* "owning the machine", "the API", "rented GPUs" */
/* "277 million", "1.2 billion". */
void roi_millions_text(double tokens, char out[MONEY_TEXT]);
/* "4.9 months", "2.5 years", "not within 10 years". */
void roi_months_text(double months, char out[MONEY_TEXT]);
/* "the average over 4 years with prices falling 20 % a year, what is paid later discounted by 8 % a year". */
enum { ROI_LEVELISED = 200 };
void roi_levelised_words(const roi *r, char out[ROI_LEVELISED]);
/* Rented GPUs behind their price. tok_per_s: what they decode at least, 0 = not known; use: share of that which the demand asks for. */
typedef struct {
  double gpus, per_hour, up_share, demand_tok_per_s, tok_per_s, use;
} roi_rent;
bool roi_rent_of(const roi *r, roi_rent *out); /* false: nothing is rented */
/* The same in one sentence without its full stop; "" where nothing is rented. Below ROI_RENT_IDLE the use is told as well. */
enum { ROI_RENT = 600 };
#define ROI_RENT_IDLE 0.5
void roi_rent_words(const roi *r, char out[ROI_RENT]);
#endif
