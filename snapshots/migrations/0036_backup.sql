-- A backup is a read of its own kind: of everything that a tenant has.
ALTER TABLE audit_event
    DROP CONSTRAINT audit_event_action_check,
    ADD CONSTRAINT audit_event_action_check
        CHECK (action IN ('export', 'pull', 'snapshots', 'diff', 'proof', 'listing', 'audit', 'prune', 'erase', 'find', 'backup'));
