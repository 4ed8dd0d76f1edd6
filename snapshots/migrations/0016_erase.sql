-- A patient who is erased leaves one event in the audit: how many rows of each table there were.
ALTER TABLE audit_event
    ADD COLUMN erased jsonb,
    DROP CONSTRAINT audit_event_action_check,
    ADD CONSTRAINT audit_event_action_check
        CHECK (action IN ('export', 'pull', 'snapshots', 'proof', 'listing', 'audit', 'prune', 'erase'));
