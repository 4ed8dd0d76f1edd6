-- name: connection
-- The number of a connection.
SELECT id FROM connection WHERE name = %(connection)s

-- name: newest_sync
-- The sync to prove: the newest finished one of this selection, else of any.
SELECT id, started_at, types FROM run
WHERE connection = %(connection)s AND kind = 'sync' AND status IN ('complete', 'partial', 'nothing')
ORDER BY selection = %(selection)s DESC, id DESC LIMIT 1

-- name: at_work
-- The connection's active run: not closed, and its connection's lock (see ledger.lock) is held.
SELECT max(run.id) FROM run JOIN connection c ON c.id = run.connection
WHERE c.id = %(connection)s AND run.status = 'running' AND EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(
            'chartferry run ' || current_setting('app.current_tenant_id') || ' ' || c.name, 0)
)

-- name: patients
-- The connection's live patients.
SELECT id FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND deleted_at IS NULL ORDER BY id

-- name: types
-- Types of which the connection has live rows that belong to a patient.
SELECT t.resource_type FROM (SELECT DISTINCT c.resource_type FROM run_count c JOIN run r ON r.id = c.run
    WHERE r.connection = %(connection)s) t
WHERE EXISTS (SELECT FROM resource r WHERE r.resource_type = t.resource_type AND r.connection = %(connection)s
    AND r.deleted_at IS NULL AND r.patient_id IS NOT NULL)
OR EXISTS (SELECT FROM member m JOIN resource r USING (connection, resource_type, id)
    WHERE m.resource_type = t.resource_type AND m.connection = %(connection)s AND r.deleted_at IS NULL)
ORDER BY 1

-- name: held_of_patient
-- Live resources of a type in one patient's compartment. Of the type Patient only the patient: linked Patients are in no listing of it.
SELECT id, last_updated FROM resource
WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND patient_id = %(patient)s AND deleted_at IS NULL
UNION
SELECT r.id, r.last_updated FROM member m JOIN resource r USING (connection, resource_type, id)
WHERE m.resource_type = %(resource_type)s AND m.connection = %(connection)s AND m.patient_id = %(patient)s
    AND m.resource_type <> 'Patient' AND r.deleted_at IS NULL

-- name: held_of_type
-- Live resources of a type, of every patient and of none.
SELECT id, last_updated FROM resource
WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND deleted_at IS NULL

-- name: number_of_patient
-- The number of those.
SELECT count(*)::int FROM (
    SELECT id FROM resource
    WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND patient_id = %(patient)s AND deleted_at IS NULL
    UNION
    SELECT r.id FROM member m JOIN resource r USING (connection, resource_type, id)
    WHERE m.resource_type = %(resource_type)s AND m.connection = %(connection)s AND m.patient_id = %(patient)s
        AND m.resource_type <> 'Patient' AND r.deleted_at IS NULL
) held

-- name: number_of_type
-- The number of live resources of a type.
SELECT count(*)::int FROM resource
WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND deleted_at IS NULL

-- name: by_id
-- These resources in any compartment, tombstones included.
SELECT id, last_updated, deleted_at IS NOT NULL FROM resource
WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND id = ANY(%(ids)s)

-- name: holes
-- Units of the run that failed, of these patients or of none.
SELECT resource_type, patient_id, min(reason) FROM unit
WHERE run = %(run)s AND state = 'failed' AND (patient_id IS NULL OR patient_id = ANY(%(patients)s)) GROUP BY 1, 2

-- name: asked
-- Types that the run searched, read or exported, except those that the server does not serve (connectors.fhir.search.verdicts).
SELECT DISTINCT resource_type FROM unit WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'confirm', 'control', 'doubt')
    AND (records > 0 OR ending <> 'not-served')

-- name: save
-- Keep a certificate.
INSERT INTO certificate (connection, run, made_at, body) VALUES (%(connection)s, %(run)s, %(made_at)s, %(body)s::jsonb)

-- name: of_runs
-- Certificates of runs, oldest first.
SELECT ce.run, c.name, ce.made_at, ce.body FROM certificate ce JOIN connection c ON c.id = ce.connection
WHERE ce.run = ANY(%(runs)s) ORDER BY ce.run, ce.id
