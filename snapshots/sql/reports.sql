-- name: recent
-- Numbers of the newest runs, newest first.
SELECT run.id FROM run JOIN connection c ON c.id = run.connection
WHERE %(connection)s::text IS NULL OR c.name = %(connection)s ORDER BY run.id DESC LIMIT %(limit)s

-- name: runs
-- Runs with their quarantine counted. A run that is not closed and whose connection's lock (see ledger.lock) nobody holds was
-- interrupted. The mode of a run that was to choose is the one it took: its units tell, and all are of one way; once they are
-- pruned, that it had units and no export job does.
SELECT run.id, c.name AS connection, stands.status,
    CASE WHEN run.mode <> 'auto' THEN run.mode
        WHEN EXISTS (SELECT FROM bulk_job b WHERE b.run = run.id) THEN 'bulk'
        ELSE coalesce((
            SELECT CASE WHEN u.kind IN ('file', 'no-file', 'deleted-file', 'error-file') THEN 'bulk' ELSE 'crawl' END
            FROM unit u WHERE u.run = run.id LIMIT 1), CASE WHEN run.units_pruned THEN 'crawl' ELSE 'auto' END)
    END AS mode,
    run.patients, run.notes, run.requests, run.retries,
    run.retries_spent, run.retries_left, run.down_until,
    extract(epoch FROM CASE stands.status WHEN 'running' THEN now() WHEN 'interrupted' THEN (
        SELECT k.at FROM last_known k WHERE k.run = run.id
    ) ELSE run.finished_at END - run.started_at - run.idle)::float8 AS seconds, run.error,
    (SELECT count(*)::int FROM quarantine q WHERE q.run = run.id) AS quarantined, coalesce(run.cohort, '{}') AS cohort, run.claims,
    run.kind, run.units_pruned
FROM run JOIN connection c ON c.id = run.connection CROSS JOIN LATERAL (
    SELECT CASE WHEN run.status = 'running' AND NOT EXISTS (
        SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(
                'chartferry run ' || current_setting('app.current_tenant_id') || ' ' || c.name, 0)
    ) THEN 'interrupted' ELSE run.status END AS status
) AS stands
WHERE run.id = ANY(%(runs)s) ORDER BY run.id DESC

-- name: counts
-- What runs received, by type.
SELECT run, resource_type, new, changed, unchanged, deleted FROM run_count WHERE run = ANY(%(runs)s) ORDER BY run, resource_type

-- name: holes
-- Units that failed, with their place among the run's units of the same kind.
SELECT run, kind, resource_type, patient_id, of_chart, template, split, reason, ending, nth FROM (
    SELECT *, row_number() OVER (PARTITION BY run, kind ORDER BY ordinal) AS nth FROM unit WHERE run = ANY(%(runs)s)
) numbered WHERE state = 'failed' ORDER BY run, ordinal

-- name: report_key
-- What hashes of patient ids in reports are keyed with.
SELECT secret FROM report_key

-- name: patient_ids
-- Patients of a connection, live ones.
SELECT r.id FROM resource r JOIN connection c ON c.id = r.connection
WHERE r.resource_type = 'Patient' AND c.name = %(connection)s AND r.deleted_at IS NULL ORDER BY r.id
