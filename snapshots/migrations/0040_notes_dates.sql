-- Whether all of a crawl's sessions looked at rows' dates; NULL: it was no crawl. It is a fact of the run, since a run that a crash left is
-- resumed, perhaps with `changes.incremental` switched on meanwhile.
ALTER TABLE run ADD COLUMN notes_dates boolean;
UPDATE run SET notes_dates = true FROM watermark w WHERE w.run = run.id AND w.held_back;
ALTER TABLE watermark DROP COLUMN held_back;
