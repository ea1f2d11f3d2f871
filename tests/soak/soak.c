/* soak SECONDS [SEED]: random requests through the loop that serves (executor/serve.c) on tiny models of several families, for as long as is asked.
 *
 * Up to 64 sequences join and leave; prompts of any length that begin alike or not, answers that end by length, by a stop or because whoever asked
 * is gone (waiting, in a prompt, in an answer), greedy or drawn, with few or many KV pages, depth 1 to 3, with and without a virtual device, with and without
 * a KV mirror, in memory or a file, where sessions park between their turns.
 *
 * Looked at all the time: after every step each KV page is held by exactly the sequences that list it and by the tree of known beginnings, and is
 * free if and only if nobody holds it; after every serving no page is lost, and no slot of the mirror; of every serving some answers are compared with what the same request
 * gets alone, in another engine with the same placement, without sharing; resident memory, at the end of each engine, does not grow. What a soak claims to have seen it must
 * have seen: 64 sequences at once, shared beginnings, each way to end. Exit status 1 and the seed of the serving when something is wrong.
 *
 * The course of time decides who meets whom, so a seed brings the same requests again, not the same steps. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/serve.h"

enum {
  MOST_PROMPT = 120,
  MOST_OUT = 40,
  CONTEXT = 160,
  REQUESTS = 160,
  SESSIONS = 24,
  STEMS = 6,
  COMPARED = 6,
  SEQS = 64,
  MOST_PAGES = SEQS * CONTEXT / 4
};

static const char FILE_NAME[] = "soak.kv";
static const char *const model_of[] = {"tests/golden/deepseek_v3", "tests/golden/qwen3_moe", "tests/golden/gpt_oss",
                                       "tests/golden/glm4_moe"};
enum { MODELS = sizeof model_of / sizeof *model_of };

typedef struct {
  int32_t ids[MOST_PROMPT], out[MOST_OUT];
  int32_t own[12]; /* of a turn: what comes behind the one before */
  int n_own;
  int stop_at;       /* the answer ends at a token that leaves this remainder by 16; -1: at none */
  int gone_after;    /* gone once it has this many tokens; 0: before the first; -1: stays */
  double patience_s; /* with gone_after 0: how long it waits */
} asker;

typedef struct {
  uint64_t random;
  model *m;
  engine *e, *alone;
  engine_options o;
  prefix *known; /* with a mirror: the one that goes with it */
  standby *beside;
  serve_request req[REQUESTS];
  asker asker[REQUESTS];
  char session[SESSIONS][8];
  int64_t start_ns;
  int held[MOST_PAGES];
  int wrong, most_running, open; /* open: requests of this serving that have no end yet */
  int64_t servings, requests, by_length, by_stop, gone_waiting, gone_running, compared, shared, prompts, outputs, steps;
  int64_t turns, restored, parked, left_out;
} soak;

static uint64_t draw(soak *k) { /* splitmix64 */
  uint64_t x = k->random += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static int below(soak *k, int n) {
  return (int)(draw(k) % (uint64_t)n);
}

static double share(soak *k) {
  return (double)(draw(k) >> 11) / 9007199254740992.0;
}

static void complain(soak *k, const char *what, const serve_request *r) {
  if (k->wrong++ < 20) fprintf(stderr, "soak: %s%s%s\n", what, r ? ": request " : "", r ? r->ext_id : "");
}

/* ---- what is asked ---- */

/* The request becomes the next turn of a session, where that leaves room for it: behind the turn before and its answer come its own tokens. */
static void join_session(soak *k, int i, int32_t last[SESSIONS]) {
  const int s = below(k, SESSIONS);
  serve_request *r = &k->req[i];
  const serve_request *before = last[s] < 0 ? NULL : &k->req[last[s]];
  const int most = before ? before->n_ids + before->max_tokens : 0, own = 1 + below(k, 12);
  if (before && (most + own > MOST_PROMPT || most + own + r->max_tokens > CONTEXT)) return;
  snprintf(k->session[s], sizeof k->session[s], "%d", s);
  r->session = k->session[s];
  last[s] = i;
  if (!before) return;
  r->after = before;
  k->asker[i].n_own = r->n_ids < own ? r->n_ids : own;
  memcpy(k->asker[i].own, k->asker[i].ids, (size_t)k->asker[i].n_own * sizeof *k->asker[i].own);
  r->n_ids = most + k->asker[i].n_own;
}

static hf_status go_on(void *user, serve_request *r) {
  soak *k = user;
  const serve_request *before = r->after;
  asker *a = &k->asker[r - k->req];
  memcpy(a->ids, before->ids, (size_t)before->n_ids * sizeof *a->ids);
  memcpy(a->ids + before->n_ids, before->out, (size_t)before->n_out * sizeof *a->ids);
  memcpy(a->ids + before->n_ids + before->n_out, a->own, (size_t)a->n_own * sizeof *a->ids);
  r->n_ids = before->n_ids + before->n_out + a->n_own;
  k->turns++;
  return HF_OK;
}

static void make_requests(soak *k, double spread_s) {
  static int32_t stem[STEMS][MOST_PROMPT];
  const int vocab = model_get_config(k->m)->vocab_size;
  int32_t last[SESSIONS];
  for (int s = 0; s < SESSIONS; s++) last[s] = -1;
  for (int s = 0; s < STEMS; s++)
    for (int i = 0; i < MOST_PROMPT; i++) stem[s][i] = below(k, vocab);
  for (int i = 0; i < REQUESTS; i++) {
    asker *a = &k->asker[i];
    const int n = below(k, 3) ? 1 + below(k, 30) : 1 + below(k, MOST_PROMPT), from = below(k, STEMS);
    const int alike = below(k, 3) ? below(k, n + 1) : 0;
    for (int t = 0; t < n; t++) a->ids[t] = t < alike ? stem[from][t] : below(k, vocab);
    a->stop_at = below(k, 4) ? -1 : below(k, 16);
    a->gone_after = below(k, 5) ? -1 : below(k, 3) ? 1 + below(k, MOST_OUT) : 0;
    a->patience_s = share(k) * 0.05;
    k->req[i] = (serve_request){.ids = a->ids,
                                .n_ids = n,
                                .max_tokens = 1 + below(k, MOST_OUT),
                                .arrival_s = below(k, 4) ? share(k) * spread_s : 0, /* a quarter comes at once */
                                .ignore_eos = below(k, 2),
                                .draw = draw(k),
                                .out = a->out};
    snprintf(k->req[i].ext_id, sizeof k->req[i].ext_id, "%d", i);
    if (k->beside && below(k, 3)) join_session(k, i, last);
  }
}

static sample_options sampling(soak *k) {
  sample_options s = {.top_p = 1, .seed = draw(k)};
  if (below(k, 2)) return s; /* greedy */
  s.temperature = 0.3 + share(k);
  if (below(k, 2)) s.top_k = 1 + below(k, 40);
  if (below(k, 2)) s.top_p = 0.5 + share(k) / 2;
  if (below(k, 2)) s.min_p = share(k) / 10;
  if (below(k, 2)) s.repetition_penalty = 1 + share(k) / 2;
  return s;
}

/* ---- what is watched ---- */

static bool ends(void *user, serve_request *r, int32_t id) {
  const soak *k = user;
  const asker *a = &k->asker[atoi(r->ext_id)];
  return a->stop_at >= 0 && id % 16 == a->stop_at;
}

static bool gone(void *user, const serve_request *r) {
  const soak *k = user;
  const asker *a = &k->asker[r - k->req];
  if (a->gone_after > 0) return r->n_out >= a->gone_after;
  return a->gone_after == 0 && r->n_out == 0 && (double)(hf_now_ns() - k->start_ns) / 1e9 > r->arrival_s + a->patience_s;
}

static void on_finish(void *user, serve_request *r) {
  soak *k = user;
  k->open--;
  if (!strcmp(r->finish, "length")) k->by_length++;
  else if (!strcmp(r->finish, "stop")) k->by_stop++;
  else if (r->n_out == 0) k->gone_waiting++;
  else k->gone_running++;
}

/* Every page: holders are the sequences that list it and the tree; without holders it is free. */
static void on_sched(void *user, const sched *s) {
  soak *k = user;
  int used = 0;
  memset(k->held, 0, (size_t)k->o.n_pages * sizeof *k->held);
  for (int q = 0; q < k->o.max_seqs; q++) {
    int n;
    const int32_t *pages = sched_pages(s, q, &n);
    for (int i = 0; i < n; i++) k->held[pages[i]]++;
  }
  for (int32_t p = 0; p < k->o.n_pages; p++) {
    const int want = k->held[p] + (k->known && prefix_has(k->known, p));
    if (sched_holders(s, p) != want) complain(k, "a KV page has other holders than the sequences and the tree say", NULL);
    used += want > 0;
  }
  if (used + sched_pages_free(s) != k->o.n_pages) complain(k, "KV pages used and free are not all pages", NULL);
  /* At depth 1 no step is in flight now, so whoever is gone has left. */
  if (k->o.depth == 1 && sched_running(s) + sched_waiting(s) > k->open)
    complain(k, "the scheduler holds requests that have ended", NULL);
  if (!sched_check(s)) complain(k, "the scheduler's invariants are broken", NULL);
  if (sched_running(s) > k->most_running) k->most_running = sched_running(s);
}

/* The same request with nobody beside it: the same tokens, as far as its answer went. */
static hf_status compare_alone(soak *k, const serve_request *was, const serve_options *with) {
  int32_t out[MOST_OUT];
  serve_request r = *was;
  serve_stats st;
  serve_options o = {.sample = with->sample, .chunk_tokens = CONTEXT, .users = 1, .user = k, .ends = ends};
  r.out = out;
  r.arrival_s = 0;
  r.after = NULL;
  r.session = NULL;
  hf_status status = serve_run(k->alone, &r, 1, &o, &st);
  serve_stats_free(&st);
  HF_TRY(status);
  k->compared++;
  if (r.n_out < was->n_out || memcmp(out, was->out, (size_t)was->n_out * sizeof *out))
    complain(k, "other tokens than alone", was);
  if (strcmp(was->finish, "cancelled") && (r.n_out != was->n_out || strcmp(r.finish, was->finish)))
    complain(k, "another end than alone", was);
  return HF_OK;
}

static hf_status serve_once(soak *k, int users, int chunk) {
  const uint64_t seed = k->random;
  const int wrong = k->wrong;
  serve_stats st;
  const serve_options o = {.sample = sampling(k),
                           .chunk_tokens = chunk,
                           .users = users,
                           .user = k,
                           .ends = ends,
                           .gone = gone,
                           .on_finish = on_finish,
                           .on_sched = on_sched,
                           .known = k->known,
                           .go_on = k->beside ? go_on : NULL,
                           .standby = k->beside};
  make_requests(k, share(k) * 0.6);
  k->start_ns = hf_now_ns();
  k->open = REQUESTS;
  hf_status status = serve_run(k->e, k->req, REQUESTS, &o, &st);
  if (status == HF_OK && st.pages_lost) complain(k, "KV pages are lost at the end of a serving", NULL);
  if (status == HF_OK && st.slots_lost) complain(k, "slots of the KV mirror are lost at the end of a serving", NULL);
  k->restored += st.restored_tokens;
  k->parked += st.parked_tokens;
  k->servings++;
  k->requests += REQUESTS;
  k->shared += st.shared_tokens;
  k->prompts += st.prompt_tokens;
  k->outputs += st.output_tokens;
  k->steps += st.steps;
  serve_stats_free(&st);
  HF_TRY(status);
  for (int i = 0; i < REQUESTS; i++)
    if (!k->req[i].finish[0] || k->req[i].n_out > k->req[i].max_tokens) complain(k, "a request has no end", &k->req[i]);
  for (int n = 0; n < COMPARED; n++) HF_TRY(compare_alone(k, &k->req[below(k, REQUESTS)], &o));
  if (k->wrong > wrong)
    fprintf(
        stderr,
        "soak: in the serving of seed %llu: %s, %d users, chunks of %d, depth %d, %d pages of %d tokens, device %s (%g %%)%s\n",
        (unsigned long long)seed, model_get_config(k->m)->name, users, chunk, k->o.depth, k->o.n_pages, k->o.page_tokens,
        k->o.gpu, k->o.experts_on_gpu_percent,
        k->beside  ? ", sessions parked"
        : k->known ? ", beginnings shared"
                   : "");
  return HF_OK;
}

/* ---- an engine's life ---- */

static engine_options options(soak *k, int users, int chunk) {
  static const int page_of[] = {4, 8, 16};
  static const double on_device[] = {0, 50, 100};
  engine_options o = {.depth = 1 + below(k, 3),
                      .max_seqs = users,
                      .context = CONTEXT,
                      .page_tokens = page_of[below(k, 3)],
                      .max_tok = chunk + users,
                      .max_logits = users,
                      .threads = 1,
                      .kv_type = KV_F16};
  if (o.page_tokens >= KERN_KV_GROUP && below(k, 2)) o.kv_type = KV_Q8_0;
  const int each = CONTEXT / o.page_tokens;
  o.n_pages = below(k, 2) ? users * each : each * (1 + below(k, users)); /* room for all, or they wait for pages */
  snprintf(o.gpu, sizeof o.gpu, "none");
  if (below(k, 2)) {
    snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
    o.device_bytes = 64 << 20;
    o.experts_on_gpu_percent = on_device[below(k, 3)];
  }
  return o;
}

static hf_status live(soak *k) {
  const int users = below(k, 2) ? SEQS : 1 + below(k, SEQS), chunk = 1 + below(k, 64);
  k->o = options(k, users, chunk);
  engine_options one = k->o; /* the same placement: elsewhere sums are rounded in another order */
  one.depth = one.max_seqs = one.max_logits = 1;
  one.max_tok = CONTEXT + 1;
  if (one.page_tokens > KERN_KV_GROUP)
    one.page_tokens = KERN_KV_GROUP; /* smaller ones are laid out, and summed, in another order */
  one.n_pages = CONTEXT / one.page_tokens;
  HF_TRY(engine_open(k->m, &k->o, &k->e));
  HF_TRY(engine_open(k->m, &one, &k->alone));
  if (below(k, 2)) { /* with room for all that is parked, or for some */
    const int slots = below(k, 2) ? k->o.n_pages + SESSIONS * CONTEXT / k->o.page_tokens : 1 + below(k, k->o.n_pages);
    HF_TRY(standby_open(k->e, below(k, 2) ? FILE_NAME : NULL, slots, &k->beside));
    k->known = standby_known(k->beside);
  } else if (below(k, 2)) {
    HF_TRY(prefix_new(k->o.page_tokens, k->o.n_pages, &k->known));
  }
  for (int n = 1 + below(k, 4); n > 0; n--) HF_TRY(serve_once(k, users, chunk));
  /* Nobody is served: what is not free is in the tree, and comes out of it page by page, whole branches before their roots. */
  int in_tree = k->known ? prefix_pages(k->known) : 0, out = 0;
  while (k->known && prefix_forget(k->known, NULL, NULL) >= 0) out++;
  if (out != in_tree || (k->known && prefix_pages(k->known))) complain(k, "the tree does not give back its pages", NULL);
  if (!k->beside) return HF_OK;
  standby_stats now;
  standby_get_stats(k->beside, &now);
  if (now.slots_lost || now.failed[0]) complain(k, "slots of the KV mirror are lost, or it has failed", NULL);
  k->left_out += now.left_out_pages;
  prefix_clear(k->known);
  standby_get_stats(k->beside, &now);
  if (now.slots_lost || prefix_slots(k->known)) complain(k, "the tree does not give back its slots", NULL);
  return HF_OK;
}

static int64_t resident_bytes(void) {
  long pages = 0;
  malloc_trim(0);
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static hf_status one_life(soak *k) {
  HF_TRY(model_open(model_of[below(k, MODELS)], &k->m));
  hf_status st = live(k);
  if (!k->beside) prefix_free(k->known);
  standby_close(k->beside);
  engine_close(k->e);
  engine_close(k->alone);
  model_close(k->m);
  k->e = k->alone = NULL;
  k->known = NULL;
  k->beside = NULL;
  k->m = NULL;
  return st;
}

static void report(const soak *k, double s, int64_t rss) {
  printf("%6.0f s: %lld servings, %lld requests (%lld length, %lld stop, %lld gone before their first token, %lld later), %lld "
         "steps, %lld prompt "
         "tokens computed, %lld shared, %lld restored, %lld parked, %lld written, %lld turns of sessions, %lld answers equal "
         "alone, at most %d at once, %lld MiB resident, %d wrong\n",
         s, (long long)k->servings, (long long)k->requests, (long long)k->by_length, (long long)k->by_stop,
         (long long)k->gone_waiting, (long long)k->gone_running, (long long)k->steps, (long long)k->prompts, (long long)k->shared,
         (long long)k->restored, (long long)k->parked, (long long)k->outputs, (long long)k->turns, (long long)k->compared,
         k->most_running, (long long)(rss >> 20), k->wrong);
  fflush(stdout);
}

/* What the soak is to have seen. */
static void expect(soak *k, double seconds) {
  if (!k->shared || !k->by_length || !k->by_stop || !k->gone_waiting || !k->gone_running || !k->compared || !k->turns ||
      !k->restored || !k->parked)
    complain(k, "something never happened: see the last line", NULL);
  if (seconds >= 60 && k->most_running < SEQS) complain(k, "there were never 64 sequences at once", NULL);
}

int main(int argc, char **argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 0;
  const int64_t start = hf_now_ns();
  double next_report = seconds / 10;
  int64_t early = 0, late = 0; /* most resident memory in the second and in the last quarter of the time */
  hf_status st = kern_init(NULL);
  static soak k;
  if (seconds <= 0) {
    fprintf(stderr, "usage: soak SECONDS [SEED]\n");
    return 2;
  }
  k.random = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  double s = 0;
  while (st == HF_OK && s < seconds && !k.wrong) {
    st = one_life(&k);
    const int64_t rss = resident_bytes();
    s = (double)(hf_now_ns() - start) / 1e9;
    if (s >= seconds / 4 && s < seconds / 2 && rss > early) early = rss;
    if (s >= seconds * 3 / 4 && rss > late) late = rss;
    if (s >= next_report || s >= seconds) {
      report(&k, s, rss);
      next_report = s + seconds / 10;
    }
  }
  if (st != HF_OK) {
    fprintf(stderr, "soak: %s\n", hf_error_line());
    return 1;
  }
  expect(&k, seconds);
  if (early && late > early + early / 20 + (2 << 20)) complain(&k, "resident memory grows", NULL);
  printf("resident memory: at most %.1f MiB in the second quarter, %.1f MiB in the last\n%s\n", (double)early / (1 << 20),
         (double)late / (1 << 20), k.wrong ? "wrong" : "good");
  return k.wrong != 0;
}
