-- What a unit counted in what it brought, for a note at the run's end: a list of [about, type, what, number]. A run that was killed
-- and goes on does not ask for the unit again.
ALTER TABLE unit ADD COLUMN counted jsonb;
