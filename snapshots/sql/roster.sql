-- name: covered
-- The patients that a selection's watermarks speak for.
SELECT patient_id FROM roster WHERE connection = %(connection)s AND selection = %(selection)s AND removed_run IS NULL

-- name: lags
-- Which of them are behind, in which type, and up to when they are complete; NULL: not at all.
SELECT resource_type, patient_id, instant FROM lag WHERE connection = %(connection)s AND selection = %(selection)s

-- name: deferrals
-- What the EHR said not to ask before a time that has not come.
SELECT resource_type, patient_id, reason, until FROM deferral WHERE connection = %(connection)s AND until > %(now)s

-- name: defer
-- Note what is not to be asked before a time.
INSERT INTO deferral (connection, resource_type, patient_id, reason, until)
SELECT DISTINCT ON (d.resource_type, d.patient_id) %(connection)s, d.resource_type, d.patient_id, d.reason, d.until
FROM unnest(%(types)s::text[], %(patients)s::text[], %(reasons)s::text[], %(untils)s::timestamptz[])
    AS d (resource_type, patient_id, reason, until)
ORDER BY d.resource_type, d.patient_id, d.until DESC
ON CONFLICT (connection, resource_type, patient_id) DO UPDATE SET reason = excluded.reason, until = excluded.until

-- name: forget_deferrals
-- Drop what may be asked again.
DELETE FROM deferral WHERE connection = %(connection)s AND until <= %(now)s

-- name: aliases
-- Merged patients: who they were, who they are now, and whether the former id only leads there.
SELECT former_id, surviving_id, gone FROM alias WHERE connection = %(connection)s AND former_id <> surviving_id
ORDER BY former_id

-- name: new_aliases
-- Merges, and ends of merges, that this run was the first to meet.
SELECT former_id, surviving_id, gone FROM alias WHERE connection = %(connection)s AND first_run = %(run)s ORDER BY former_id

-- name: save_aliases
-- Note merges that this run met. What is not merged and never was is no news.
INSERT INTO alias (connection, former_id, surviving_id, gone, first_run, last_run)
SELECT DISTINCT ON (a.former_id) %(connection)s, a.former_id, a.surviving_id, a.gone, %(run)s, %(run)s
FROM unnest(%(formers)s::text[], %(survivors)s::text[], %(gone)s::bool[]) AS a (former_id, surviving_id, gone)
ORDER BY a.former_id, a.gone DESC
ON CONFLICT (connection, former_id) DO UPDATE SET surviving_id = excluded.surviving_id, gone = excluded.gone,
    last_run = excluded.last_run,
    first_run = CASE WHEN alias.surviving_id <> excluded.surviving_id THEN excluded.first_run ELSE alias.first_run END

-- name: unanswered
-- Patients that settled batches asked for, that this run did not receive, and that no unit of their own asks for.
SELECT asked.id FROM unit u
CROSS JOIN LATERAL jsonb_array_elements_text(u.detail -> 'ids') AS asked (id)
WHERE u.run = %(run)s AND u.kind = 'batch' AND u.state = 'settled'
    AND NOT EXISTS (SELECT FROM unit one WHERE one.run = %(run)s AND one.key = 'read:Patient:' || asked.id)
    AND NOT EXISTS (
        SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = asked.id
            AND (r.last_changed_run = %(run)s
                OR EXISTS (SELECT FROM seen WHERE seen.run = %(run)s AND seen.resource_type = 'Patient' AND seen.id = asked.id))
    )

-- name: stored_patients
-- The connection's live patients.
SELECT id FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND deleted_at IS NULL ORDER BY id

-- name: describe_cohort
-- Say what became of the cohort's entries.
UPDATE run SET cohort = coalesce(cohort, '{}') || %(cohort)s WHERE id = %(run)s

-- name: asks_patients
-- Whether the run asked for anything by patient.
SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read'))

-- name: note_lags
-- Who is behind after this run, in the types that it asked for. Where a unit failed: complete up to where the patient was
-- before, which is an older lag, or where an incremental unit began. Nothing counts for a patient new to the roster, nor after a
-- full listing that failed, since only a full listing tells what has vanished. Where all units settled, the patient has caught
-- up, unless it is new and was asked for news only.
WITH ended AS (
    SELECT resource_type, patient_id, bool_and(state = 'settled') AS settled, min(detail ->> 'since') AS since,
        bool_or(detail -> 'incremental' IS DISTINCT FROM 'true') AS listed,
        bool_or(state <> 'settled' AND detail -> 'incremental' IS DISTINCT FROM 'true') AS listing_failed
    FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read')
    GROUP BY resource_type, patient_id
), judged AS (
    SELECT e.resource_type, e.patient_id, l.run IS NOT NULL AS lagged,
        CASE WHEN e.listing_failed THEN NULL WHEN l.run IS NOT NULL THEN l.instant WHEN r.patient_id IS NULL THEN NULL
            ELSE e.since END AS instant,
        e.settled AND (e.listed OR r.patient_id IS NOT NULL) AS caught_up
    FROM ended e
    LEFT JOIN lag l ON l.connection = %(connection)s AND l.selection = %(selection)s
        AND l.resource_type = e.resource_type AND l.patient_id = e.patient_id
    LEFT JOIN roster r ON r.connection = %(connection)s AND r.selection = %(selection)s
        AND r.patient_id = e.patient_id AND r.removed_run IS NULL
), caught AS (
    DELETE FROM lag l USING judged j WHERE j.caught_up AND j.lagged AND l.connection = %(connection)s
        AND l.selection = %(selection)s AND l.resource_type = j.resource_type AND l.patient_id = j.patient_id
)
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run)
SELECT %(connection)s, %(selection)s, resource_type, patient_id, instant, %(run)s FROM judged WHERE NOT caught_up
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = excluded.instant, run = excluded.run

-- name: note_unasked
-- Patients new to the roster know nothing of types that have a watermark and that this run did not ask for.
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run)
SELECT %(connection)s, %(selection)s, w.resource_type, p.patient_id, NULL, %(run)s
FROM (
    SELECT resource_type FROM watermark WHERE connection = %(connection)s AND selection = %(selection)s
    EXCEPT SELECT resource_type FROM unit WHERE run = %(run)s
) w
CROSS JOIN (
    SELECT patient_id FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read')
    EXCEPT SELECT patient_id FROM roster
        WHERE connection = %(connection)s AND selection = %(selection)s AND removed_run IS NULL
) p
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = NULL

-- name: call_roll
-- Put whom this run asked for on the roster.
INSERT INTO roster (connection, selection, patient_id, first_run, last_run)
SELECT DISTINCT %(connection)s::int, %(selection)s, patient_id, %(run)s::bigint, %(run)s::bigint FROM unit
WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read')
ON CONFLICT (connection, selection, patient_id) DO UPDATE SET last_run = excluded.last_run, removed_run = NULL

-- name: strike_off
-- Take off the roster whom this run no longer asked for: their data stays, their lags and their share in watermarks end.
WITH removed AS (
    UPDATE roster SET removed_run = %(run)s
    WHERE connection = %(connection)s AND selection = %(selection)s AND removed_run IS NULL AND last_run <> %(run)s
    RETURNING patient_id
)
DELETE FROM lag l USING removed r
WHERE l.connection = %(connection)s AND l.selection = %(selection)s AND l.patient_id = r.patient_id

-- name: disband
-- Take everybody off the roster, after an export.
WITH export AS (
    SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind IN ('file', 'no-file')) AS happened
), removed AS (
    UPDATE roster SET removed_run = %(run)s
    WHERE connection = %(connection)s AND selection = %(selection)s AND removed_run IS NULL AND (SELECT happened FROM export)
)
DELETE FROM lag WHERE connection = %(connection)s AND selection = %(selection)s AND (SELECT happened FROM export)

-- name: ended_patients
-- Patients that this run asked for and whose Patient is a tombstone: the EHR has deleted them.
SELECT DISTINCT u.patient_id FROM unit u
JOIN resource r ON r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = u.patient_id
WHERE u.run = %(run)s AND u.resource_type = 'Patient' AND u.state = 'settled' AND r.deleted_at IS NOT NULL

-- name: led_to_survivors
-- Former ids that this run was led from to the survivor.
SELECT former_id, surviving_id FROM alias WHERE connection = %(connection)s AND last_run = %(run)s AND gone
