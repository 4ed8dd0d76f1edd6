-- name: blocked
-- Whether a hole leaves open what an export has listed: a failed file of mixed types, of deletions or of errors.
SELECT EXISTS (
    SELECT FROM unit WHERE run = %(run)s AND (
        state <> 'settled' AND (resource_type = '*' OR kind = 'deleted-file') OR kind = 'error-file' AND NOT complete_listing
    )
)

-- name: whole
-- Types that the run has listed whole, and by which way: by a directory listing, by files that all arrived, or by all parts of what another
-- source lists.
SELECT u.resource_type, u.way, u.way_of_none, w.scope FROM unit u JOIN way w ON w.id = u.way
WHERE u.run = %(run)s AND u.resource_type <> '*'
    AND (u.kind IN ('file', 'no-file') AND NOT %(blocked)s OR u.kind = 'search' AND u.patient_id IS NULL OR u.kind = 'listing')
GROUP BY 1, 2, 3, 4
HAVING bool_and(u.state = 'settled' AND u.complete_listing) AND NOT EXISTS (
    SELECT FROM quarantine q WHERE q.run = %(run)s AND q.unit_key IS NULL AND coalesce(q.resource_type, u.resource_type) = u.resource_type
)
ORDER BY 1, 2

-- name: note_departed_members
-- Patients that the selection's last export had and this one has not. A patient who is still in the Group is missed, and has not left.
INSERT INTO absence (run, resource_type, id, way, patient_id)
SELECT %(run)s, 'Patient', m.patient_id, %(way)s, m.patient_id FROM roster m
CROSS JOIN LATERAL (
    SELECT last_changed_run FROM resource
    WHERE resource_type = 'Patient' AND connection = %(connection)s AND id = m.patient_id AND deleted_at IS NULL OFFSET 0
) r
WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL AND r.last_changed_run <> %(run)s
    AND NOT EXISTS (SELECT FROM seen WHERE run = %(run)s AND resource_type = 'Patient' AND id = m.patient_id)
ON CONFLICT (run, resource_type, id) DO UPDATE SET way = excluded.way, patient_id = excluded.patient_id

-- name: note_departed_of_cohort
-- Patients that the selection covered and that this crawl did not request; none, while it is not known whom the crawl should request.
WITH asked AS (
    SELECT patient_id FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL
    UNION SELECT unnest(ids) FROM unit WHERE run = %(run)s AND kind = 'batch'
)
INSERT INTO absence (run, resource_type, id, way, patient_id)
SELECT %(run)s, 'Patient', m.patient_id, %(way)s, m.patient_id FROM roster m
CROSS JOIN LATERAL (
    SELECT last_changed_run FROM resource
    WHERE resource_type = 'Patient' AND connection = %(connection)s AND id = m.patient_id AND deleted_at IS NULL OFFSET 0
) r
WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL
    AND m.patient_id NOT IN (SELECT patient_id FROM asked)
    AND NOT EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind = 'cohort' AND state <> 'settled')
    AND r.last_changed_run <> %(run)s
    AND NOT EXISTS (SELECT FROM seen WHERE run = %(run)s AND resource_type = 'Patient' AND id = m.patient_id)
ON CONFLICT (run, resource_type, id) DO UPDATE SET way = coalesce(absence.way, excluded.way), patient_id = excluded.patient_id

-- name: strike_off_unread
-- Patients whom a crawl no longer requests and who need not be read by id, because their Patient is not stored, or came all the same: a
-- server that ignores `_id` sends everybody. Their rows are read in rotation.
WITH asked AS (
    SELECT patient_id FROM unit WHERE run = %(run)s AND patient_id IS NOT NULL
    UNION SELECT unnest(ids) FROM unit WHERE run = %(run)s AND kind = 'batch'
)
UPDATE roster m SET removed_run = %(run)s
WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL
    AND m.patient_id NOT IN (SELECT patient_id FROM asked)
    AND NOT EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind = 'cohort' AND state <> 'settled')
    AND NOT EXISTS (
        SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = m.patient_id
            AND r.deleted_at IS NULL AND r.last_changed_run <> %(run)s
            AND NOT EXISTS (SELECT FROM seen WHERE run = %(run)s AND resource_type = 'Patient' AND id = m.patient_id)
    )

-- name: strike_off_unexported
-- The same for an export: patients who are no longer in the Group, as the Group itself says, nor in the list of names. If Patients came,
-- one who is stored is requested instead.
WITH asked AS (
    SELECT patient_id FROM group_member WHERE run = %(run)s
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND kind = 'cohort' AND patient_id IS NOT NULL
)
UPDATE roster m SET removed_run = %(run)s
WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL
    AND EXISTS (SELECT FROM asked) AND m.patient_id NOT IN (SELECT patient_id FROM asked)
    AND NOT EXISTS (SELECT FROM unit WHERE run = %(run)s AND kind = 'cohort' AND patient_id IS NULL)
    AND NOT (%(requested_patients)s AND EXISTS (
        SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = m.patient_id
            AND r.deleted_at IS NULL
    ))

-- name: patient_way
-- The way by which a crawl requests Patients one by one; none for an export.
SELECT (SELECT id FROM way WHERE connection = %(connection)s AND scope = 'patient' AND name = %(name)s)
FROM run WHERE id = %(run)s AND NOT EXISTS (SELECT FROM bulk_job b WHERE b.run = run.id)

-- name: drop_unreceived
-- Of an earlier run of the same session.
DROP TABLE IF EXISTS pg_temp.unreceived

-- name: only_hash
-- Join only by hashing, or as the planner likes. Tables that grew within minutes have no statistics: an anti join by nested loop took
-- minutes for 38,000 resources, and sorting both sides takes twice as long as hashing them.
SELECT set_config('enable_nestloop', x, true), set_config('enable_mergejoin', x, true)
FROM (SELECT CASE WHEN %(only)s THEN 'off' ELSE 'on' END) AS s (x)

-- name: compare
-- Live rows that the run's listings have not brought. The run's session keeps them, since the comparison takes 2 µs per row. A first run
-- compares too, although it misses nothing: reading what was just written marks it as committed before its pages go to the disk. When that
-- was left to the next run, it wrote 80 MB of WAL for 50,000 rows.
CREATE TEMPORARY TABLE unreceived AS
SELECT resource_type, id, patient_id, first_way FROM resource r
WHERE connection = %(connection)s AND deleted_at IS NULL AND last_changed_run <> %(run)s
    AND NOT EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = r.resource_type AND s.id = r.id)

-- name: note_missed_everything
-- Rows of a type that a way has listed before and that its complete listing of everything no longer has.
INSERT INTO absence AS a (run, resource_type, id, way, patient_id)
SELECT %(run)s, u.resource_type, u.id, %(way)s, r.patient_id FROM unreceived u
CROSS JOIN LATERAL (
    SELECT first_way, patient_id FROM resource
    WHERE resource_type = u.resource_type AND connection = %(connection)s AND id = u.id OFFSET 0
) r
WHERE u.resource_type = %(resource_type)s AND (r.first_way = %(way)s OR EXISTS (
    SELECT FROM listed l WHERE l.connection = %(connection)s AND l.resource_type = %(resource_type)s AND l.id = u.id AND l.way = %(way)s
))
ON CONFLICT (run, resource_type, id) DO UPDATE SET way = excluded.way WHERE a.way IS NULL

-- name: group_read
-- Whether the run knows from the Group itself who is in it.
SELECT EXISTS (SELECT FROM group_member WHERE run = %(run)s)

-- name: note_missed_members
-- The same for an export of members: rows of patients who are in it, and of patients who are dead. A patient who is not in it and is alive
-- has left. A Patient who is not shown (403) has left only if the Group or the list of names says so. A 404 does not mean that a patient is
-- dead if no Patient could be read, unless the export was for that patient alone. If the Group could be read, it says who is in it: servers
-- may add other Patients to an export (Bulk Data IG, "associated").
WITH member_patient AS MATERIALIZED (
    SELECT patient_id AS id FROM group_member WHERE run = %(run)s
    UNION SELECT id FROM resource
    WHERE %(patients_listed)s AND NOT %(group_read)s AND resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s
        AND deleted_at IS NULL
    UNION SELECT id FROM seen WHERE %(patients_listed)s AND NOT %(group_read)s AND run = %(run)s AND resource_type = 'Patient'
    UNION SELECT patient_id FROM roster WHERE NOT %(patients_listed)s AND NOT %(group_read)s AND connection = %(connection)s
        AND selection = %(knowledge)s AND removed_run IS NULL
    EXCEPT SELECT id FROM absence WHERE run = %(run)s AND resource_type = 'Patient'
), asked AS (
    SELECT patient_id FROM group_member WHERE run = %(run)s
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND kind = 'cohort' AND patient_id IS NOT NULL
), speaks_for AS MATERIALIZED (
    SELECT id FROM member_patient
    UNION SELECT id FROM absence WHERE run = %(run)s AND resource_type = 'Patient' AND (
        said IN ('deleted', 'merged') OR said IN ('not-found', 'gone') AND (id IN (SELECT patient_id FROM asked) OR EXISTS (
            SELECT FROM unit WHERE run = %(run)s AND resource_type = 'Patient' AND kind IN ('control', 'confirm') AND state = 'settled'
                AND records > 0
        ))
    )
    UNION SELECT m.patient_id FROM roster m
        CROSS JOIN LATERAL (
            SELECT deleted_at FROM resource
            WHERE resource_type = 'Patient' AND connection = %(connection)s AND id = m.patient_id OFFSET 0
        ) r
        WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL AND r.deleted_at IS NOT NULL
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND kind = 'cohort' AND ending = 'restricted'
    UNION SELECT id FROM absence WHERE run = %(run)s AND resource_type = 'Patient' AND said = 'withheld'
        AND (id IN (SELECT patient_id FROM asked) OR NOT EXISTS (SELECT FROM asked))
)
INSERT INTO absence AS a (run, resource_type, id, way, patient_id)
SELECT %(run)s, u.resource_type, u.id, %(way)s, r.patient_id FROM unreceived u
CROSS JOIN LATERAL (
    SELECT first_way, patient_id FROM resource
    WHERE resource_type = u.resource_type AND connection = %(connection)s AND id = u.id OFFSET 0
) r
WHERE u.resource_type = %(resource_type)s AND r.patient_id IN (SELECT id FROM speaks_for) AND (r.first_way = %(way)s OR EXISTS (
    SELECT FROM listed l WHERE l.connection = %(connection)s AND l.resource_type = %(resource_type)s AND l.id = u.id AND l.way = %(way)s
))
ON CONFLICT (run, resource_type, id) DO UPDATE SET way = excluded.way WHERE a.way IS NULL

-- name: note_missed_of_patients
-- Rows that a patient's search has listed before and that its complete answer no longer has. An empty answer counts only if the patient is
-- known to be alive, or to be dead: otherwise the index may not know the patient. A survivor's answer also speaks for rows that are still
-- stored under the former id. If a dead patient's chart was not requested, or was refused, every search of this run speaks for it; but not
-- if only its news were requested, nor if no Patient could be read: then a 404 says nothing about the chart.
WITH answered AS MATERIALIZED (
    SELECT resource_type, patient_id, way FROM unit
    WHERE run = %(run)s AND kind = 'search' AND patient_id IS NOT NULL AND way IS NOT NULL
    GROUP BY 1, 2, 3 HAVING bool_or(state = 'settled' AND complete_listing)
), alive AS MATERIALIZED (
    SELECT patient_id FROM unit
    WHERE run = %(run)s AND patient_id IS NOT NULL AND kind IN ('search', 'read') AND state = 'settled' AND records > 0
    UNION SELECT id FROM resource
        WHERE resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s AND deleted_at IS NULL
    UNION SELECT id FROM seen WHERE run = %(run)s AND resource_type = 'Patient'
), dead AS MATERIALIZED (
    SELECT id FROM absence WHERE run = %(run)s AND resource_type = 'Patient' AND said IN ('not-found', 'gone', 'deleted', 'merged')
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND resource_type = 'Patient' AND patient_id IS NOT NULL
        AND ending IN ('not-found', 'gone')
    UNION SELECT d.patient_id FROM (SELECT DISTINCT patient_id FROM answered) d
        CROSS JOIN LATERAL (
            SELECT deleted_at FROM resource
            WHERE resource_type = 'Patient' AND connection = %(connection)s AND id = d.patient_id OFFSET 0
        ) r
        WHERE r.deleted_at IS NOT NULL
), surely_dead AS MATERIALIZED (
    SELECT id FROM dead WHERE EXISTS (
        SELECT FROM unit WHERE run = %(run)s AND resource_type = 'Patient' AND kind IN ('control', 'confirm') AND state = 'settled'
            AND records > 0
    ) OR EXISTS (
        SELECT FROM absence a WHERE a.run = %(run)s AND a.resource_type = 'Patient' AND a.id = dead.id AND a.said IN ('deleted', 'merged')
    ) OR EXISTS (
        SELECT FROM resource r WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id = dead.id
            AND r.deleted_at IS NOT NULL
    )
), complete AS MATERIALIZED (
    SELECT * FROM answered WHERE patient_id IN (SELECT patient_id FROM alive) OR patient_id IN (SELECT id FROM dead)
    UNION SELECT c.resource_type, a.former_id, c.way FROM answered c
        JOIN alias a ON a.connection = %(connection)s AND a.surviving_id = c.patient_id AND a.gone AND a.former_id <> a.surviving_id
        WHERE c.patient_id IN (SELECT patient_id FROM alive)
    UNION SELECT w.resource_type, d.id, w.way FROM (SELECT DISTINCT resource_type, way FROM answered) w
        CROSS JOIN (
            SELECT id FROM surely_dead EXCEPT SELECT patient_id FROM unit
            WHERE run = %(run)s AND kind = 'search' AND resource_type <> 'Patient' AND patient_id IS NOT NULL
                AND (incremental OR state <> 'settled')
        ) d
), unseen AS MATERIALIZED (
    (
        SELECT resource_type, id FROM resource
        WHERE connection = %(connection)s AND deleted_at IS NULL AND last_changed_run <> %(run)s
            AND resource_type IN (SELECT resource_type FROM complete) AND patient_id IN (SELECT patient_id FROM complete)
        UNION SELECT m.resource_type, m.id FROM member m
            WHERE m.connection = %(connection)s AND m.searched AND m.patient_id IN (SELECT patient_id FROM complete)
    )
    EXCEPT SELECT resource_type, id FROM seen WHERE run = %(run)s
), held AS MATERIALIZED (
    SELECT u.resource_type, u.id, r.patient_id, r.first_way FROM unseen u
    CROSS JOIN LATERAL (
        SELECT patient_id, first_way FROM resource WHERE resource_type = u.resource_type AND connection = %(connection)s AND id = u.id
            AND deleted_at IS NULL AND last_changed_run <> %(run)s OFFSET 0
    ) r
), missed AS (
    SELECT h.resource_type, h.id, c.way, c.patient_id, h.first_way FROM held h
    JOIN complete c ON c.resource_type = h.resource_type AND c.patient_id = h.patient_id
    UNION ALL
    SELECT h.resource_type, h.id, c.way, c.patient_id, h.first_way FROM held h
    JOIN member m ON m.connection = %(connection)s AND m.resource_type = h.resource_type AND m.id = h.id AND m.searched
    JOIN complete c ON c.resource_type = h.resource_type AND c.patient_id = m.patient_id
)
INSERT INTO absence AS a (run, resource_type, id, way, patient_id)
SELECT DISTINCT ON (m.resource_type, m.id) %(run)s, m.resource_type, m.id, m.way, m.patient_id FROM missed m
WHERE m.first_way = m.way OR EXISTS (
    SELECT FROM listed l WHERE l.connection = %(connection)s AND l.resource_type = m.resource_type AND l.id = m.id AND l.way = m.way
)
ORDER BY m.resource_type, m.id, m.way
ON CONFLICT (run, resource_type, id) DO UPDATE SET way = excluded.way, patient_id = excluded.patient_id WHERE a.way IS NULL

-- name: note_missed_of_nobody
-- Rows of patients who are not there, if a full export has no file or was refused because it was for nobody else: then no type of it says
-- what it lists.
INSERT INTO absence (run, resource_type, id, way, patient_id)
SELECT %(run)s, r.resource_type, r.id, r.first_way, r.patient_id FROM (
    SELECT id FROM absence WHERE run = %(run)s AND resource_type = 'Patient' AND said IN ('not-found', 'gone')
    UNION SELECT patient_id FROM unit WHERE run = %(run)s AND kind = 'cohort' AND ending IN ('not-found', 'gone')  -- of no Patient that is stored
) d
JOIN resource r ON r.connection = %(connection)s AND r.patient_id = d.id AND r.resource_type <> 'Patient'
JOIN way w ON w.id = r.first_way AND w.scope = 'members'
WHERE r.deleted_at IS NULL
    AND EXISTS (SELECT FROM unit u WHERE u.run = %(run)s AND u.kind = 'cohort')
    AND NOT EXISTS (
        SELECT FROM unit u WHERE u.run = %(run)s AND u.kind IN ('file', 'no-file', 'error-file', 'search', 'read', 'batch')
    )
ON CONFLICT DO NOTHING

-- name: has_absence
-- Whether the run missed any row, or was told of any that is not there.
SELECT EXISTS (SELECT FROM absence WHERE run = %(run)s)

-- name: groups
-- What each way has newly missed of a type, and how many rows it listed. For Patients, the number that came counts: an answer about one
-- Patient may bring another, to whom a redirect leads. What was only said to be gone is compared with what is stored of the patients for
-- whom this run speaks. Rows that were there, or withheld, when they were last requested are requested again, however many there are: that
-- they are gone tonight is news.
SELECT a.resource_type, a.way, count(*)::int,
    CASE WHEN a.resource_type = 'Patient' THEN (
        SELECT count(*) FROM (
            SELECT id FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND last_changed_run = %(run)s
                AND deleted_at IS NULL
            UNION SELECT id FROM seen WHERE run = %(run)s AND resource_type = 'Patient'
        ) came
    )::int ELSE coalesce((
        SELECT sum(records) FROM unit u
        WHERE u.run = %(run)s AND u.resource_type = a.resource_type AND (u.way = a.way OR u.way_of_none = a.way) AND u.state = 'settled'
    ), 0)::int END,
    (
        SELECT count(*) FROM resource r
        WHERE a.way IS NULL AND r.resource_type = a.resource_type AND r.connection = %(connection)s AND r.deleted_at IS NULL
            AND (r.patient_id IS NULL OR NOT EXISTS (
                SELECT FROM roster WHERE connection = %(connection)s AND selection = %(knowledge)s AND removed_run IS NULL
            ) OR EXISTS (
                SELECT FROM roster m WHERE m.connection = %(connection)s AND m.selection = %(knowledge)s AND m.removed_run IS NULL
                    AND m.patient_id = r.patient_id
            ))
    )::int
FROM absence a
CROSS JOIN LATERAL (
    SELECT last_changed_run FROM resource WHERE resource_type = a.resource_type AND connection = %(connection)s AND id = a.id
        AND deleted_at IS NULL AND last_changed_run <> %(run)s OFFSET 0
) r
LEFT JOIN evidence e ON e.connection = %(connection)s AND e.resource_type = a.resource_type AND e.id = a.id AND e.run <> %(run)s
    AND (e.state IN ('doubted', 'not-found')
        OR e.state IN ('contradicted', 'withheld') AND coalesce(a.said NOT IN ('gone', 'deleted', 'merged', 'not-found'), true))
WHERE a.run = %(run)s AND (a.way IS NOT NULL OR a.said IN ('gone', 'deleted', 'merged')) AND e.id IS NULL
    AND NOT EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = a.resource_type AND s.id = a.id)
GROUP BY 1, 2

-- name: patient_groups
-- The same by patient: how many rows of a type are newly missed, or said to be gone, of how many that are stored. Only patients who are
-- alive count, as they themselves show or any row of their charts that came. Where rows were only said to be gone, as in an export of news,
-- a patient who is not said to be gone is alive.
SELECT m.resource_type, m.patient_id, m.missed, (
    SELECT count(*) FROM resource r WHERE r.resource_type = m.resource_type AND r.connection = %(connection)s
        AND r.patient_id = m.patient_id AND r.deleted_at IS NULL
)::int
FROM (
    SELECT a.resource_type, a.patient_id, count(*)::int AS missed, bool_and(a.way IS NULL) AS told FROM absence a
    LEFT JOIN evidence e ON e.connection = %(connection)s AND e.resource_type = a.resource_type AND e.id = a.id AND e.run <> %(run)s
        AND (e.state IN ('doubted', 'not-found')
            OR e.state IN ('contradicted', 'withheld') AND coalesce(a.said NOT IN ('gone', 'deleted', 'merged', 'not-found'), true))
    WHERE a.run = %(run)s AND (a.way IS NOT NULL OR a.said IN ('gone', 'deleted')) AND a.patient_id IS NOT NULL
        AND a.resource_type <> 'Patient' AND e.id IS NULL
        AND NOT EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = a.resource_type AND s.id = a.id)
    GROUP BY 1, 2 HAVING count(*) >= %(mass)s
) m
WHERE EXISTS (
    SELECT FROM resource p WHERE p.patient_id = m.patient_id AND p.connection = %(connection)s
        AND p.deleted_at IS NULL AND (
            p.last_changed_run = %(run)s
            OR EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = p.resource_type AND s.id = p.id)
        )
) OR m.told AND EXISTS (
    SELECT FROM resource p WHERE p.resource_type = 'Patient' AND p.connection = %(connection)s AND p.id = m.patient_id
        AND p.deleted_at IS NULL
        AND NOT EXISTS (SELECT FROM absence a WHERE a.run = %(run)s AND a.resource_type = 'Patient' AND a.id = p.id)
)

-- name: due
-- Missed rows to request by id: those without an answer so far, unless they are part of a mass, which no number of reads explains. Every
-- way's types take turns, so that many rows of one type do not delay the others; rows that were withheld before come last.
SELECT d.resource_type, d.id, d.patient_id FROM (
    SELECT a.resource_type, a.id, a.patient_id, a.way, EXISTS (
        SELECT FROM evidence e WHERE e.connection = %(connection)s AND e.resource_type = a.resource_type AND e.id = a.id
            AND e.state = 'withheld' AND e.run <> %(run)s
    ) AS was_withheld
    FROM absence a
    CROSS JOIN LATERAL (
        SELECT FROM resource WHERE resource_type = a.resource_type AND connection = %(connection)s AND id = a.id
            AND last_changed_run <> %(run)s OFFSET 0
    ) r
    WHERE a.run = %(run)s AND a.said IS NULL AND NOT a.asked
        AND (%(readable)s::text[] IS NULL OR a.resource_type = ANY(%(readable)s::text[]))
        AND NOT EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = a.resource_type AND s.id = a.id)
        AND NOT EXISTS (
            SELECT FROM unnest(%(mass_types)s::text[], %(mass_ways)s::int[]) AS m (resource_type, way)
            WHERE m.resource_type = a.resource_type AND m.way = a.way
        )
        AND NOT EXISTS (
            SELECT FROM unnest(%(mass_patient_types)s::text[], %(mass_patients)s::text[]) AS m (resource_type, patient_id)
            WHERE m.resource_type = a.resource_type AND m.patient_id = a.patient_id
        )
) d
ORDER BY d.was_withheld, row_number() OVER (PARTITION BY d.was_withheld, d.resource_type, d.way ORDER BY d.id),
    d.resource_type = 'Patient' DESC, d.resource_type, d.id
LIMIT %(limit)s

-- name: note_unreadable
-- Missed rows of types that the EHR lets nobody read cannot be requested.
UPDATE absence a SET said = 'unreadable'
WHERE a.run = %(run)s AND a.said IS NULL AND NOT a.asked AND a.resource_type <> ALL(%(readable)s::text[])

-- name: note_requested
-- Note what is requested by id.
UPDATE absence a SET asked = true FROM unnest(%(types)s::text[], %(ids)s::text[]) AS s (resource_type, id)
WHERE a.run = %(run)s AND a.resource_type = s.resource_type AND a.id = s.id

-- name: withheld
-- Rows that this client may not see, and Patients who are not there beside their charts, where patients are behind for that reason alone.
-- Their order differs in each run, since only some are read.
SELECT e.resource_type, e.id, r.patient_id FROM evidence e
CROSS JOIN LATERAL (
    SELECT patient_id FROM resource WHERE resource_type = e.resource_type AND connection = %(connection)s AND id = e.id OFFSET 0
) r
WHERE e.connection = %(connection)s AND (e.state = 'withheld' OR e.state = 'doubted' AND e.resource_type = 'Patient') AND EXISTS (
    SELECT FROM (
        SELECT coalesce(r.patient_id, '') AS id
        UNION ALL SELECT patient_id FROM member WHERE connection = %(connection)s AND resource_type = e.resource_type AND id = e.id
    ) p
    JOIN lag l ON l.connection = %(connection)s AND l.selection = %(knowledge)s AND l.patient_id = p.id AND l.withheld
    WHERE e.resource_type IN (l.resource_type, 'Patient') AND (
        %(patients)s::text[] IS NULL OR p.id = '' OR p.id = ANY(%(patients)s::text[])
    )
)
ORDER BY e.resource_type <> 'Patient', md5(concat(%(run)s::text, e.resource_type, e.id)) LIMIT %(limit)s

-- name: controls
-- Rows of these types that this run has listed: reading them shows whether a 404 for an absent row means anything. If it has listed none of
-- a type, rows that are stored: a type that was withdrawn answers 404 for them too.
SELECT t.resource_type, s.id, r.patient_id FROM unnest(%(types)s::text[]) AS t (resource_type)
CROSS JOIN LATERAL (
    SELECT id FROM (
        (
            SELECT s.id FROM seen s WHERE s.run = %(run)s AND s.resource_type = t.resource_type
                AND NOT EXISTS (SELECT FROM absence a WHERE a.run = %(run)s AND a.resource_type = s.resource_type AND a.id = s.id)
            ORDER BY s.id LIMIT %(each)s
        ) UNION ALL (
            SELECT r.id FROM resource r WHERE r.resource_type = t.resource_type AND r.connection = %(connection)s
                AND r.last_changed_run = %(run)s AND r.deleted_at IS NULL
                AND NOT EXISTS (SELECT FROM absence a WHERE a.run = %(run)s AND a.resource_type = r.resource_type AND a.id = r.id)
            LIMIT %(each)s
        ) UNION ALL (
            SELECT r.id FROM resource r WHERE r.resource_type = t.resource_type AND r.connection = %(connection)s
                AND r.deleted_at IS NULL AND r.last_changed_run <> %(run)s
                AND NOT EXISTS (SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = t.resource_type)
                AND NOT EXISTS (SELECT FROM absence a WHERE a.run = %(run)s AND a.resource_type = r.resource_type AND a.id = r.id)
            LIMIT %(each)s
        )
    ) found LIMIT %(each)s
) s
CROSS JOIN LATERAL (
    SELECT patient_id FROM resource WHERE resource_type = t.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
) r

-- name: not_found_types
-- Types of which a row that was requested was not there.
SELECT DISTINCT resource_type FROM absence WHERE run = %(run)s AND said IN ('not-found', 'gone')

-- name: retire_listings
-- What the selection's earlier full runs listed by another way, or of types that are no longer listed, is no longer a witness.
DELETE FROM full_listing f WHERE f.connection = %(connection)s AND f.selection = %(selection)s AND (
    f.knowledge <> %(knowledge)s
    OR NOT EXISTS (SELECT FROM unit u WHERE u.run = %(run)s AND u.resource_type = f.resource_type)
)

-- name: lists
-- Whether the run listed anything in full; an export of nothing says nothing about what was there before.
SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND complete_listing)
    OR NOT EXISTS (SELECT FROM bulk_job WHERE run = %(run)s)

-- name: note_listings
-- The ways by which this run has listed types in full.
INSERT INTO full_listing AS f (connection, selection, knowledge, way, resource_type, run, at)
SELECT %(connection)s, %(selection)s, %(knowledge)s, l.way, l.resource_type, %(run)s, %(at)s FROM (
    SELECT w.way, w.resource_type FROM unnest(%(types)s::text[], %(ways)s::int[]) AS w (resource_type, way)
    UNION SELECT way, resource_type FROM unit
        WHERE run = %(run)s AND patient_id IS NOT NULL AND way IS NOT NULL AND state = 'settled' AND complete_listing
            AND kind IN ('search', 'read')
    UNION SELECT way, resource_type FROM unit WHERE run = %(run)s AND kind = 'batch' AND way IS NOT NULL AND state = 'settled'
) l
ON CONFLICT (connection, selection, way, resource_type) DO UPDATE
    SET run = excluded.run, at = excluded.at, knowledge = excluded.knowledge

-- name: unwitnessed
-- Live rows that this run has not received and that no full listing of the period could list: their way is retired, or a patient left or is
-- in doubt, or only a reference or a pull ever brought them. A row that a reference has brought recently is known.
CREATE TEMPORARY TABLE unwitnessed ON COMMIT DROP AS
WITH few AS MATERIALIZED (
    -- what was only fetched by reference, in a run that listed everything: to look these up takes a fraction of reading all that came
    SELECT count(*) <= 1000 AS yes FROM (SELECT FROM unreceived LIMIT 1001) first
), unheard AS MATERIALIZED (
    SELECT u.* FROM unreceived u
    WHERE (SELECT yes FROM few)
        AND NOT EXISTS (SELECT FROM seen WHERE run = %(run)s AND resource_type = u.resource_type AND id = u.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM absence WHERE run = %(run)s AND resource_type = u.resource_type AND id = u.id OFFSET 0)
        AND NOT EXISTS (
            SELECT FROM resource WHERE resource_type = u.resource_type AND connection = %(connection)s AND id = u.id
                AND last_changed_run = %(run)s OFFSET 0
        )
        AND NOT EXISTS (
            SELECT FROM referenced WHERE connection = %(connection)s AND resource_type = u.resource_type AND id = u.id
                AND state = 'found' AND checked_at > %(at)s - %(fresh)s::interval OFFSET 0
        )
    UNION ALL
    -- most of the store, where a run lists little: to look each row up took two thirds of the time
    SELECT * FROM unreceived JOIN (
        SELECT resource_type, id FROM unreceived EXCEPT SELECT resource_type, id FROM (
            SELECT resource_type, id FROM seen WHERE run = %(run)s
            UNION ALL
            SELECT resource_type, id FROM absence WHERE run = %(run)s
            UNION ALL
            SELECT resource_type, id FROM resource WHERE connection = %(connection)s AND last_changed_run = %(run)s
            UNION ALL
            SELECT resource_type, id FROM referenced
            WHERE connection = %(connection)s AND state = 'found' AND checked_at > %(at)s - %(fresh)s::interval
        ) heard
    ) unheard USING (resource_type, id)
    WHERE NOT (SELECT yes FROM few)
), unproved AS MATERIALIZED (
    -- whose search was answered oddly: it says of nothing that it is not there
    SELECT resource_type, patient_id, way FROM unit
    WHERE run = %(run)s AND kind = 'search' AND patient_id IS NOT NULL AND resource_type <> 'Patient' AND state = 'settled'
        AND ending = 'listed' AND NOT complete_listing AND NOT incremental
)
SELECT u.resource_type, u.id, u.patient_id FROM unheard u
WHERE NOT EXISTS (
    SELECT FROM full_listing f JOIN way w ON w.id = f.way
    WHERE f.connection = %(connection)s AND f.resource_type = u.resource_type AND f.at > %(at)s - %(period)s::interval
        AND (f.way = u.first_way OR EXISTS (
            SELECT FROM listed l
            WHERE l.connection = %(connection)s AND l.resource_type = u.resource_type AND l.id = u.id AND l.way = f.way
        ))
        AND NOT EXISTS (
            SELECT FROM unproved v WHERE v.resource_type = u.resource_type AND v.patient_id = u.patient_id AND v.way = f.way
        )
        AND (w.scope = 'everything' OR NOT EXISTS (
            -- whose Patient is in doubt may not be asked for at all
            SELECT FROM evidence e WHERE e.connection = %(connection)s AND e.resource_type = 'Patient' AND e.id = u.patient_id
                AND e.state = 'doubted'
        ))
        AND (w.scope = 'everything' OR NOT EXISTS (
            -- whose own search has failed for as long is listed by nobody, whatever others are answered
            SELECT FROM lag l JOIN run x ON x.id = l.first_run
            WHERE l.connection = %(connection)s AND l.selection = f.knowledge AND l.resource_type = u.resource_type
                AND l.patient_id = u.patient_id AND x.started_at <= %(at)s - %(period)s::interval
        ))
        AND (w.scope = 'everything' OR EXISTS (
            SELECT FROM roster m WHERE m.connection = %(connection)s AND m.selection = f.knowledge AND m.removed_run IS NULL
                AND m.patient_id = u.patient_id
        ) OR EXISTS (
            SELECT FROM member s JOIN roster m ON m.connection = %(connection)s AND m.selection = f.knowledge
                AND m.removed_run IS NULL AND m.patient_id = s.patient_id
            WHERE s.connection = %(connection)s AND s.resource_type = u.resource_type AND s.id = u.id AND s.searched
        ))
)

-- name: count_unwitnessed
-- Their number, by type.
SELECT resource_type, count(*)::int FROM unwitnessed GROUP BY 1 ORDER BY 1

-- name: rotate
-- Some of them to request in this run, and tombstones whose reason nobody knows: first those that were not there when they were last
-- requested, then the next ones after those that the last run requested.
INSERT INTO absence (run, resource_type, id, patient_id)
SELECT %(run)s, resource_type, id, patient_id FROM (
    SELECT u.resource_type, u.id, u.patient_id, e.id IS NULL AS later,
        (u.resource_type, u.id) <= (c.rotation_type, c.rotation_id) AS passed
    FROM (
        SELECT resource_type, id, patient_id FROM unwitnessed
        UNION ALL SELECT resource_type, id, NULL FROM evidence WHERE connection = %(connection)s AND state = 'old-tombstone'
    ) u
    JOIN connection c ON c.id = %(connection)s
    LEFT JOIN evidence e ON e.connection = %(connection)s AND e.resource_type = u.resource_type AND e.id = u.id
        AND e.state IN ('not-found', 'doubted')
    WHERE %(readable)s::text[] IS NULL OR u.resource_type = ANY(%(readable)s::text[])
    ORDER BY later, passed, u.resource_type, u.id LIMIT %(limit)s
) chosen
ON CONFLICT DO NOTHING
RETURNING resource_type, id

-- name: note_rotation
-- How far the reading of unwitnessed rows has come.
UPDATE connection SET rotation_type = %(resource_type)s, rotation_id = %(id)s WHERE id = %(connection)s

-- name: requested_patients
-- Whether the run requested Patients at all.
SELECT EXISTS (SELECT FROM unit WHERE run = %(run)s AND resource_type = 'Patient' AND kind IN ('file', 'no-file', 'search', 'read', 'batch'))
