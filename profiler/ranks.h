/* ranks.h: hf-profile --ranks, under mpirun: how long messages of several sizes take from rank 0 to each other rank, through the same calls that hf-run
 * makes (kernels/net: MPI, and how its callers wait). Half of the way there and back. */
#ifndef HF_PROFILER_RANKS_H
#define HF_PROFILER_RANKS_H
#include "base/cli.h"
#include "kernels/net/net.h"

/* Rank 0: rows of link_curve from "host" to "@HOST" (HOST: the other's host name) for the machine that hf-profile measured last
 * here, or the one named, some of them of load "paused": to a rank that has waited for half a millisecond, as it does between
 * layers. All of a measurement have its time (rec_link_point.measurement): those of the newest count, however many sizes it came to. Others: answer until rank
 * 0 is done. */
HF_MUST hf_status prof_ranks(net *n, const cli_common *common, const char *machine);
#endif
