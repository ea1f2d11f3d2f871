-- Version 2: single trace events, of a run or of the simulation of a plan, so that both can be laid side by side for a few steps.
CREATE TABLE trace (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER REFERENCES run (id) ON DELETE CASCADE,
  plan_id INTEGER REFERENCES plan (id) ON DELETE CASCADE,
  source TEXT NOT NULL CHECK (source IN ('run', 'sim')),
  step INTEGER NOT NULL CHECK (step >= 0),
  micro_batch INTEGER NOT NULL CHECK (micro_batch >= 0),
  layer INTEGER NOT NULL CHECK (layer >= -1),                    -- -1 = the whole step
  stage TEXT NOT NULL CHECK (length(stage) BETWEEN 1 AND 11),
  resource TEXT NOT NULL,                                        -- cpu, gpu0
  start_ns INTEGER NOT NULL CHECK (start_ns >= 0),               -- since the start of the run or simulation
  end_ns INTEGER NOT NULL CHECK (end_ns >= start_ns),
  bytes INTEGER NOT NULL CHECK (bytes >= 0),
  flops REAL NOT NULL CHECK (flops >= 0),
  tokens INTEGER NOT NULL CHECK (tokens >= 0),
  distinct_experts INTEGER NOT NULL CHECK (distinct_experts >= 0),
  CHECK (run_id IS NOT NULL OR plan_id IS NOT NULL)
) STRICT;
CREATE INDEX trace_by_run ON trace (run_id, source, start_ns);
CREATE INDEX trace_by_plan ON trace (plan_id, source, start_ns);
