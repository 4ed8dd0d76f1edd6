-- Whether rows' dates could hold the watermark back: runs without `changes.incremental` do not look at them. Of earlier ones nobody knows.
ALTER TABLE watermark ADD COLUMN held_back boolean NOT NULL DEFAULT false;
