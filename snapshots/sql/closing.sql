-- name: plan_freely
-- Let the planner join large sets as it likes again, until the end of the transaction.
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_bitmapscan', 'on', true),
    set_config('plan_cache_mode', 'auto', true), set_config('work_mem', '64MB', true)

-- name: close_pending
-- A unit that nobody settled is a hole.
UPDATE unit SET state = 'failed', reason = coalesce(poison, reason, 'not attempted'), complete_listing = false, ended_at = now()
WHERE run = %(run)s AND state = 'pending'

-- name: types
-- By type: did all units settle, did all list everything, and is there quarantine that no unit answers for. A unit that was
-- asked for news only (detail.incremental) cannot tell what has vanished.
SELECT resource_type, bool_and(state = 'settled') AS settled,
    bool_and(state = 'settled' AND complete_listing AND detail -> 'incremental' IS DISTINCT FROM 'true') AS listed,
    bool_or(complete_listing AND detail -> 'incremental' IS DISTINCT FROM 'true') AS some_listed,
    EXISTS (SELECT FROM quarantine q WHERE q.run = %(run)s AND q.unit_key IS NULL
        AND coalesce(q.resource_type, unit.resource_type) = unit.resource_type) AS doubtful
FROM unit WHERE run = %(run)s GROUP BY resource_type ORDER BY resource_type

-- name: blocks_all
-- Whether a hole leaves all types incomplete: patients that were not found, files of mixed types, files of deletions or errors.
SELECT EXISTS (
    SELECT FROM unit WHERE run = %(run)s AND state = 'failed' AND (
        resource_type = '*' OR kind NOT IN ('search', 'read', 'file', 'no-file') OR resource_type = 'Patient' AND patient_id IS NULL
    )
)

-- name: tombstone
-- Make tombstones of what complete listings of a type no longer had and this run received nowhere. Always for patients all of
-- whose units of the type listed everything; where all units of the type did (whole), also for every patient that this run
-- listed, and for what a run of the same selection brought. EXCEPT compares sets whatever the planner believes of their sizes: tables
-- that grew within minutes have no statistics, and an anti join by nested loop took minutes for 38,000 resources.
WITH patient AS (
    SELECT patient_id FROM unit WHERE run = %(run)s AND resource_type = %(resource_type)s AND patient_id IS NOT NULL
    GROUP BY patient_id HAVING bool_and(state = 'settled' AND complete_listing AND detail -> 'incremental' IS DISTINCT FROM 'true')
), listed AS (
    SELECT id FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s
    UNION ALL SELECT id FROM seen WHERE run = %(run)s AND resource_type = 'Patient'
    UNION ALL SELECT patient_id FROM unit
        WHERE run = %(run)s AND patient_id IS NOT NULL AND state = 'settled' AND complete_listing
), vanished AS MATERIALIZED (
    SELECT r.id FROM resource r
    WHERE r.resource_type = %(resource_type)s AND r.connection = %(connection)s AND r.deleted_at IS NULL
        AND r.last_changed_run <> %(run)s
        AND (
            r.patient_id IN (SELECT patient_id FROM patient)
            OR %(whole)s AND (
                r.patient_id IN (SELECT id FROM listed)
                OR r.last_changed_run IN (
                    SELECT id FROM run WHERE connection = %(connection)s AND selection = %(selection)s
                )
            )
        )
    EXCEPT SELECT id FROM seen WHERE run = %(run)s AND resource_type = %(resource_type)s
), gone AS (
    UPDATE resource r SET deleted_at = now(), deleted_run = %(run)s
    WHERE r.resource_type = %(resource_type)s AND r.connection = %(connection)s AND r.id = ANY(ARRAY(SELECT id FROM vanished))
    RETURNING r.id
)
SELECT count(*)::int FROM gone

-- name: patients
-- How many patients the run received or asked for.
SELECT count(DISTINCT id)::int FROM (
    SELECT id FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s
    UNION ALL SELECT id FROM seen WHERE run = %(run)s AND resource_type = 'Patient'
    UNION ALL SELECT patient_id FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL AND state = 'settled'
) received

-- name: move_watermark
-- Note up to when these types are complete.
INSERT INTO watermark (connection, selection, resource_type, instant, run)
SELECT %(connection)s, %(selection)s, unnest(%(types)s::text[]), %(instant)s, %(run)s
ON CONFLICT (connection, selection, resource_type) DO UPDATE SET instant = excluded.instant, run = excluded.run

-- name: close
-- Close the run with its status.
UPDATE run SET status = %(status)s, finished_at = clock_timestamp(), requests = requests + %(requests)s,
    retries = retries + %(retries)s, notes = notes || %(notes)s::text[], patients = %(patients)s, error = %(error)s,
    full_listing = %(full_listing)s
WHERE id = %(run)s

-- name: endings
-- How many units settled, how many did not, and how much was quarantined.
SELECT (SELECT count(*) FROM unit WHERE run = %(run)s AND state = 'settled'),
    (SELECT count(*) FROM unit WHERE run = %(run)s AND state <> 'settled'),
    (SELECT count(*) FROM quarantine WHERE run = %(run)s)

-- name: asked_for_news
-- Whether any unit was asked for news only.
SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND detail -> 'incremental' = 'true')
