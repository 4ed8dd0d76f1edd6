-- name: rights
-- What this login may do with a tenant's schema, and who it is. A schema that is not there has no owner.
SELECT current_user::text, current_database()::text, n.nspowner::regrole::text,
    has_database_privilege(current_database(), 'CREATE'), has_database_privilege(current_database(), 'TEMPORARY'),
    coalesce(has_schema_privilege(n.oid, 'USAGE'), false), coalesce(has_schema_privilege(n.oid, 'CREATE'), false),
    NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
        AND NOT pg_has_role(c.relowner, 'USAGE')),
    NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
        AND NOT has_table_privilege(c.oid, 'SELECT')),
    NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
        AND NOT (has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')
            AND has_table_privilege(c.oid, 'DELETE'))),
    NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname IN ('audit_event', 'audit_patient', 'audit_seal')
        AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_any_column_privilege(c.oid, 'INSERT')))
FROM (SELECT) this LEFT JOIN pg_namespace n ON n.nspname = %(schema)s

-- name: quoted
-- Names as a statement writes them.
SELECT quote_ident(%(database)s), quote_ident(%(schema)s), quote_ident(%(role)s)
