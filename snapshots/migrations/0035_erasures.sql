-- How many patients were erased of a connection, and its newest run when the last one was. Nothing says whose charts they were, so what
-- was exported before cannot be brought up to date by what has changed since: it is made anew.
ALTER TABLE connection ADD COLUMN erasures integer NOT NULL DEFAULT 0, ADD COLUMN erased_after bigint;
