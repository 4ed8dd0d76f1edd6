-- One session writes what a run sees and looks first whether it is noted, so nothing has to keep the keys apart: without the unique
-- key and ON CONFLICT a row is noted in two thirds of the time.
ALTER TABLE seen DROP CONSTRAINT seen_pkey;
CREATE INDEX seen_by_key ON seen (run, resource_type, id);
