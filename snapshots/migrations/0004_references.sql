-- References followed, and attachments by content hash.

-- What was mentioned by a resource and came with no listing, so that it is asked by its id. `run` and `depth` are the newest run
-- that found it mentioned, and how many steps from a listing: the visited set of that run's walk.
CREATE TABLE referenced (
    connection integer NOT NULL REFERENCES connection,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C",  -- of a chart that mentions it: some EHRs bind their token to a patient
    run bigint NOT NULL,
    depth integer NOT NULL,
    state text NOT NULL DEFAULT 'wanted' CHECK (state IN ('wanted', 'found', 'missing', 'restricted')),
    asked_run bigint,
    checked_at timestamptz,  -- when the EHR last answered for it
    PRIMARY KEY (connection, resource_type, id)
);
CREATE INDEX referenced_by_run ON referenced (run, depth);

-- which types a run followed references to: only such a run can tell that nothing mentions a resource any more
CREATE TABLE followed (
    run bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    resource_type text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, resource_type)
);

-- What one run changed lies together on disk: finding it needs no more than block ranges, which cost an ingest nothing.
CREATE INDEX resource_by_run ON resource USING brin (last_changed_run) WITH (pages_per_range = 32, autosummarize = on);

-- The bytes of documents, each content once; `text` is what was read out of it, NULL where that was not possible.
CREATE TABLE attachment (
    sha256 bytea PRIMARY KEY,
    size bigint NOT NULL,
    content_type text NOT NULL,
    content bytea NOT NULL,
    text text,
    unread text,  -- why there is no text
    stored_at timestamptz NOT NULL DEFAULT now()
);

-- Where a document is attached: the n-th attachment of a resource. `version` is the run in which the resource got the content
-- that says so, `run` the newest run that wanted the document.
CREATE TABLE attachment_use (
    connection integer NOT NULL REFERENCES connection,
    resource_type text COLLATE "C" NOT NULL,
    resource_id text COLLATE "C" NOT NULL,
    place integer NOT NULL,  -- from 0, as in content[0], presentedForm[0]
    patient_id text COLLATE "C",
    content_type text,
    url text,
    inline boolean NOT NULL,
    claimed_size bigint,
    claimed_hash text,
    version bigint NOT NULL,
    run bigint NOT NULL,
    state text NOT NULL DEFAULT 'wanted'
        CHECK (state IN ('wanted', 'stored', 'missing', 'restricted', 'foreign', 'unwanted', 'too-large', 'empty')),
    note text,
    sha256 bytea REFERENCES attachment,
    checked_at timestamptz,
    PRIMARY KEY (connection, resource_type, resource_id, place)
);
CREATE INDEX attachment_use_by_content ON attachment_use (sha256);
CREATE INDEX attachment_use_by_patient ON attachment_use (patient_id, connection);
CREATE INDEX attachment_use_wanted ON attachment_use (connection) WHERE state = 'wanted';
