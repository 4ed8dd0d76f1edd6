-- What the EHR counts and what the store holds, side by side: one row a proof. The body names patients by their hash only.
CREATE TABLE certificate (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection integer NOT NULL REFERENCES connection,
    run bigint NOT NULL REFERENCES run ON DELETE CASCADE,  -- the sync that is proved
    made_at timestamptz NOT NULL,
    body jsonb NOT NULL
);
CREATE INDEX certificate_by_run ON certificate (run, id);
