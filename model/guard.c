/* guard.c: which file a mapped address belongs to, told by a signal handler: nothing here may allocate or lock there. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/end.h"
#include "model/internal.h"

/* More than any published model has files; what finds no place ends the process by the signal, as without a guard. */
enum { MAX_GUARDED = 4096, PAGE = 4096 };

static struct {
  _Atomic uintptr_t begin; /* 0: free */
  uintptr_t end;
  const char *path; /* of the tensor set, which takes the entry away before it frees it */
} guarded[MAX_GUARDED];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void guard_add(const void *data, size_t bytes, const char *path) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MAX_GUARDED; i++) {
    if (atomic_load(&guarded[i].begin) != 0) continue;
    guarded[i].end = (uintptr_t)data + (bytes + PAGE - 1) / PAGE * PAGE;
    guarded[i].path = path;
    atomic_store(&guarded[i].begin, (uintptr_t)data);
    break;
  }
  pthread_mutex_unlock(&lock);
}

void guard_remove(const void *data) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < MAX_GUARDED; i++)
    if (atomic_load(&guarded[i].begin) == (uintptr_t)data) atomic_store(&guarded[i].begin, 0);
  pthread_mutex_unlock(&lock);
}

static void on_bus_error(int sig, siginfo_t *info, void *context) {
  (void)context;
  const uintptr_t at = (uintptr_t)info->si_addr;
  const bool faulted = info->si_code > 0; /* else somebody sent it */
  for (int i = 0; i < MAX_GUARDED && faulted; i++) {
    uintptr_t begin = atomic_load(&guarded[i].begin);
    if (begin == 0 || at < begin || at >= guarded[i].end) continue;
    hf_end(guarded[i].path,
           "has become shorter while it was in use, or its disk fails; replace weight files instead of writing into them");
  }
  signal(sig,
         SIG_DFL); /* not ours: the instruction is tried again, or the signal sent again, and ends the process as it would have */
  if (!faulted) raise(sig);
}

void model_guard_mappings(void) {
  struct sigaction sa = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
  sigaction(SIGBUS, &sa, NULL);
}
