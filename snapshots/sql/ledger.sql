-- name: bound_wait
-- How long to wait for a connection's lock: a killed client's server process needs a moment to notice.
SELECT set_config('lock_timeout', '2s', false)

-- name: bound_locks
-- How long a run waits for somebody else's lock, such as that of an index being built: longer than a build takes, but not endlessly.
SELECT set_config('lock_timeout', '10min', false)

-- name: lock
-- Take the connection's lock for this session; the kernel releases it by closing a dead client's socket.
SELECT pg_advisory_lock(hashtextextended('chartferry run ' || %(tenant)s || ' ' || %(connection)s, 0))

-- name: holder
-- The active run of a connection.
SELECT max(run.id) FROM run JOIN connection c ON c.id = run.connection WHERE c.name = %(connection)s AND run.status = 'running'

-- name: find_connection
-- The number of a connection, and its EHR's last address.
SELECT id, base_url FROM connection WHERE name = %(connection)s

-- name: move_connection
-- Remember the address of a connection's EHR.
UPDATE connection SET base_url = %(base_url)s WHERE id = %(connection)s AND base_url IS DISTINCT FROM %(base_url)s

-- name: drop_jobs
-- Export jobs of a connection that no run will continue, or delete at the server.
UPDATE bulk_job SET deleted = true
WHERE NOT deleted AND run IN (SELECT id FROM run WHERE connection = %(connection)s AND (%(run)s::bigint IS NULL OR id = %(run)s))

-- name: forget_down
-- Forget whether the EHR was down: that is known only of its old address.
UPDATE pace SET down_until = NULL, down_reason = NULL, trips = 0, quota_free_at = NULL WHERE connection = %(connection)s

-- name: forget_instants
-- Forget up to when anything is complete: that is known only of the old address.
DELETE FROM watermark WHERE connection = %(connection)s

-- name: run_to_discard
-- A run's connection, whether it is open, and, if its export job was never deleted at the server, whether the job can be found there.
SELECT c.id, c.name, run.status = 'running', b.run IS NOT NULL, b.status_url IS NOT NULL
FROM run JOIN connection c ON c.id = run.connection LEFT JOIN bulk_job b ON b.run = run.id AND NOT b.deleted
WHERE run.id = %(run)s

-- name: add_connection
-- Give a connection its number.
INSERT INTO connection (name, base_url) VALUES (%(connection)s, %(base_url)s) RETURNING id

-- name: interrupted
-- Runs that died (their lock was free), newest first. A run whose export job may still exist at the server counts as young for as long as
-- exports have been seen to take: 30 days (multi-week waits, vendor-facts 1.9; F43).
SELECT id, started_at, as_of, kind, mode, selection, types, since, cohort_digest, everything,
    started_at > %(at)s::timestamptz - interval '24 hours' OR EXISTS (
        SELECT FROM bulk_job b WHERE b.run = run.id AND b.status_url IS NOT NULL AND NOT b.deleted
            AND b.kicked_off_at > %(at)s::timestamptz - interval '30 days'
    ) AS young
FROM run WHERE connection = %(connection)s AND status = 'running' ORDER BY id DESC

-- name: units_left
-- The requests of a resumed run, by type, and the number of all its units.
SELECT u.resource_type, count(*) FILTER (WHERE u.state <> 'settled')::int, count(*)::int
FROM unit u WHERE u.run = %(run)s AND u.kind NOT IN ('confirm', 'control') GROUP BY 1 ORDER BY 1

-- name: has_job
-- Whether a run's export job still exists at its server.
SELECT EXISTS (SELECT FROM bulk_job b WHERE b.run = %(run)s AND b.status_url IS NOT NULL AND NOT b.deleted)

-- name: write_runs
-- Wait for whoever keeps others from writing runs, before `end_alone` makes others wait.
LOCK TABLE run IN ROW EXCLUSIVE MODE

-- name: order_ended
-- Give a place to runs that an older program ended: it was at work while the store was upgraded.
UPDATE run SET end_order = o.end_order FROM (
    SELECT id, (SELECT coalesce(max(end_order), 0) FROM run) + row_number() OVER (ORDER BY finished_at, id) AS end_order
    FROM run WHERE finished_at IS NOT NULL AND end_order IS NULL
) o WHERE o.id = run.id

-- name: end_alone
-- Let no other run of the tenant end until this transaction has: whoever sees a run that has ended sees all that ended before.
SELECT pg_advisory_xact_lock(hashtextextended('chartferry end of a run ' || current_setting('app.current_tenant_id'), 0))

-- name: abandon
-- Close interrupted runs that will not be resumed. They count as idle since their last sign of life. `end_alone` comes before.
UPDATE run SET status = 'failed', finished_at = %(at)s,
    end_order = (SELECT coalesce(max(end_order), 0) FROM run) + array_position(ARRAY(SELECT unnest(%(runs)s::bigint[]) ORDER BY 1), run.id),
    error = %(error)s, idle = idle + greatest(%(at)s - k.at, '0')
FROM last_known k WHERE k.run = run.id AND run.id = ANY(%(runs)s)

-- name: note_idle
-- Count an interrupted run as idle since its last sign of life; return its idle time in all.
UPDATE run SET idle = idle + greatest(%(at)s - k.at, '0'), resumed_at = %(at)s
FROM last_known k WHERE k.run = run.id AND run.id = %(run)s RETURNING run.idle

-- name: forget_seen
-- Delete what these runs saw, and what that mentioned: it is no longer needed.
WITH mentioned AS (DELETE FROM mention WHERE run = ANY(%(runs)s))
DELETE FROM seen WHERE run = ANY(%(runs)s)

-- name: begin
-- Begin a run.
INSERT INTO run (connection, kind, mode, selection, types, since, cohort_digest, everything, started_at, patients)
VALUES (%(connection)s, %(kind)s, %(mode)s, %(selection)s, %(types)s, %(since)s, %(cohort)s, %(everything)s, %(at)s, %(patients)s)
RETURNING id, started_at

-- name: resume
-- Continue an interrupted run: its holes are requested again, and quarantined input of its unfinished units will arrive again.
WITH again AS (
    UPDATE unit SET state = 'pending', ending = NULL, poison = NULL, complete_listing = false
    WHERE run = %(run)s AND state <> 'settled' AND kind NOT IN ('confirm', 'control') RETURNING key
), requarantined AS (
    DELETE FROM quarantine q USING again WHERE q.run = %(run)s AND q.unit_key = again.key
), unasked AS (  -- what it was told of absent rows is of another night: they are asked for again
    DELETE FROM unit WHERE run = %(run)s AND kind IN ('confirm', 'control')
), unsaid AS (
    UPDATE absence SET said = CASE WHEN said NOT IN ('not-found', 'gone', 'withheld', 'unanswered') THEN said END, asked = false
    WHERE run = %(run)s AND (asked OR said IN ('not-found', 'gone', 'withheld', 'unanswered'))
)
UPDATE run SET resumed = resumed + 1 WHERE id = %(run)s RETURNING EXISTS (SELECT FROM unit WHERE unit.run = %(run)s)

-- name: plan
-- Write units; existing ones stay unchanged.
INSERT INTO unit (run, key, kind, resource_type, patient_id, template, split, incremental, since, ids, of_chart, page, detail, way,
    way_of_none)
SELECT %(run)s, u.key, u.kind, u.resource_type, u.patient_id, u.template, u.split, u.incremental, u.since,
    CASE WHEN u.ids = '[]' THEN '{}' ELSE ARRAY(SELECT jsonb_array_elements_text(u.ids::jsonb)) END, u.of_chart, u.page, u.detail::jsonb, u.way, u.way_of_none
FROM unnest(%(keys)s, %(kinds)s, %(types)s, %(patients)s, %(templates)s, %(splits)s, %(incremental)s::boolean[], %(since)s, %(ids)s,
        %(charts)s, %(pages)s, %(details)s, %(ways)s, %(ways_of_none)s)
    WITH ORDINALITY AS u (key, kind, resource_type, patient_id, template, split, incremental, since, ids, of_chart, page, detail, way,
        way_of_none, n)
ORDER BY u.n
ON CONFLICT DO NOTHING

-- name: pending
-- Units still to do, of some kinds or (NULL) of all; first those that the connection's last finished run could not fetch.
WITH last_run AS (
    SELECT max(id) AS id FROM run WHERE connection = %(connection)s AND id < %(run)s AND finished_at IS NOT NULL
), hole AS (
    SELECT key FROM unit WHERE run = (SELECT id FROM last_run) AND state = 'failed'
)
SELECT key, kind, resource_type, patient_id, template, split, incremental, since, ids, of_chart, page, detail, reached, way, way_of_none
FROM unit
WHERE run = %(run)s AND state = 'pending' AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s::text[]))
ORDER BY key IN (SELECT key FROM hole) DESC, ordinal
LIMIT %(limit)s

-- name: keep_notes
-- Keep what a run has noted so far, in the order of the notes, each once.
UPDATE run SET notes = notes || ARRAY(
    SELECT note FROM unnest(%(notes)s::text[]) WITH ORDINALITY AS n (note, nth) WHERE note <> ALL(notes) GROUP BY 1 ORDER BY min(nth)
)
WHERE id = %(run)s

-- name: let_disk_follow
-- Commit this batch without waiting for the disk. Commits reach it in their order, and the next commit that does wait (a job, the
-- run's end) waits for all before it: a Postgres that crashes may lose the newest batches, each whole, with the units it settled.
SELECT set_config('synchronous_commit', 'off', true)

-- name: quarantine
-- Keep what could not become a record.
INSERT INTO quarantine (run, digest, resource_type, unit_key, source, reason, raw)
VALUES (%(run)s, %(digest)s, %(resource_type)s, %(unit_key)s, %(source)s, %(reason)s, %(raw)s) ON CONFLICT DO NOTHING

-- name: note_places
-- The progress of units. Not beyond a bad record: a resumed run must meet it again.
UPDATE unit SET reached = p.place FROM unnest(%(keys)s::text[], %(places)s::jsonb[]) AS p (key, place)
WHERE unit.run = %(run)s AND unit.key = p.key AND unit.poison IS NULL

-- name: poison
-- Make these units holes, however and whenever they end.
UPDATE unit SET poison = p.reason, reason = p.reason, state = CASE state WHEN 'settled' THEN 'failed' ELSE state END,
    ending = CASE WHEN ending IS NULL THEN NULL ELSE 'failed' END, complete_listing = false
FROM unnest(%(keys)s::text[], %(reasons)s::text[]) AS p (key, reason)
WHERE unit.run = %(run)s AND unit.key = p.key

-- name: poison_type
-- Make all open units of a type holes: one of them fetched a bad record, and it is not known which.
UPDATE unit SET poison = %(reason)s WHERE run = %(run)s AND resource_type = %(resource_type)s AND state = 'pending'

-- name: settle
-- End units; a poisoned one ends as a hole.
UPDATE unit SET state = CASE WHEN poison IS NULL OR u.state <> 'settled' THEN u.state ELSE 'failed' END,
    reason = coalesce(poison, u.reason), complete_listing = u.complete AND poison IS NULL, records = u.records,
    ending = CASE WHEN poison IS NULL THEN u.ending ELSE 'failed' END, newest = u.newest, counted = u.counted, ended_at = %(at)s
FROM (
    SELECT r.*, t.place FROM unnest(%(keys)s::text[], %(states)s::text[], %(reasons)s::text[], %(completes)s::bool[],
        %(records)s::int[], %(endings)s::text[], %(newest)s::text[], %(counted)s::jsonb[])
        AS r (key, state, reason, complete, records, ending, newest, counted)
    CROSS JOIN LATERAL (SELECT ctid AS place FROM unit WHERE run = %(run)s AND key = r.key OFFSET 0) t
) u
WHERE unit.ctid = u.place

-- name: counted
-- The totals of what units counted in what they fetched.
SELECT c ->> 0, c ->> 1, c ->> 2, sum((c ->> 3)::int)::int FROM unit CROSS JOIN LATERAL jsonb_array_elements(counted) c
WHERE run = %(run)s AND counted IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3

-- name: count
-- Add to what the run received.
INSERT INTO run_count AS c (run, resource_type, new, changed, unchanged, deleted)
SELECT %(run)s, * FROM unnest(%(types)s::text[], %(new)s::int[], %(changed)s::int[], %(unchanged)s::int[], %(deleted)s::int[])
ON CONFLICT (run, resource_type) DO UPDATE SET new = c.new + excluded.new, changed = c.changed + excluded.changed,
    unchanged = c.unchanged + excluded.unchanged, deleted = c.deleted + excluded.deleted
