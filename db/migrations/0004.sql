-- Version 4: how busy the machine was with others while a run was measured, so that nobody learns from a run that was disturbed.
ALTER TABLE run ADD COLUMN other_cpu_share REAL NOT NULL DEFAULT -1
  CHECK (other_cpu_share BETWEEN -1 AND 1);                      -- of all CPU time: other programs, and stolen by a host; -1 = not known
