/* priors.c: what is assumed where neither a measurement nor the catalog says anything. The only place for such numbers. */
#include <string.h>

#include "planner/cost/cost_int.h"

/* Order of size for the CPU's waking and barriers: hf-profile on a two-core VM finds a few us; published CPU+GPU engines spend 95 us a layer
 * on everything that is neither weights nor arithmetic (catalog, priors/heteroflow.json). What has no page to name says "assumed". */
static const cost_prior priors[] = {
    {"dram_read_bytes_per_s", "B/s", {10e9, 25e9, 60e9}, "assumed: one to four channels of DDR4 or DDR5"},
    {"thread_read_bytes_per_s",
     "B/s",
     {12e9, 18e9, 25e9},
     "one thread: Xeon 8176 12 GB/s, Broadwell-EP half as much again (AnandTech 2017-07-11, STREAM, retold at "
     "biz.zol.com.cn/660/6601238.html); "
     "24.9 GB/s on a desktop (notes.elimelt.com/operating-systems/benchmarks/bandwidth.html); read 2026-11-22"},
    {"dram_remote_fraction",
     "1",
     {0.3, 0.5, 0.7},
     "low: Xeon Platinum 8160 with two UPI links, 34 of 112 GB/s (J. McCalpin on Stack Exchange, mirrored at "
     "boohere.com/id/detail/201966.html, "
     "read 2026-11-22); likely and high: assumed, newer parts have more links"},
    {"cpu_flops_per_thread", "FLOP/s", {10e9, 25e9, 60e9}, "assumed: AVX2 to AVX-512 kernels of quantised products"},
    {"gpu_flops", "FLOP/s", {20e12, 60e12, 120e12}, "assumed: half-precision products of a consumer card"},
    {"gpu_mem_bytes_per_s", "B/s", {200e9, 500e9, 900e9}, "assumed: GDDR6 to GDDR6X cards"},
    {"pcie_h2d_bytes_per_s", "B/s", {8e9, 20e9, 26e9}, "assumed: PCIe 3.0 x16 to 4.0 x16, pinned memory"},
    {"pcie_d2h_bytes_per_s", "B/s", {8e9, 20e9, 26e9}, "assumed: PCIe 3.0 x16 to 4.0 x16, pinned memory"},
    {"layer_fixed_ns", "ns", {3e3, 10e3, 30e3}, "assumed: waking the pool and its barriers"},
    {"thread_layer_fixed_ns", "ns", {1e3, 3e3, 10e3}, "assumed: a layer's operations on one thread, without work"},
    {"pool_wake_ns", "ns", {1e3, 3e3, 10e3}, "assumed"},
    {"barrier_ns", "ns", {1e3, 3e3, 10e3}, "assumed"},
    {"handover_ns", "ns", {4e3, 12e3, 40e3}, "assumed: two signals and two small copies"},
    {"launch_ns",
     "ns",
     {8e3, 20e3, 50e3},
     "high: 3 us for each of 16 operations (aiconfigurator's default); low: recorded graphs; assumed"},
    {"step_fixed_ns", "ns", {20e3, 60e3, 300e3}, "assumed: scheduling, embedding, sampling"},
};

const cost_prior *cost_prior_of(const char *what) {
  for (size_t i = 0; i < sizeof priors / sizeof priors[0]; i++)
    if (strcmp(priors[i].what, what) == 0) return &priors[i];
  return NULL;
}
