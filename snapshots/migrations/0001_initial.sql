-- The store of one tenant. Runs inside its schema: search_path is set by the migrator, so no name here is qualified.

-- one row: what this tenant's hashes of patient ids in reports are keyed with
CREATE TABLE report_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    secret uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO report_key DEFAULT VALUES;

-- one EHR endpoint; the small number keeps its name out of every resource row and index entry
CREATE TABLE connection (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection integer NOT NULL REFERENCES connection,
    kind text NOT NULL,
    mode text NOT NULL,
    selection text NOT NULL,
    types text[] NOT NULL,
    since jsonb NOT NULL,
    status text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'complete', 'partial', 'failed', 'nothing')),
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    resumed integer NOT NULL DEFAULT 0,
    requests bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    patients integer NOT NULL DEFAULT 0,
    full_listing boolean NOT NULL DEFAULT false,  -- nothing was asked for news only
    notes text[] NOT NULL DEFAULT '{}',
    error text
);
CREATE INDEX run_by_connection ON run (connection, id);

-- what a run received, by type; moves with every batch, so that a resumed run counts on
CREATE TABLE run_count (
    run bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    resource_type text COLLATE "C" NOT NULL,
    new integer NOT NULL DEFAULT 0,
    changed integer NOT NULL DEFAULT 0,
    unchanged integer NOT NULL DEFAULT 0,
    deleted integer NOT NULL DEFAULT 0,
    PRIMARY KEY (run, resource_type)
);

-- the ledger: every unit of a run and how it ended
CREATE TABLE unit (
    run bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    ordinal bigint GENERATED ALWAYS AS IDENTITY,
    key text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C",
    detail jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'settled', 'failed')),
    reason text,
    poison text,  -- why a record of this unit was quarantined: however the unit ends, it is a hole
    complete_listing boolean NOT NULL DEFAULT false,
    records integer NOT NULL DEFAULT 0,
    ended_at timestamptz,
    PRIMARY KEY (run, key)
);

CREATE TABLE watermark (
    connection integer NOT NULL REFERENCES connection,
    selection text NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    instant text NOT NULL,
    run bigint NOT NULL REFERENCES run,
    PRIMARY KEY (connection, selection, resource_type)
);

CREATE TABLE bulk_job (
    run bigint PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    status_url text NOT NULL,
    kicked_off_at timestamptz NOT NULL,
    request text NOT NULL,
    transaction_time text,
    manifest_complete boolean NOT NULL,
    deleted boolean NOT NULL
);

-- input that could not become a record, as raw bytes; asked again after a crash, it is the same row
CREATE TABLE quarantine (
    run bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    digest bytea NOT NULL,  -- of source and raw
    resource_type text,
    unit_key text COLLATE "C",
    source text NOT NULL,
    reason text NOT NULL,
    raw bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, digest)
);

-- ids that an open run saw unchanged: with last_changed_run this is all that it saw. Emptied when the run is finished
CREATE TABLE seen (
    run bigint NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, resource_type, id)
);

-- the present. A row is content that holds since last_changed_run; from deleted_run on it is a tombstone that keeps its content
CREATE TABLE resource (
    first_run bigint NOT NULL,
    last_changed_run bigint NOT NULL,
    deleted_run bigint,
    deleted_at timestamptz,
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C",
    version_id text COLLATE "C",
    last_updated text COLLATE "C",
    content_hash bytea NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (resource_type, connection, id)
) PARTITION BY LIST (resource_type);
CREATE INDEX resource_by_patient ON resource (patient_id, connection);

-- Exports scan one type, so the types that EHRs give in great number have a partition each. Each takes a new tenant 10 ms, so the
-- others share one; older stores have 35, which changes nothing. toast_tuple_target: bodies up to 8 kB stay in the row as they
-- are; compressing them would cost a fifth of the ingest rate.
DO $$
DECLARE
    type text;
BEGIN
    FOREACH type IN ARRAY ARRAY[
        'Claim', 'Condition', 'DiagnosticReport', 'DocumentReference', 'Encounter', 'ExplanationOfBenefit', 'Immunization',
        'MedicationAdministration', 'MedicationRequest', 'Observation', 'Patient', 'Procedure', 'Provenance', 'ServiceRequest'
    ] LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF resource FOR VALUES IN (%L) WITH (toast_tuple_target = 8160)',
            'resource_' || lower(type), type
        );
    END LOOP;
END
$$;
CREATE TABLE resource_other PARTITION OF resource DEFAULT WITH (toast_tuple_target = 8160);

-- the past: rows of resource as they were, with the run that replaced them. In [from_run, to_run) this content was known,
-- from deleted_run on as deleted: what run R knew of a resource is the row with from_run <= R < to_run, here or in resource.
CREATE TABLE resource_history (
    from_run bigint NOT NULL,
    to_run bigint NOT NULL,
    deleted_run bigint,
    deleted_at timestamptz,
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C",
    version_id text COLLATE "C",
    last_updated text COLLATE "C",
    content_hash bytea NOT NULL,
    body jsonb NOT NULL
);
CREATE INDEX resource_history_by_id ON resource_history (resource_type, connection, id, to_run);
