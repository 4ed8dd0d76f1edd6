-- name: newest_before
-- Of each connection, the newest run that had ended by a moment and has replaced anything: what it replaced is deleted.
SELECT c.id, c.name, max(run.id) FROM connection c JOIN run ON run.connection = c.id
WHERE run.finished_at <= %(before)s AND run.id > coalesce(c.history_from, 0)
    AND (EXISTS (SELECT FROM resource_history h WHERE h.to_run = run.id) OR EXISTS (SELECT FROM member_history m WHERE m.to_run = run.id)
        OR EXISTS (SELECT FROM attachment_use_history a WHERE a.to_run = run.id))
GROUP BY c.id ORDER BY c.name

-- name: keep_from
-- From here on nobody is shown an earlier moment. What readers who are at work see stays as it is until they end.
UPDATE connection SET history_from = %(run)s WHERE id = %(connection)s AND coalesce(history_from, 0) < %(run)s

-- name: replaced_by
-- Runs of which what they have replaced is needed no more: as the history is kept now, or would be by a moment.
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection
WHERE (run.id <= c.history_from OR run.finished_at <= %(before)s)
    AND (EXISTS (SELECT FROM resource_history h WHERE h.to_run = run.id) OR EXISTS (SELECT FROM member_history m WHERE m.to_run = run.id)
        OR EXISTS (SELECT FROM attachment_use_history a WHERE a.to_run = run.id))
ORDER BY run.id

-- name: count_replaced
-- How many rows a run has replaced.
SELECT (SELECT count(*) FROM resource_history WHERE to_run = %(run)s), (SELECT count(*) FROM member_history WHERE to_run = %(run)s),
    (SELECT count(*) FROM attachment_use_history WHERE to_run = %(run)s),
    (SELECT count(DISTINCT h.sha256) FROM attachment_use_history h WHERE h.to_run = %(run)s AND h.sha256 IS NOT NULL
        AND NOT EXISTS (SELECT FROM attachment_use u WHERE u.sha256 = h.sha256)
        AND NOT EXISTS (SELECT FROM attachment_use_history o WHERE o.sha256 = h.sha256 AND o.to_run <> %(run)s))

-- name: delete_replaced
-- What a run has replaced, and documents that are attached nowhere any more.
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
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection
WHERE run.finished_at <= %(before)s AND EXISTS (SELECT FROM quarantine q WHERE q.run = run.id) ORDER BY run.id

-- name: count_quarantine
-- How much a run has put into quarantine.
SELECT count(*) FROM quarantine WHERE run = %(run)s

-- name: delete_quarantine
-- What a run has put into quarantine; its units keep saying that it was.
WITH rows AS (DELETE FROM quarantine WHERE run = %(run)s RETURNING 1) SELECT count(*) FROM rows

-- name: asked_by
-- Runs that had ended by a moment and have units that nobody needs. Needed are those of the newest run (its holes are asked for
-- first) and of each selection's and knowledge's newest sync (a proof explains with its holes what is missing, an export those of
-- the types that it lists no more); of runs that a watermark or a lag rests on; and of exports: since the last full one, the newest
-- that brought each type, those with a job that still lives at its server, and those that brought parts of resources only. So are
-- those that tell whose a line in quarantine is, for who erases that patient; not where the line itself goes, by its own moment.
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
        WHERE u.patient_id IS NOT NULL AND r.finished_at > coalesce(%(quarantine)s::timestamptz, '-infinity')
)
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection
WHERE run.finished_at <= %(before)s AND run.id NOT IN (SELECT run FROM needed) AND EXISTS (SELECT FROM unit u WHERE u.run = run.id)
ORDER BY run.id

-- name: count_units
-- How many units a run has.
SELECT count(*) FROM unit WHERE run = %(run)s

-- name: delete_units
-- What a run asked for. The run stays: versions name it, and moments are read by it.
WITH units AS (DELETE FROM unit WHERE run = %(run)s RETURNING 1), told AS (UPDATE run SET units_pruned = true WHERE id = %(run)s)
SELECT count(*) FROM units
