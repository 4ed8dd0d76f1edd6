-- A mask was lifted for one command: why. NULL: there was none, or it was not lifted.
ALTER TABLE audit_event ADD COLUMN broke_glass text;
