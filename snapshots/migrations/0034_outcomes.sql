-- What became of an attached document when that was last decided, and in which run: `state` says what is to be done, and begins anew
-- with each listing. What an outcome replaced is kept, so that a text is read at each moment as it was.
ALTER TABLE attachment_use ADD COLUMN outcome text NOT NULL DEFAULT 'wanted', ADD COLUMN outcome_run bigint;
UPDATE attachment_use SET outcome = state, outcome_run = run;
ALTER TABLE attachment_use ALTER COLUMN outcome_run SET NOT NULL;

CREATE TABLE attachment_use_history (
    connection integer NOT NULL REFERENCES connection,
    resource_type text COLLATE "C" NOT NULL,
    resource_id text COLLATE "C" NOT NULL,
    place integer NOT NULL,
    content_type text,
    version bigint NOT NULL,
    outcome text NOT NULL,
    sha256 bytea REFERENCES attachment,
    outcome_run bigint NOT NULL,
    to_run bigint NOT NULL,  -- the run that decided otherwise
    PRIMARY KEY (connection, resource_type, resource_id, place, to_run)
);
CREATE INDEX attachment_use_history_by_run ON attachment_use_history (to_run);
CREATE INDEX attachment_use_history_by_content ON attachment_use_history (sha256);
