-- History is kept from this run on: of an earlier moment nothing can be said any more. NULL: all of it is kept.
ALTER TABLE connection ADD COLUMN history_from bigint;

-- `chartferry prune` deletes what a run replaced, run by run, as `resource_history_by_run` lets it.
CREATE INDEX member_history_by_run ON member_history USING brin (to_run) WITH (pages_per_range = 32, autosummarize = on);
