-- name: current
-- The run's bulk export job.
SELECT status_url, kicked_off_at, request, transaction_time, manifest_complete, deleted, asked, elements, progress, next_poll_at,
    expires_at, pages
FROM bulk_job WHERE run = %(run)s

-- name: save
-- Insert or update the run's bulk export job.
INSERT INTO bulk_job (run, status_url, kicked_off_at, request, transaction_time, manifest_complete, deleted, asked, elements,
    progress, next_poll_at, expires_at, pages)
VALUES (%(run)s, %(status_url)s, %(kicked_off_at)s, %(request)s, %(transaction_time)s, %(manifest_complete)s, %(deleted)s, %(asked)s,
    %(elements)s, %(progress)s, %(next_poll_at)s, %(expires_at)s, %(pages)s)
ON CONFLICT (run) DO UPDATE SET status_url = excluded.status_url, kicked_off_at = excluded.kicked_off_at,
    request = excluded.request, transaction_time = excluded.transaction_time,
    manifest_complete = excluded.manifest_complete, deleted = excluded.deleted, asked = excluded.asked,
    elements = excluded.elements,    progress = excluded.progress, next_poll_at = excluded.next_poll_at, expires_at = excluded.expires_at, pages = excluded.pages

-- name: forget
-- The kick-off was refused: there is no job.
DELETE FROM bulk_job WHERE run = %(run)s

-- name: earlier
-- Jobs of this connection's earlier runs that were never deleted at the server, newest first; `stored`: every file of the job is in the
-- store. All those runs are closed: opening a run takes the connection's lock, and closes runs that are not resumed.
SELECT b.run, b.status_url, b.kicked_off_at, b.request, b.transaction_time, b.manifest_complete, b.deleted, b.asked, b.elements, b.progress,
    b.next_poll_at, b.expires_at, b.pages,
    b.manifest_complete AND NOT EXISTS (SELECT FROM unit u WHERE u.run = b.run AND u.state <> 'settled') AS stored
FROM bulk_job b JOIN run r ON r.id = b.run
WHERE r.connection = %(connection)s AND b.run <> %(run)s AND NOT b.deleted ORDER BY b.run DESC

-- name: settle_earlier
-- An earlier run's job is gone from the server, or can no longer be found.
UPDATE bulk_job SET deleted = true WHERE run = %(earlier)s

-- name: last_kicked_off
-- When this connection last kicked off the same export.
SELECT max(b.kicked_off_at) FROM bulk_job b JOIN run r ON r.id = b.run
WHERE r.connection = %(connection)s AND r.selection = %(selection)s AND b.run <> %(run)s
    AND (b.status_url IS NOT NULL OR b.manifest_complete)

-- name: patients_without_data
-- Those of these patients whose Patient the run has not received.
SELECT p.id FROM unnest(%(patients)s::text[]) AS p (id)
WHERE NOT EXISTS (SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = p.id
        AND r.last_changed_run = %(run)s)
    AND NOT EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = 'Patient' AND s.id = p.id)

-- name: patients_without_rows
-- Those of these patients of whom the run has received no row.
SELECT p.id FROM unnest(%(patients)s::text[]) AS p (id)
WHERE NOT EXISTS (
    SELECT FROM resource r WHERE r.patient_id = p.id AND r.connection = %(connection)s AND (
        r.last_changed_run = %(run)s
        OR EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = r.resource_type AND s.id = r.id)
    )
)

-- name: never_stored
-- Those of these patients of whom nothing is or was stored.
SELECT p.id FROM unnest(%(patients)s::text[]) AS p (id)
WHERE NOT EXISTS (SELECT FROM resource r WHERE r.patient_id = p.id AND r.connection = %(connection)s)

-- name: vanished
-- Types of which earlier exports of this selection had non-empty files, and this one has none. Rows fetched by reference do not count.
SELECT DISTINCT u.resource_type FROM unit u JOIN run r ON r.id = u.run
WHERE r.connection = %(connection)s AND r.selection = %(selection)s AND u.run < %(run)s AND u.kind = 'file' AND u.records > 0
    AND u.resource_type <> '*'
EXCEPT SELECT resource_type FROM unit WHERE run = %(run)s AND kind = 'file' AND records > 0
-- a file without a type in the manifest may have contained the rows
EXCEPT SELECT resource_type FROM run_count WHERE run = %(run)s AND new + changed + unchanged > 0
    AND EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind = 'file' AND resource_type = '*' AND records > 0)
ORDER BY resource_type

-- name: planned_files
-- The run's units of one manifest page, in their order.
SELECT key, kind, resource_type, template, detail, page FROM unit
WHERE run = %(run)s AND kind IN ('file', 'deleted-file', 'error-file') AND page = %(page)s
ORDER BY ordinal

-- name: planned_types
-- Types of the run's units of these kinds.
SELECT DISTINCT resource_type FROM unit WHERE run = %(run)s AND kind = ANY(%(kinds)s)

-- name: received_types
-- Types of which the run's files have brought something. Reads do not count: a run that was killed may have read rows by id.
SELECT resource_type FROM unit WHERE run = %(run)s AND kind = 'file' AND records > 0 AND resource_type <> '*'
-- a file without a type in the manifest may have contained the rows
UNION SELECT resource_type FROM run_count WHERE run = %(run)s AND new + changed + unchanged > 0
    AND EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind = 'file' AND resource_type = '*' AND records > 0)

-- name: date_evidence
-- The instant that the run's export describes.
UPDATE run SET as_of = %(as_of)s WHERE id = %(run)s AND as_of IS DISTINCT FROM %(as_of)s
