/* net.h: messages between the processes of one job that mpirun has started (Open MPI or another MPI; the transport is MPI's).
 *
 * Ownership: memory given to net_send and net_receive is MPI's until net_test says that the message is done; after HF_LOST it is MPI's for ever, for a
 * message to a rank that is gone cannot be called back: the caller keeps it until the process ends.
 * Threads: any; calls exclude each other (MPI_THREAD_SERIALIZED). None of them but net_wait, net_open and net_close waits.
 * Deadlines: net_wait has one. net_open and net_close, in which MPI waits for all ranks, end the process (base/end.h) after NET_EDGE_S seconds.
 * Errors: HF_MACHINE with what MPI says. A rank that is gone is in general no error of MPI's: its messages just never end, so it is a deadline that tells
 * (HF_LOST). mpirun ends the other ranks when one dies, unless it was started with --enable-recovery (docs/design.md).
 * Order: messages of one sender with one tag arrive in the order in which they were sent. */
#ifndef HF_KERNELS_NET_H
#define HF_KERNELS_NET_H

#include "base/status.h"

enum { NET_EDGE_S = 120, NET_MESSAGES = 256 /* at a time */ };

typedef struct net net;
typedef struct {
  int slot; /* 0: none */
} net_message;

/* Whether mpirun (srun, mpiexec) has started this process beside others, from its environment; the rank that it gave, -1 = none. */
bool net_started(void);
int net_started_rank(void);

/* HF_UNSUPPORTED in a build without MPI. Once in a process. */
HF_MUST hf_status net_open(net **out);
/* Waits for all ranks to come here, too. After net_lose it does not: rank 0 ends the job (`status` is the exit status that mpirun then has), another
 * rank itself. */
void net_close(net *n, int status);
/* A rank is gone or silent for good: MPI's own end would wait for it. */
void net_lose(net *n);

int net_rank(const net *n);
int net_size(const net *n);

/* HF_INPUT above 2 GiB less one byte. */
HF_MUST hf_status net_send(net *n, int rank, int tag, const void *data, size_t bytes, net_message *out);
HF_MUST hf_status net_receive(net *n, int rank, int tag, void *data, size_t room, net_message *out);
/* *done: the message has been sent, or is there, of *bytes (NULL: not asked), and is none any more. */
HF_MUST hf_status net_test(net *n, net_message *m, bool *done, size_t *bytes);
/* HF_LOST when it is not done in time. */
HF_MUST hf_status net_wait(net *n, net_message *m, int64_t timeout_ns, size_t *bytes);
/* One breath of somebody who polls and has waited for so long: gives the core away, and naps after a while. */
void net_breathe(int64_t waited_ns);
#endif
