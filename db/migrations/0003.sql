-- Version 3: answers of hf-plan to questions other than "which plan": what-ifs, sweeps, recommendations, returns on investment, validations.
-- An answer is read whole, by one page or one program, so it is kept as the JSON document that `hf-plan VERB --json` printed
-- (docs/answers.md); the columns beside it are for finding it.
CREATE TABLE answer (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK (kind IN ('whatif', 'sweep', 'recommend', 'roi', 'validate', 'formats')),
  created_ns INTEGER NOT NULL CHECK (created_ns >= 0),
  title TEXT NOT NULL,
  doc TEXT NOT NULL CHECK (length(doc) >= 2)
) STRICT;
CREATE INDEX answer_by_kind ON answer (kind, id);
