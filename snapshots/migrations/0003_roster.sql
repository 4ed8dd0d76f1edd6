-- Which patients a selection has had, and what each is behind with.

-- whom a selection's watermarks speak for: patients that a finished crawl of it asked for, until one no longer does
CREATE TABLE roster (
    connection integer NOT NULL REFERENCES connection,
    selection text NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    first_run bigint NOT NULL,
    last_run bigint NOT NULL,
    removed_run bigint,  -- the first run that no longer asked for it: from then on no watermark holds for it
    PRIMARY KEY (connection, selection, patient_id)
);

-- patients of the roster for whom a type's watermark does not hold: they are complete up to `instant`, or not at all (NULL)
CREATE TABLE lag (
    connection integer NOT NULL REFERENCES connection,
    selection text NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    instant text,
    run bigint NOT NULL,
    PRIMARY KEY (connection, selection, resource_type, patient_id)
);

-- what the EHR said not to ask before a time, whatever the selection
CREATE TABLE deferral (
    connection integer NOT NULL REFERENCES connection,
    resource_type text COLLATE "C" NOT NULL,  -- '*': every type of the patient
    patient_id text COLLATE "C" NOT NULL,  -- '': every patient
    reason text NOT NULL CHECK (reason IN ('restricted', 'paused')),
    until timestamptz NOT NULL,
    PRIMARY KEY (connection, resource_type, patient_id)
);

-- patients that the EHR has merged: who was former_id is surviving_id now
CREATE TABLE alias (
    connection integer NOT NULL REFERENCES connection,
    former_id text COLLATE "C" NOT NULL,
    surviving_id text COLLATE "C" NOT NULL,
    gone boolean NOT NULL,  -- the former id leads to the survivor (Epic 4107); false: Patient.link says so, and both can be read
    first_run bigint NOT NULL,
    last_run bigint NOT NULL,
    PRIMARY KEY (connection, former_id)
);

ALTER TABLE run ADD COLUMN cohort_digest text NOT NULL DEFAULT '';  -- of the cohort as given: an interrupted run is of the same
ALTER TABLE run ADD COLUMN cohort jsonb;  -- what became of the cohort's entries: numbers and line numbers, no values
