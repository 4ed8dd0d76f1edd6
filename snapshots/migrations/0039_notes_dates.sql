-- Whether all of a crawl's sessions looked at rows' dates; NULL: it was no crawl, or an earlier version's. It is a fact of the run, since a run that
-- a crash left is resumed, perhaps with `changes.incremental` switched on meanwhile.
ALTER TABLE run ADD COLUMN notes_dates boolean;
