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

-- name: policy
-- Condition: a table has the policy as `guard` makes it, and not one of its name that lets more rows pass.
EXISTS (
    SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant' AND p.polpermissive AND p.polcmd = '*' AND p.polroles = '{{0}}'
        AND p.polwithcheck IS NULL AND btrim(regexp_replace(pg_get_expr(p.polqual, p.polrelid), '\s+', ' ', 'g')) = format(
            'CASE WHEN (current_setting(''app.current_tenant_id''::text) = %%L::text) THEN true ELSE false END', {tenant}
        )
) AND (
    c.relname <> ALL (%(added)s::text[])
    OR EXISTS (
        SELECT FROM pg_policy p
        WHERE p.polrelid = c.oid AND p.polname = 'unsealed' AND NOT p.polpermissive AND p.polcmd = 'a' AND p.polroles = '{{0}}' AND 1 = (
            -- Postgres writes an expression with more names, casts, brackets and, for some search paths, schemas than ours has
            SELECT count(DISTINCT regexp_replace(
                replace(replace(lower(e), '"', ''), %(schema)s || '.', ''), '--[^\n]*|\mas \w+|::\w+|\maudit_(seal|event)\.|[\s()]', '', 'g'
            ))
            FROM unnest(ARRAY[
                coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ''), (%(conditions)s::text[])[array_position(%(added)s::text[], c.relname::text)]
            ]) e
        )
    )
)

-- name: tables
-- Tables that can be addressed, and whether each is guarded: of partitions only the one that COPY writes to.
SELECT c.relname::text, c.relispartition, c.relrowsecurity AND c.relforcerowsecurity AND {policy}
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

-- name: guard_added
-- What may be added to a table of the audit.
DROP POLICY IF EXISTS unsealed ON {table};
CREATE POLICY unsealed ON {table} AS RESTRICTIVE FOR INSERT WITH CHECK ({condition})

-- name: unsealed_audit_patient
-- Nobody is added to an event that is sealed: `verify` would take that for tampering with it, for ever.
event > (SELECT coalesce(max(last_event), 0) FROM {seals})

-- name: unsealed_audit_seal
-- A seal covers events that there are: no event would be sealed any more after one that covers those to come. Its number has room
-- for further ones.
number <= last_event AND after_event < last_event AND last_event <= (SELECT max(id) FROM {events})

-- name: granted
-- Wall one, right by right: what chartferry grants on the tables and views of a schema. `grants` gives it, and `breaches` names what is
-- beyond. Both roles may add to the audit and change nothing in it; the server supplies an event's number, time and login. Nobody reads
-- what COPY goes to, or any other partition.
SELECT h.role, c.oid AS relation, r.privilege, k.attname AS "column"
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
CROSS JOIN (VALUES (%(reader)s), (%(writer)s)) h (role)
CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) r (privilege)
LEFT JOIN pg_attribute k ON c.relname = %(event)s AND r.privilege = 'INSERT' AND k.attrelid = c.oid AND k.attname = ANY(%(columns)s::text[])
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = quote_ident(%(schema)s)::regnamespace AND d.classid = 'pg_class'::regclass
    AND CASE
        WHEN c.relkind = 'v' THEN c.relname = ANY(%(views)s::text[]) AND r.privilege = 'SELECT'
        WHEN c.relkind NOT IN ('r', 'p') THEN false
        WHEN c.relispartition THEN c.relname = %(stored)s AND r.privilege = 'INSERT' AND h.role = %(writer)s
        WHEN c.relname = ANY(%(audit)s::text[]) THEN r.privilege IN ('SELECT', 'INSERT')
        ELSE r.privilege = 'SELECT' OR h.role = %(writer)s AND c.relname <> ALL(%(read_only)s::text[])
    END

-- name: grants
-- The statements that grant this, for tables that this login owns.
SELECT format('GRANT %%s%%s ON %%s TO %%I', privilege, columns, string_agg(relation::regclass::text, ', '), role) FROM (
    SELECT role, relation, privilege, coalesce('(' || string_agg(quote_ident("column"), ', ') || ')', '') AS columns
    FROM ({granted}) granted GROUP BY role, relation, privilege
) granted JOIN pg_class c ON c.oid = relation WHERE pg_has_role(c.relowner, 'USAGE') GROUP BY role, privilege, columns

-- name: enter
-- Wall one: a role reaches only this schema. A right to insert any value into an event is taken back before parts of it are granted.
GRANT USAGE ON SCHEMA {schema} TO {reader}, {writer};
REVOKE INSERT ON {event} FROM {reader}, {writer}

-- name: unguarded
-- The number of addressable tables of a schema that lack their guard; a site's own tables do not count.
SELECT count(*) FROM pg_namespace n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
    AND d.classid = 'pg_class'::regclass JOIN pg_class c ON c.oid = d.objid
    JOIN pg_class o ON o.relnamespace = n.oid AND o.relname = 'schema_migration' AND o.relowner = c.relowner
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND {policy})

-- name: comments
-- The comments of the schemas of all other tenants.
SELECT nspname::text, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE starts_with(nspname, %(prefix)s) AND nspname <> %(schema)s

-- name: breaches
-- What somebody has opened in the walls of a schema, each as the statement that closes it: rights of its roles beyond `granted`, any right
-- of everybody's or of another tenant's roles, also on tables to come, what these roles own, and policies beside ours (the rows of each
-- permissive one show). Its roles may also read a site's own views.
WITH ours AS (SELECT r.oid, r.rolname, r.rolname = %(login)s AS is_login FROM pg_roles r WHERE r.rolname = ANY(%(names)s::text[])),
    holder AS (
        SELECT oid, rolname::text AS role, quote_ident(rolname) AS name, rolname = ANY(%(names)s::text[]) AS is_ours
        FROM pg_roles WHERE rolname = ANY(%(names)s::text[] || %(others)s::text[])
        UNION ALL SELECT 0, NULL, 'PUBLIC', false
    ),
    owner AS (  -- who should be it: whoever else owns most
        SELECT c.relowner AS oid FROM pg_class c WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND c.relkind IN ('r', 'p')
            AND c.relowner NOT IN (SELECT oid FROM holder)
        GROUP BY c.relowner ORDER BY count(*) DESC LIMIT 1
    ),
    held AS (
        SELECT c.oid AS relation, c.relkind, NULL::name AS "column", 0 AS attnum, a.grantee, a.privilege_type AS privilege, a.is_grantable
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND a.grantee <> c.relowner
        UNION ALL
        SELECT c.oid, c.relkind, k.attname, k.attnum, a.grantee, a.privilege_type, a.is_grantable
        FROM pg_class c JOIN pg_attribute k ON k.attrelid = c.oid CROSS JOIN aclexplode(k.attacl) a
        WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
    ),
    beyond AS (
        SELECT d.relation, CASE d.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END AS kind, h.name AS holder,
            CASE WHEN g.role IS NULL THEN '' ELSE 'GRANT OPTION FOR ' END || d.privilege
            || coalesce(' (' || string_agg(quote_ident(d."column"), ', ' ORDER BY d.attnum) || ')', '') AS privilege
        FROM held d JOIN holder h ON h.oid = d.grantee
        LEFT JOIN ({granted}) g
            ON (g.role, g.relation, g.privilege) = (h.role, d.relation, d.privilege) AND g."column" IS NOT DISTINCT FROM d."column"
        WHERE (g.role IS NULL OR d.is_grantable)
            AND NOT (h.is_ours AND d.relkind IN ('v', 'm', 'f') AND d.privilege = 'SELECT' AND NOT d.is_grantable)
        GROUP BY d.relation, d.relkind, h.name, g.role, d.privilege
    )
SELECT format('ALTER ROLE %%I NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION', r.rolname) FROM pg_roles r JOIN ours USING (oid)
WHERE r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolreplication
UNION ALL
SELECT format('ALTER SCHEMA %%I OWNER TO %%I', n.nspname, pg_get_userbyid(o.oid)) FROM pg_namespace n CROSS JOIN owner o
WHERE n.nspname = %(schema)s AND n.nspowner IN (SELECT oid FROM holder)
UNION ALL
SELECT format('ALTER TABLE %%s OWNER TO %%I', c.oid::regclass, pg_get_userbyid(o.oid)) FROM pg_class c CROSS JOIN owner o
WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND c.relkind IN ('r', 'p', 'm') AND c.relowner IN (SELECT oid FROM holder)
UNION ALL
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I%%s REVOKE %%s ON %%s FROM %%s', pg_get_userbyid(d.defaclrole), ' IN SCHEMA ' || quote_ident(n.nspname),
    string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type), k.kind, h.name)
FROM pg_default_acl d JOIN owner o ON o.oid = d.defaclrole LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('n', 'SCHEMAS')) k (type, kind) ON k.type = d.defaclobjtype
CROSS JOIN aclexplode(d.defaclacl) a JOIN holder h ON h.oid = a.grantee
WHERE d.defaclnamespace = 0 OR n.nspname = %(schema)s GROUP BY d.defaclrole, n.nspname, k.kind, h.name
UNION ALL
SELECT format('REVOKE %%I FROM %%I', g.rolname, o.rolname)
FROM ours o JOIN pg_auth_members m ON m.member = o.oid JOIN pg_roles g ON g.oid = m.roleid
WHERE NOT (o.is_login AND g.oid IN (SELECT oid FROM ours))
UNION ALL
SELECT format('REVOKE %%s ON %%s%%s FROM %%s', privilege, kind, string_agg(relation::regclass::text, ', ' ORDER BY relation::regclass::text), holder)
FROM beyond GROUP BY privilege, kind, holder
UNION ALL
SELECT format('DROP POLICY %%I ON %%s', p.polname, c.oid::regclass) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace AND p.polname <> 'tenant' AND p.polpermissive
    AND p.polroles && ARRAY(SELECT oid FROM holder)
UNION ALL
SELECT format('REVOKE %%s%%s ON SCHEMA %%I FROM %%s', CASE WHEN as_granted THEN 'GRANT OPTION FOR ' ELSE '' END, a.privilege_type, n.nspname, h.name)
FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a JOIN holder h ON h.oid = a.grantee
CROSS JOIN LATERAL (SELECT a.privilege_type = 'USAGE' AND coalesce(h.role IN (%(reader)s, %(writer)s), false)) g (as_granted)
WHERE n.nspname = %(schema)s AND (a.is_grantable OR NOT as_granted) AND a.grantee <> n.nspowner
ORDER BY 1
