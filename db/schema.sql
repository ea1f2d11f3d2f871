-- Schema version 1 of a HeteroFlow database, the first step of every file. Later versions are steps on top of it, one per file in
-- migrations/ (NNNN.sql leads to version NNNN); a new file goes through all of them, so that old and new files cannot differ.
-- A step that has been released is never edited.
--
-- Conventions: units are in the names; times are ns where the name says _ns and seconds where it says _s; sizes are bytes.
-- A missing reference is NULL (0 in the C records). tag says how far a number can be trusted: measured on this machine, scaled
-- from a similar measured one, spec of a datasheet, or assumed. low/likely/high is the interval somebody would bet on.

-- A machine: measured here, described by the catalog, or a what-if. Profiling again makes a new row; the newest of a name counts.
CREATE TABLE machine (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 127),
  kind TEXT NOT NULL CHECK (kind IN ('measured', 'catalog', 'whatif')),
  created_ns INTEGER NOT NULL CHECK (created_ns >= 0),           -- wall clock, ns since 1970
  facts_json TEXT NOT NULL CHECK (length(facts_json) <= 4095)    -- ISA, cores, caches, DIMMs, permissions: for people
) STRICT;
CREATE INDEX machine_by_name ON machine (name, id);

-- A thing in a machine that computes or holds: cpu0 is NUMA node 0 with its memory, gpu0 the first GPU.
CREATE TABLE device (
  machine_id INTEGER NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
  device TEXT NOT NULL CHECK (length(device) BETWEEN 1 AND 15),
  kind TEXT NOT NULL CHECK (kind IN ('cpu', 'gpu')),
  name TEXT NOT NULL,                                            -- as sold: "Intel Xeon 6787P"
  cores INTEGER NOT NULL CHECK (cores >= 0),                     -- physical cores or multiprocessors; 0 = unknown
  mem_bytes INTEGER NOT NULL CHECK (mem_bytes >= 0),
  PRIMARY KEY (machine_id, device)
) STRICT, WITHOUT ROWID;

-- One scalar figure of a machine or of one of its devices, in SI base units unless unit says otherwise.
CREATE TABLE figure (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  machine_id INTEGER NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
  device TEXT NOT NULL,                                          -- '' = the whole machine
  what TEXT NOT NULL CHECK (length(what) BETWEEN 1 AND 47),      -- dram_read_bytes_per_s, flops_bf16, barrier_ns, price_usd, ...
  params TEXT NOT NULL,                                          -- "threads=2" or ''
  unit TEXT NOT NULL,
  low REAL NOT NULL CHECK (low >= 0),
  likely REAL NOT NULL CHECK (likely >= low),
  high REAL NOT NULL CHECK (high >= likely),
  spread REAL NOT NULL CHECK (spread >= 0),                      -- (p90 - p10) / median of the samples
  n INTEGER NOT NULL CHECK (n >= 0),                             -- samples; 0 = not measured
  tag TEXT NOT NULL CHECK (tag IN ('measured', 'scaled', 'spec', 'assumed')),
  source TEXT NOT NULL
) STRICT;
CREATE INDEX figure_by_machine ON figure (machine_id, what, device);

-- One point of a kernel's curve: time over tokens, per device, candidate, formats, shape, context and concurrent load.
CREATE TABLE kernel_curve (
  machine_id INTEGER NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
  device TEXT NOT NULL CHECK (length(device) BETWEEN 1 AND 15),  -- 'cpu' = all workers together, 'cpu0' one node, 'gpu0'
  kernel TEXT NOT NULL CHECK (length(kernel) BETWEEN 1 AND 23),  -- matmul, expert_ffn, attn_mla, attn_gqa, rmsnorm
  candidate TEXT NOT NULL,                                       -- variant, '' = any
  format TEXT NOT NULL,                                          -- of the weights
  act TEXT NOT NULL,                                             -- activation type
  n_out INTEGER NOT NULL CHECK (n_out >= 0),
  n_in INTEGER NOT NULL CHECK (n_in >= 0),
  tokens INTEGER NOT NULL CHECK (tokens >= 0),
  context INTEGER NOT NULL CHECK (context >= 0),                 -- tokens in the KV cache
  threads INTEGER NOT NULL CHECK (threads >= 0),
  load TEXT NOT NULL,                                            -- what ran beside it: '' or 'dma'
  ns_low REAL NOT NULL CHECK (ns_low >= 0),                      -- per call
  ns REAL NOT NULL CHECK (ns >= ns_low),
  ns_high REAL NOT NULL CHECK (ns_high >= ns),
  spread REAL NOT NULL CHECK (spread >= 0),
  bytes INTEGER NOT NULL CHECK (bytes >= 0),                     -- weight or KV bytes read in that time
  n INTEGER NOT NULL CHECK (n >= 0),
  tag TEXT NOT NULL CHECK (tag IN ('measured', 'scaled', 'spec', 'assumed'))
) STRICT;
CREATE INDEX kernel_curve_by_machine ON kernel_curve (machine_id, kernel, format, tokens);

-- One point of a link's curve: time of a transfer over its size.
CREATE TABLE link_curve (
  machine_id INTEGER NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
  src TEXT NOT NULL CHECK (length(src) BETWEEN 1 AND 15),        -- 'host', 'gpu0'
  dst TEXT NOT NULL CHECK (length(dst) BETWEEN 1 AND 15),
  pinned INTEGER NOT NULL CHECK (pinned IN (0, 1)),              -- host side page-locked
  load TEXT NOT NULL,                                            -- concurrent load, '' = none
  bytes INTEGER NOT NULL CHECK (bytes >= 0),
  ns_low REAL NOT NULL CHECK (ns_low >= 0),
  ns REAL NOT NULL CHECK (ns >= ns_low),
  ns_high REAL NOT NULL CHECK (ns_high >= ns),
  n INTEGER NOT NULL CHECK (n >= 0),
  tag TEXT NOT NULL CHECK (tag IN ('measured', 'scaled', 'spec', 'assumed'))
) STRICT;
CREATE INDEX link_curve_by_machine ON link_curve (machine_id, src, dst, bytes);

-- A model that was planned for or run, by the name it was given under.
CREATE TABLE model (
  name TEXT NOT NULL PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 255),
  family TEXT NOT NULL,
  n_layers INTEGER NOT NULL CHECK (n_layers >= 0),               -- 0 = known only from a run
  n_experts INTEGER NOT NULL CHECK (n_experts >= 0)
) STRICT, WITHOUT ROWID;

-- A plan. json is the whole of it (the text of plan.json); the columns and the plan_ tables are what queries ask for.
CREATE TABLE plan (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  machine_id INTEGER REFERENCES machine (id) ON DELETE SET NULL,
  from_run INTEGER REFERENCES run (id) ON DELETE SET NULL,       -- the run whose counts and times it was made from
  created_ns INTEGER NOT NULL CHECK (created_ns >= 0),
  schema_version INTEGER NOT NULL CHECK (schema_version >= 1),   -- of plan.json
  cost_model_version INTEGER NOT NULL CHECK (cost_model_version >= 0),
  inputs_hash TEXT NOT NULL,
  model TEXT NOT NULL REFERENCES model (name),
  format TEXT NOT NULL,
  machine TEXT NOT NULL,
  gpu TEXT NOT NULL,                                             -- none, virtual:SIZE, paced:..., cuda:N
  users INTEGER NOT NULL CHECK (users >= 1),
  context INTEGER NOT NULL CHECK (context >= 1),                 -- tokens per user
  prompt_tokens INTEGER NOT NULL CHECK (prompt_tokens >= 0),
  output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
  depth INTEGER NOT NULL CHECK (depth >= 1),                     -- micro-batches in flight
  kv_bytes INTEGER NOT NULL CHECK (kv_bytes >= 0),
  objective_ns REAL NOT NULL CHECK (objective_ns >= 0),          -- decode step
  bound_ns REAL NOT NULL CHECK (bound_ns >= 0),                  -- proven: no placement is faster
  gap REAL NOT NULL CHECK (gap >= 0),
  decode_tok_per_s_low REAL NOT NULL CHECK (decode_tok_per_s_low >= 0),
  decode_tok_per_s REAL NOT NULL CHECK (decode_tok_per_s >= decode_tok_per_s_low),
  decode_tok_per_s_high REAL NOT NULL CHECK (decode_tok_per_s_high >= decode_tok_per_s),
  ttft_p50_s REAL NOT NULL CHECK (ttft_p50_s >= 0),
  tpot_p50_s REAL NOT NULL CHECK (tpot_p50_s >= 0),
  tag TEXT NOT NULL CHECK (tag IN ('measured', 'scaled', 'spec', 'assumed')),
  binding TEXT NOT NULL,                                         -- the resource that limits decode
  json TEXT NOT NULL
) STRICT;

-- The GPUs of a plan; number is what plan_expert.device counts.
CREATE TABLE plan_device (
  plan_id INTEGER NOT NULL REFERENCES plan (id) ON DELETE CASCADE,
  number INTEGER NOT NULL CHECK (number >= 0),
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  mem_bytes INTEGER NOT NULL CHECK (mem_bytes >= 0),
  PRIMARY KEY (plan_id, number)
) STRICT, WITHOUT ROWID;

-- Expected times of a layer, per micro-batch step of decode.
CREATE TABLE plan_layer (
  plan_id INTEGER NOT NULL REFERENCES plan (id) ON DELETE CASCADE,
  layer INTEGER NOT NULL CHECK (layer >= 0),
  moe INTEGER NOT NULL CHECK (moe IN (0, 1)),
  n_experts INTEGER NOT NULL CHECK (n_experts >= 0),
  attn_ns REAL NOT NULL CHECK (attn_ns >= 0),
  shared_ns REAL NOT NULL CHECK (shared_ns >= 0),
  dexp_ns REAL NOT NULL CHECK (dexp_ns >= 0),                    -- experts resident on devices
  cexp_ns REAL NOT NULL CHECK (cexp_ns >= 0),                    -- experts on the CPU
  hand_ns REAL NOT NULL CHECK (hand_ns >= 0),                    -- hand-over, both directions
  layer_ns REAL NOT NULL CHECK (layer_ns >= 0),                  -- all together, with overlap
  binding TEXT NOT NULL CHECK (binding IN ('', 'cpu', 'gpu', 'path')),
  prefill TEXT NOT NULL CHECK (prefill IN ('', 'cpu', 'upload')),
  PRIMARY KEY (plan_id, layer)
) STRICT, WITHOUT ROWID;

-- Placement as runs of experts that share a place. split_begin .. split_end is the part of the intermediate dimension, 0 .. 1: on the CPU a part for
-- each NUMA node that has one (tier node, device its number), or tier cpu when experts are not cut; gpu counts plan_device.
CREATE TABLE plan_expert (
  plan_id INTEGER NOT NULL,
  layer INTEGER NOT NULL,
  first_expert INTEGER NOT NULL CHECK (first_expert >= 0),
  count INTEGER NOT NULL CHECK (count >= 1),
  tier TEXT NOT NULL CHECK (tier IN ('cpu', 'gpu', 'node')),
  device INTEGER NOT NULL CHECK (device >= -1 AND (device = -1) = (tier = 'cpu')),
  split_begin REAL NOT NULL DEFAULT 0 CHECK (split_begin >= 0),
  split_end REAL NOT NULL DEFAULT 1 CHECK (split_end > split_begin AND split_end <= 1),
  PRIMARY KEY (plan_id, layer, first_expert, split_begin),
  FOREIGN KEY (plan_id, layer) REFERENCES plan_layer (plan_id, layer) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What needs how much where. The rows of one place add up; limit_bytes is that place's, 0 = none stated.
CREATE TABLE plan_budget (
  plan_id INTEGER NOT NULL REFERENCES plan (id) ON DELETE CASCADE,
  place TEXT NOT NULL,
  what TEXT NOT NULL,
  bytes INTEGER NOT NULL CHECK (bytes >= 0),
  limit_bytes INTEGER NOT NULL CHECK (limit_bytes >= 0),
  PRIMARY KEY (plan_id, place, what)
) STRICT, WITHOUT ROWID;

-- Which kernel candidate an operation uses, by weight format and range of tokens.
CREATE TABLE plan_kernel (
  plan_id INTEGER NOT NULL REFERENCES plan (id) ON DELETE CASCADE,
  op TEXT NOT NULL,
  format TEXT NOT NULL,
  tokens_lo INTEGER NOT NULL CHECK (tokens_lo >= 0),
  tokens_hi INTEGER NOT NULL CHECK (tokens_hi >= tokens_lo),
  candidate TEXT NOT NULL,
  PRIMARY KEY (plan_id, op, format, tokens_lo)
) STRICT, WITHOUT ROWID;

-- A run of a model, with what was predicted for it (0 = nothing).
CREATE TABLE run (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  plan_id INTEGER REFERENCES plan (id) ON DELETE SET NULL,
  machine_id INTEGER REFERENCES machine (id) ON DELETE SET NULL,
  model TEXT NOT NULL REFERENCES model (name),
  format TEXT NOT NULL,
  gpu TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('prompts', 'bench', 'check', 'server')),
  created_ns INTEGER NOT NULL CHECK (created_ns >= 0),
  users INTEGER NOT NULL CHECK (users >= 0),
  depth INTEGER NOT NULL CHECK (depth >= 0),
  threads INTEGER NOT NULL CHECK (threads >= 0),
  prompt_tokens INTEGER NOT NULL CHECK (prompt_tokens >= 0),     -- of all requests
  output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
  steps INTEGER NOT NULL CHECK (steps >= 0),
  wall_s REAL NOT NULL CHECK (wall_s >= 0),
  decode_s REAL NOT NULL CHECK (decode_s >= 0),                  -- in steps that only decode
  decode_tok_per_s REAL NOT NULL CHECK (decode_tok_per_s >= 0),  -- all users together, steady decode
  tok_per_s_wall REAL NOT NULL CHECK (tok_per_s_wall >= 0),      -- prefill and waiting included
  prefill_tok_per_s REAL NOT NULL CHECK (prefill_tok_per_s >= 0),
  ttft_p50_s REAL NOT NULL CHECK (ttft_p50_s >= 0),
  ttft_p90_s REAL NOT NULL CHECK (ttft_p90_s >= 0),
  ttft_p99_s REAL NOT NULL CHECK (ttft_p99_s >= 0),
  tpot_p50_s REAL NOT NULL CHECK (tpot_p50_s >= 0),              -- (end to end - TTFT) / (n - 1)
  tpot_p90_s REAL NOT NULL CHECK (tpot_p90_s >= 0),
  tpot_p99_s REAL NOT NULL CHECK (tpot_p99_s >= 0),
  dram_bytes_per_s REAL NOT NULL CHECK (dram_bytes_per_s >= 0),  -- read bandwidth probed at the start, for drift
  predicted_decode_tok_per_s REAL NOT NULL CHECK (predicted_decode_tok_per_s >= 0),
  predicted_low REAL NOT NULL CHECK (predicted_low >= 0),
  predicted_high REAL NOT NULL CHECK (predicted_high >= predicted_low),
  predicted_ttft_p50_s REAL NOT NULL CHECK (predicted_ttft_p50_s >= 0),
  predicted_tpot_p50_s REAL NOT NULL CHECK (predicted_tpot_p50_s >= 0),
  status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'stopped'))
) STRICT;

-- One request of a run; times in seconds since the run's start, at the client's side.
CREATE TABLE request (
  run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  request INTEGER NOT NULL CHECK (request >= 0),
  ext_id TEXT NOT NULL,                                          -- the caller's name for it
  prompt_tokens INTEGER NOT NULL CHECK (prompt_tokens >= 0),
  output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
  arrival_s REAL NOT NULL CHECK (arrival_s >= 0),
  first_token_s REAL NOT NULL CHECK (first_token_s >= 0),        -- 0 = none came
  end_s REAL NOT NULL CHECK (end_s >= 0),
  finish TEXT NOT NULL CHECK (finish IN ('stop', 'length', 'error', 'cancelled')),
  PRIMARY KEY (run_id, request)
) STRICT, WITHOUT ROWID;

-- Stage times of a run, or of its simulation, summed per layer, stage and phase.
CREATE TABLE stage_time (
  run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  source TEXT NOT NULL CHECK (source IN ('run', 'sim')),
  stage TEXT NOT NULL CHECK (length(stage) BETWEEN 1 AND 11),    -- attn, hand, shared, dexp, cexp, head, step
  phase TEXT NOT NULL CHECK (phase IN ('prefill', 'decode')),
  resource TEXT NOT NULL,                                        -- cpu, gpu0
  layer INTEGER NOT NULL CHECK (layer >= -1),                    -- -1 = the whole step
  steps INTEGER NOT NULL CHECK (steps >= 0),
  tokens INTEGER NOT NULL CHECK (tokens >= 0),
  distinct_experts INTEGER NOT NULL CHECK (distinct_experts >= 0), -- experts touched, summed over steps
  ns_sum REAL NOT NULL CHECK (ns_sum >= 0),
  ns_sq_sum REAL NOT NULL CHECK (ns_sq_sum >= 0),
  PRIMARY KEY (run_id, source, layer, stage, phase, resource)
) STRICT, WITHOUT ROWID;

-- How often the router chose an expert.
CREATE TABLE routing_count (
  run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  layer INTEGER NOT NULL CHECK (layer >= 0),
  expert INTEGER NOT NULL CHECK (expert >= 0),
  phase TEXT NOT NULL CHECK (phase IN ('prefill', 'decode')),
  count INTEGER NOT NULL CHECK (count >= 0),
  PRIMARY KEY (run_id, phase, layer, expert)
) STRICT, WITHOUT ROWID;

-- Distinct experts a step of that many tokens touched: count, sum and sum of squares over steps. Marginal counts cannot give
-- this curve.
CREATE TABLE distinct_experts (
  run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  layer INTEGER NOT NULL CHECK (layer >= 0),
  phase TEXT NOT NULL CHECK (phase IN ('prefill', 'decode')),
  tokens INTEGER NOT NULL CHECK (tokens >= 0),
  steps INTEGER NOT NULL CHECK (steps >= 0),
  sum INTEGER NOT NULL CHECK (sum >= 0),
  sum_sq INTEGER NOT NULL CHECK (sum_sq >= 0),
  PRIMARY KEY (run_id, phase, layer, tokens)
) STRICT, WITHOUT ROWID;

-- What happened to a run: a fault, the recovery from it, a change of plan.
CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  at_ns INTEGER NOT NULL CHECK (at_ns >= 0),                     -- since the run's start
  recovery_ns INTEGER NOT NULL CHECK (recovery_ns >= 0),         -- from the fault to the next token; 0 = not known
  kind TEXT NOT NULL CHECK (kind IN ('fault', 'recovery', 'replan')),
  detail TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_run ON event (run_id, id);

-- Predicted against measured, one row per finished run and metric: signed_error = (predicted - measured) / measured.
CREATE VIEW run_error AS
  SELECT run_id, model, metric, predicted, measured, (predicted - measured) / measured AS signed_error
  FROM (
    SELECT id AS run_id, model, status, 'decode_tok_per_s' AS metric, predicted_decode_tok_per_s AS predicted,
           decode_tok_per_s AS measured FROM run
    UNION ALL
    SELECT id, model, status, 'ttft_p50_s', predicted_ttft_p50_s, ttft_p50_s FROM run
    UNION ALL
    SELECT id, model, status, 'tpot_p50_s', predicted_tpot_p50_s, tpot_p50_s FROM run
  )
  WHERE predicted > 0 AND measured > 0 AND status IN ('done', 'stopped');
