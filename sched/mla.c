#include "sched/mla.h"

static const double PRODUCT = 1.65, EXPAND = 2.2, TURN = 140, ABSORBED_QUERY = 45, PLAIN_QUERY = 80;

static double pairs(double start, double n) {
  return n * start + 0.5 * n * (n + 1);
}

mla_work mla_plain_work(const mla_shape *s, double start, double n) {
  return (mla_work){.expand = (start + n) * s->lora * (s->nope + s->v) / EXPAND + (double)s->lora * s->nope * TURN,
                    .attend = (pairs(start, n) + PLAIN_QUERY * n) * (s->nope + s->rope + s->v)};
}

bool mla_plain_token(const mla_shape *s, int pos, int prompt, int chunk) {
  const int start = pos - pos % chunk, n = prompt - start < chunk ? prompt - start : chunk;
  return mla_plain_pays(s, start, n);
}

bool mla_plain_pays(const mla_shape *s, double start, double n) {
  const mla_work plain = mla_plain_work(s, start, n);
  const double absorbed =
      n * s->lora * (s->nope + s->v) / PRODUCT + (pairs(start, n) + ABSORBED_QUERY * n) * (2.0 * s->lora + s->rope);
  return n > 1 && plain.expand + plain.attend < absorbed;
}
