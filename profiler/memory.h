/* memory.h: how memory behaves beside plain reading: streams per node and number of threads, every node's memory from every node, latency,
 * small pages. Private to profiler/.
 *
 * Figures (device "cpuN" = the threads of that node, "cpu" = all):
 *   dram_read_bytes_per_s, dram_copy_bytes_per_s, dram_triad_bytes_per_s      params threads=N
 *       copy is memcpy, triad a = b + s * c on doubles; bytes as STREAM counts them: 2 and 3 words an element, without what a cache
 *       fetches of a line before it is written
 *   dram_node_read_bytes_per_s     params threads=N,memory=cpuJ      all threads of the device's node read node J's memory
 *   mem_latency_ns                 params memory=cpuJ                a chase of pointers through lines in no order, huge pages
 *   dram_remote_fraction           cpu: another node's memory over the own, mean of all pairs
 *   dram_read_small_pages_bytes_per_s, mem_latency_small_pages_ns    the same reading without huge pages
 *
 * A pretended node (HF_TOPOLOGY) with dram_bytes_per_s gives no more than that; such figures have the tag assumed. */
#ifndef HF_PROFILER_MEMORY_H
#define HF_PROFILER_MEMORY_H
#include "profiler/profile.h"

/* Bytes that are in no cache: four times the last-level caches, 256 MiB at least, a quarter of the memory at most. */
size_t memory_bytes(const topology *t);
/* The least time that pretended nodes take for bytes[i] out of node i's memory, all at once; 0 where nothing is pretended. */
double memory_pretended_ns(const topology *t, const double *bytes);
bool memory_is_pretended(const topology *t);
/* Bytes of node i when a buffer is cut into equal parts for the first n_threads of the pool. */
void memory_parts(const pool *p, const topology *t, int n_threads, double bytes, double *of_node);
#endif
