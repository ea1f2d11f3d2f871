#include "sched/mla.h"

static const double PRODUCT = 1.65, EXPAND = 2.2, TURN = 140, ABSORBED_QUERY = 45, PLAIN_QUERY = 80;

static double pairs(double start, double n) {
  return n * start + 0.5 * n * (n + 1);
}

mla_work mla_plain_work(const mla_shape *s, double start, double n) {
  return (mla_work){.expand = (start + n) * s->lora * (s->nope + s->v) / EXPAND,
                    .turn = (double)s->lora * s->nope * TURN,
                    .attend = (pairs(start, n) + PLAIN_QUERY * n) * (s->nope + s->rope + s->v)};
}

bool mla_plain_pays(const mla_shape *s, double start, double n) {
  const double block = MLA_BLOCK, weights = (double)s->lora * (s->nope + s->v);
  const mla_work plain = mla_plain_work(s, start, block);
  const double absorbed = block * weights / PRODUCT + (pairs(start, block) + ABSORBED_QUERY * block) * (2.0 * s->lora + s->rope);
  return n >= block && plain.expand + plain.turn + plain.attend < absorbed;
}

bool mla_plain_token(const mla_shape *s, int pos, int prompt, int chunk) {
  const int start = pos - pos % MLA_BLOCK;
  return chunk >= MLA_BLOCK && start + MLA_BLOCK <= prompt && mla_plain_pays(s, start, MLA_BLOCK);
}
