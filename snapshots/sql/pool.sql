-- name: server_version
-- The server's version as one number: 150004 for 15.4.
SELECT current_setting('server_version_num')::int

-- name: standing
-- Who we are here and what we may: version, user, database, its encoding, whether schemas may be made, which of the wanted ones are
-- not there, and which are there and closed to us.
SELECT current_setting('server_version_num')::int, current_user::text, current_database()::text,
    pg_encoding_to_char(d.encoding)::text, has_database_privilege(d.oid, 'CREATE'),
    ARRAY(SELECT w.name FROM unnest(%(schemas)s::text[]) AS w (name)
        WHERE NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = w.name)),
    ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE n.nspname = ANY(%(schemas)s::text[])
        AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE')))
FROM pg_database d WHERE d.datname = current_database()
