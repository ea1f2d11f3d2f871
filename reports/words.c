#include "reports/words.h"

#include <stddef.h>
#include <string.h>

#include "db/idle.h"

static const struct {
  const char *key, *words;
} dictionary[] = {
    /* metrics of a run */
    {"decode_tok_per_s", "Decode speed, all users"},
    {"ttft_p50_s", "Time to first token, median"},
    {"ttft_p90_s", "Time to first token, 90 % within"},
    {"ttft_p99_s", "Time to first token, 99 % within"},
    {"tpot_p50_s", "Time per output token, median"},
    {"tpot_p90_s", "Time per output token, 90 % within"},
    {"tpot_p99_s", "Time per output token, 99 % within"},
    /* kind, status and ends */
    {"prompts", "prompts from a file"},
    {"bench", "benchmark"},
    {"check", "check against a reference"},
    {"server", "server"},
    {"running", "not finished: still running, or broken off"},
    {"done", "finished"},
    {"failed", "failed"},
    {"stopped", "stopped before its end"},
    {"stop", "end of the text"},
    {"length", "limit of tokens"},
    {"cancelled", "stopped before its end"},
    /* resources, and what stages add up to */
    {"fixed", "fixed times"},
    {"step", "whole step"},
    {"gpu", "GPU"},
    {"path", "way through both"},
    /* figures of a machine */
    {"dram_read_bytes_per_s", "Memory read bandwidth"},
    {"dram_theoretical_bytes_per_s", "Memory bandwidth, datasheet"},
    {"dram_copy_bytes_per_s", "Memory copy, read and written"},
    {"dram_triad_bytes_per_s", "Memory triad, three words an element"},
    {"dram_read_small_pages_bytes_per_s", "Memory read bandwidth, small pages"},
    {"dram_node_read_bytes_per_s", "Reading a node's memory"},
    {"dram_remote_fraction", "Another node's memory over the own"},
    {"mem_latency_ns", "Memory latency"},
    {"mem_latency_small_pages_ns", "Memory latency, small pages"},
    {"dram_read_beside_dma_bytes_per_s", "Memory read bandwidth beside uploads"},
    {"dma_beside_read_bytes_per_s", "Uploads beside reading"},
    {"dma_load_bytes_per_s", "Uploads beside the kernels"},
    {"cpu_peak_ops_per_s", "CPU arithmetic on registers alone"},
    {"cpu_clock_hz", "Clock of the cores"},
    {"cpu_throttle_events", "Thermal throttling, events"},
    {"cpu_flops_int8", "CPU compute, int8"},
    {"cpu_flops_bf16", "CPU compute, bf16"},
    {"cpu_flops_fp16", "CPU compute, fp16"},
    {"cpu_flops_f32", "CPU compute, f32"},
    {"cpu_theoretical_flops_int8", "CPU compute, int8, datasheet"},
    {"cpu_theoretical_flops_bf16", "CPU compute, bf16, datasheet"},
    {"cpu_theoretical_flops_fp16", "CPU compute, fp16, datasheet"},
    {"cpu_theoretical_flops_f32", "CPU compute, f32, datasheet"},
    {"gpu_mem_bytes_per_s", "Device memory bandwidth"},
    {"gpu_theoretical_mem_bytes_per_s", "Device memory bandwidth, datasheet"},
    {"gpu_flops_int8", "Device compute, int8"},
    {"gpu_flops_fp8", "Device compute, fp8"},
    {"gpu_flops_bf16", "Device compute, bf16"},
    {"gpu_theoretical_flops_int8", "Device compute, int8, datasheet"},
    {"gpu_theoretical_flops_fp8", "Device compute, fp8, datasheet"},
    {"gpu_theoretical_flops_bf16", "Device compute, bf16, datasheet"},
    {"pcie_h2d_bytes_per_s", "PCIe to the device"},
    {"pcie_d2h_bytes_per_s", "PCIe from the device"},
    {"pcie_theoretical_bytes_per_s", "PCIe, datasheet"},
    {"pcie_latency_ns", "PCIe, start of a copy"},
    {"handover_ns", "Hand-over between CPU and device"},
    {"launch_ns", "Launch on the device"},
    {"layer_fixed_ns", "Fixed time of a layer"},
    {"thread_layer_fixed_ns", "Fixed time of a layer, one thread"},
    {"step_fixed_ns", "Fixed time of a step"},
    {"barrier_ns", "Barrier between threads"},
    {"pool_wake_ns", "Waking of the threads"},
    {"pool_wake_parked_ns", "Waking of parked threads"},
    {"distinct_factor", "Distinct experts, real over expected"},
    {"power_idle_w", "Power, idle"},
    {"power_active_w", "Power, busy"},
    {"price_usd", "Price"},
    {"price_memory_usd", "Price of the memory"},
    /* kernels */
    {"expert_ffn", "expert"},
    {"matmul", "matrix product"},
    {"attn_mla", "attention (MLA)"},
    {"prompt_mla", "attention of prompts (MLA, absorbed)"},
    {"prompt_plain", "attention of prompts (MLA, plain)"},
    {"prompt_gqa", "attention of prompts (GQA)"},
    {"attn_gqa", "attention (GQA)"},
    {"rmsnorm", "RMS norm"},
    /* facts of a machine */
    {"title", "Machine"},
    {"source", "Source"},
    {"date", "Date of the source"},
    {"cpu", "CPU"},
    {"sockets", "Sockets"},
    {"cores", "Cores"},
    {"cores_per_socket", "Cores of a socket"},
    {"hardware_threads", "Hardware threads"},
    {"numa_nodes", "NUMA nodes"},
    {"fake_topology", "Topology given by hand"},
    {"memory", "Memory"},
    {"kind", "Kind"},
    {"entered", "Entered"},
    {"mem_bytes", "Memory"},
    {"l1d_bytes", "First-level data cache"},
    {"l2_bytes", "Second-level cache"},
    {"l3_bytes", "Third-level cache"},
    {"huge_page_bytes", "Size of a huge page"},
    {"isa", "Instruction sets"},
    {"isa_used", "Instruction sets used"},
    {"amx", "AMX"},
    {"dimm_slots", "Slots for memory modules"},
    {"dimms", "Memory modules"},
    {"dimms_why", "Why the modules are not known"},
    {"dimm_bytes", "Size of a module"},
    {"transfers_per_s", "Transfers"},
    {"prior", "Efficiency prior"},
};

const char *words_of(const char *key) {
  for (size_t i = 0; i < sizeof dictionary / sizeof *dictionary; i++)
    if (strcmp(key, dictionary[i].key) == 0) return dictionary[i].words;
  return idle_stage_words(key);
}

const char *plural(long long n) {
  return n == 1 ? "" : "s";
}
