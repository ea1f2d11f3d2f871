/* check_device.c: does the device still compute what it did? See engine.h. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "executor/probe.h"

bool engine_can_check(const engine *e) {
  return e->check_logits && engine_has_device(&e->o) && !any_lost(e);
}

/* Tokens, positions and a page table row behind those of requests. */
static void fill(engine *e, dev_step *s) {
  const int seq = e->o.max_seqs, n = CHECK_TOKENS < e->o.max_tok ? CHECK_TOKENS : e->o.max_tok;
  int n_row;
  int32_t *row = engine_page_row(e, seq, &n_row);
  for (int i = 0; i < check_pages(&e->o) && i < n_row; i++) row[i] = e->o.n_pages + i;
  for (int t = 0; t < n; t++) {
    s->ids[t] = (int32_t)((t + 1) * 7919LL % e->c.vocab_size);
    s->pos[t] = t;
    s->seq[t] = seq;
    if (s->plain) s->plain[t] = 0;
  }
  s->n_tok = n;
  s->n_seq = s->n_logits = 1;
  s->logit_rows[0] = n - 1;
  s->forced_ids = NULL;
  s->upload = false;
}

static hf_status launch(engine *e, int m, bool whole) {
  fill(e, engine_step(e, m));
  e->mb[m].checks = e->probe && !whole;
  if (!whole) probe_check_begin(e);
  return engine_launch(e, m);
}

hf_status engine_launch_check(engine *e, int m) {
  return launch(e, m, false);
}

hf_status engine_found_wrong(engine *e, const char *why) {
  dev_give_up(e->device[0].d, why);
  e->lost_wrong = true;
  return engine_lost(e);
}

hf_status engine_check_good(engine *e, int m) {
  const size_t bytes = (size_t)e->c.vocab_size * sizeof *e->check_logits;
  if (!memcmp(engine_step(e, m)->logits, e->check_logits, bytes)) return HF_OK;
  e->lost_wrong = true;
  for (int k = 0; k < e->n_devices; k++) dev_give_up(e->device[k].d, "its periodic check gave another result than at first");
  const hf_status st = engine_lost(e);
  if (e->n_devices == 1) return st;
  /* it went through all of them, and nobody knows which one was wrong */
  hf_clear_error();
  snprintf(e->lost_reason, sizeof e->lost_reason, "one of %d: their periodic check gave another result than at first",
           e->n_devices);
  return hf_fail(HF_LOST, "the device was lost: %s", e->lost_reason);
}

static hf_status check_now(engine *e, bool whole) {
  int finished = -1;
  HF_TRY(launch(e, 0, whole));
  while (finished < 0) HF_TRY(engine_poll(e, &finished)); /* ends: a device without a sign of life is lost */
  return HF_OK;
}

static bool can_learn(const engine *e) {
  return check_pages(&e->o) > 0 && engine_has_device(&e->o) && e->o.context >= CHECK_TOKENS;
}

static uint64_t hash_of_check(engine *e) {
  return probe_hash_of(engine_step(e, 0)->logits, (size_t)e->c.vocab_size);
}

/* With the devices that there are, as the plan of now has everything on them; NULL: never looked at. */
static whole_check *find_whole(engine *e) {
  for (int i = 0; i < ENGINE_CHECKS; i++)
    if (e->whole[i].hash && e->whole[i].lost == e->o.lost_devices && e->whole[i].placement == e->o.placement) return &e->whole[i];
  return NULL;
}

/* The first one, of the beginning, stays: most devices come back to that. */
static void keep_whole(engine *e) {
  whole_check *w = find_whole(e);
  if (!w) {
    const int i = e->n_whole++;
    w = &e->whole[i < ENGINE_CHECKS ? i : 1 + (i - 1) % (ENGINE_CHECKS - 1)];
  }
  *w = (whole_check){.lost = e->o.lost_devices, .placement = e->o.placement, .hash = hash_of_check(e)};
}

hf_status check_learn(engine *e) {
  if (!can_learn(e)) return HF_OK;
  if (!e->check_logits)
    HF_TRY(hf_alloc(&e->check_logits, (size_t)e->c.vocab_size, sizeof *e->check_logits, "the device's check"));
  HF_TRY(probe_learn(e));
  HF_TRY(check_now(e, true));
  keep_whole(e);
  if (e->probe) HF_TRY(check_now(e, false)); /* what later checks are held against */
  memcpy(e->check_logits, engine_step(e, 0)->logits, (size_t)e->c.vocab_size * sizeof *e->check_logits);
  return HF_OK;
}

/* Experts are elsewhere since: other last bits, no more; a choice of experts that was a tie may have gone the other way. What is farther away than
 * that is another result. */
static bool alike(const engine *e, const float *now) {
  static const double MOST = 0.25; /* of the squares */
  double apart = 0, all = 0;
  for (int i = 0; i < e->c.vocab_size; i++) {
    const double d = (double)now[i] - (double)e->check_logits[i];
    apart += d * d;
    all += (double)e->check_logits[i] * (double)e->check_logits[i];
  }
  return apart <= MOST * all; /* not of a NaN */
}

hf_status check_again(engine *e) {
  if (!can_learn(e)) return HF_OK;
  if (!e->check_logits) return check_learn(e);
  HF_TRY(check_now(e, true));
  const whole_check *known = find_whole(e);
  const bool good = known ? known->hash == hash_of_check(e) : alike(e, engine_step(e, 0)->logits);
  if (!good) return hf_fail(HF_LOST, "the check gave another result than before the loss");
  memcpy(e->check_logits, engine_step(e, 0)->logits, (size_t)e->c.vocab_size * sizeof *e->check_logits);
  return HF_OK;
}
