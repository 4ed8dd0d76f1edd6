-- name: newest_before
-- Of each connection, the newest run that had ended by a moment and has replaced anything: what it replaced is deleted.
SELECT c.id, c.name, max(run.id) FROM connection c JOIN run ON run.connection = c.id
WHERE run.finished_at <= %(before)s AND run.id > coalesce(c.history_from, 0)
    AND (EXISTS (SELECT FROM resource_history h WHERE h.to_run = run.id) OR EXISTS (SELECT FROM member_history m WHERE m.to_run = run.id))
GROUP BY c.id ORDER BY c.name

-- name: keep_from
-- From here on nobody is shown an earlier moment. What readers who are at work see stays as it is until they end.
UPDATE connection SET history_from = %(run)s WHERE id = %(connection)s AND coalesce(history_from, 0) < %(run)s

-- name: replaced_by
-- Runs of which what they have replaced is needed no more: as the history is kept now, or would be by a moment.
SELECT run.id, c.name FROM run JOIN connection c ON c.id = run.connection
WHERE (run.id <= c.history_from OR run.finished_at <= %(before)s)
    AND (EXISTS (SELECT FROM resource_history h WHERE h.to_run = run.id) OR EXISTS (SELECT FROM member_history m WHERE m.to_run = run.id))
ORDER BY run.id

-- name: count_replaced
-- How many rows a run has replaced.
SELECT (SELECT count(*) FROM resource_history WHERE to_run = %(run)s), (SELECT count(*) FROM member_history WHERE to_run = %(run)s)

-- name: delete_replaced
-- What a run has replaced.
WITH rows AS (DELETE FROM resource_history WHERE to_run = %(run)s RETURNING 1),
    members AS (DELETE FROM member_history WHERE to_run = %(run)s RETURNING 1)
SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM members)

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
