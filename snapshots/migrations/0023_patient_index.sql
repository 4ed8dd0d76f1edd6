-- The blind index: which Patients have a token, and of which content of theirs the tokens are.
CREATE TABLE patient_token (
    connection integer NOT NULL,
    token bytea NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (connection, token, patient_id)
);
CREATE INDEX patient_token_by_patient ON patient_token (connection, patient_id);
CREATE TABLE patient_index (
    connection integer NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    content_hash bytea NOT NULL,
    PRIMARY KEY (connection, patient_id)
);

-- To find patients is a read of its own kind.
ALTER TABLE audit_event
    DROP CONSTRAINT audit_event_action_check,
    ADD CONSTRAINT audit_event_action_check
        CHECK (action IN ('export', 'pull', 'snapshots', 'diff', 'proof', 'listing', 'audit', 'prune', 'erase', 'find'));
