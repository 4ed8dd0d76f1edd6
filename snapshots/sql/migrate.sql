-- name: lock
-- Let one process migrate a tenant at a time, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('chartferry migrate ' || %(schema)s, 0))

-- name: has_record
-- Whether the tenant's schema has its record of migrations.
SELECT to_regclass(quote_ident(%(schema)s) || '.schema_migration') IS NOT NULL

-- name: create_record
-- The record of migrations that were applied to this schema.
CREATE TABLE schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: version
-- The newest migration that was applied; 0 before the first.
SELECT coalesce(max(version), 0) FROM schema_migration

-- name: record
-- Note that a migration was applied.
INSERT INTO schema_migration (version, name) VALUES (%(version)s, %(name)s)
