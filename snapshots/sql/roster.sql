-- name: covered
-- The patients to whom a selection's watermarks apply.
SELECT patient_id FROM roster WHERE connection = %(connection)s AND selection = %(knowledge)s AND removed_run IS NULL

-- name: lags
-- Which of them are behind, in which type, and up to when they are complete; NULL: not at all.
SELECT resource_type, patient_id, instant FROM lag WHERE connection = %(connection)s AND selection = %(knowledge)s

-- name: behind
-- Patients who are behind for another reason than withheld rows of theirs, or a Patient who is not there beside the chart.
SELECT DISTINCT l.patient_id FROM lag l
WHERE l.connection = %(connection)s AND l.selection = %(knowledge)s AND NOT (l.withheld AND EXISTS (
    SELECT FROM evidence e
    CROSS JOIN LATERAL (
        SELECT patient_id FROM resource WHERE resource_type = e.resource_type AND connection = %(connection)s AND id = e.id OFFSET 0
    ) r
    WHERE e.connection = %(connection)s AND e.resource_type IN (l.resource_type, 'Patient')
            AND (e.state = 'withheld' OR e.state = 'doubted' AND e.resource_type = 'Patient')
        AND (coalesce(r.patient_id, '') = l.patient_id OR EXISTS (
            SELECT FROM member m WHERE m.connection = %(connection)s AND m.resource_type = e.resource_type AND m.id = e.id
                AND m.patient_id = l.patient_id
        ))
))

-- name: deferrals
-- What the EHR said not to request before a time that has not come.
SELECT resource_type, patient_id, reason, until FROM deferral WHERE connection = %(connection)s AND until > %(now)s

-- name: defer
-- Note what must not be requested before a time.
INSERT INTO deferral (connection, resource_type, patient_id, reason, until)
SELECT DISTINCT ON (d.resource_type, d.patient_id) %(connection)s, d.resource_type, d.patient_id, d.reason, d.until
FROM unnest(%(types)s::text[], %(patients)s::text[], %(reasons)s::text[], %(untils)s::timestamptz[])
    AS d (resource_type, patient_id, reason, until)
ORDER BY d.resource_type, d.patient_id, d.until DESC
ON CONFLICT (connection, resource_type, patient_id) DO UPDATE SET reason = excluded.reason, until = excluded.until

-- name: forget_deferrals
-- Delete what may be requested again.
DELETE FROM deferral WHERE connection = %(connection)s AND until <= %(now)s

-- name: aliases
-- Merged patients: who they were, who they are now, and whether the former id only leads there.
SELECT former_id, surviving_id, gone FROM alias WHERE connection = %(connection)s AND former_id <> surviving_id
ORDER BY former_id

-- name: new_aliases
-- Merges, and ends of merges, that this run was the first to find.
SELECT former_id, surviving_id, gone FROM alias WHERE connection = %(connection)s AND first_run = %(run)s ORDER BY former_id

-- name: save_aliases
-- Note merges that this run found. An id that is not merged and never was is no news.
INSERT INTO alias (connection, former_id, surviving_id, gone, first_run, last_run)
SELECT DISTINCT ON (a.former_id) %(connection)s, a.former_id, a.surviving_id, a.gone, %(run)s, %(run)s
FROM unnest(%(formers)s::text[], %(survivors)s::text[], %(gone)s::bool[]) AS a (former_id, surviving_id, gone)
ORDER BY a.former_id, a.gone DESC
ON CONFLICT (connection, former_id) DO UPDATE SET surviving_id = excluded.surviving_id, gone = excluded.gone,
    last_run = excluded.last_run,
    first_run = CASE WHEN alias.surviving_id <> excluded.surviving_id THEN excluded.first_run ELSE alias.first_run END

-- name: unanswered
-- Patients whom settled batches requested, whom this run did not receive, and whom no unit of their own requests.
SELECT asked.id FROM unit u
CROSS JOIN LATERAL unnest(u.ids) AS asked (id)
WHERE u.run = %(run)s AND u.kind = 'batch' AND u.state = 'settled'
    AND NOT EXISTS (
        SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = asked.id
            AND (r.last_changed_run = %(run)s
                OR EXISTS (SELECT FROM seen WHERE seen.run = %(run)s AND seen.resource_type = 'Patient' AND seen.id = asked.id))
    )
EXCEPT SELECT patient_id FROM unit WHERE run = %(run)s AND resource_type = 'Patient' AND kind IN ('read', 'search')

-- name: stored_patients
-- The connection's patients, and whether anything of them is alive: a tombstone's chart may outlive it.
SELECT r.id, r.deleted_at IS NULL, r.deleted_at IS NULL OR EXISTS (
    SELECT FROM resource c WHERE c.patient_id = r.id AND c.connection = %(connection)s AND c.deleted_at IS NULL
) FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s ORDER BY r.id

-- name: knew_members
-- Whether the selection's last full listing knew from the Group itself who is in it.
SELECT members_known FROM run WHERE id = (
    SELECT max(id) FROM run WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND kind = 'sync' AND full_listing
)

-- name: missed_members
-- Whether the watermarks have moved since then without anybody knowing who was in the Group.
SELECT EXISTS (
    SELECT FROM run r WHERE r.connection = %(connection)s AND r.knowledge = %(knowledge)s AND r.kind = 'sync' AND r.id <> %(run)s
        AND r.status IN ('complete', 'partial') AND NOT r.full_listing AND NOT r.members_known AND r.id > (
            SELECT max(id) FROM run WHERE connection = %(connection)s AND knowledge = %(knowledge)s AND kind = 'sync' AND full_listing
        )
)

-- name: unmet_members
-- Members of the Group that this run exports whose Patient is not stored. A member who is stored is missed instead; a tombstone does not
-- count as stored.
SELECT patient_id FROM group_member g WHERE g.run = %(run)s AND NOT EXISTS (
    SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = g.patient_id
        AND r.deleted_at IS NULL
) ORDER BY 1

-- name: uncovered_members
-- Members of the Group that this run exports who are not on the roster.
SELECT patient_id FROM group_member WHERE run = %(run)s
EXCEPT SELECT patient_id FROM roster WHERE connection = %(connection)s AND selection = %(knowledge)s AND removed_run IS NULL
ORDER BY 1

-- name: describe_cohort
-- Keep what became of the cohort's entries.
UPDATE run SET cohort = coalesce(cohort, '{}') || %(cohort)s WHERE id = %(run)s

-- name: formers
-- Ids of Patients that lead to another Patient.
SELECT former_id FROM alias WHERE connection = %(connection)s AND gone AND former_id <> surviving_id

-- name: end_links
-- A link between two Patients who can both be read ends once this run has received both and neither mentioned it.
UPDATE alias a SET surviving_id = a.former_id, last_run = %(run)s
WHERE a.connection = %(connection)s AND NOT a.gone AND a.former_id <> a.surviving_id AND a.last_run <> %(run)s
    AND NOT EXISTS (
        SELECT FROM unnest(ARRAY[a.former_id, a.surviving_id]) AS pair (id)
        WHERE NOT EXISTS (
            SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = pair.id
                AND r.deleted_at IS NULL AND (
                    r.last_changed_run = %(run)s
                    OR EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = 'Patient' AND s.id = r.id)
                )
        )
    )

-- name: asks_patients
-- Whether the run requested anything by patient.
SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind IN ('search', 'read', 'batch')
    AND (patient_id IS NOT NULL OR kind = 'batch'))

-- name: led_nowhere
-- Merged patients whose Patient this run requested by the former id, which no longer leads to the survivor: one who does is noted again.
SELECT u.patient_id FROM unit u
JOIN alias a ON a.connection = %(connection)s AND a.former_id = u.patient_id AND a.gone AND a.surviving_id <> a.former_id
WHERE u.run = %(run)s AND u.resource_type = 'Patient' AND u.kind IN ('read', 'search') AND u.state = 'settled' AND u.ending = 'merged'
    AND a.last_run <> %(run)s
ORDER BY 1

-- name: revived
-- Patients whose Patient this run has brought back to life.
SELECT patient_id FROM revived WHERE run = %(run)s AND resource_type = 'Patient' AND patient_id <> ''

-- name: note_lags
-- Who is behind after this run, in the types that it requested. If a unit was not answered as requested, the patient is complete up to
-- where the patient was before: an older lag, or the start of an incremental unit. Nothing counts for a patient new to the roster, nor
-- after a full listing that failed, since only a full listing shows what has vanished. If all units were answered, the patient has caught
-- up, unless the patient is new and only news were requested. An empty answer about somebody who is not known to be alive in this run is no
-- answer: an index that does not know the patient gives the same.
WITH alive AS MATERIALIZED (
    SELECT patient_id FROM unit
    WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read') AND state = 'settled' AND records > 0
    UNION SELECT id FROM resource
        WHERE resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s AND deleted_at IS NULL
    UNION SELECT id FROM seen WHERE run = %(run)s AND resource_type = 'Patient'
), ended AS (
    SELECT resource_type, patient_id,
        bool_and(ending IN ('listed', 'gone') OR ending = 'not-found' AND state = 'settled' OR ending = 'merged')
            AND (bool_or(records > 0) OR patient_id IN (SELECT patient_id FROM alive)) AS answered,
        min(since) AS since,
        bool_or(NOT incremental) AS listed,
        bool_or(ending <> 'listed' AND NOT incremental) AS listing_failed
    FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read')
    GROUP BY resource_type, patient_id
), judged AS (
    SELECT e.resource_type, e.patient_id, l.run IS NOT NULL AS lagged,
        CASE WHEN e.listing_failed OR NOT e.answered AND e.listed THEN NULL WHEN l.run IS NOT NULL THEN l.instant
            WHEN r.patient_id IS NULL THEN NULL ELSE e.since END AS instant,
        e.answered AND (e.listed OR r.patient_id IS NOT NULL) AS caught_up
    FROM ended e
    LEFT JOIN lag l ON l.connection = %(connection)s AND l.selection = %(knowledge)s
        AND l.resource_type = e.resource_type AND l.patient_id = e.patient_id
    LEFT JOIN roster r ON r.connection = %(connection)s AND r.selection = %(knowledge)s
        AND r.patient_id = e.patient_id AND r.removed_run IS NULL
), caught AS (
    DELETE FROM lag l USING judged j WHERE j.caught_up AND j.lagged AND l.connection = %(connection)s
        AND l.selection = %(knowledge)s AND l.resource_type = j.resource_type AND l.patient_id = j.patient_id
)
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run, first_run)
SELECT %(connection)s, %(knowledge)s, resource_type, patient_id, instant, %(run)s, %(run)s FROM judged WHERE NOT caught_up
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = excluded.instant, run = excluded.run,
    withheld = false

-- name: note_unasked
-- For patients new to the roster, nothing is known of types that have a watermark and that this run did not request. A request for a row by
-- its id does not count as a request for its type.
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run, first_run)
SELECT %(connection)s, %(knowledge)s, w.resource_type, p.patient_id, NULL, %(run)s, %(run)s
FROM (
    SELECT resource_type FROM watermark WHERE connection = %(connection)s AND selection = %(knowledge)s
    EXCEPT SELECT resource_type FROM unit
        WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'confirm', 'control', 'doubt')
) w
CROSS JOIN (
    SELECT patient_id FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read')
    EXCEPT SELECT patient_id FROM roster
        WHERE connection = %(connection)s AND selection = %(knowledge)s AND removed_run IS NULL
) p
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = NULL, withheld = false

-- name: note_received_patients
-- Patients who came, even in a batch, have caught up in the type Patient.
DELETE FROM lag l WHERE l.connection = %(connection)s AND l.selection = %(knowledge)s AND l.resource_type = 'Patient' AND EXISTS (
    SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = l.patient_id
        AND r.deleted_at IS NULL AND (
            r.last_changed_run = %(run)s
            OR EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = 'Patient' AND s.id = r.id)
        )
)

-- name: note_whole_types
-- Types that belong to no patient and were listed whole have caught up.
DELETE FROM lag l WHERE l.connection = %(connection)s AND l.selection = %(knowledge)s AND l.patient_id = ''
    AND EXISTS (
        SELECT FROM unit u WHERE u.run = %(run)s AND u.resource_type = l.resource_type AND u.patient_id IS NULL AND u.kind = 'search'
            AND u.state = 'settled' AND u.complete_listing
    )

-- name: call_roll
-- Put the patients whom this run requested on the roster; one who is on it already costs no write.
INSERT INTO roster AS m (connection, selection, patient_id, first_run, last_run)
SELECT DISTINCT %(connection)s::int, %(knowledge)s, patient_id, %(run)s::bigint, %(run)s::bigint FROM unit
WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read')
ON CONFLICT (connection, selection, patient_id) DO UPDATE SET last_run = excluded.last_run, removed_run = NULL
WHERE m.removed_run IS NOT NULL

-- name: call_roll_of_export
-- Put on the roster the patients whom a full export had or, if Patients were not requested, those whose rows it had; for a Group that could
-- be read, its members; for a list of names, those who are in it: rows of others are read by their ids. A patient who was requested and has
-- no rows in it is on the roster too: there were none.
WITH asked AS MATERIALIZED (
    SELECT patient_id FROM group_member WHERE run = %(run)s
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND kind = 'cohort' AND patient_id IS NOT NULL
)
INSERT INTO roster AS m (connection, selection, patient_id, first_run, last_run)
SELECT DISTINCT %(connection)s::int, %(knowledge)s, patient_id, %(run)s::bigint, %(run)s::bigint FROM (
    SELECT patient_id FROM resource
    WHERE connection = %(connection)s AND last_changed_run = %(run)s AND deleted_at IS NULL
        AND resource_type = ANY(%(of_types)s::text[])
    UNION SELECT r.patient_id FROM seen s
    CROSS JOIN LATERAL (
        SELECT patient_id FROM resource
        WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
    WHERE s.run = %(run)s AND s.resource_type = ANY(%(of_types)s::text[])
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND kind = 'cohort' AND state = 'settled' AND ending = 'listed'
    EXCEPT SELECT id FROM absence WHERE run = %(run)s AND resource_type = 'Patient'
) had
WHERE patient_id IS NOT NULL AND (
    NOT EXISTS (SELECT FROM asked) OR EXISTS (SELECT FROM asked a WHERE a.patient_id = had.patient_id)
)
ON CONFLICT (connection, selection, patient_id) DO UPDATE SET last_run = excluded.last_run, removed_run = NULL
WHERE m.removed_run IS NOT NULL

-- name: members_by_type
-- Types of which this run's export lists the rows of members: only Patients, if it has any and does not filter them; otherwise all.
SELECT CASE WHEN bool_or(u.resource_type = 'Patient' AND w.strict) THEN ARRAY['Patient'] ELSE array_agg(DISTINCT u.resource_type) END
FROM unit u JOIN way w ON w.id = u.way WHERE u.run = %(run)s AND u.kind IN ('file', 'no-file') AND w.scope = 'members'

-- name: catch_up
-- What a full export listed is known.
DELETE FROM lag WHERE connection = %(connection)s AND selection = %(knowledge)s AND resource_type = ANY(%(types)s::text[])

-- name: note_new_members
-- For patients new to the roster, nothing is known of types that have a watermark and that this export did not list whole.
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run, first_run)
SELECT %(connection)s, %(knowledge)s, w.resource_type, m.patient_id, NULL, %(run)s, %(run)s
FROM watermark w JOIN roster m ON m.connection = w.connection AND m.selection = w.selection
WHERE w.connection = %(connection)s AND w.selection = %(knowledge)s AND w.resource_type <> ALL(%(types)s::text[])
    AND m.removed_run IS NULL AND m.last_run = %(run)s
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = NULL, withheld = false

-- name: note_withheld
-- If a Patient was withheld from a full export, the export says nothing of that patient, in any type.
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run, first_run, withheld)
SELECT %(connection)s, %(knowledge)s, w.resource_type, a.id, NULL, %(run)s, %(run)s, true
FROM absence a JOIN watermark w ON w.connection = %(connection)s AND w.selection = %(knowledge)s
WHERE a.run = %(run)s AND a.resource_type = 'Patient' AND a.fate = 'withheld'
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = NULL

-- name: note_leavers
-- Patients whom the Group no longer has while the watermarks move on: if one comes back, nothing is known of the time between.
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run, first_run)
SELECT %(connection)s, %(knowledge)s, w.resource_type, m.patient_id, NULL, %(run)s, %(run)s
FROM watermark w JOIN roster m ON m.connection = w.connection AND m.selection = w.selection
WHERE w.connection = %(connection)s AND w.selection = %(knowledge)s AND m.removed_run IS NULL
    AND EXISTS (SELECT FROM group_member WHERE run = %(run)s)
    AND NOT EXISTS (SELECT FROM group_member g WHERE g.run = %(run)s AND g.patient_id = m.patient_id)
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET withheld = false WHERE lag.withheld

-- name: note_members
-- The members of the Group that this run exports; a run that was killed before its export began may have read others.
WITH known AS (UPDATE run SET members_known = true WHERE id = %(run)s),
    former AS (DELETE FROM group_member WHERE run = %(run)s AND patient_id <> ALL(%(patients)s::text[]))
INSERT INTO group_member (run, patient_id) SELECT DISTINCT %(run)s::bigint, unnest(%(patients)s::text[]) ON CONFLICT DO NOTHING
