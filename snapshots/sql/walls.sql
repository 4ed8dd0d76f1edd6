-- name: comment
-- The comment of a schema: it names its tenant's roles, and every login can read it.
SELECT obj_description(to_regnamespace(quote_ident(%(schema)s)), 'pg_namespace')

-- name: roles
-- Which of these roles exist, whether each may use the schema, and whether this login can become it.
SELECT r.rolname::text, has_schema_privilege(r.oid, n.oid, 'USAGE'),
    pg_has_role(session_user, r.oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
FROM pg_roles r CROSS JOIN pg_namespace n WHERE r.rolname = ANY(%(names)s::text[]) AND n.nspname = %(schema)s

-- name: may_create_roles
-- Whether this login may create roles, and whether it is a superuser.
SELECT rolsuper OR rolcreaterole, rolsuper FROM pg_roles WHERE rolname = session_user

-- name: suffix
-- The suffix that distinguishes a store's roles from those of other stores on the server, which may have a tenant of the same name.
SELECT left(replace(gen_random_uuid()::text, '-', ''), 8)

-- name: record
-- Name the roles in the schema's comment, which every login can read.
COMMENT ON SCHEMA {schema} IS {comment}

-- name: create_role
-- Create a role that cannot log in, but that a login can become.
CREATE ROLE {role} NOINHERIT

-- name: create_login
-- Create a login whose only right is to become one of the tenant's roles.
CREATE ROLE {role} LOGIN NOINHERIT

-- name: grant_role
-- Let a login become a role.
GRANT {role} TO {login}

-- name: lock
-- Let one process at a time change the rights that all tenants share, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('chartferry shared rights', 0))

-- name: shared_rights
-- Whether the writer lacks the right to temporary tables, and this login may give it; the same of the reader and its queries' limit.
-- A right that everybody has does not count: it may be revoked.
SELECT NOT EXISTS (SELECT FROM pg_database d CROSS JOIN aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE d.datname = current_database() AND r.rolname = %(writer)s AND a.privilege_type = 'TEMPORARY')
    AND has_database_privilege(current_database(), 'TEMPORARY WITH GRANT OPTION'), current_database()::text,
    NOT has_parameter_privilege(%(reader)s, 'temp_file_limit', 'SET')
    AND has_parameter_privilege('temp_file_limit', 'SET WITH GRANT OPTION')

-- name: grant_temporary
-- Runs compare in temporary tables.
GRANT TEMPORARY ON DATABASE {database} TO {writer}

-- name: revoke_temporary
-- By default everybody may fill the disk with temporary tables.
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC

-- name: grant_limit
-- A query's temporary files are limited by a setting that only a superuser may set.
GRANT SET ON PARAMETER temp_file_limit TO {reader}

-- name: tables
-- Tables that can be addressed, and whether each is guarded: of partitions only the one that COPY writes to.
SELECT c.relname::text, c.relispartition, c.relrowsecurity AND c.relforcerowsecurity
    AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant')
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = quote_ident(%(schema)s)::regnamespace AND d.classid = 'pg_class'::regclass
    AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
    AND (NOT c.relispartition OR c.relname = 'resource_stored')
ORDER BY c.relname

-- name: guard
-- Wall two: the policy shows rows only in transactions that are bound to this tenant; without the setting, reading is an error. The planner
-- assumes that a bare comparison with a setting lets 1 row in 200 pass, and plans joins for so few; for a CASE it assumes 1 in 2.
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON {table};
CREATE POLICY tenant ON {table} USING (CASE WHEN current_setting('app.current_tenant_id') = {tenant} THEN true ELSE false END)

-- name: grants
-- Wall one: a role reaches only this schema. Both roles may add to the audit and change nothing in it; the server supplies an event's
-- number, time and login.
GRANT USAGE ON SCHEMA {schema} TO {reader}, {writer};
GRANT SELECT ON {readable} TO {reader}, {writer};
REVOKE INSERT ON {event} FROM {reader}, {writer};
GRANT INSERT ({columns}) ON {event} TO {reader}, {writer};
GRANT INSERT ON {added} TO {reader}, {writer};
GRANT INSERT, UPDATE, DELETE ON {writable} TO {writer};
GRANT INSERT ON {stored} TO {writer}

-- name: unguarded
-- The number of addressable tables of a schema that lack their guard; a site's own tables do not count.
SELECT count(*) FROM pg_namespace n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
    AND d.classid = 'pg_class'::regclass JOIN pg_class c ON c.oid = d.objid
    JOIN pg_class o ON o.relnamespace = n.oid AND o.relname = 'schema_migration' AND o.relowner = c.relowner
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant'))
