-- What an open run has replaced: an export shows that in its place. The history grows in the order of runs, so block ranges find it.
CREATE INDEX resource_history_by_run ON resource_history USING brin (to_run) WITH (pages_per_range = 32, autosummarize = on);
