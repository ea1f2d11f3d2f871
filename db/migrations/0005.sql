-- Version 5: which points of a link were measured together. Messages between machines are measured up to the size that the link can bear at that time, so
-- the newest point of each size would mix times.
ALTER TABLE link_curve ADD COLUMN measurement INTEGER NOT NULL DEFAULT 0
  CHECK (measurement >= 0);                                      -- when it began, ns since 1970; 0 = not known
