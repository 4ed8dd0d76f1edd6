-- name: rights
-- What may be done with a tenant's schema by this login, and by the roles that it becomes there. A schema that is not there has no owner.
WITH there AS MATERIALIZED (
    -- by the index of what depends on a schema: pg_class has none by schema, and 70,000 rows with 200 tenants
    SELECT c.*, n.oid AS nspoid FROM pg_namespace n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
        AND d.classid = 'pg_class'::regclass JOIN pg_class c ON c.oid = d.objid
    WHERE n.nspname = %(schema)s
)
SELECT session_user::text, current_database()::text, n.nspowner::regrole::text,
    has_database_privilege(session_user, current_database(), 'CREATE'), has_database_privilege(w.role, current_database(), 'TEMPORARY'),
    coalesce(has_schema_privilege(r.role, n.oid, 'USAGE'), false), coalesce(has_schema_privilege(session_user, n.oid, 'CREATE'), false),
    coalesce(pg_has_role(session_user, n.nspowner, 'USAGE'), false),
    NOT EXISTS (SELECT FROM there c WHERE c.nspoid = n.oid AND c.relkind IN ('r', 'p')
        AND NOT pg_has_role(session_user, c.relowner, 'USAGE')),
    NOT EXISTS (SELECT FROM there c WHERE c.nspoid = n.oid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND NOT has_table_privilege(r.role, c.oid, 'SELECT')),
    NOT EXISTS (SELECT FROM there c WHERE c.nspoid = n.oid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND NOT starts_with(c.relname, 'audit_') AND c.relname NOT IN ('schema_migration', 'report_key', 'sealing_key', 'to_encrypt')
        AND NOT (has_table_privilege(w.role, c.oid, 'INSERT') AND has_table_privilege(w.role, c.oid, 'UPDATE')
            AND has_table_privilege(w.role, c.oid, 'DELETE')))
    AND NOT EXISTS (SELECT FROM there c WHERE c.nspoid = n.oid AND c.relname = 'resource_stored'
        AND NOT has_table_privilege(w.role, c.oid, 'INSERT')),
    NOT EXISTS (SELECT FROM there c WHERE c.nspoid = n.oid AND c.relname IN ('audit_event', 'audit_patient', 'audit_seal')
        AND NOT (has_table_privilege(r.role, c.oid, 'SELECT') AND has_any_column_privilege(r.role, c.oid, 'INSERT')))
FROM (SELECT coalesce(%(reader)s, session_user)::name AS role) r CROSS JOIN (SELECT coalesce(%(writer)s, session_user)::name AS role) w
LEFT JOIN pg_namespace n ON n.nspname = %(schema)s

-- name: tables_of_others
-- The tables of a tenant's schema that this login does not own, and who does.
SELECT c.relname::text, c.relowner::regrole::text FROM pg_class c WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
    AND c.relkind IN ('r', 'p') AND NOT pg_has_role(session_user, c.relowner, 'USAGE') ORDER BY 1

-- name: quoted
-- Names as a statement writes them, in their order.
SELECT array_agg(quote_ident(n.name) ORDER BY n.at) FROM unnest(%(names)s::text[]) WITH ORDINALITY AS n (name, at)
