-- By its kind the store decides what a unit's end proves: `snapshots.unit.UnitKind` names them all. Rows that are there stay as they are.
ALTER TABLE unit ADD CONSTRAINT unit_kind CHECK (kind IN ('search', 'read', 'batch', 'cohort', 'file', 'no-file', 'deleted-file',
    'error-file', 'reference', 'attachment', 'confirm', 'control', 'doubt', 'unlisted', 'listing')) NOT VALID;
