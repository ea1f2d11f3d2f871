/* mirror.c: see mirror.h. What is to be copied stands in the slots themselves (page, want); the ring says in which order, each slot in it once at most, so
 * that nothing is allocated while requests run. In a file a slot lies as in memory; only the thread calls the file system, also to read, so that a call that
 * does not come back holds up the thread alone: whoever waits for it looks at the time. */
#include "executor/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

typedef struct {
  bool taken, queued;
  uint32_t life; /* counts takings: a copy that comes too late is seen by it */
  int32_t page;
  int want, have;     /* tokens that the page has, that the slot has */
  int good, at_check; /* of them trusted; to be trusted if the check at work finds the device good */
} slot;

static const int64_t FILE_LIMIT_NS = 10000000000; /* of one call */
static mirror_file_ops files = {pwrite, pread, FILE_LIMIT_NS};

void mirror_set_file_ops(const mirror_file_ops *ops) {
  files = ops ? *ops : (mirror_file_ops){pwrite, pread, FILE_LIMIT_NS};
}

struct mirror {
  engine *e;
  int n_slots, n_free, n_pages, page_tokens, n_layers;
  size_t page_bytes;
  char *ram; /* [n_slots][page_bytes]; NULL: fd */
  int fd;
  char *copied, *read; /* [page_bytes] with a file: of the thread, of the driver */
  slot *slot;
  int32_t *free; /* stack */
  int32_t *ring;
  int head, n_ring;
  int32_t *last;            /* [n_pages] slot that the page is, or was, copied to last; -1 */
  int32_t at_slot, at_page; /* of the copy at work, -1: none; the page is read, the slot written */
  int32_t read_slot;        /* the driver wants its first read_n tokens in `read`; -1: nothing, or it has come */
  int read_n, read_error;   /* error: errno of it, 0 = it has come */
  int64_t call_ns;          /* when the call of the file system at work began; 0: none is */
  bool stuck, orphan;       /* a call did not come back in time; nobody but the thread knows of the mirror any more */
  bool stop, failed;
  char why[160];
  mirror_traffic traffic;
  bool started;
  pthread_t thread;
  pthread_mutex_t lock; /* guards all of the above that changes */
  pthread_cond_t work, done;
};

static size_t grains(const mirror *m, int tokens) {
  const int g = engine_kv_grain(m->e);
  return (size_t)((tokens + g - 1) / g * g);
}

static void note_call(mirror *m, bool begins) {
  const int error = errno;
  pthread_mutex_lock(&m->lock);
  m->call_ns = begins ? hf_now_ns() : 0;
  pthread_mutex_unlock(&m->lock);
  errno = error;
}

/* Of a slot, tokens [from, to) of all layers, between the file and memory. */
static bool file_moves(mirror *m, int32_t s, int from, int to, char *page, bool write) {
  const int g = engine_kv_grain(m->e);
  const size_t layer = m->page_bytes / (size_t)m->n_layers, row = layer / (size_t)m->page_tokens;
  const size_t at = (size_t)(from / g * g) * row, bytes = grains(m, to) * row - at;
  for (int l = 0; l < m->n_layers; l++) {
    const size_t in_page = (size_t)l * layer + at;
    for (size_t k = 0; k < bytes;) {
      const off_t to_file = (off_t)((size_t)s * m->page_bytes + in_page + k);
      note_call(m, true);
      const ssize_t n = write ? files.write(m->fd, page + in_page + k, bytes - k, to_file)
                              : files.read(m->fd, page + in_page + k, bytes - k, to_file);
      note_call(m, false);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        if (n == 0) errno = EIO;
        return false;
      }
      k += (size_t)n;
    }
  }
  return true;
}

/* With the lock. */
static void fail(mirror *m, const char *what) {
  if (!m->failed) snprintf(m->why, sizeof m->why, "its file cannot be %s: %s", what, strerror(errno));
  m->failed = true;
}

/* With the lock: whether the thread can be waited for. */
static bool moves(mirror *m) {
  if (!m->stuck && m->call_ns > 0 && hf_now_ns() - m->call_ns > files.limit_ns) {
    if (!m->failed) snprintf(m->why, sizeof m->why, "its file did not answer within %.3g s", (double)files.limit_ns * 1e-9);
    m->stuck = m->failed = true;
  }
  return !m->stuck;
}

/* With the lock: until something may have changed. */
static void wait_a_while(mirror *m) {
  enum { LOOK_NS = 20000000 };
  struct timespec at;
  if (m->ram) {
    pthread_cond_wait(&m->done, &m->lock); /* ends: each copy has a deadline */
    return;
  }
  clock_gettime(CLOCK_MONOTONIC, &at);
  at.tv_nsec += LOOK_NS;
  if (at.tv_nsec >= 1000000000) at.tv_nsec -= 1000000000, at.tv_sec++;
  pthread_cond_timedwait(&m->done, &m->lock, &at);
}

/* With the lock, which is given away while it copies. */
static void copy(mirror *m, int32_t i) {
  slot *s = &m->slot[i];
  const uint32_t life = s->life;
  const int from = s->have, to = s->want;
  const int32_t page = s->page;
  const int64_t start = hf_now_ns();
  char *host = m->ram ? m->ram + (size_t)i * m->page_bytes : m->copied;
  m->at_page = page;
  m->at_slot = i;
  pthread_mutex_unlock(&m->lock);
  hf_status st = engine_kv_save(m->e, page, from, to, host);
  hf_clear_error(); /* a device that is lost says so to the driver */
  pthread_mutex_lock(&m->lock);
  m->at_page = -1;
  pthread_cond_broadcast(&m->done);
  if (st == HF_OK && !m->ram) {
    pthread_mutex_unlock(&m->lock);
    const bool written = file_moves(m, i, from, to, host, true);
    const int error = errno;
    pthread_mutex_lock(&m->lock);
    errno = error;
    if (!written) fail(m, "written");
    if (!written) st = HF_MACHINE;
  }
  m->at_slot = -1;
  if (st == HF_OK && s->life == life && s->page == page) {
    s->have = to;
    m->traffic.tokens += to - from;
    m->traffic.bytes += (int64_t)(m->page_bytes / (size_t)m->page_tokens) * (to - from);
    m->traffic.busy_ns += hf_now_ns() - start;
  }
}

static void destroy(mirror *m) {
  pthread_cond_destroy(&m->work);
  pthread_cond_destroy(&m->done);
  pthread_mutex_destroy(&m->lock);
  if (m->fd >= 0) close(m->fd);
  free(m->ram);
  free(m->copied);
  free(m->read);
  free(m->slot);
  free(m->free);
  free(m->ring);
  free(m->last);
  free(m);
}

/* With the lock, which is given away while it reads. */
static void read_back(mirror *m) {
  const int32_t i = m->read_slot;
  const int n = m->read_n;
  pthread_mutex_unlock(&m->lock);
  const bool good = file_moves(m, i, 0, n, m->read, false);
  const int error = errno;
  pthread_mutex_lock(&m->lock);
  m->read_error = good ? 0 : error;
  m->read_slot = -1;
}

static void *run(void *arg) {
  mirror *m = arg;
  sigset_t not_here; /* a file over its limit is an error of its write, nothing more; the others are the driver's */
  sigemptyset(&not_here);
  sigaddset(&not_here, SIGXFSZ);
  sigaddset(&not_here, SIGINT);
  sigaddset(&not_here, SIGTERM);
  (void)pthread_sigmask(SIG_BLOCK, &not_here, NULL);
  engine_step_aside(m->e);
  pthread_mutex_lock(&m->lock);
  for (;;) {
    while (!m->stop && m->n_ring == 0 && m->read_slot < 0)
      pthread_cond_wait(&m->work, &m->lock); /* ends: work, or mirror_close */
    if (m->stop) break;
    if (m->read_slot >= 0) {
      read_back(m);
      pthread_cond_broadcast(&m->done);
      continue;
    }
    const int32_t i = m->ring[m->head];
    m->head = (m->head + 1) % m->n_slots;
    m->n_ring--;
    slot *s = &m->slot[i];
    s->queued = false;
    if (s->taken && s->page >= 0 && s->want > s->have && !m->failed) copy(m, i);
    pthread_cond_broadcast(&m->done);
  }
  const bool orphan = m->orphan;
  pthread_mutex_unlock(&m->lock);
  if (orphan) destroy(m);
  return NULL;
}

static hf_status open_file(mirror *m, const char *path) {
  m->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (m->fd < 0) return hf_fail(HF_INPUT, "KV mirror: %s cannot be made: %s", path, strerror(errno));
  (void)unlink(path);
  HF_TRY(hf_alloc(&m->copied, 1, m->page_bytes, "KV mirror"));
  return hf_alloc(&m->read, 1, m->page_bytes, "KV mirror");
}

static hf_status allocate(mirror *m, const char *path) {
  const size_t n = (size_t)m->n_slots;
  HF_TRY(hf_alloc(&m->slot, n, sizeof *m->slot, "KV mirror"));
  HF_TRY(hf_alloc(&m->free, n, sizeof *m->free, "KV mirror"));
  HF_TRY(hf_alloc(&m->ring, n, sizeof *m->ring, "KV mirror"));
  HF_TRY(hf_alloc(&m->last, (size_t)m->n_pages, sizeof *m->last, "KV mirror"));
  for (int i = 0; i < m->n_slots; i++) m->free[i] = m->n_slots - 1 - i;
  for (int i = 0; i < m->n_pages; i++) m->last[i] = -1;
  m->n_free = m->n_slots;
  if (path) return open_file(m, path);
  return hf_alloc(&m->ram, n, m->page_bytes, "KV mirror");
}

hf_status mirror_open(engine *e, const char *path, int n_slots, mirror **out) {
  const engine_options *o = engine_opts(e);
  mirror *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "KV mirror"));
  *m = (mirror){.e = e,
                .n_slots = n_slots,
                .n_pages = o->n_pages,
                .page_tokens = o->page_tokens,
                .n_layers = engine_config(e)->n_layers,
                .page_bytes = (size_t)engine_kv_page_bytes(engine_config(e), o),
                .fd = -1,
                .at_slot = -1,
                .at_page = -1,
                .read_slot = -1};
  pthread_condattr_t clock;
  pthread_condattr_init(&clock);
  pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
  pthread_mutex_init(&m->lock, NULL);
  pthread_cond_init(&m->work, NULL);
  pthread_cond_init(&m->done, &clock);
  pthread_condattr_destroy(&clock);
  hf_status st = n_slots < 1 ? hf_fail(HF_INPUT, "KV mirror: it has room for no page") : allocate(m, path);
  if (st == HF_OK && pthread_create(&m->thread, NULL, run, m)) st = hf_fail(HF_MACHINE, "KV mirror: no thread");
  if (st != HF_OK) {
    mirror_close(m);
    return st;
  }
  m->started = true;
  *out = m;
  return HF_OK;
}

void mirror_close(mirror *m) {
  if (!m) return;
  pthread_mutex_lock(&m->lock);
  m->stop = true;
  pthread_cond_signal(&m->work);
  while (m->started && !m->ram && (m->at_slot >= 0 || m->read_slot >= 0) && moves(m)) wait_a_while(m);
  m->orphan = m->started && m->stuck && (m->at_slot >= 0 || m->read_slot >= 0);
  const bool orphan = m->orphan;
  const pthread_t thread = m->thread;
  pthread_mutex_unlock(&m->lock);
  if (orphan) pthread_detach(thread);                 /* it has all that it needs, and frees it should its call ever come back */
  else if (m->started) pthread_join(m->thread, NULL); /* ends: a copy has a deadline */
  if (!orphan) destroy(m);
}

int32_t mirror_take(mirror *m) {
  if (m->n_free == 0) return -1;
  pthread_mutex_lock(&m->lock);
  const int32_t i = m->free[--m->n_free];
  slot *s = &m->slot[i];
  *s = (slot){.taken = true, .queued = s->queued, .life = s->life + 1, .page = -1};
  pthread_mutex_unlock(&m->lock);
  return i;
}

void mirror_give(mirror *m, int32_t i) {
  pthread_mutex_lock(&m->lock);
  slot *s = &m->slot[i];
  *s = (slot){.queued = s->queued, .life = s->life + 1, .page = -1};
  m->free[m->n_free++] = i;
  pthread_mutex_unlock(&m->lock);
}

int mirror_free_slots(const mirror *m) {
  return m->n_free;
}

int mirror_slots(const mirror *m) {
  return m->n_slots;
}

void mirror_save(mirror *m, int32_t i, int32_t page, int n) {
  pthread_mutex_lock(&m->lock);
  slot *s = &m->slot[i];
  s->page = page;
  s->want = n;
  m->last[page] = i;
  if (!s->queued && n > s->have && !m->failed) {
    s->queued = true;
    m->ring[(m->head + m->n_ring++) % m->n_slots] = i;
    pthread_cond_signal(&m->work);
  }
  pthread_mutex_unlock(&m->lock);
}

/* With the lock. */
static bool at_page(const mirror *m, int32_t page) {
  const int32_t i = m->last[page];
  return m->at_page == page || (i >= 0 && m->slot[i].queued && m->slot[i].page == page);
}

void mirror_wait(mirror *m, int32_t page) {
  pthread_mutex_lock(&m->lock);
  while (at_page(m, page) && moves(m)) wait_a_while(m);
  pthread_mutex_unlock(&m->lock);
}

void mirror_settle(mirror *m) {
  pthread_mutex_lock(&m->lock);
  while ((m->n_ring > 0 || m->at_slot >= 0) && moves(m)) wait_a_while(m);
  pthread_mutex_unlock(&m->lock);
}

int mirror_holds(mirror *m, int32_t i) {
  pthread_mutex_lock(&m->lock);
  while ((m->slot[i].queued || m->at_slot == i) && moves(m)) wait_a_while(m);
  const int n = m->slot[i].have;
  pthread_mutex_unlock(&m->lock);
  return n;
}

/* By the thread, whose calls of the file system may be waited for. */
static bool read_slot(mirror *m, int32_t i, int n) {
  pthread_mutex_lock(&m->lock);
  if (moves(m)) {
    m->read_slot = i;
    m->read_n = n;
    pthread_cond_signal(&m->work);
    while (m->read_slot >= 0 && moves(m)) wait_a_while(m);
    errno = m->read_error;
    if (!m->stuck && m->read_error) fail(m, "read");
  }
  const bool good = !m->stuck && !m->read_error;
  pthread_mutex_unlock(&m->lock);
  return good;
}

hf_status mirror_load(mirror *m, int32_t i, int32_t page, int n) {
  const char *host = m->ram ? m->ram + (size_t)i * m->page_bytes : m->read;
  if (!m->ram && !read_slot(m, i, n)) return hf_fail(HF_MACHINE, "KV mirror: %s", m->why);
  return engine_kv_load(m->e, page, 0, n, host);
}

void mirror_check(mirror *m) {
  pthread_mutex_lock(&m->lock);
  for (int i = 0; i < m->n_slots; i++) m->slot[i].at_check = m->slot[i].want;
  pthread_mutex_unlock(&m->lock);
}

void mirror_trust(mirror *m) {
  pthread_mutex_lock(&m->lock);
  for (int i = 0; i < m->n_slots; i++)
    if (m->slot[i].at_check > m->slot[i].good) m->slot[i].good = m->slot[i].at_check;
  pthread_mutex_unlock(&m->lock);
}

void mirror_device_gone(mirror *m, bool only_checked) {
  pthread_mutex_lock(&m->lock);
  for (int i = 0; i < m->n_slots; i++) m->slot[i].queued = false;
  m->n_ring = 0;
  while (m->at_slot >= 0 && moves(m)) wait_a_while(m);
  for (int i = 0; i < m->n_slots; i++) {
    slot *s = &m->slot[i];
    if (only_checked && s->have > s->good) s->have = s->good;
    s->want = s->good = s->have; /* whoever writes to it next is another device */
    s->at_check = 0;
    s->page = -1;
  }
  for (int i = 0; i < m->n_pages; i++) m->last[i] = -1;
  pthread_mutex_unlock(&m->lock);
}

const char *mirror_failed(mirror *m) {
  pthread_mutex_lock(&m->lock);
  (void)moves(m);
  const bool failed = m->failed;
  pthread_mutex_unlock(&m->lock);
  return failed ? m->why : NULL;
}

mirror_traffic mirror_get_traffic(mirror *m) {
  pthread_mutex_lock(&m->lock);
  const mirror_traffic t = m->traffic;
  pthread_mutex_unlock(&m->lock);
  return t;
}
