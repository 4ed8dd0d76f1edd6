-- name: schemas
-- The schemas of tenants.
SELECT n.nspname::text FROM pg_namespace n JOIN pg_class m ON m.relnamespace = n.oid AND m.relname = 'schema_migration'
WHERE starts_with(n.nspname, 'tenant_') ORDER BY n.nspname

-- name: sizes
-- The schemas of tenants, with their sizes in bytes. Waits for whoever locks one of their tables.
SELECT n.nspname::text, (
    SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'm')
)
FROM pg_namespace n JOIN pg_class m ON m.relnamespace = n.oid AND m.relname = 'schema_migration'
WHERE starts_with(n.nspname, 'tenant_') ORDER BY n.nspname

-- name: open_runs
-- Runs that have not ended.
SELECT id FROM run WHERE finished_at IS NULL

-- name: connections
-- The names of a tenant's connections.
SELECT name FROM connection ORDER BY name

-- name: bound_wait
-- Whoever waits for a lock that excludes everybody lets everybody else wait behind it.
SET LOCAL lock_timeout = '3s'

-- name: drop_schema
-- Everything of a tenant, in one transaction.
DROP SCHEMA {schema} CASCADE

-- name: drop_rights
-- What a role may do in this database, and on the server.
DROP OWNED BY {role}

-- name: drop_role
-- A role that nothing refers to any more.
DROP ROLE {role}

-- name: policies
-- Whether policies apply to this login, although it owns the tables; and those of a schema that are not chartferry's.
SELECT NOT (r.rolsuper OR r.rolbypassrls), ARRAY(
    SELECT format('%%s on %%s', p.polname, c.relname) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND p.polname NOT IN ('tenant', 'unsealed') ORDER BY 1
)
FROM pg_roles r WHERE r.rolname = current_user
