-- How fast an EHR may be asked, and whether it was there at all, remembered between runs. A run keeps what it found.
CREATE TABLE pace (
    connection integer PRIMARY KEY REFERENCES connection,
    concurrency integer,
    file_concurrency integer,
    down_until timestamptz,
    down_reason text,
    trips integer NOT NULL DEFAULT 0,
    quota_free_at timestamptz,
    saved_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE run ADD COLUMN retries_spent bigint NOT NULL DEFAULT 0, ADD COLUMN retries_left bigint, ADD COLUMN down_until timestamptz;
