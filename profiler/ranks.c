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
enum { LEAST_BYTES = 64, MOST_BYTES = 16 << 20, STEP = 4, MOST_POINTS = 12, WARM_UP = 5, LEAST_SAMPLES = 15, HOST_BYTES = 64 };
enum { POINT_NS = 150000000 }; /* samples of a size go on for so long */

typedef struct {
  int64_t bytes; /* 0: the end */
} ping_order;

typedef struct {
  char host[HOST_BYTES];
  int n;
  int64_t bytes[MOST_POINTS];
  stats ns[MOST_POINTS];
} ping_curve;

static hf_status send(net *n, int rank, int tag, const void *data, size_t bytes) {
  net_message m;
  HF_TRY(net_send(n, rank, tag, data, bytes, &m));
  return net_wait(n, &m, PATIENCE_NS, NULL);
}

static hf_status receive(net *n, int rank, int tag, void *data, size_t bytes) {
  net_message m;
  size_t got = 0;
  HF_TRY(net_receive(n, rank, tag, data, bytes, &m));
  HF_TRY(net_wait(n, &m, PATIENCE_NS, &got));
  return got == bytes ? HF_OK : hf_fail(HF_MACHINE, "rank %d sent %zu bytes where %zu are expected", rank, got, bytes);
}

/* Each order is one message there and back, so that no rank needs to know how many there will be. */
static hf_status answer(net *n, char *buffer) {
  char host[HOST_BYTES] = "";
  (void)gethostname(host, sizeof host - 1);
  HF_TRY(send(n, 0, TAG_HOST, host, sizeof host));
  for (;;) {
    ping_order o;
    HF_TRY(receive(n, 0, TAG_ORDER, &o, sizeof o));
    if (o.bytes == 0) return HF_OK;
    if (o.bytes < 0 || o.bytes > MOST_BYTES) return hf_fail(HF_MACHINE, "rank 0 wants %lld bytes", (long long)o.bytes);
    for (;;) { /* the first byte tells whether more of this size come */
      HF_TRY(receive(n, 0, TAG_THERE, buffer, (size_t)o.bytes));
      const bool last = buffer[0] != 0;
      HF_TRY(send(n, 0, TAG_BACK, buffer, (size_t)o.bytes));
      if (last) break;
    }
  }
}

static hf_status ping(net *n, int rank, int64_t bytes, char *buffer, stats *out) {
  double v[STATS_MAX];
  int k = 0;
  const int64_t start = hf_now_ns();
  const ping_order o = {.bytes = bytes};
  HF_TRY(send(n, rank, TAG_ORDER, &o, sizeof o));
  for (int i = 0;; i++) {
    const bool last = i >= WARM_UP + LEAST_SAMPLES && (k == STATS_MAX - 1 || hf_now_ns() - start > POINT_NS);
    buffer[0] = last;
    const int64_t begin = hf_now_ns();
    HF_TRY(send(n, rank, TAG_THERE, buffer, (size_t)bytes));
    HF_TRY(receive(n, rank, TAG_BACK, buffer, (size_t)bytes));
    if (i >= WARM_UP) v[k++] = 0.5 * (double)(hf_now_ns() - begin);
    if (last) break;
  }
  *out = stats_of(v, k);
  return HF_OK;
}

static hf_status measure_rank(net *n, int rank, char *buffer, ping_curve *c) {
  const ping_order end = {.bytes = 0};
  for (int64_t bytes = LEAST_BYTES; bytes <= MOST_BYTES && c->n < MOST_POINTS; bytes *= STEP) {
    c->bytes[c->n] = bytes;
    HF_TRY(ping(n, rank, bytes, buffer, &c->ns[c->n++]));
  }
  return send(n, rank, TAG_ORDER, &end, sizeof end);
}

static hf_status store(db *d, int64_t machine, const ping_curve *c) {
  rec_link_point p = {.machine_id = machine, .tag = TAG_MEASURED};
  snprintf(p.src, sizeof p.src, "host");
  snprintf(p.dst, sizeof p.dst, "@%.*s", (int)sizeof p.dst - 2, c->host);
  for (int i = 0; i < c->n; i++) {
    p.bytes = c->bytes[i];
    p.ns = c->ns[i].median;
    p.ns_low = c->ns[i].low;
    p.ns_high = c->ns[i].high;
    p.n = c->ns[i].n;
    HF_TRY(db_link_put(d, &p));
  }
  return HF_OK;
}

static hf_status print_json(const rec_machine *m, const ping_curve *c, int n) {
  json *o = json_new_object();
  json_add_int(o, "machine_id", m->id);
  json *list = json_add_array(o, "measurements");
  for (int k = 0; k < n; k++) {
    for (int i = 0; i < c[k].n; i++) {
      char params[96 + HOST_BYTES];
      snprintf(params, sizeof params, "rank=%d host=%s bytes=%lld", k + 1, c[k].host, (long long)c[k].bytes[i]);
      json *e = json_add_object(list, NULL);
      json_add_str(e, "what", "rank_link_ns");
      json_add_str(e, "params", params);
      json_add_num(e, "value", c[k].ns[i].median);
      json_add_str(e, "unit", "ns");
      json_add_num(e, "spread", c[k].ns[i].spread);
      json_add_int(e, "n", c[k].ns[i].n);
      json_add_str(e, "tag", db_tag_name(TAG_MEASURED));
    }
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
  }
}

static hf_status measure_all(net *n, const cli_common *common, const char *machine, char *buffer, ping_curve *c) {
  const int others = net_size(n) - 1;
  rec_machine m;
  db *d = NULL;
  hf_status st = HF_OK;
  for (int k = 0; k < others; k++) HF_TRY(receive(n, k + 1, TAG_HOST, c[k].host, sizeof c[k].host));
  for (int k = 0; k < others; k++) {
    c[k].host[HOST_BYTES - 1] = '\0';
    HF_TRY(hf_note(measure_rank(n, k + 1, buffer, &c[k]), "rank %d (%s)", k + 1, c[k].host));
  }
  HF_TRY(verb_open_db(common, false, &d));
  HF_GO(out, machine ? db_machine_find(d, machine, &m) : db_machine_latest(d, MACHINE_MEASURED, &m));
  HF_GO(out, db_begin(d));
  for (int k = 0; k < others && st == HF_OK; k++) st = store(d, m.id, &c[k]);
  if (st == HF_OK) st = db_commit(d);
  if (st != HF_OK) db_rollback(d);
  if (st == HF_OK && common->json) st = print_json(&m, c, others);
  else if (st == HF_OK) print_table(&m, c, others);
out:
  db_close(d);
  return st;
}

hf_status prof_ranks(net *n, const cli_common *common, const char *machine) {
  char *buffer = NULL;
  ping_curve *c = NULL;
  hf_status st;
  HF_GO(out, hf_alloc(&buffer, 1, MOST_BYTES, "messages between ranks"));
  HF_GO(out, hf_alloc(&c, (size_t)net_size(n), sizeof *c, "messages between ranks"));
  st = net_rank(n) > 0 ? answer(n, buffer) : measure_all(n, common, machine, buffer, c);
out:
  if (st != HF_LOST) free(buffer); /* net.h: else MPI may still use it */
  free(c);
  return st;
}
