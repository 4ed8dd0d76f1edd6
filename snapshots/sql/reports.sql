-- name: recent
-- Numbers of the newest runs, newest first.
SELECT run.id FROM run JOIN connection c ON c.id = run.connection
WHERE %(connection)s::text IS NULL OR c.name = %(connection)s ORDER BY run.id DESC LIMIT %(limit)s

-- name: runs
-- Runs with their quarantine counted.
SELECT run.id, c.name, run.status, run.mode, run.patients, run.notes, run.requests, run.retries,
    extract(epoch FROM coalesce(run.finished_at, now()) - run.started_at)::float8, run.error,
    (SELECT count(*)::int FROM quarantine q WHERE q.run = run.id)
FROM run JOIN connection c ON c.id = run.connection WHERE run.id = ANY(%(runs)s) ORDER BY run.id DESC

-- name: counts
-- What runs received, by type.
SELECT run, resource_type, new, changed, unchanged, deleted FROM run_count WHERE run = ANY(%(runs)s) ORDER BY run, resource_type

-- name: holes
-- Units that failed, with their place among the run's units of the same kind.
SELECT run, key, kind, resource_type, patient_id, detail, reason, place FROM (
    SELECT *, row_number() OVER (PARTITION BY run, kind ORDER BY ordinal) AS place FROM unit WHERE run = ANY(%(runs)s)
) numbered WHERE state = 'failed' ORDER BY run, ordinal

-- name: report_key
-- What hashes of patient ids in reports are keyed with.
SELECT secret FROM report_key

-- name: patient_ids
-- Patients of a connection, live ones.
SELECT r.id FROM resource r JOIN connection c ON c.id = r.connection
WHERE r.resource_type = 'Patient' AND c.name = %(connection)s AND r.deleted_at IS NULL ORDER BY r.id
