-- Only pruning deletes events. The tenant's roles may no longer say that it did (`snapshots/walls.py`); what one has said stays, and
-- hides nothing that came after it.
ALTER TABLE audit_event ADD CONSTRAINT audit_event_through_check CHECK (through IS NULL OR action = 'prune') NOT VALID;
