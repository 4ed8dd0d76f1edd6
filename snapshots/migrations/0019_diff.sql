-- Two moments are compared: a read of its own kind.
ALTER TABLE audit_event
    DROP CONSTRAINT audit_event_action_check,
    ADD CONSTRAINT audit_event_action_check
        CHECK (action IN ('export', 'pull', 'snapshots', 'diff', 'proof', 'listing', 'audit', 'prune', 'erase'));
