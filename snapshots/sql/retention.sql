-- name: due
-- Of each connection, the newest run that had surely ended by a moment; those before it ended before. One whose clock was behind may have
-- ended at any time since those before it, so the next one says when; a time to come says nothing.
SELECT r.connection, max(r.id) AS run FROM (
    SELECT connection, id, finished_at, max(finished_at) FILTER (WHERE finished_at <= now()) OVER (PARTITION BY connection ORDER BY id) AS latest
    FROM run
) r WHERE r.finished_at = r.latest AND r.latest <= %(before)s GROUP BY r.connection

-- name: newest_before
-- Of each connection, the newest run up to that one that has replaced anything: what it replaced is deleted.
SELECT c.id, c.name, max(run.id) FROM connection c JOIN ({due}) due ON due.connection = c.id JOIN run ON run.connection = c.id
WHERE run.id <= due.run AND run.id > coalesce(c.history_from, 0)
    AND (EXISTS (SELECT FROM resource_history h WHERE h.to_run = run.id) OR EXISTS (SELECT FROM member_history m WHERE m.to_run = run.id)
        OR EXISTS (SELECT FROM attachment_use_history a WHERE a.to_run = run.id))
GROUP BY c.id ORDER BY c.name

-- name: keep_from
-- From here on no earlier moment is shown. Active readers keep their view until they end.
UPDATE connection SET history_from = %(run)s WHERE id = %(connection)s AND coalesce(history_from, 0) < %(run)s

-- name: replaced_by
-- Runs whose replaced rows are no longer needed: for the history that is kept now, or that a moment would leave.
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection LEFT JOIN ({due}) due ON due.connection = c.id
WHERE run.id <= greatest(c.history_from, due.run)
    AND (EXISTS (SELECT FROM resource_history h WHERE h.to_run = run.id) OR EXISTS (SELECT FROM member_history m WHERE m.to_run = run.id)
        OR EXISTS (SELECT FROM attachment_use_history a WHERE a.to_run = run.id))
ORDER BY run.id

-- name: count_replaced
-- The number of rows that a run has replaced.
SELECT (SELECT count(*) FROM resource_history WHERE to_run = %(run)s), (SELECT count(*) FROM member_history WHERE to_run = %(run)s),
    (SELECT count(*) FROM attachment_use_history WHERE to_run = %(run)s),
    (SELECT count(DISTINCT h.sha256) FROM attachment_use_history h WHERE h.to_run = %(run)s AND h.sha256 IS NOT NULL
        AND NOT EXISTS (SELECT FROM attachment_use u WHERE u.sha256 = h.sha256)
        AND NOT EXISTS (SELECT FROM attachment_use_history o WHERE o.sha256 = h.sha256 AND o.to_run <> %(run)s))

-- name: delete_replaced
-- Delete what a run has replaced, and documents that are no longer attached anywhere.
WITH rows AS (DELETE FROM resource_history WHERE to_run = %(run)s RETURNING 1),
    members AS (DELETE FROM member_history WHERE to_run = %(run)s RETURNING 1),
    uses AS (DELETE FROM attachment_use_history WHERE to_run = %(run)s RETURNING sha256),
    documents AS (
        DELETE FROM attachment a USING (SELECT DISTINCT sha256 FROM uses) d WHERE a.sha256 = d.sha256
            AND NOT EXISTS (SELECT FROM attachment_use u WHERE u.sha256 = a.sha256)
            AND NOT EXISTS (SELECT FROM attachment_use_history o WHERE o.sha256 = a.sha256 AND o.to_run <> %(run)s)
        RETURNING 1
    )
SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM members), (SELECT count(*) FROM uses), (SELECT count(*) FROM documents)

-- name: quarantined_by
-- Runs that had ended by a moment and have input in quarantine.
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection JOIN ({due}) due ON due.connection = c.id
WHERE run.id <= due.run AND run.finished_at IS NOT NULL AND EXISTS (SELECT FROM quarantine q WHERE q.run = run.id) ORDER BY run.id

-- name: count_quarantine
-- The number of lines that a run has put into quarantine.
SELECT count(*) FROM quarantine WHERE run = %(run)s

-- name: delete_quarantine
-- Delete what a run has put into quarantine; its units still say that there was something.
WITH rows AS (DELETE FROM quarantine WHERE run = %(run)s RETURNING 1) SELECT count(*) FROM rows

-- name: asked_by
-- Runs that had ended by a moment and have units that nobody needs. Needed are the units of the newest run (its holes are requested first);
-- of each selection's and knowledge's newest sync (its holes explain to a proof what is missing, and to an export the types that it no
-- longer lists); of runs that a watermark or a lag rests on; and of exports since the last full one: the newest that returned each type,
-- those whose job still exists at its server, and those that returned partial resources. Also needed are units that say which patient a
-- quarantined line belongs to, for an erasure, unless the line itself is pruned.
WITH ended AS (
    SELECT * FROM run WHERE kind = 'sync' AND status IN ('complete', 'partial', 'nothing')
), export AS (
    SELECT r.*, b.deleted, b.elements FROM run r JOIN bulk_job b ON b.run = r.id
), needed (run) AS (
    SELECT max(id) FROM run WHERE finished_at IS NOT NULL GROUP BY connection
    UNION SELECT max(id) FROM ended GROUP BY connection, selection
    UNION SELECT max(id) FROM ended GROUP BY connection, knowledge
    UNION SELECT run FROM watermark
    UNION SELECT run FROM lag
    UNION SELECT id FROM export e WHERE NOT e.deleted OR e.elements OR e.id >= (
        SELECT max(f.id) FROM run f WHERE f.connection = e.connection AND f.knowledge = e.knowledge AND f.kind = 'sync' AND f.full_listing
    )
    UNION SELECT max(e.id) FROM export e JOIN unit u ON u.run = e.id
        WHERE u.kind = 'file' AND u.records > 0 GROUP BY e.connection, e.selection, u.resource_type
    UNION SELECT q.run FROM quarantine q JOIN run r ON r.id = q.run JOIN unit u ON u.run = q.run AND u.key = q.unit_key
        LEFT JOIN ({due_quarantine}) due ON due.connection = r.connection
        WHERE u.patient_id IS NOT NULL AND r.id > coalesce(due.run, 0)
)
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection JOIN ({due}) due ON due.connection = c.id
WHERE run.id <= due.run AND run.finished_at IS NOT NULL AND run.id NOT IN (SELECT run FROM needed) AND EXISTS (SELECT FROM unit u WHERE u.run = run.id)
ORDER BY run.id

-- name: count_units
-- The number of a run's units.
SELECT count(*) FROM unit WHERE run = %(run)s

-- name: delete_units
-- Delete a run's units. The run stays: versions name it, and moments are read by it.
WITH units AS (DELETE FROM unit WHERE run = %(run)s RETURNING 1), told AS (UPDATE run SET units_pruned = true WHERE id = %(run)s)
SELECT count(*) FROM units
