-- What the listings of an open run refer to, kept with the batch that brought it: a row a batch and type. Emptied as it is taken
-- into `referenced`, and when the run is finished.
CREATE TABLE mention (
    run bigint NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    ids text[] NOT NULL,
    patients text[] NOT NULL  -- of a chart that mentions each, or NULL
);
CREATE INDEX mention_by_run ON mention (run);

-- A run that is open now has listed things of which nobody has noted what they refer to or have attached: it lists them again.
UPDATE unit SET state = 'pending', ending = NULL, complete_listing = false, reached = NULL
FROM run WHERE run.id = unit.run AND run.finished_at IS NULL AND unit.state = 'settled' AND unit.kind IN ('search', 'read', 'batch', 'file');
