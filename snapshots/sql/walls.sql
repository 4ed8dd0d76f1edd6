-- name: comment
-- What is written of a schema: there, the roles of its tenant are named, readable for every login.
SELECT obj_description(to_regnamespace(quote_ident(%(schema)s)), 'pg_namespace')

-- name: roles
-- Which of these roles there are, whether each may enter the schema, and whether this login can become it.
SELECT r.rolname::text, has_schema_privilege(r.oid, n.oid, 'USAGE'),
    pg_has_role(session_user, r.oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
FROM pg_roles r CROSS JOIN pg_namespace n WHERE r.rolname = ANY(%(names)s::text[]) AND n.nspname = %(schema)s

-- name: may_create_roles
-- Whether this login may create roles, and whether it may do everything.
SELECT rolsuper OR rolcreaterole, rolsuper FROM pg_roles WHERE rolname = session_user

-- name: suffix
-- What tells a store's roles from those of other stores of the server, which may have a tenant of the same name.
SELECT left(replace(gen_random_uuid()::text, '-', ''), 8)

-- name: record
-- Name the roles where every login can read it.
COMMENT ON SCHEMA {schema} IS {comment}

-- name: create_role
-- A role that nobody is, but that a login can become.
CREATE ROLE {role} NOINHERIT

-- name: create_login
-- A login that has no right but to become one of the tenant's roles.
CREATE ROLE {role} LOGIN NOINHERIT

-- name: grant_role
-- Let a login become a role.
GRANT {role} TO {login}

-- name: lock
-- Let one process at a time change the rights that all tenants share, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('chartferry shared rights', 0))

-- name: shared_rights
-- Whether the writer lacks the right to temporary tables, and this login may give it; the same of the reader and its queries' limit.
-- What everybody has does not count: it may be taken back.
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
-- A query's room on the disk is bounded by a setting that only a superuser may set.
GRANT SET ON PARAMETER temp_file_limit TO {reader}

-- name: tables
-- Tables that can be addressed, and whether each is guarded: partitions are not among them, but for the one that COPY goes to.
SELECT c.relname::text, c.relispartition, c.relrowsecurity AND c.relforcerowsecurity
    AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant')
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = quote_ident(%(schema)s)::regnamespace AND d.classid = 'pg_class'::regclass
    AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')
    AND (NOT c.relispartition OR c.relname = 'resource_stored')
ORDER BY c.relname

-- name: guard
-- Wall two: rows show, to whoever is subject to it, in transactions that are bound to this tenant. Without the setting it is an error.
-- The planner takes a bare comparison with a setting for one that lets 1 row in 200 pass, and joins for so few; of a CASE it thinks 1 in 2.
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON {table};
CREATE POLICY tenant ON {table} USING (CASE WHEN current_setting('app.current_tenant_id') = {tenant} THEN true ELSE false END)

-- name: grants
-- Wall one: a role reaches this schema and no other. The audit can be added to, by both, and nothing in it changed; an event's
-- number, moment and login are the server's.
GRANT USAGE ON SCHEMA {schema} TO {reader}, {writer};
GRANT SELECT ON {readable} TO {reader}, {writer};
REVOKE INSERT ON {event} FROM {reader}, {writer};
GRANT INSERT ({columns}) ON {event} TO {reader}, {writer};
GRANT INSERT ON {added} TO {reader}, {writer};
GRANT INSERT, UPDATE, DELETE ON {writable} TO {writer};
GRANT INSERT ON {stored} TO {writer}

-- name: unguarded
-- How many tables of a schema that can be addressed lack their guard; those that a site has put there for itself are its own.
SELECT count(*) FROM pg_namespace n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
    AND d.classid = 'pg_class'::regclass JOIN pg_class c ON c.oid = d.objid
    JOIN pg_class o ON o.relnamespace = n.oid AND o.relname = 'schema_migration' AND o.relowner = c.relowner
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant'))
