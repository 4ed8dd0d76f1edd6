-- Whether a run knew from the Group itself who is in it: an export of news by a run that did not is followed by a full one once the
-- Group can be read. What earlier runs knew is not on record, and is taken for known, as before.
ALTER TABLE run ADD COLUMN members_known boolean NOT NULL DEFAULT true;
ALTER TABLE run ALTER COLUMN members_known SET DEFAULT false;
