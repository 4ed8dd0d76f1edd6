-- A run of a source that knows no patients counts none: NULL, which is not 0.
ALTER TABLE run ALTER COLUMN patients DROP NOT NULL;
