-- name: follow
-- Note which types this run follows references to.
INSERT INTO followed (run, resource_type) SELECT %(run)s, unnest(%(types)s::text[]) ON CONFLICT DO NOTHING

-- name: listings
-- Types that this run lists, and those of them of which it requested only changes for somebody: stored rows of such a type that did not
-- arrive are unchanged.
SELECT coalesce(array_agg(resource_type), '{}'), coalesce(array_agg(resource_type) FILTER (WHERE news), '{}') FROM (
    SELECT resource_type, bool_or(incremental) AS news FROM unit
    WHERE run = %(run)s AND kind NOT IN ('reference', 'attachment', 'cohort', 'confirm', 'control', 'doubt') GROUP BY 1
) listed

-- name: note_mentions
-- Keep what a batch mentions, until it is known what comes with the run.
INSERT INTO mention (run, resource_type, ids, patients)
SELECT %(run)s, g.resource_type, array_agg(g.id), array_agg(g.patient_id)
FROM unnest(%(types)s, %(ids)s, %(patients)s) AS g (resource_type, id, patient_id) GROUP BY g.resource_type

-- name: mentioned_types
-- Mentions not processed yet, by type; and whether they are so large a part of the rows that the run saw or changed that one scan is
-- cheaper than looking each up.
SELECT resource_type, 10 * mentions > coalesce(c.unchanged, 0), 10 * mentions > coalesce(c.new + c.changed, 0) FROM (
    SELECT resource_type, sum(cardinality(ids)) AS mentions FROM mention WHERE run = %(run)s GROUP BY 1
) m LEFT JOIN (SELECT * FROM run_count WHERE run = %(run)s) c USING (resource_type)

-- name: sources_at_depth
-- Types of the references at this number of steps from a listing.
SELECT DISTINCT resource_type FROM referenced WHERE run = %(run)s AND depth = %(depth)s AND connection = %(connection)s

-- name: in_referenced
-- References in resources of one type that are themselves `depth` steps from a listing, each once.
SELECT p.n, found #>> '{}', min(coalesce(r.patient_id, x.patient_id)) FROM referenced x
CROSS JOIN LATERAL (
    SELECT body, patient_id FROM resource
    WHERE resource_type = %(source)s AND connection = %(connection)s AND id = x.id AND deleted_at IS NULL OFFSET 0
) r
CROSS JOIN unnest(%(paths)s::text[]) WITH ORDINALITY AS p (path, n)
CROSS JOIN LATERAL jsonb_path_query(r.body, p.path::jsonpath) found
WHERE x.run = %(run)s AND x.depth = %(depth)s AND x.connection = %(connection)s AND x.resource_type = %(source)s
    AND jsonb_typeof(found) = 'string'
GROUP BY 1, 2

-- name: take
-- Note what is mentioned of one type and did not come with this run. What the run has noted before stays as it is, so that walks in circles
-- end. Left out is what listings keep current: rows that are stored, were never fetched by reference, and are of a type of which only news
-- were requested or, if this run does not list the type, that came within the time that references stay fresh. Nearly all that a full
-- listing mentions has come with it. LATERAL … OFFSET 0 as in ingest.sql.
WITH given AS MATERIALIZED (
    SELECT id, min(patient_id) AS patient_id FROM (
        SELECT g.id, g.patient_id, false AS came
        FROM mention m CROSS JOIN LATERAL unnest(m.ids, m.patients) AS g (id, patient_id)
        WHERE m.run = %(run)s AND m.resource_type = %(resource_type)s
        UNION ALL
        SELECT id, NULL, true FROM seen WHERE %(reads_seen)s AND run = %(run)s AND resource_type = %(resource_type)s
        UNION ALL
        SELECT id, NULL, true FROM resource WHERE %(reads_changed)s AND resource_type = %(resource_type)s
            AND connection = %(connection)s AND last_changed_run = %(run)s AND deleted_at IS NULL
    ) met GROUP BY id HAVING NOT bool_or(came)
), unseen AS MATERIALIZED (
    SELECT * FROM given g WHERE NOT EXISTS (
        SELECT FROM seen WHERE run = %(run)s AND resource_type = %(resource_type)s AND id = g.id OFFSET 0
    )
), elsewhere AS MATERIALIZED (
    SELECT g.*, r.last_changed_run FROM unseen g
    LEFT JOIN LATERAL (
        SELECT last_changed_run FROM resource
        WHERE resource_type = %(resource_type)s AND connection = %(connection)s AND id = g.id AND deleted_at IS NULL OFFSET 0
    ) r ON true
    WHERE r.last_changed_run IS DISTINCT FROM %(run)s
)
INSERT INTO referenced AS x (connection, resource_type, id, patient_id, run, depth)
SELECT %(connection)s, %(resource_type)s, g.id, g.patient_id, %(run)s, %(depth)s FROM elsewhere g
LEFT JOIN LATERAL (
    SELECT run FROM referenced
    WHERE connection = %(connection)s AND resource_type = %(resource_type)s AND id = g.id OFFSET 0
) before ON true
WHERE before.run IS DISTINCT FROM %(run)s AND NOT (
    g.last_changed_run IS NOT NULL AND before.run IS NULL AND (
        %(resource_type)s = ANY(%(news)s::text[])
        OR %(resource_type)s <> ALL(%(listed)s::text[]) AND (
            SELECT started_at > %(at)s::timestamptz - %(fresh)s::interval FROM run WHERE id = g.last_changed_run
        )
    )
)
ON CONFLICT (connection, resource_type, id) DO UPDATE
    SET run = excluded.run, depth = excluded.depth, patient_id = excluded.patient_id

-- name: forget_mentions
-- Delete the mentions of these runs: they are processed, or no longer needed.
DELETE FROM mention WHERE run = ANY(%(runs)s)

-- name: at_depth
-- Whether any reference is at this number of steps from a listing.
SELECT EXISTS (SELECT FROM referenced WHERE run = %(run)s AND depth = %(depth)s AND connection = %(connection)s)

-- name: due
-- References to request: mentioned at this depth, or left over from an earlier run, and not known freshly. If a patient's own search of the
-- type failed, its rows are not requested one by one: they would fail for the same reason.
SELECT x.resource_type, x.id, x.patient_id FROM referenced x
WHERE x.connection = %(connection)s AND x.asked_run IS DISTINCT FROM %(run)s AND x.resource_type = ANY(%(types)s::text[])
    AND (x.run = %(run)s AND x.depth = %(depth)s OR %(leftovers)s AND x.state = 'wanted' AND x.run <> %(run)s)
    AND NOT (x.checked_at > %(at)s::timestamptz - %(fresh)s::interval AND (
        x.state IN ('missing', 'restricted')
        OR x.state = 'found' AND EXISTS (
            SELECT FROM resource WHERE resource_type = x.resource_type AND connection = %(connection)s AND id = x.id
                AND deleted_at IS NULL)
    ))
    AND NOT EXISTS (
        SELECT FROM unit u WHERE u.run = %(run)s AND u.state = 'failed' AND u.resource_type = x.resource_type
            AND u.patient_id = x.patient_id
    )
ORDER BY x.resource_type, x.patient_id, x.id LIMIT %(limit)s

-- name: note_requested
-- Note what units request, so that it is not due again in this run.
UPDATE referenced x SET asked_run = %(run)s, depth = CASE WHEN x.run = %(run)s THEN x.depth ELSE %(depth)s END, run = %(run)s
FROM (
    SELECT u.resource_type, e.id FROM unit u CROSS JOIN LATERAL unnest(u.ids) AS e (id)
    WHERE u.run = %(run)s AND u.kind = 'reference'
) asked
WHERE x.connection = %(connection)s AND x.resource_type = asked.resource_type AND x.id = asked.id
    AND x.asked_run IS DISTINCT FROM %(run)s

-- name: note_answers
-- Note the EHR's answer: received, restricted, or missing.
UPDATE referenced x SET checked_at = %(at)s::timestamptz, state = CASE
    WHEN EXISTS (
        SELECT FROM resource WHERE resource_type = x.resource_type AND connection = %(connection)s AND id = x.id
            AND last_changed_run = %(run)s AND deleted_at IS NULL
    ) OR EXISTS (SELECT FROM seen WHERE run = %(run)s AND resource_type = x.resource_type AND id = x.id) THEN 'found'
    WHEN asked.restricted THEN 'restricted' ELSE 'missing' END
FROM (
    SELECT u.resource_type, e.id, u.ending = 'restricted' AS restricted
    FROM unit u CROSS JOIN LATERAL unnest(u.ids) AS e (id)
    WHERE u.run = %(run)s AND u.kind = 'reference' AND u.state = 'settled'
) asked
WHERE x.connection = %(connection)s AND x.resource_type = asked.resource_type AND x.id = asked.id

-- name: outcome
-- The outcomes of this run's references, by type; and of those it met again that are known to be unavailable.
SELECT resource_type, state, count(*)::int FROM referenced
WHERE connection = %(connection)s AND (asked_run = %(run)s OR run = %(run)s AND state IN ('missing', 'restricted')) GROUP BY 1, 2 ORDER BY 1, 2
