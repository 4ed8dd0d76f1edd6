-- name: plan_freely
-- Let the planner join large sets as it likes again, until the end of the transaction.
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_bitmapscan', 'on', true),
    set_config('plan_cache_mode', 'auto', true), set_config('work_mem', '64MB', true)

-- name: close_pending
-- A unit that nobody settled is a hole.
UPDATE unit SET state = 'failed', ending = 'failed', reason = coalesce(poison, reason, 'not attempted'), complete_listing = false,
    ended_at = %(at)s
WHERE run = %(run)s AND state = 'pending'

-- name: serve_all_alike
-- A type that is served for others is not "not served" for one patient.
UPDATE unit u SET state = 'failed', reason = concat(u.reason, ', though it was answered for others: sync again')
WHERE u.run = %(run)s AND u.ending = 'not-served' AND u.state = 'settled' AND EXISTS (
    SELECT FROM unit o WHERE o.run = %(run)s AND o.resource_type = u.resource_type AND o.kind = 'search'
        AND o.ending IN ('listed', 'partial')
)

-- name: know_all_alike
-- A patient whose Patient has come, and who is merged into nobody, cannot be unknown to one search, or merged: that is no answer.
UPDATE unit u SET state = 'failed', ending = 'failed', reason = concat(u.reason, ', though the Patient came: sync again')
WHERE u.run = %(run)s AND u.kind = 'search' AND u.resource_type <> 'Patient' AND u.state = 'settled'
    AND u.ending IN ('not-found', 'merged') AND NOT EXISTS (
        SELECT FROM alias a WHERE a.connection = %(connection)s AND a.former_id = u.patient_id AND a.former_id <> a.surviving_id
    ) AND (EXISTS (
        SELECT FROM unit p WHERE p.run = %(run)s AND p.patient_id = u.patient_id AND p.resource_type = 'Patient'
            AND p.ending = 'listed' AND p.records > 0
    ) OR EXISTS (
        SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = u.patient_id
            AND r.deleted_at IS NULL AND (r.last_changed_run = %(run)s OR EXISTS (
                SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = 'Patient' AND s.id = r.id
            ))
    ))

-- name: types
-- By type: whether all units settled that speak for more than one patient (what one patient is behind with is that patient's lag), whether
-- anything was listed as requested, and whether there is quarantine that belongs to no unit. Named patients list no Patients if the run
-- requests other types.
SELECT resource_type, bool_and(ending = 'listed' OR patient_id IS NOT NULL AND kind IN ('search', 'read') OR kind = 'cohort')
        AND bool_or(ending = 'listed' AND (kind <> 'cohort' OR EXISTS (
            SELECT FROM run r WHERE r.id = %(run)s AND (r.types = '{}' OR 'Patient' = ANY(r.types))
        ))) AS listed,
    bool_or(complete_listing) AS in_full,
    bool_or(kind IN ('file', 'no-file', 'listing')) AS named, bool_and(kind = 'listing') AS no_ehr,
    EXISTS (SELECT FROM quarantine q WHERE q.run = %(run)s AND q.unit_key IS NULL
        AND coalesce(q.resource_type, unit.resource_type) = unit.resource_type) AS doubtful
FROM unit WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'confirm', 'control', 'doubt')
GROUP BY resource_type ORDER BY resource_type

-- name: newest
-- The newest date that units of each type brought.
SELECT resource_type, array_agg(DISTINCT newest) FROM unit WHERE run = %(run)s AND newest IS NOT NULL GROUP BY 1

-- name: stored_types
-- Which of these types the connection has anything of, tombstones included.
SELECT t.resource_type FROM unnest(%(types)s::text[]) AS t (resource_type)
WHERE EXISTS (SELECT FROM resource r WHERE r.resource_type = t.resource_type AND r.connection = %(connection)s)

-- name: unlisted
-- Types of which files failed in the selection's last export, and of which this export, which names no types, lists nothing.
SELECT DISTINCT u.resource_type FROM unit u
WHERE u.run = (
    SELECT max(id) FROM run WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND id < %(run)s AND kind = 'sync'
        AND status IN ('complete', 'partial', 'nothing')
) AND u.state = 'failed' AND u.kind IN ('file', 'unlisted') AND u.resource_type <> '*'
EXCEPT SELECT resource_type FROM unit WHERE run = %(run)s AND kind IN ('file', 'no-file')

-- name: note_unlisted
-- Such a type is still a hole.
INSERT INTO unit (run, key, kind, resource_type, state, ending, reason, template, ended_at)
VALUES (%(run)s, concat('unlisted:', %(resource_type)s::text), 'unlisted', %(resource_type)s, 'failed', 'failed',
    'the last export''s files of this type failed, and this export lists none of it: name `types`, so that it must say so',
    'the export', %(at)s)
ON CONFLICT DO NOTHING

-- name: blocks_all
-- Whether a hole leaves all types incomplete: a file of mixed types, of deletions or errors; an export that says itself that there may be
-- more than it gives; patients whom an export did not bring. Patients whom a crawl did not find are no such hole: once they are found, they
-- are new to the roster and listed in full. For the same reason, patients who are not on the roster and not shown (403) are none.
SELECT EXISTS (
    SELECT FROM unit WHERE run = %(run)s AND (kind = 'error-file' OR resource_type = '*') AND ending = 'partial'
) OR EXISTS (
    SELECT FROM unit u WHERE run = %(run)s AND state = 'failed' AND (
        resource_type = '*' OR kind IN ('deleted-file', 'error-file')
        OR kind = 'cohort' AND NOT (ending = 'restricted' AND NOT EXISTS (
            SELECT FROM roster m WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL
                AND m.patient_id = u.patient_id
        )) AND NOT EXISTS (
            SELECT FROM unit c WHERE c.run = %(run)s AND c.kind IN ('search', 'read', 'batch')
        )
    )
)

-- name: leaves_a_gap
-- Whether this run leaves something to the next one that no patient's lag records.
SELECT EXISTS (
    SELECT FROM unit WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'cohort', 'confirm', 'control', 'doubt')
        AND state = 'failed' AND (patient_id IS NULL OR kind NOT IN ('search', 'read'))
) OR EXISTS (SELECT FROM quarantine WHERE run = %(run)s AND unit_key IS NULL)

-- name: requests_news
-- Whether only news were requested of anybody.
SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND incremental)

-- name: patients
-- How many patients the run received or requested.
SELECT count(DISTINCT id)::int FROM (
    SELECT id FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s
    UNION ALL SELECT id FROM seen WHERE run = %(run)s AND resource_type = 'Patient'
    UNION ALL SELECT patient_id FROM unit
        WHERE run = %(run)s AND patient_id IS NOT NULL AND state = 'settled' AND kind NOT IN ('confirm', 'control')
) received

-- name: move_watermark
-- Note up to when these types are complete.
INSERT INTO watermark (connection, selection, resource_type, instant, run)
SELECT %(connection)s, %(knowledge)s, unnest(%(types)s::text[]), unnest(%(instants)s::text[]), %(run)s
ON CONFLICT (connection, selection, resource_type) DO UPDATE SET instant = excluded.instant, run = excluded.run

-- name: claims
-- What units say is complete: by which way, of which type, for how many patients, in full or since the claim before. Another source may
-- have no types.
SELECT w.name, nullif(u.resource_type, '*'), count(DISTINCT u.patient_id)::int, bool_and(u.complete_listing)
FROM unit u JOIN way w ON w.id = u.way
WHERE u.run = %(run)s AND u.state = 'settled' AND u.ending = 'listed' AND (u.resource_type <> '*' OR u.kind = 'listing')
    AND u.kind NOT IN ('confirm', 'control', 'reference', 'attachment')
GROUP BY 1, 2 ORDER BY 1, 2

-- name: remarks
-- The remarks of settled units, for people. References, documents and reads of missed rows have notes of their own.
SELECT resource_type, reason, count(*)::int FROM unit
WHERE run = %(run)s AND state = 'settled' AND reason IS NOT NULL AND kind NOT IN ('confirm', 'control', 'reference', 'attachment')
GROUP BY 1, 2 ORDER BY 1, 2

-- name: close
-- Close the run with its status. `end_alone` comes before.
UPDATE run SET status = %(status)s, finished_at = %(at)s, end_order = (SELECT coalesce(max(end_order), 0) + 1 FROM run), requests = requests + %(requests)s,
    retries = retries + %(retries)s, patients = CASE WHEN patients IS NOT NULL THEN %(patients)s END, error = %(error)s,
    full_listing = %(full_listing)s, claims = %(claims)s
WHERE id = %(run)s

-- name: endings
-- How many units listed anything, how many settled, how many did not, how many of these are patients who are not shown, and how much was
-- quarantined. Requests beside the listings list nothing: reads of what was missed or is referred to, and of a Group's members whom its
-- export did not bring; nor do reads of named patients of whom somebody may be there, if the export has no file.
SELECT (SELECT count(*) FROM unit WHERE run = %(run)s AND state = 'settled'
        AND kind NOT IN ('confirm', 'control', 'reference', 'attachment')
        AND NOT (kind = 'cohort' AND (
            EXISTS (SELECT FROM group_member g WHERE g.run = unit.run)
            OR EXISTS (SELECT FROM bulk_job b WHERE b.run = unit.run)
                AND NOT EXISTS (SELECT FROM unit f WHERE f.run = unit.run AND f.kind IN ('file', 'no-file'))
                AND EXISTS (
                    SELECT FROM unit c WHERE c.run = unit.run AND c.kind = 'cohort' AND c.ending NOT IN ('not-found', 'gone', 'merged')
                )
        ))),
    (SELECT count(*) FROM unit WHERE run = %(run)s AND state = 'settled'),
    (SELECT count(*) FROM unit WHERE run = %(run)s AND state <> 'settled'),
    (SELECT count(*) FROM unit WHERE run = %(run)s AND state <> 'settled' AND kind = 'cohort' AND ending = 'restricted'),
    (SELECT count(*) FROM quarantine WHERE run = %(run)s)
