-- Readers address `resource`, which row-level security guards; the writer COPYs into `resource_stored`, for Postgres refuses COPY
-- into a table that is guarded so. The policies themselves are of every table, and no matter of a version: `snapshots/walls.py`.
DO $$
DECLARE
    view record;
    views text[] := '{}';
BEGIN
    -- SQL views (`chartferry views create`) follow a table that is renamed: they are put back on the guarded one
    FOR view IN
        SELECT DISTINCT c.oid, c.relname, c.reloptions FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'resource'::regclass AND c.relkind = 'v'
            AND c.relnamespace = current_schema()::regnamespace AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        views := views || format(  -- with its options: without security_invoker it would show its owner's rows to everybody
            'CREATE OR REPLACE VIEW %I %s AS %s', view.relname,
            'WITH (' || array_to_string(view.reloptions, ', ') || ')', pg_get_viewdef(view.oid)
        );
    END LOOP;
    ALTER TABLE resource RENAME TO resource_stored;
    CREATE TABLE resource (LIKE resource_stored, PRIMARY KEY (resource_type, connection, id)) PARTITION BY LIST (resource_type);
    ALTER TABLE resource ATTACH PARTITION resource_stored DEFAULT;
    FOR i IN 1 .. cardinality(views) LOOP
        EXECUTE views[i];
    END LOOP;
END
$$;
