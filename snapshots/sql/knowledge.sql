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
-- Up to when each type of this connection and knowledge is known to be complete.
SELECT resource_type, instant FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s

-- name: unlisted_types
-- Types that exports of this knowledge have returned since the last full one, inclusive, and that none has listed in full. Empty files
-- return nothing.
SELECT DISTINCT u.resource_type FROM unit u JOIN run r ON r.id = u.run
WHERE r.connection = %(connection)s AND r.knowledge = %(knowledge)s AND r.kind = 'sync' AND u.kind = 'file' AND u.resource_type <> '*'
    AND (u.records > 0 OR u.ending <> 'listed') AND r.id >= (
        SELECT max(id) FROM run WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND kind = 'sync' AND full_listing
    )
EXCEPT SELECT resource_type FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s

-- name: forget
-- Forget up to when anything is complete.
DELETE FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s

-- name: last_full_listing
-- When the last run began that listed everything of this selection in this mode, except what patients' lags cover, with the same types and
-- with rights to read all that this run's login may.
SELECT max(started_at) FROM run WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND kind = 'sync'
    AND status IN ('complete', 'partial') AND full_listing AND types = %(types)s::text[]
    AND granted @> %(granted)s::text[]

-- name: last_mode
-- The mode of the last complete or partial sync of this selection.
SELECT CASE WHEN r.mode <> 'auto' THEN r.mode WHEN EXISTS (SELECT FROM bulk_job b WHERE b.run = r.id) THEN 'bulk' ELSE 'crawl' END
FROM run r WHERE r.connection = %(connection)s AND r.selection = %(selection)s AND r.kind = 'sync' AND r.id <> %(run)s
    AND r.status IN ('complete', 'partial') ORDER BY r.id DESC LIMIT 1

-- name: speak_for
-- The selection whose watermarks the run moves, and the types that its login may read.
UPDATE run SET knowledge = %(knowledge)s, granted = %(granted)s WHERE id = %(run)s

-- name: namesakes
-- Other connections of the same EHR, if this run is the connection's first.
SELECT o.name FROM connection c JOIN connection o ON o.base_url = c.base_url AND o.id <> c.id
WHERE c.id = %(connection)s AND NOT EXISTS (SELECT FROM run WHERE connection = c.id AND id < %(run)s)
    AND EXISTS (SELECT FROM run WHERE connection = o.id) ORDER BY 1
