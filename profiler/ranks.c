#include "profiler/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "db/db.h"
#include "profiler/stats.h"
#include "profiler/verbs.h"

#define PATIENCE_NS INT64_C(60000000000)
enum { TAG_HOST = 1, TAG_ORDER, TAG_THERE, TAG_BACK };
enum {
  LEAST_BYTES = 64,
  MOST_BYTES = 16 << 20,
  STEP = 4,
  MOST_POINTS = 12,
  WARM_UP = 5,
  LEAST_SAMPLES = 15,
  FEW_SAMPLES = 5,
  HOST_BYTES = 64
};
enum {
  POINT_NS = 150000000 /* samples of a size go on for so long */,
  ENOUGH_NS = 2000000000 /* after which a few do */,
  SLOW_NS = 250000000 /* after such a message none of a larger size */
};
/* Rows of a few tokens, to a rank that has waited as it does between layers. */
enum { PAUSE_NS = 500000, PAUSED_SIZES = 4 };
static const int64_t paused_bytes[PAUSED_SIZES] = {4096, 16384, 65536, 262144};
enum { ORDER_END = 0, ORDER_WAIT = -1 /* others are being measured */ };

typedef struct {
  int64_t bytes; /* or an order */
} ping_order;

typedef struct {
  char host[HOST_BYTES];
  int n;
  int64_t bytes[MOST_POINTS];
  stats ns[MOST_POINTS];
  int n_paused;
  stats paused[PAUSED_SIZES];
} ping_curve;

/* What messages are sent from and received into: MPI's for ever once one is lost (net.h). */
typedef struct {
  net *n;
  ping_order order;
  char host[HOST_BYTES], buffer[MOST_BYTES];
} talk;

static hf_status send(talk *t, int rank, int tag, const void *data, size_t bytes) {
  net_message m;
  HF_TRY(net_send(t->n, rank, tag, data, bytes, &m));
  return net_wait(t->n, &m, PATIENCE_NS, NULL);
}

static hf_status receive(talk *t, int rank, int tag, void *data, size_t bytes) {
  net_message m;
  size_t got = 0;
  HF_TRY(net_receive(t->n, rank, tag, data, bytes, &m));
  HF_TRY(net_wait(t->n, &m, PATIENCE_NS, &got));
  return got == bytes ? HF_OK : hf_fail(HF_MACHINE, "rank %d sent %zu bytes where %zu are expected", rank, got, bytes);
}

static hf_status tell(talk *t, int rank, int64_t bytes) {
  t->order.bytes = bytes;
  return send(t, rank, TAG_ORDER, &t->order, sizeof t->order);
}

/* Each order is one message there and back, so that no rank needs to know how many there will be. */
static hf_status answer(talk *t) {
  (void)gethostname(t->host, sizeof t->host - 1);
  HF_TRY(send(t, 0, TAG_HOST, t->host, sizeof t->host));
  for (;;) {
    HF_TRY(receive(t, 0, TAG_ORDER, &t->order, sizeof t->order));
    const int64_t bytes = t->order.bytes;
    if (bytes == ORDER_WAIT) continue;
    if (bytes == ORDER_END) return HF_OK;
    if (bytes < 0 || bytes > MOST_BYTES) return hf_fail(HF_MACHINE, "rank 0 wants %lld bytes", (long long)bytes);
    for (;;) { /* the first byte tells whether more of this size come */
      HF_TRY(receive(t, 0, TAG_THERE, t->buffer, (size_t)bytes));
      const bool last = t->buffer[0] != 0;
      HF_TRY(send(t, 0, TAG_BACK, t->buffer, (size_t)bytes));
      if (last) break;
    }
  }
}

/* With a pause rank 0 computes for so long between two messages; the other waits as it does in hf-run, where it naps then. */
static hf_status ping(talk *t, int rank, int64_t bytes, int64_t pause_ns, stats *out) {
  double v[STATS_MAX];
  int k = 0;
  const int64_t start = hf_now_ns();
  HF_TRY(tell(t, rank, bytes));
  for (int i = 0;; i++) {
    const int64_t passed = hf_now_ns() - start;
    const bool full = i >= WARM_UP + LEAST_SAMPLES && (k == STATS_MAX - 1 || passed > POINT_NS);
    const bool last = full || (k >= FEW_SAMPLES && passed > ENOUGH_NS);
    t->buffer[0] = last;
    for (const int64_t from = hf_now_ns(); hf_now_ns() - from < pause_ns;) {}
    const int64_t begin = hf_now_ns();
    HF_TRY(send(t, rank, TAG_THERE, t->buffer, (size_t)bytes));
    HF_TRY(receive(t, rank, TAG_BACK, t->buffer, (size_t)bytes));
    if (i >= WARM_UP) v[k++] = 0.5 * (double)(hf_now_ns() - begin);
    if (last) break;
  }
  *out = stats_of(v, k);
  return HF_OK;
}

/* Ranks whose turn is still to come hear so before each size, none of which takes as long as they have patience. */
static hf_status measure_rank(talk *t, int rank, ping_curve *c) {
  for (int64_t bytes = LEAST_BYTES; bytes <= MOST_BYTES && c->n < MOST_POINTS; bytes *= STEP) {
    for (int k = rank + 1; k < net_size(t->n); k++) HF_TRY(tell(t, k, ORDER_WAIT));
    c->bytes[c->n] = bytes;
    HF_TRY(ping(t, rank, bytes, 0, &c->ns[c->n++]));
    if (c->ns[c->n - 1].median > SLOW_NS) break;
  }
  while (c->n_paused < PAUSED_SIZES && (c->n_paused == 0 || c->paused[c->n_paused - 1].median <= SLOW_NS)) {
    for (int k = rank + 1; k < net_size(t->n); k++) HF_TRY(tell(t, k, ORDER_WAIT));
    HF_TRY(ping(t, rank, paused_bytes[c->n_paused], PAUSE_NS, &c->paused[c->n_paused]));
    c->n_paused++;
  }
  return tell(t, rank, ORDER_END);
}

static hf_status store_point(db *d, rec_link_point *p, int64_t bytes, const stats *ns) {
  p->bytes = bytes;
  p->ns = ns->median;
  p->ns_low = ns->low;
  p->ns_high = ns->high;
  p->n = ns->n;
  return db_link_put(d, p);
}

static hf_status store(db *d, int64_t machine, int64_t measurement, const ping_curve *c) {
  rec_link_point p = {.machine_id = machine, .tag = TAG_MEASURED, .measurement = measurement};
  snprintf(p.src, sizeof p.src, "host");
  snprintf(p.dst, sizeof p.dst, "@%.63s", c->host);
  for (int i = 0; i < c->n; i++) HF_TRY(store_point(d, &p, c->bytes[i], &c->ns[i]));
  snprintf(p.load, sizeof p.load, "paused");
  for (int i = 0; i < c->n_paused; i++) HF_TRY(store_point(d, &p, paused_bytes[i], &c->paused[i]));
  return HF_OK;
}

static void point_json(json *list, int rank, const char *host, int64_t bytes, const char *load, const stats *ns) {
  char params[96 + HOST_BYTES];
  snprintf(params, sizeof params, "rank=%d host=%s bytes=%lld%s%s", rank, host, (long long)bytes, *load ? " load=" : "", load);
  json *e = json_add_object(list, NULL);
  json_add_str(e, "what", "rank_link_ns");
  json_add_str(e, "params", params);
  json_add_num(e, "value", ns->median);
  json_add_str(e, "unit", "ns");
  json_add_num(e, "spread", ns->spread);
  json_add_int(e, "n", ns->n);
  json_add_str(e, "tag", db_tag_name(TAG_MEASURED));
}

static hf_status print_json(const rec_machine *m, const ping_curve *c, int n) {
  json *o = json_new_object();
  json_add_int(o, "machine_id", m->id);
  json *list = json_add_array(o, "measurements");
  for (int k = 0; k < n; k++) {
    for (int i = 0; i < c[k].n; i++) point_json(list, k + 1, c[k].host, c[k].bytes[i], "", &c[k].ns[i]);
    for (int i = 0; i < c[k].n_paused; i++) point_json(list, k + 1, c[k].host, paused_bytes[i], "paused", &c[k].paused[i]);
  }
  char *text = NULL;
  hf_status st = json_print(o, false, &text);
  json_free(o);
  if (st == HF_OK) puts(text);
  free(text);
  return st;
}

static void print_table(const rec_machine *m, const ping_curve *c, int n) {
  for (int k = 0; k < n; k++) {
    printf("from %s (machine %lld) to rank %d (%s), one way: hf-plan plan --remote MACHINE:measured, where MACHINE is %s\n",
           m->name, (long long)m->id, k + 1, c[k].host, c[k].host);
    printf("  %12s %12s %12s %12s\n", "bytes", "us", "MB/s", "+-");
    for (int i = 0; i < c[k].n; i++)
      printf("  %12lld %12.2f %12.1f %11.0f%%\n", (long long)c[k].bytes[i], c[k].ns[i].median * 1e-3,
             1e3 * (double)c[k].bytes[i] / c[k].ns[i].median, 50 * c[k].ns[i].spread);
    for (int i = 0; i < c[k].n_paused; i++)
      printf("  %12lld %12.2f %12s %11.0f%%   to one that has waited for %d us, as between layers\n", (long long)paused_bytes[i],
             c[k].paused[i].median * 1e-3, "", 50 * c[k].paused[i].spread, PAUSE_NS / 1000);
  }
}

static hf_status measure_all(talk *t, const cli_common *common, const char *machine, ping_curve *c) {
  const int others = net_size(t->n) - 1;
  const int64_t began_ns = hf_wall_ns();
  rec_machine m;
  db *d = NULL;
  hf_status st = HF_OK;
  for (int k = 0; k < others; k++) {
    HF_TRY(receive(t, k + 1, TAG_HOST, t->host, sizeof t->host));
    snprintf(c[k].host, sizeof c[k].host, "%.*s", HOST_BYTES - 1, t->host);
  }
  for (int k = 0; k < others; k++) HF_TRY(hf_note(measure_rank(t, k + 1, &c[k]), "rank %d (%s)", k + 1, c[k].host));
  HF_TRY(verb_open_db(common, false, &d));
  HF_GO(out, machine ? db_machine_find(d, machine, &m) : db_machine_latest(d, MACHINE_MEASURED, &m));
  HF_GO(out, db_begin(d));
  for (int k = 0; k < others && st == HF_OK; k++) st = store(d, m.id, began_ns, &c[k]);
  if (st == HF_OK) st = db_commit(d);
  if (st != HF_OK) db_rollback(d);
  if (st == HF_OK && common->json) st = print_json(&m, c, others);
  else if (st == HF_OK) print_table(&m, c, others);
out:
  db_close(d);
  return st;
}

hf_status prof_ranks(net *n, const cli_common *common, const char *machine) {
  talk *t = NULL;
  ping_curve *c = NULL;
  hf_status st;
  HF_GO(out, hf_alloc(&t, 1, sizeof *t, "messages between ranks"));
  HF_GO(out, hf_alloc(&c, (size_t)net_size(n), sizeof *c, "messages between ranks"));
  t->n = n;
  st = net_rank(n) > 0 ? answer(t) : measure_all(t, common, machine, c);
out:
  if (st != HF_LOST) free(t);
  free(c);
  return st;
}
