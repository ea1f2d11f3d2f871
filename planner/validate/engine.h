/* engine.h: what distinguishes one serving engine from another on the same hardware, as a handful of facts (db/catalog/priors/NAME.json), and how
 * they become the figures of a machine that the cost model reads.
 *
 *   fact                       unit     meaning
 *   read_over_theoretical      1        what a read benchmark reaches of channels x speed, where nobody stated a measurement
 *   memory_fraction            1        what weights are read with, of that
 *   unpack_weights_per_cycle   1        quantised weights a core turns into numbers in a clock, whatever the number of tokens
 *   unpack_bytes_per_cycle     1        the same counted in bytes; an engine has one of the two
 *   gemm_flops_per_cycle       FLOP     per core, on top of unpacking, where the CPU has AVX-512 with VNNI (and AMX, if the engine uses it)
 *   gemm_flops_per_cycle_avx2  FLOP     where it has not
 *   cpu_kv_fraction            1        bandwidth at which attention on the CPU reads its KV cache, of what weights are read with
 *   gpu_kv_fraction            1        the same of a GPU at decode, of the datasheet's bandwidth
 *   upload_fraction            1        what copying expert weights to the GPU reaches of PCIe's rate
 *   thread_layer_ns            ns       per thread and half of a layer on the CPU (attention; experts): barriers of a pool
 *   experts_barriers           1        0: where the experts alone are on the CPU they are fused into so few operations that thread_layer_ns does
 *                                       not count; 1: they are a half like any other
 *   operations_per_layer       1        of the engine's graph, each of which ends in a barrier, half of them in either half: BARRIER_NS of a
 *                                       thread's time for each
 *   launch_ns                  ns       per layer: gaps between launches on the GPU
 *   dual_socket_scaling        1        two sockets over one
 *   overlap                    1        0: host and GPU take turns; 1: they work at the same time
 *   fp8_rate                   1        unpacking and arithmetic of FP8 weights on a CPU, of what int8 ones get: they become bf16 first
 *   upload_min_tokens          1        tokens per expert from which a prompt's step sends weights to the GPU; 0: never
 *   eager_layer_ns             ns       per layer: the host's launches one by one where no graph was recorded; a mode's launch_ns starts there
 *   unpack_every_token         1        1: dot products row by row, which turn weights into numbers anew for each token of a prompt
 *
 * Everything else (GPU bandwidth and arithmetic, hand-over, fixed costs) is as for our own engine. Clock is the all-core turbo. */
#ifndef HF_PLANNER_VALIDATE_ENGINE_H
#define HF_PLANNER_VALIDATE_ENGINE_H
#include "db/catalog.h"
#include "planner/cost/rows.h"

typedef enum {
  ENGINE_READ,
  ENGINE_MEMORY,
  ENGINE_UNPACK_WEIGHTS,
  ENGINE_UNPACK_BYTES,
  ENGINE_GEMM,
  ENGINE_GEMM_AVX2,
  ENGINE_CPU_KV,
  ENGINE_GPU_KV,
  ENGINE_UPLOAD,
  ENGINE_THREAD_LAYER,
  ENGINE_LAUNCH,
  ENGINE_DUAL,
  ENGINE_OVERLAP,
  ENGINE_UPLOAD_TOKENS,
  ENGINE_EAGER,
  ENGINE_UNPACK_EVERY,
  ENGINE_OPERATIONS,
  ENGINE_FP8,
  ENGINE_EXPERTS_BARRIERS,
  ENGINE_N_FACTS
} engine_fact;
extern const char *const engine_fact_name[ENGINE_N_FACTS];
/* Of each thread at one barrier; assumed: it takes the counter's cache line to arrive and again to leave, 50 to 100 ns each between cores of a
 * server, one thread after the other. */
#define BARRIER_NS 160.0

typedef struct {
  char name[32], base[32];            /* base "": none */
  catalog_value fact[ENGINE_N_FACTS]; /* likely 0 and high 0: it has none */
  bool own[ENGINE_N_FACTS];           /* stated in the engine's own file, not in one it leans on */
} engine;

/* Reads the file and those it leans on. HF_INPUT, HF_NOT_FOUND. */
HF_MUST hf_status engine_load(const char *name, engine *out);

/* What the machine of a row is, apart from the engine. */
typedef struct {
  char cpu[64];                           /* catalog name */
  int sockets, cores_per_socket, threads; /* threads 0 = all cores */
  int ranks;                              /* pools that share a layer, each with its barriers ("TP6"); 0 = one */
  double clock_hz, read_bytes_per_s;      /* stated by the row, 0 = not */
  bool fast_simd;                         /* AVX-512 with VNNI */
  bool fp8;                               /* the weights of the row */
} engine_machine;

/* Rows of a machine with room for the figures below, from composed parts. */
HF_MUST hf_status engine_rows_new(const catalog_machine *m, cost_rows **out);
/* Sets those figures. The rows must come from engine_rows_new; calling it again replaces what it set. */
HF_MUST hf_status engine_apply(const engine *e, const engine_machine *m, cost_rows *rows);
#endif
