-- Who saw whom: one row for each read of patient data, in the transaction that reads, and one for each patient in it.
-- Rows are only ever added; what was added is sealed afterwards, in ranges, each seal with the hash of the one before.
CREATE TABLE audit_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    began timestamptz NOT NULL DEFAULT transaction_timestamp(),  -- the server's clock: a client cannot set these three
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    login text NOT NULL DEFAULT session_user,
    actor text NOT NULL,
    account text NOT NULL,  -- what vouches for the actor's name
    roles text[] NOT NULL,
    origin text NOT NULL,
    reason text,
    action text NOT NULL CHECK (action IN ('export', 'pull', 'snapshots', 'proof', 'listing', 'audit', 'prune')),
    connections text[] NOT NULL,
    types text[] NOT NULL,
    runs bigint[] NOT NULL,
    everyone boolean NOT NULL DEFAULT false,  -- the ids of all patients of these connections, not listed one by one
    through bigint  -- prune: the last event that was deleted
);
CREATE INDEX audit_event_by_time ON audit_event (at);

-- no foreign key: it would cost an export of 100,000 patients a second; `audit verify` finds what belongs to no event
CREATE TABLE audit_patient (
    event bigint NOT NULL,
    connection integer NOT NULL,
    patient_id text COLLATE "C" NOT NULL
);
CREATE INDEX audit_patient_by_event ON audit_patient (event);
CREATE INDEX audit_patient_by_patient ON audit_patient (patient_id, event);

CREATE TABLE audit_seal (
    number bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    after_event bigint NOT NULL,  -- the range: after this one, up to the last
    last_event bigint NOT NULL,
    events bigint[] NOT NULL,
    digests bytea[] NOT NULL,  -- of each event with its patients
    previous bytea NOT NULL,
    hash bytea NOT NULL
);

-- `chartferry snapshots` asks for a patient's history. History gets rows for changes only, so a first load pays nothing
CREATE INDEX resource_history_by_patient ON resource_history (patient_id, connection);
