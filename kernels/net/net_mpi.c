/* net_mpi.c: net.h over MPI. */
#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/end.h"
#include "base/mem.h"
#include "kernels/net/net.h"

/* MPI moves a long message piece by piece, as often as it is asked: four times a breath, TCP over loopback moves 16 MB at 4.0 instead of 2.9 GB/s. */
enum { TESTS = 4 };

struct net {
  int rank, size;
  bool lost;
  pthread_mutex_t lock;
  MPI_Request request[NET_MESSAGES];
  bool used[NET_MESSAGES];
};

static hf_status said(int code, const char *what) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int n = 0;
  if (code == MPI_SUCCESS) return HF_OK;
  MPI_Error_string(code, text, &n);
  return hf_fail(HF_MACHINE, "MPI: %s: %s", what, text);
}

static void too_long(int sig) {
  (void)sig;
  hf_end("mpirun", "not all ranks have come within two minutes; start again");
}

/* MPI's own beginning and end have no deadline. */
static void guard(struct sigaction *old) {
  const struct sigaction sa = {.sa_handler = too_long};
  sigaction(SIGALRM, &sa, old);
  alarm(NET_EDGE_S);
}

static void guard_end(const struct sigaction *old) {
  alarm(0);
  sigaction(SIGALRM, old, NULL);
}

hf_status net_open(net **out) {
  net *n;
  int level = MPI_THREAD_SINGLE;
  struct sigaction old;
  *out = NULL;
  HF_TRY(hf_alloc(&n, 1, sizeof *n, "ranks"));
  pthread_mutex_init(&n->lock, NULL);
  guard(&old);
  hf_status st = said(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level), "start");
  guard_end(&old);
  if (st == HF_OK && level < MPI_THREAD_SERIALIZED)
    st = hf_fail(HF_UNSUPPORTED, "MPI: was built for programs of one thread (level %d)", level);
  if (st == HF_OK) st = said(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "error handler");
  if (st == HF_OK) st = said(MPI_Comm_rank(MPI_COMM_WORLD, &n->rank), "rank");
  if (st == HF_OK) st = said(MPI_Comm_size(MPI_COMM_WORLD, &n->size), "ranks");
  if (st != HF_OK) {
    free(n);
    return st;
  }
  *out = n;
  return HF_OK;
}

void net_lose(net *n) {
  n->lost = true;
}

void net_close(net *n, int status) {
  struct sigaction old;
  if (!n) return;
  if (n->lost) {
    fflush(NULL);
    if (n->rank == 0) MPI_Abort(MPI_COMM_WORLD, status);
    _exit(status); /* MPI_Finalize would wait for all ranks */
  }
  guard(&old);
  MPI_Finalize();
  guard_end(&old);
  pthread_mutex_destroy(&n->lock);
  free(n);
}

int net_rank(const net *n) {
  return n->rank;
}
int net_size(const net *n) {
  return n->size;
}

/* Slot 0 is "none". */
static hf_status take_slot(net *n, int *slot) {
  for (int i = 1; i < NET_MESSAGES; i++) {
    if (n->used[i]) continue;
    n->used[i] = true;
    *slot = i;
    return HF_OK;
  }
  return hf_fail(HF_MACHINE, "%d messages between ranks at once are too many", NET_MESSAGES - 1);
}

static hf_status begin(net *n, int rank, int tag, void *data, size_t bytes, bool send, net_message *out) {
  out->slot = 0;
  if (bytes > INT_MAX) return hf_fail(HF_INPUT, "a message of %zu bytes between ranks is too long", bytes);
  pthread_mutex_lock(&n->lock);
  hf_status st = take_slot(n, &out->slot);
  MPI_Request *q = &n->request[out->slot];
  if (st == HF_OK && send) st = said(MPI_Isend(data, (int)bytes, MPI_BYTE, rank, tag, MPI_COMM_WORLD, q), "send");
  else if (st == HF_OK) st = said(MPI_Irecv(data, (int)bytes, MPI_BYTE, rank, tag, MPI_COMM_WORLD, q), "receive");
  if (st != HF_OK) n->used[out->slot] = false;
  pthread_mutex_unlock(&n->lock);
  return st;
}

hf_status net_send(net *n, int rank, int tag, const void *data, size_t bytes, net_message *out) {
  return begin(n, rank, tag, (void *)(uintptr_t)data, bytes, true, out);
}

hf_status net_receive(net *n, int rank, int tag, void *data, size_t room, net_message *out) {
  return begin(n, rank, tag, data, room, false, out);
}

hf_status net_test(net *n, net_message *m, bool *done, size_t *bytes) {
  MPI_Status status;
  int flag = 0, count = 0;
  *done = m->slot == 0;
  if (*done) return HF_OK;
  pthread_mutex_lock(&n->lock);
  hf_status st = HF_OK;
  for (int i = 0; i < TESTS && !flag && st == HF_OK; i++) st = said(MPI_Test(&n->request[m->slot], &flag, &status), "message");
  if (st == HF_OK && flag && bytes) st = said(MPI_Get_count(&status, MPI_BYTE, &count), "message");
  if (st != HF_OK || flag) {
    n->used[m->slot] = false;
    m->slot = 0;
  }
  pthread_mutex_unlock(&n->lock);
  *done = flag;
  if (bytes) *bytes = (size_t)count;
  return st;
}

hf_status net_wait(net *n, net_message *m, int64_t timeout_ns, size_t *bytes) {
  const int64_t start = hf_now_ns();
  for (bool done = false;;) {
    HF_TRY(net_test(n, m, &done, bytes));
    if (done) return HF_OK;
    const int64_t waited = hf_now_ns() - start;
    if (waited > timeout_ns) return hf_fail(HF_LOST, "no message between ranks for %.3g s", (double)waited * 1e-9);
    net_breathe(waited);
  }
}
