-- name: received_types
-- Types of which any run of this connection has received something.
SELECT DISTINCT c.resource_type FROM run_count c JOIN run r ON r.id = c.run
WHERE r.connection = %(connection)s AND c.new + c.changed + c.unchanged > 0

-- name: empty_types
-- Types that this run's searches were answered for, or that are not served, and of which no run of the connection received a row.
SELECT DISTINCT u.resource_type FROM unit u
WHERE u.run = %(run)s AND u.kind = 'search' AND u.state = 'settled' AND u.ending IN ('listed', 'not-served') AND NOT EXISTS (
    SELECT FROM run_count c JOIN run r ON r.id = c.run
    WHERE r.connection = %(connection)s AND c.resource_type = u.resource_type AND c.new + c.changed + c.unchanged > 0
)

-- name: watermarks
-- Up to when each type of this connection and knowledge is known to be complete; of those alone, if asked, that rows' dates could hold back.
SELECT resource_type, instant FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s
    AND (NOT %(held_back)s OR run IN (SELECT id FROM run WHERE connection = %(connection)s AND notes_dates))

-- name: unlisted_types
-- Types of which exports of this knowledge have returned something since the last full one, inclusive, and which it did not list whole.
-- Empty files return nothing, and a type that the last full export found empty may have been out of sight then.
WITH last AS (
    SELECT max(id) AS run FROM run
    WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND kind = 'sync' AND full_listing
)
SELECT DISTINCT u.resource_type FROM last JOIN run r ON r.id >= last.run JOIN unit u ON u.run = r.id
WHERE r.connection = %(connection)s AND r.knowledge = %(knowledge)s AND r.kind = 'sync' AND u.kind = 'file' AND u.resource_type <> '*'
    AND (u.records > 0 OR u.ending <> 'listed')
EXCEPT (
    SELECT resource_type FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s
    INTERSECT SELECT f.resource_type FROM last JOIN unit f ON f.run = last.run WHERE f.kind = 'file' AND f.records > 0
)

-- name: listed_patients
-- Those of these patients whose Patient this run has listed, new, changed or unchanged.
SELECT r.id FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = ANY(%(patients)s::text[])
    AND r.deleted_at IS NULL AND (r.last_changed_run = %(run)s OR EXISTS (
        SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = 'Patient' AND s.id = r.id
    ))

-- name: forget
-- Forget up to when anything is complete.
DELETE FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s

-- name: last_full_listing
-- The beginning of the last run that listed everything of this selection in this mode, except what patients' lags cover, with the same
-- types and with rights to read all that this run's login may.
SELECT max(started_at) FROM run WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND kind = 'sync'
    AND status IN ('complete', 'partial') AND full_listing AND types = %(types)s::text[]
    AND granted @> %(granted)s::text[]

-- name: last_mode
-- The mode of the last complete or partial sync of this selection.
SELECT CASE WHEN r.mode <> 'auto' THEN r.mode WHEN EXISTS (SELECT FROM bulk_job b WHERE b.run = r.id) THEN 'bulk' ELSE 'crawl' END
FROM run r WHERE r.connection = %(connection)s AND r.selection = %(selection)s AND r.kind = 'sync' AND r.id <> %(run)s
    AND r.status IN ('complete', 'partial') ORDER BY r.id DESC LIMIT 1

-- name: speak_for
-- The selection whose watermarks the run moves, the types that its login may read, and whether all its sessions look at rows' dates.
UPDATE run SET knowledge = %(knowledge)s, granted = %(granted)s,
    notes_dates = coalesce(notes_dates AND %(notes_dates)s::bool, notes_dates, %(notes_dates)s::bool)
WHERE id = %(run)s

-- name: namesakes
-- Other connections of the same EHR, if this run is the connection's first.
SELECT o.name FROM connection c JOIN connection o ON o.base_url = c.base_url AND o.id <> c.id
WHERE c.id = %(connection)s AND NOT EXISTS (SELECT FROM run WHERE connection = c.id AND id < %(run)s)
    AND EXISTS (SELECT FROM run WHERE connection = o.id) ORDER BY 1
