-- name: plan_freely
-- Let the planner join large sets as it likes again, until the end of the transaction.
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_bitmapscan', 'on', true),
    set_config('plan_cache_mode', 'auto', true), set_config('work_mem', '64MB', true)

-- name: close_pending
-- A unit that nobody settled is a hole.
UPDATE unit SET state = 'failed', reason = coalesce(poison, reason, 'not attempted'), complete_listing = false, ended_at = now()
WHERE run = %(run)s AND state = 'pending'

-- name: types
-- By type: did all units settle that speak for more than one patient (what one patient is behind with is its lag), did all list
-- everything, does a unit list the type whole, by which searches, and is there quarantine that no unit answers for. A unit that
-- was asked for news only (detail.incremental) cannot tell what has vanished. Units that follow references or fetch attachments
-- list nothing, and have a state of their own. An export that tells of errors, or may, has listed nothing: they name no type.
SELECT resource_type, bool_and(state = 'settled' OR patient_id IS NOT NULL AND kind IN ('search', 'read') OR kind = 'cohort')
        AND bool_or(state = 'settled') AS settled,
    bool_and(state = 'settled' AND complete_listing AND detail -> 'incremental' IS DISTINCT FROM 'true')
        AND NOT EXISTS (SELECT FROM unit e WHERE e.run = %(run)s AND e.kind = 'error-file' AND NOT e.complete_listing) AS listed,
    bool_or(complete_listing AND detail -> 'incremental' IS DISTINCT FROM 'true') AS some_listed,
    bool_or(patient_id IS NULL AND kind NOT IN ('batch', 'cohort')) AS as_a_whole,
    EXISTS (SELECT FROM quarantine q WHERE q.run = %(run)s AND q.unit_key IS NULL
        AND coalesce(q.resource_type, unit.resource_type) = unit.resource_type) AS doubtful,
    array_agg(DISTINCT detail ->> 'split') FILTER (WHERE kind = 'search') AS splits
FROM unit WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment') GROUP BY resource_type ORDER BY resource_type

-- name: blocks_all
-- Whether a hole leaves all types incomplete: files of mixed types, of deletions or errors; of an export, patients that it did not
-- bring. Patients that a crawl did not find are no such hole: once they are found they are new to the roster, and listed in full.
SELECT EXISTS (
    SELECT FROM unit u WHERE run = %(run)s AND state = 'failed' AND (
        resource_type = '*' OR kind IN ('deleted-file', 'error-file')
        OR kind = 'cohort' AND NOT EXISTS (
            SELECT FROM unit c WHERE c.run = %(run)s AND c.kind IN ('search', 'read', 'batch')
        )
    )
)

-- name: leaves_a_gap
-- Whether anything of this run waits for the next in a way that no patient's lag says, or was asked for news only.
SELECT EXISTS (
    SELECT FROM unit WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'cohort') AND (
        state = 'failed' AND (patient_id IS NULL OR kind NOT IN ('search', 'read')) OR detail -> 'incremental' = 'true'
    )
) OR EXISTS (SELECT FROM quarantine WHERE run = %(run)s AND unit_key IS NULL)

-- name: tombstone
-- Make tombstones of what complete listings of a type no longer had and this run received nowhere. Always for patients all of
-- whose units of the type listed everything, for former ids of such patients, and for patients that the EHR has deleted; where
-- all units of the type listed everything and one lists it whole (whole), also for every patient that this run listed, and for
-- what a run of the same selection brought. Searches by category speak for those categories only. EXCEPT compares sets whatever
-- the planner believes of their sizes: tables that grew within minutes have no statistics, and an anti join by nested loop took
-- minutes for 38,000 resources.
-- What came by reference and not by a listing stays while it is mentioned: by this run's walk, or, where that has not been
-- everywhere (a source of mentions was not listed in full, or no reference was followed), by an earlier one.
WITH complete AS (
    SELECT patient_id FROM unit WHERE run = %(run)s AND resource_type = %(resource_type)s AND patient_id IS NOT NULL
        AND kind NOT IN ('reference', 'attachment')
    GROUP BY patient_id HAVING bool_and(state = 'settled' AND complete_listing AND detail -> 'incremental' IS DISTINCT FROM 'true')
), patient AS (
    SELECT patient_id FROM complete
    UNION SELECT a.former_id FROM unnest(%(formers)s::text[], %(survivors)s::text[]) AS a (former_id, surviving_id)
        JOIN complete c ON c.patient_id = a.surviving_id
    UNION SELECT patient_id FROM unit
        WHERE run = %(run)s AND resource_type = %(resource_type)s AND patient_id = ANY(%(ended)s::text[])
        GROUP BY patient_id HAVING bool_and(state = 'settled')
), doubted AS (
    SELECT DISTINCT patient_id FROM unit
    WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'cohort') AND (
        state <> 'settled' OR detail -> 'incremental' = 'true'
        OR NOT complete_listing AND coalesce(reason, '') NOT LIKE 'not served here%%'
    )
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
    EXCEPT SELECT x.id FROM referenced x, (
        SELECT run.kind = 'sync' AND run.types = '{}' AND run.since = '{}' AND NOT EXISTS (
            SELECT FROM doubted WHERE patient_id IS NULL
        ) AND EXISTS (SELECT FROM followed f WHERE f.run = %(run)s AND f.resource_type = %(resource_type)s) AS all_sources
        FROM run WHERE run.id = %(run)s
    ) walk
    WHERE x.connection = %(connection)s AND x.resource_type = %(resource_type)s AND x.state IN ('found', 'wanted')
        AND (x.run = %(run)s OR NOT walk.all_sources OR coalesce(x.patient_id IN (SELECT patient_id FROM doubted), true))
        AND NOT coalesce(x.patient_id = ANY(%(ended)s::text[]), false)
), gone AS (
    UPDATE resource r SET deleted_at = now(), deleted_run = %(run)s
    WHERE r.resource_type = %(resource_type)s AND r.connection = %(connection)s AND r.id = ANY(ARRAY(SELECT id FROM vanished))
        AND (
            %(categories)s::text[] IS NULL OR r.patient_id = ANY(%(ended)s::text[])
            OR EXISTS (
                SELECT FROM referenced x WHERE x.connection = %(connection)s AND x.resource_type = %(resource_type)s
                    AND x.id = r.id AND x.state = 'found'
            )
            OR EXISTS (
                SELECT FROM jsonb_path_query(r.body, '$.category[*].coding[*].code') AS c (code)
                WHERE c.code #>> '{}' = ANY(%(categories)s::text[])
            )
        )
    RETURNING r.patient_id
)
SELECT count(*)::int, (count(*) FILTER (WHERE NOT coalesce(patient_id = ANY(%(ended)s::text[]), false)))::int FROM gone

-- name: live
-- How much of a type is there.
SELECT count(*)::int FROM resource WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND deleted_at IS NULL

-- name: doubted_before
-- Whether a run that asked the same, and no full listing since, did not believe either that so much of this type has vanished.
SELECT count(*)::int FROM run JOIN run before ON before.connection = run.connection AND before.selection = run.selection
    AND before.kind = run.kind AND before.id < run.id JOIN unit ON unit.run = before.id
WHERE run.id = %(run)s AND unit.key = 'vanished:' || %(resource_type)s AND before.id > coalesce((
    SELECT max(whole.id) FROM run whole WHERE whole.connection = run.connection AND whole.selection = run.selection
        AND whole.kind = run.kind AND whole.full_listing AND whole.id < run.id
), 0)

-- name: doubt
-- Make a hole of what vanished in number.
INSERT INTO unit (run, key, kind, resource_type, state, reason, ended_at)
VALUES (%(run)s, 'vanished:' || %(resource_type)s, 'vanished', %(resource_type)s, 'failed', %(reason)s, now())

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
SELECT %(connection)s, %(selection)s, unnest(%(types)s::text[]), unnest(%(instants)s::text[]), %(run)s
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
