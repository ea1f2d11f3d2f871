/* bench.c: how a point is timed, and where results gather. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/stats.h"
#include "profiler/memory.h"
#include "profiler/profile.h"

enum { BESIDE_BYTES = 128 << 20 };

/* quick: a table for a demo in seconds; full: steadier medians. */
static const struct {
  int64_t point_ns;
  int least, most;
} modes[2] = {{60000000, 7, 63}, {6000000, 5, 31}};

bool prof_over_budget(const profile *p) {
  return hf_now_ns() > p->group_end_ns;
}

/* Beside other programs everything takes longer: from here on only what plans hang on. */
bool prof_late(const profile *p) {
  static const double late_s[2] = {200, 13};
  return p->started_ns > 0 && (double)(hf_now_ns() - p->started_ns) > 1e9 * late_s[p->o.quick];
}

/* How often the operating system has taken the CPU away from a thread of this process. */
static long preemptions(void) {
  struct rusage u;
  return getrusage(RUSAGE_SELF, &u) == 0 ? u.ru_nivcsw : 0;
}

/* A sample during which a thread lost its CPU to another program says nothing about the machine: such samples count only when
 * there are not enough others within four times the point's time. */
static stats time_once(profile *p, prof_sample_fn *sample, void *user) {
  double clean[STATS_MAX], all[STATS_MAX];
  int n_clean = 0, n_all = 0, least = prof_late(p) ? 2 : prof_over_budget(p) ? 3 : modes[p->o.quick].least;
  int64_t point_ns = modes[p->o.quick].point_ns * p->point_times;
  int64_t until = hf_now_ns() + point_ns, give_up = until + (prof_over_budget(p) ? 0 : 3 * point_ns);
  long seen = preemptions();
  for (bool more = true; more;) {
    double x = all[n_all++] = sample(user);
    long now = preemptions();
    if (now == seen) clean[n_clean++] = x;
    seen = now;
    int64_t t = hf_now_ns();
    more = n_clean < least ? t < give_up || n_all < least : n_clean < modes[p->o.quick].most && t < until;
    more = more && n_all < STATS_MAX;
  }
  return n_clean >= 3 ? stats_of(clean, n_clean) : stats_of(all, n_all);
}

/* Memory before a point and after it; the faster of the two, as a moment's other program makes one of them slow and no kernel faster. */
static void look_at_memory(profile *p, double *before) {
  const double now = p->beside ? mem_probe_pass(p->beside, pool_threads(p->pools[0])) : 0;
  p->bytes_per_s = fmax(*before, now);
  *before = now;
}

static const double POSSIBLE_READ = 1.1, MOST_APART = 2.5;

/* The factor on a point's time that makes its reading that of the stated rate. */
static double to_stated_rate(const profile *p, const rec_kernel_point *k, double ns) {
  const double stated = rec_read_rate(p->figure, p->n_figure, k->threads), now = p->bytes_per_s;
  if (k->threads < 2 || k->threads != pool_threads(p->pools[0]) || p->from_cache || k->load[0] != '\0') return 1;
  if (!(stated > 0) || !(now > 0) || !(ns > 0) || k->bytes <= 0) return 1;
  const double bytes = 1e9 * (double)k->bytes;
  /* what reads faster than memory was seen to be read says that the look was disturbed, or comes from cache */
  if (bytes / ns > POSSIBLE_READ * now || now > MOST_APART * stated || stated > MOST_APART * now) return 1;
  return hf_at_read_rate(ns, bytes / now, bytes / stated) / ns;
}

/* The bar counts seconds: points differ a thousandfold in length. */
static void advance(profile *p) {
  int64_t s = (hf_now_ns() - p->started_ns) / 1000000000;
  hf_progress_add(&p->bar, s > p->bar.done && s < p->bar.total ? s - p->bar.done : 0);
}

stats prof_time(profile *p, prof_sample_fn *sample, void *user) {
  int most = p->o.quick ? 1 : 2; /* repeats */
  double before = 0;
  look_at_memory(p, &before);
  (void)sample(user); /* page faults, cold caches, parked threads */
  stats s = time_once(p, sample, user);
  bool slow = watch_look(&p->clock);
  for (int i = 0; i < most && (stats_noisy(&s) || slow) && !prof_over_budget(p); i++) {
    stats again = time_once(p, sample, user);
    bool slow_again = watch_look(&p->clock);
    if (slow == slow_again) s = stats_better(&s, &again);
    else if (slow) s = again;
    slow = slow && slow_again;
  }
  look_at_memory(p, &before);
  advance(p);
  return s;
}

/* --- units ------------------------------------------------------------------------------------------------------------- */

static hf_status restore(profile *p, const journal_unit *u) {
  for (int i = 0; i < u->n_figure; i++) {
    rec_figure *f = NULL;
    HF_TRY(prof_add_figure(p, "", "", "", "", &(stats){0}, ""));
    f = &p->figure[p->n_figure - 1];
    *f = u->figure[i];
  }
  for (int i = 0; i < u->n_point; i++) {
    HF_TRY(prof_add_point(p, &u->point[i], &(stats){0}));
    p->point[p->n_point - 1] = u->point[i];
  }
  return HF_OK;
}

bool prof_unit_begin(profile *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(p->unit, sizeof p->unit, fmt, args);
  va_end(args);
  p->unit_figure = p->n_figure;
  p->unit_point = p->n_point;
  const journal_unit *u = journal_find(p->journal, p->unit);
  if (!u) return true;
  if (restore(p, u) == HF_OK) return false;
  hf_clear_error(); /* no memory for old rows: measuring will say so */
  p->n_figure = p->unit_figure;
  p->n_point = p->unit_point;
  return true;
}

hf_status prof_unit_end(profile *p) {
  journal_put(p->journal, p->unit, p->figure + p->unit_figure, p->n_figure - p->unit_figure, p->point + p->unit_point,
              p->n_point - p->unit_point);
  return HF_OK;
}

static const double SLOWER_THAN_ONE = 0.67;

bool prof_impossible(const profile *p, int from) {
  for (int i = from; i < p->n_figure; i++) {
    int threads = 0;
    double over = rec_figure_over_linear(p->figure, p->n_figure, i, &threads);
    if (over > REC_POSSIBLE || (over > 0 && over * threads < SLOWER_THAN_ONE)) return true;
  }
  return false;
}

static bool out_of_order(const profile *p, int i) {
  static const double MOST = 1.25;
  for (int j = i + 1; j < p->n_point; j++)
    if (p->point[i].ns > MOST * p->point[j].ns) return true;
  return false;
}

void prof_in_order(profile *p, int from, prof_again_fn *again, void *user) {
  for (int tries = 1, n = 1; tries < PROF_TRIES && n > 0; tries++) {
    n = 0;
    for (int i = from; i < p->n_point; i++) {
      if (!out_of_order(p, i)) continue;
      rec_kernel_point *k = &p->point[i];
      stats s = again(p, user, k);
      const double f = to_stated_rate(p, k, s.median);
      s.low *= f, s.median *= f, s.high *= f;
      n++;
      k->n += s.n;
      if (!(s.median > 0) || s.median >= k->ns) continue;
      k->ns_low = s.low;
      k->ns = s.median;
      k->ns_high = s.high;
      k->spread = s.spread;
    }
  }
}

void prof_mark_doubtful(profile *p, int from) {
  for (int i = from; i < p->n_figure; i++) {
    rec_figure *f = &p->figure[i];
    int threads = 0;
    double over = rec_figure_over_linear(p->figure, p->n_figure, i, &threads);
    bool slow = over > 0 && over * threads < SLOWER_THAN_ONE;
    if (!(over > REC_POSSIBLE) && !slow) continue;
    size_t used = strlen(f->source);
    f->low = fmin(f->low, f->likely / over);
    if (slow) f->low = fmin(f->low, f->likely);
    if (slow) f->high = fmax(f->high, f->likely / (over * threads)); /* what one thread did */
    f->spread = (f->high - f->low) / f->likely;
    snprintf(f->source + used, sizeof f->source - used, "; doubtful: %.1f times one thread's", over * threads);
    hf_log(HF_LOG_WARN,
           "%s: %s of %d threads came out %.1f times that of one thread, which cannot be: stored as doubtful; measure again when "
           "no other program runs",
           f->device, f->what, threads, over * threads);
  }
}

void prof_more_time(profile *p) {
  int64_t end = hf_now_ns() + 30 * modes[p->o.quick].point_ns;
  if (p->group_end_ns < end) p->group_end_ns = end;
}

static void copy(char *out, size_t n, const char *s) {
  snprintf(out, n, "%s", s);
}

hf_status prof_add_figure(profile *p, const char *device, const char *what, const char *params, const char *unit, const stats *s,
                          const char *source) {
  if (p->n_figure == p->cap_figure) {
    int cap = p->cap_figure ? 2 * p->cap_figure : 64;
    HF_TRY(hf_realloc(&p->figure, (size_t)cap, sizeof *p->figure, "figures"));
    p->cap_figure = cap;
  }
  rec_figure *f = &p->figure[p->n_figure++];
  *f = (rec_figure){.low = s->low, .likely = s->median, .high = s->high, .spread = s->spread, .n = s->n, .tag = TAG_MEASURED};
  copy(f->device, sizeof f->device, device);
  copy(f->what, sizeof f->what, what);
  copy(f->params, sizeof f->params, params);
  copy(f->unit, sizeof f->unit, unit);
  copy(f->source, sizeof f->source, source);
  return HF_OK;
}

hf_status prof_add_point(profile *p, const rec_kernel_point *k, const stats *s) {
  if (p->n_point == p->cap_point) {
    int cap = p->cap_point ? 2 * p->cap_point : 256;
    HF_TRY(hf_realloc(&p->point, (size_t)cap, sizeof *p->point, "kernel points"));
    p->cap_point = cap;
  }
  rec_kernel_point *own = &p->point[p->n_point++];
  *own = *k;
  const double f = to_stated_rate(p, k, s->median);
  own->ns_low = f * s->low;
  own->ns = f * s->median;
  own->ns_high = f * s->high;
  own->spread = s->spread;
  own->n = s->n;
  own->tag = TAG_MEASURED;
  copy(own->device, sizeof own->device, "cpu");
  return HF_OK;
}

void prof_random(float *x, int n, uint64_t seed) {
  uint64_t z = seed * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < n; i++) {
    z ^= z << 13;
    z ^= z >> 7;
    z ^= z << 17;
    x[i] = (float)((double)(z >> 11) / 9007199254740992.0 - 0.5);
  }
}

void prof_random_weights(kern_format f, int n_cols, int64_t n_rows, char *out) {
  enum { DISTINCT = 16 }; /* rows that differ; the rest repeats them: what matters is that the bytes are ordinary numbers */
  size_t row_bytes = kern_row_bytes(f, n_cols);
  for (int64_t r = 0; r < n_rows; r++) {
    if (r < DISTINCT) kern_random_row(f, (uint64_t)r + 7, 0.05f, n_cols, out + (size_t)r * row_bytes);
    else memcpy(out + (size_t)r * row_bytes, out + (size_t)(r % DISTINCT) * row_bytes, row_bytes);
  }
}

/* --- the session --------------------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  hf_status (*run)(profile *p);
  double quick_s, full_s; /* budget on two cores */
  int point_times;        /* points of this group get so many times the usual time: there are few, and much hangs on them */
} groups[] = {
    {"dram", prof_dram, 1, 10, 20},      {"memory", prof_memory, 1, 15, 6}, {"fixed", prof_fixed, 1, 5, 3},
    {"experts", prof_experts, 6, 90, 1}, {"matmul", prof_matmul, 4, 70, 1}, {"attention", prof_attention, 1.5, 25, 1},
    {"norm", prof_norm, 0.3, 2, 1},      {"dma", prof_dma, 2.5, 25, 6},     {"peaks", prof_peaks, 0.5, 5, 1},
};
enum { N_GROUPS = sizeof groups / sizeof groups[0] };

static hf_status check_group(const char *name) {
  char list[128] = "";
  for (int i = 0; i < N_GROUPS; i++) {
    if (!name || strcmp(name, groups[i].name) == 0) return HF_OK;
  }
  for (int i = 0; i < N_GROUPS; i++) {
    strncat(list, i ? ", " : "", sizeof list - strlen(list) - 1);
    strncat(list, groups[i].name, sizeof list - strlen(list) - 1);
  }
  return hf_fail(HF_INPUT, "option --only: '%.40s' is no group; the groups are %s", name, list);
}

static hf_status add_pool(profile *p, int threads) {
  for (int i = 0; i < p->n_pools; i++) {
    if (pool_threads(p->pools[i]) == threads) return HF_OK;
  }
  HF_TRY(pool_new(p->topo, threads, &p->pools[p->n_pools]));
  p->n_pools++;
  return HF_OK;
}

hf_status prof_new(const prof_options *o, const topology *topo, const char *model_or_null, profile **out) {
  profile *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "the profile"));
  p->o = *o;
  p->topo = topo;
  hf_status st = check_group(o->only);
  if (st == HF_OK) st = prof_shapes_for(model_or_null, &p->shapes);
  int all = o->threads;
  for (int i = 0; i < topo->n_nodes && !o->threads; i++) all += topo->node[i].n_cores;
  if (all < 1) all = 1;
  /* With a virtual device one thread is the device's and the pool has the others, so these two counts are asked for as well. */
  if (st == HF_OK) st = add_pool(p, all);
  if (st == HF_OK && all > 2) st = add_pool(p, all - 1);
  if (st == HF_OK && all > 1) st = add_pool(p, 1);
  if (st == HF_OK && !memory_is_pretended(topo)) st = mem_probe_new(p->pools[0], BESIDE_BYTES, &p->beside);
  if (st != HF_OK) {
    prof_free(p);
    return st;
  }
  *out = p;
  return HF_OK;
}

void prof_free(profile *p) {
  if (!p) return;
  mem_probe_free(p->beside);
  for (int i = 0; i < p->n_pools; i++) pool_free(p->pools[i]);
  free(p->figure);
  free(p->point);
  free(p);
}

static bool wanted(const profile *p, int group) {
  return !p->o.only || strcmp(p->o.only, groups[group].name) == 0;
}

static double budget_s(const profile *p, int group) {
  return p->o.quick ? groups[group].quick_s : groups[group].full_s;
}

static hf_status add_watch(profile *p) {
  watch *w = &p->clock;
  int n = w->n < STATS_MAX ? w->n : STATS_MAX; /* evenly over the whole run */
  if (n == 0) return HF_OK;
  for (int i = 0; i < n; i++) w->hz[i] = w->hz[(int64_t)i * w->n / n];
  stats s = stats_of(w->hz, n);
  HF_TRY(prof_add_figure(p, "cpu", "cpu_clock_hz", "", "Hz", &s,
                         "hf-profile: dependent multiplications of 3 cycles, after every point"));
  if (w->slow * 10 > w->n)
    hf_log(HF_LOG_WARN, "the clock was a tenth below its best after %d of %d points: this machine throttles, or shares its cores",
           w->slow, w->n);
  long events = watch_throttled(w);
  if (events < 0) return HF_OK;
  if (events > 0) hf_log(HF_LOG_WARN, "thermal throttling: %ld events while it was measured", events);
  s = (stats){.median = (double)events, .low = (double)events, .high = (double)events, .n = 1};
  return prof_add_figure(p, "cpu", "cpu_throttle_events", "", "1", &s, "Linux: core and package throttle counts");
}

hf_status prof_run(profile *p) {
  double all_s = 0;
  for (int i = 0; i < N_GROUPS; i++) all_s += wanted(p, i) ? budget_s(p, i) : 0;
  p->started_ns = hf_now_ns();
  watch_begin(&p->clock);
  hf_progress_begin(&p->bar, "profile", "s", (int64_t)all_s + 1);
  hf_status st = HF_OK;
  for (int i = 0; i < N_GROUPS && st == HF_OK; i++) {
    if (!wanted(p, i)) continue;
    p->bar.label = groups[i].name;
    p->point_times = groups[i].point_times;
    p->group_end_ns = hf_now_ns() + (int64_t)(budget_s(p, i) * 1e9);
    int64_t from = hf_now_ns();
    st = hf_note(groups[i].run(p), "measuring %s", groups[i].name);
    hf_log(HF_LOG_DEBUG, "group %s: %.1f s", groups[i].name, (double)(hf_now_ns() - from) / 1e9);
  }
  hf_progress_end(&p->bar);
  if (prof_late(p))
    hf_log(HF_LOG_INFO,
           "other programs made this slow: points that plans can do without were left out, and the rest has fewer samples");
  return st == HF_OK ? add_watch(p) : st;
}
