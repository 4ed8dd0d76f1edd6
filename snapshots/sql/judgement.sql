-- name: controlled
-- Types of which a row could be read by id in this run: a control, or another row that was requested. Only for these types does a 404 or a
-- 410 prove anything: a type that was withdrawn from reads gives that answer for every row.
SELECT DISTINCT resource_type FROM unit WHERE run = %(run)s AND kind IN ('control', 'confirm') AND state = 'settled' AND records > 0

-- name: circumstances
-- What this run knows of each row that it missed, or was told of: everything that decides the row's fate, and a number for each group of
-- rows that are alike in all of it.
CREATE TEMPORARY TABLE circumstance ON COMMIT DROP AS
SELECT *, dense_rank() OVER (ORDER BY resource_type, way, everything, strict, of_unknown, said, asked, received, elsewhere, dead, before,
    way_again, member, chart_came, others_came, controlled, of_mass) AS nth
FROM (
    SELECT a.resource_type, a.id, a.way, a.said, a.asked,
        coalesce(w.scope = 'everything', false) AS everything, coalesce(w.strict, true) AS strict,
        -- an export of a Group that could not be read, without Patients: whose rows it does not bring may have left; or one of named
        -- patients that was refused, while nothing at all could be read
        coalesce(w.scope = 'members', false) AND NOT EXISTS (SELECT FROM group_member m WHERE m.run = %(run)s) AND NOT EXISTS (
            SELECT FROM unit u WHERE u.run = %(run)s
                AND (u.kind IN ('file', 'no-file') AND u.resource_type = 'Patient' OR u.kind = 'cohort' AND u.patient_id IS NOT NULL)
        ) OR EXISTS (SELECT FROM unit u WHERE u.run = %(run)s AND u.kind = 'cohort' AND u.patient_id IS NOT NULL) AND NOT EXISTS (
            SELECT FROM bulk_job b WHERE b.run = %(run)s AND (b.status_url IS NOT NULL OR b.manifest_complete)
        ) AND NOT EXISTS (
            SELECT FROM unit u WHERE u.run = %(run)s AND (
                u.kind IN ('file', 'no-file', 'search', 'batch') OR u.kind = 'cohort' AND u.ending = 'listed'
                OR u.kind IN ('control', 'confirm') AND u.records > 0
            )
        ) AS of_unknown,
        r.last_changed_run = %(run)s AND r.deleted_at IS NULL OR EXISTS (
            SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = a.resource_type AND s.id = a.id
        ) AS received,
        coalesce(
            -- the patient whose search brought a row need not be named by it
            w.scope <> 'everything' AND r.patient_id IS DISTINCT FROM a.patient_id AND (r.last_changed_run = %(run)s OR NOT EXISTS (
                SELECT FROM member m WHERE m.connection = %(connection)s AND m.resource_type = a.resource_type AND m.id = a.id
                    AND m.patient_id = a.patient_id AND m.searched
            ))
            OR cardinality(w.codes) > 0 AND EXISTS (SELECT FROM jsonb_path_query(r.body, '$.category[*].coding[*].code'))
                AND NOT EXISTS (
                    SELECT FROM jsonb_path_query(r.body, '$.category[*].coding[*].code') AS c (code)
                    WHERE c.code #>> '{}' = ANY(w.codes)
                ),
            false
        ) AS elsewhere,
        r.deleted_at IS NOT NULL AS dead,
        e.state AS before, coalesce(e.state = 'contradicted' AND a.way = ANY(e.ways), false) AS way_again,
        a.resource_type = 'Patient' AND (EXISTS (
            SELECT FROM group_member m WHERE m.run = %(run)s AND m.patient_id = a.id
        ) OR EXISTS (
            SELECT FROM unit u WHERE u.run = %(run)s AND u.kind = 'cohort' AND u.patient_id = a.id
        )) AS member,
        a.resource_type = 'Patient' AND EXISTS (
            SELECT FROM resource c WHERE c.patient_id = a.id AND c.connection = %(connection)s AND c.resource_type <> 'Patient'
                AND c.deleted_at IS NULL AND (
                    c.last_changed_run = %(run)s OR EXISTS (
                        SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = c.resource_type AND s.id = c.id
                    )
                )
        ) AS chart_came,
        -- the others who came by the same way are its control; a 410 to everybody is no word of anybody
        a.resource_type = 'Patient' AND (a.resource_type = ANY(%(controlled)s::text[]) OR EXISTS (
            SELECT FROM seen s WHERE s.run = %(run)s AND s.resource_type = 'Patient' AND s.id <> a.id
        ) OR EXISTS (
            SELECT FROM resource p WHERE p.resource_type = 'Patient' AND p.connection = %(connection)s AND p.id <> a.id
                AND p.last_changed_run = %(run)s AND p.deleted_at IS NULL
        )) AS others_came,
        a.resource_type = ANY(%(controlled)s::text[]) AS controlled,
        EXISTS (
            SELECT FROM unnest(%(mass_types)s::text[], %(mass_ways)s::int[]) AS m (resource_type, way)
            WHERE m.resource_type = a.resource_type AND m.way IS NOT DISTINCT FROM a.way
        ) OR EXISTS (
            SELECT FROM unnest(%(mass_patient_types)s::text[], %(mass_patients)s::text[]) AS m (resource_type, patient_id)
            WHERE m.resource_type = a.resource_type AND m.patient_id = a.patient_id
        ) AS of_mass
    FROM absence a
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = a.resource_type AND connection = %(connection)s AND id = a.id OFFSET 0
    ) r
    LEFT JOIN way w ON w.id = a.way
    LEFT JOIN evidence e ON e.connection = %(connection)s AND e.resource_type = a.resource_type AND e.id = a.id AND e.run <> %(run)s
    WHERE a.run = %(run)s
) known

-- name: alike
-- How many rows are in each circumstance.
SELECT resource_type, way, everything, strict, of_unknown, said, asked, received, elsewhere, dead, before, way_again, member,
    chart_came, others_came, controlled, of_mass, count(*)::int
FROM circumstance
GROUP BY nth, resource_type, way, everything, strict, of_unknown, said, asked, received, elsewhere, dead, before, way_again, member,
    chart_came, others_came, controlled, of_mass
ORDER BY nth

-- name: note_fates
-- Note what is believed of the rows in each circumstance.
UPDATE absence a SET fate = f.fate
FROM circumstance c JOIN unnest(%(fates)s::text[]) WITH ORDINALITY AS f (fate, nth) USING (nth)
WHERE a.run = %(run)s AND a.resource_type = c.resource_type AND a.id = c.id

-- name: bury
-- Make tombstones of what is believed to be gone; the content stays as the last version.
WITH gone AS (
    UPDATE resource r SET deleted_at = %(at)s, deleted_run = %(run)s FROM absence a
    WHERE a.run = %(run)s AND a.fate IN ('confirmed', 'settled') AND r.resource_type = a.resource_type
        AND r.connection = %(connection)s AND r.id = a.id AND r.deleted_at IS NULL
    RETURNING r.resource_type
)
SELECT resource_type, count(*)::int FROM gone GROUP BY 1 ORDER BY 1

-- name: forget
-- Delete what is settled. If several ways contradict a row and one of them turns out not to list it, only that way's part is deleted.
WITH others AS (
    UPDATE evidence e SET ways = array_remove(e.ways, a.way) FROM absence a
    WHERE a.run = %(run)s AND a.fate = 'dropped' AND e.connection = %(connection)s AND e.resource_type = a.resource_type AND e.id = a.id
        AND cardinality(array_remove(e.ways, a.way)) > 0
)
DELETE FROM evidence e USING absence a
WHERE a.run = %(run)s AND (a.fate <> 'dropped' OR cardinality(array_remove(e.ways, a.way)) = 0) AND e.connection = %(connection)s AND e.resource_type = a.resource_type AND e.id = a.id
    AND a.fate IN ('confirmed', 'settled', 'moved', 'left', 'dropped', 'alive', 'still-dead')

-- name: unmerge_doubted
-- A merge that is not believed changes nothing: the patient is requested by the same id again.
UPDATE alias m SET surviving_id = m.former_id, gone = false, last_run = %(run)s FROM absence a
WHERE a.run = %(run)s AND a.resource_type = 'Patient' AND a.said = 'merged' AND a.fate IN ('doubted', 'contrary', 'orphaning')
    AND m.connection = %(connection)s AND m.former_id = a.id AND m.gone

-- name: remember
-- Keep what stays open after this run. Several ways can contradict a row; each must miss it twice.
INSERT INTO evidence AS e (connection, resource_type, id, state, ways, run)
SELECT %(connection)s, resource_type, id, CASE WHEN fate IN ('contrary', 'orphaning') THEN 'doubted' ELSE fate END,
    CASE WHEN way IS NULL THEN '{}' ELSE ARRAY[way] END, %(run)s FROM absence
WHERE run = %(run)s AND fate IN ('contrary', 'doubted', 'orphaning', 'not-found', 'contradicted', 'withheld')
ON CONFLICT (connection, resource_type, id) DO UPDATE SET state = excluded.state, run = excluded.run,
    ways = CASE WHEN e.state = 'contradicted' AND excluded.state = 'contradicted' AND NOT e.ways @> excluded.ways
        THEN e.ways || excluded.ways ELSE excluded.ways END
WHERE (e.state, e.ways) IS DISTINCT FROM (excluded.state, excluded.ways) OR e.state NOT IN ('withheld')

-- name: unlist
-- A way that has missed a row twice while the row was there does not list it; nor does a category's way, once the row has left the
-- category. If a row now belongs to another patient, the search that brought it no longer says whose it is.
WITH dropped AS (
    SELECT a.resource_type, a.id, a.way FROM absence a JOIN way w ON w.id = a.way
    WHERE a.run = %(run)s AND (a.fate = 'dropped' OR a.fate = 'moved' AND cardinality(w.codes) > 0)
), lost AS (
    DELETE FROM member m USING absence a
    WHERE a.run = %(run)s AND a.fate = 'moved' AND m.connection = %(connection)s AND m.resource_type = a.resource_type AND m.id = a.id
        AND m.patient_id = a.patient_id AND m.searched
    RETURNING m.*
), were AS (
    INSERT INTO member_history (connection, resource_type, id, patient_id, searched, from_run, to_run)
    SELECT connection, resource_type, id, patient_id, searched, from_run, %(run)s FROM lost WHERE from_run <> %(run)s
), forgotten AS (
    DELETE FROM listed l USING dropped d
    WHERE l.connection = %(connection)s AND l.resource_type = d.resource_type AND l.id = d.id AND l.way = d.way
)
UPDATE resource r SET first_way = NULL FROM dropped d
WHERE r.resource_type = d.resource_type AND r.connection = %(connection)s AND r.id = d.id AND r.first_way = d.way

-- name: strike_off
-- Patients who left are no longer covered; their rows stay as they are. The crawl goes on requesting those whom it asks for itself.
WITH removed AS (
    UPDATE roster m SET removed_run = %(run)s FROM absence a
    WHERE a.run = %(run)s AND (a.fate = 'left' OR a.fate = 'left-unread' AND a.said = 'unreadable') AND m.connection = %(connection)s AND m.selection = %(knowledge)s
        AND m.patient_id = a.id AND m.removed_run IS NULL
    RETURNING m.patient_id
)
DELETE FROM lag l USING removed x
WHERE l.connection = %(connection)s AND l.selection = %(knowledge)s AND l.patient_id = x.patient_id

-- name: lower
-- No selection knows any longer what was buried, doubted or brought back to life: each selection lists that patient and type in full before
-- it requests news again, whichever of a row's patients it asks for. The same holds for withheld rows, and for a Patient who is not there
-- beside the chart, because rows that nobody has ever seen may be withheld too. Exceptions: what this run's own full listing brought back,
-- and what its own news said to be deleted; otherwise an EHR that reports deletions each night would be asked for everything each night.
WITH shaken AS (
    SELECT a.resource_type, coalesce(r.patient_id, '') AS patient_id, a.fate = 'confirmed' AND a.said = 'deleted' AS own_is_known,
        a.fate IN ('withheld', 'orphaning') AS withheld
    FROM absence a
    CROSS JOIN LATERAL (
        SELECT patient_id FROM resource WHERE resource_type = a.resource_type AND connection = %(connection)s AND id = a.id
        UNION ALL SELECT patient_id FROM member WHERE connection = %(connection)s AND resource_type = a.resource_type AND id = a.id
    ) r
    WHERE a.run = %(run)s AND a.fate IN ('confirmed', 'settled', 'doubted', 'orphaning', 'contrary', 'contradicted', 'not-found', 'withheld')
    UNION SELECT resource_type, patient_id, %(full)s, false FROM revived WHERE run = %(run)s
)
INSERT INTO lag (connection, selection, resource_type, patient_id, instant, run, first_run, withheld)
SELECT %(connection)s::int, w.selection, s.resource_type, s.patient_id, NULL, %(run)s::bigint, %(run)s::bigint, bool_and(s.withheld)
FROM shaken s
JOIN watermark w ON w.connection = %(connection)s AND w.resource_type = s.resource_type
WHERE NOT (s.own_is_known AND w.selection = %(knowledge)s) AND (
    s.patient_id = ''
    OR NOT EXISTS (SELECT FROM roster m WHERE m.connection = %(connection)s AND m.selection = w.selection AND m.removed_run IS NULL)
    OR EXISTS (
        SELECT FROM roster m WHERE m.connection = %(connection)s AND m.selection = w.selection AND m.removed_run IS NULL
            AND m.patient_id = s.patient_id
    )
)
GROUP BY w.selection, s.resource_type, s.patient_id
ON CONFLICT (connection, selection, resource_type, patient_id) DO UPDATE SET instant = NULL, run = excluded.run,
    withheld = lag.withheld AND excluded.withheld

-- name: doubt
-- Make a hole of each row whose deletion is not believed.
INSERT INTO unit (run, key, kind, resource_type, state, ending, reason, template, ended_at)
VALUES (%(run)s, %(key)s, 'doubt', %(resource_type)s, 'failed', 'failed', %(reason)s, 'what is stored', %(at)s)
ON CONFLICT (run, key) DO UPDATE SET reason = excluded.reason

-- name: empty
-- Delete what these runs were told of rows; it is no longer needed.
WITH heard AS (DELETE FROM absence WHERE run = ANY(%(runs)s)), members AS (DELETE FROM group_member WHERE run = ANY(%(runs)s))
DELETE FROM revived WHERE run = ANY(%(runs)s)
