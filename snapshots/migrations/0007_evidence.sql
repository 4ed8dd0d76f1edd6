-- Who listed what, who missed it, and what is believed of it (docs/completeness.md).

-- A way is what can list something: a search by patient and its split, a directory listing, an export at a level with its filters,
-- a batch or read of Patients, a reference. Group ids are no part of it: the roster tells whose patients an export speaks for.
CREATE TABLE way (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection integer NOT NULL REFERENCES connection,
    name text COLLATE "C" NOT NULL,
    UNIQUE (connection, name)
);

-- the first way that brought a row; NULL: written before ways were kept, or lost by its way
ALTER TABLE resource ADD COLUMN first_way integer;

-- further ways that have listed a row
CREATE TABLE listed (
    connection integer NOT NULL,
    way integer NOT NULL REFERENCES way,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (connection, resource_type, id, way)
);

-- Patients of a row beyond resource.patient_id: R4's patient compartment may name several, and a patient's search may bring a row
-- that does not name him literally (`searched`).
CREATE TABLE member (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    searched boolean NOT NULL,
    from_run bigint NOT NULL,  -- that first said so
    PRIMARY KEY (connection, resource_type, id, patient_id)
);
CREATE INDEX member_by_patient ON member (patient_id, connection);

-- Who they were before a run changed the row.
CREATE TABLE member_history (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    searched boolean NOT NULL,
    from_run bigint NOT NULL,
    to_run bigint NOT NULL,
    PRIMARY KEY (connection, resource_type, id, patient_id, from_run)
);
CREATE INDEX member_history_by_patient ON member_history (patient_id, connection);

ALTER TABLE way
    ADD COLUMN scope text NOT NULL CHECK (scope IN ('everything', 'members', 'patient', 'nothing')),  -- for whose rows a listing speaks
    ADD COLUMN strict boolean NOT NULL,  -- an unchanged row that it listed belongs in it; false: filters, references, mentions
    ADD COLUMN codes text[] NOT NULL DEFAULT '{}';  -- categories that it is narrowed to

-- What an open run hears of the absence of rows: `way` missed it, and, or, `said` is the EHR's own word when asked for it.
-- Emptied when the run is finished.
CREATE TABLE absence (
    run bigint NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    way integer,
    patient_id text COLLATE "C",  -- whose listing missed it
    said text CHECK (said IN ('not-found', 'gone', 'deleted', 'merged', 'withheld', 'unanswered')),
    asked boolean NOT NULL DEFAULT false,  -- it is asked for by its id
    received boolean NOT NULL DEFAULT false,  -- the EHR gave it
    fate text,
    PRIMARY KEY (run, resource_type, id)
);

-- What stands open about a row after a run: whether it is still there (doubted: it was missed; not-found: asked once and not
-- there), whether its way can be believed (contradicted: missed by it, and there when asked), whether it may be seen (withheld);
-- old-tombstone: made before evidence was kept, and to be asked for once.
CREATE TABLE evidence (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('doubted', 'not-found', 'contradicted', 'withheld', 'old-tombstone')),
    ways integer[] NOT NULL DEFAULT '{}',  -- which missed it
    run bigint NOT NULL,  -- the newest that said so
    PRIMARY KEY (connection, resource_type, id)
);

-- The ways by which the newest full run of each selection has listed a type, and whose knowledge that is.
CREATE TABLE full_listing (
    connection integer NOT NULL,
    selection text NOT NULL,
    knowledge text NOT NULL,
    way integer NOT NULL REFERENCES way,
    resource_type text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (connection, selection, way, resource_type)
);

-- Types and patients of whom an open run has brought rows back to life. Emptied when the run is finished.
CREATE TABLE revived (
    run bigint NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C" NOT NULL,  -- '': of no patient
    PRIMARY KEY (run, resource_type, patient_id)
);

-- Patients who are in the Group that an open run exports, as read from the Group itself. Emptied when the run is finished.
CREATE TABLE group_member (
    run bigint NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, patient_id)
);

-- Contents that came for one version of a resource within one run, the stored one among them, each with the newest run that
-- brought it: while the stored one comes, the others write nothing.
CREATE TABLE rival (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    content_hash bytea NOT NULL,
    run bigint NOT NULL,
    patient_id text COLLATE "C",
    version_id text COLLATE "C",
    last_updated text COLLATE "C",
    body text,  -- NULL: of what is stored
    PRIMARY KEY (connection, resource_type, id, content_hash)
);

ALTER TABLE lag ADD COLUMN first_run bigint;  -- since when the patient is behind, without a break

ALTER TABLE unit
    ADD COLUMN way integer,
    ADD COLUMN ending text CHECK (ending IN ('listed', 'partial', 'not-served', 'not-found', 'gone', 'merged', 'restricted', 'paused',
        'failed')),
    ADD COLUMN newest text;  -- the newest date of what it brought

ALTER TABLE run
    ADD COLUMN everything boolean NOT NULL DEFAULT false,  -- asked in full by hand, whatever was known
    ADD COLUMN granted text[] NOT NULL DEFAULT '{}',  -- types that the login could read
    ADD COLUMN knowledge text NOT NULL DEFAULT '',  -- whose watermarks it moves: its selection, and how that was listed
    ADD COLUMN as_of timestamptz,  -- the instant of its evidence, where the EHR names one (transactionTime)
    ADD COLUMN claims jsonb NOT NULL DEFAULT '[]';

ALTER TABLE connection
    ADD COLUMN base_url text,
    ADD COLUMN rotation_type text COLLATE "C" NOT NULL DEFAULT '',  -- how far the reading of unwitnessed rows has come
    ADD COLUMN rotation_id text COLLATE "C" NOT NULL DEFAULT '';

-- A store from before: who listed what is not known, so that nothing is known to be complete, and nothing can be missed yet. Its
-- tombstones rest on listings alone: each is asked for once. Merges are asked for again by full runs.
INSERT INTO evidence (connection, resource_type, id, state, run)
SELECT connection, resource_type, id, 'old-tombstone', deleted_run FROM resource WHERE deleted_at IS NOT NULL;
DELETE FROM watermark;
DELETE FROM lag;
DELETE FROM roster;
ALTER TABLE unit ADD COLUMN way_of_none integer;  -- by which it lists what belongs to no patient, where that is another
