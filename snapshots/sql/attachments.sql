-- name: note_attached
-- Note where documents are attached to resources of a batch, and give, by position, those whose resource has another content than
-- before. Only stored contents count: a stale content or a rival has another hash (and so has a `merged` one whose JSON is the same). A
-- place with the same content as before whose document was fetched, or could not be, is unchanged and writes nothing. The outcomes of a
-- former content's documents become history.
WITH judged AS MATERIALIZED (
    SELECT g.*, r.patient_id, r.last_changed_run AS version, before.version AS former,
        g.merged AND r.content_hash = g.content_hash OR before.version IS DISTINCT FROM r.last_changed_run AS is_new,
        before.state, before.outcome, before.outcome_run, before.sha256, before.content_type AS former_type
    FROM unnest(%(types)s, %(ids)s, %(hashes)s, %(merged)s::boolean[], %(places)s, %(content_types)s, %(urls)s, %(inline)s::boolean[],
            %(sizes)s::bigint[], %(claimed)s) WITH ORDINALITY
        AS g (resource_type, id, content_hash, merged, place, content_type, url, inline, claimed_size, claimed_hash, n)
    CROSS JOIN LATERAL (
        SELECT patient_id, last_changed_run, content_hash FROM resource
        WHERE resource_type = g.resource_type AND connection = %(connection)s AND id = g.id AND deleted_at IS NULL OFFSET 0
    ) r
    LEFT JOIN LATERAL (
        SELECT version, state, outcome, outcome_run, sha256, content_type FROM attachment_use
        WHERE connection = %(connection)s AND resource_type = g.resource_type AND resource_id = g.id AND place = g.place OFFSET 0
    ) before ON true
    WHERE g.merged OR r.content_hash = g.content_hash
), replaced AS (
    INSERT INTO attachment_use_history (connection, resource_type, resource_id, place, content_type, version, outcome, sha256,
        outcome_run, to_run)
    SELECT %(connection)s, resource_type, id, place, former_type, former, outcome, sha256, outcome_run, %(run)s
    FROM judged WHERE is_new AND outcome_run <> %(run)s
    ON CONFLICT DO NOTHING
), written AS (
    INSERT INTO attachment_use AS u (connection, resource_type, resource_id, place, patient_id, content_type, url, inline,
        claimed_size, claimed_hash, version, run, outcome_run)
    SELECT %(connection)s, resource_type, id, place, patient_id, content_type, url, inline, claimed_size, claimed_hash, version,
        %(run)s, %(run)s
    FROM judged WHERE is_new OR state NOT IN ('stored', 'missing', 'restricted')
    ON CONFLICT (connection, resource_type, resource_id, place) DO UPDATE SET state = 'wanted', patient_id = excluded.patient_id,
        content_type = excluded.content_type, url = excluded.url, inline = excluded.inline, claimed_size = excluded.claimed_size,
        claimed_hash = excluded.claimed_hash, version = excluded.version, run = excluded.run, note = NULL,
        outcome = CASE WHEN u.version = excluded.version AND u.version <> excluded.run THEN u.outcome ELSE 'wanted' END,
        outcome_run = CASE WHEN u.version = excluded.version AND u.version <> excluded.run THEN u.outcome_run ELSE excluded.run END
)
SELECT array_agg(n) FROM judged WHERE is_new AND former IS NOT NULL

-- name: detach
-- Remove places that the new content of these resources no longer has; -1 means no place. They become history.
WITH gone AS (DELETE FROM attachment_use WHERE ctid = ANY (ARRAY(
    SELECT u.at FROM (
        SELECT resource_type, id, array_agg(place) AS places
        FROM unnest(%(types)s, %(ids)s, %(places)s) AS g (resource_type, id, place) GROUP BY 1, 2
    ) kept
    CROSS JOIN LATERAL (
        SELECT ctid AS at FROM attachment_use
        WHERE connection = %(connection)s AND resource_type = kept.resource_type AND resource_id = kept.id
            AND place <> ALL(kept.places) OFFSET 0
    ) u
)) RETURNING *)
INSERT INTO attachment_use_history (connection, resource_type, resource_id, place, content_type, version, outcome, sha256, outcome_run, to_run)
SELECT connection, resource_type, resource_id, place, content_type, version, outcome, sha256, outcome_run, %(run)s FROM gone
WHERE outcome_run <> %(run)s
ON CONFLICT DO NOTHING

-- name: due
-- Documents to fetch by URL, or to decide on: wanted by this run (a sync also takes what earlier ones left over) and not requested by it
-- yet; and missing or restricted ones, once that is no longer fresh.
SELECT resource_type, resource_id, place, patient_id, content_type, url, inline, claimed_size, claimed_hash
FROM attachment_use u
WHERE connection = %(connection)s AND NOT inline AND (
    state = 'wanted' AND (run = %(run)s OR %(leftovers)s)
    OR state IN ('missing', 'restricted') AND %(leftovers)s AND checked_at < %(at)s::timestamptz - %(fresh)s::interval
)
AND asked_run IS DISTINCT FROM %(run)s
ORDER BY resource_type, resource_id, place LIMIT %(limit)s

-- name: note_requested
-- Note what units request, so that it is not due again in this run.
UPDATE attachment_use u SET asked_run = %(run)s FROM unnest(%(types)s, %(ids)s, %(places)s) AS a (resource_type, id, place)
WHERE u.connection = %(connection)s AND u.resource_type = a.resource_type AND u.resource_id = a.id AND u.place = a.place

-- name: inline
-- The next documents that their resource contains as base64: at least one, and together at most a number of characters. A document that is
-- too large gives NULL.
SELECT resource_type, resource_id, place, patient_id, content_type, url, inline, claimed_size, claimed_hash, data FROM (
    SELECT *, sum(coalesce(length(data), 0)) OVER w AS size, row_number() OVER w AS n FROM (
        SELECT u.*, CASE WHEN length(found.data) <= %(most)s THEN found.data END AS data
        FROM attachment_use u
        CROSS JOIN LATERAL (
            SELECT jsonb_path_query(r.body, (%(paths)s::jsonb ->> u.resource_type)::jsonpath) AS one, u.place
            FROM resource r
            WHERE r.resource_type = u.resource_type AND r.connection = %(connection)s AND r.id = u.resource_id
            OFFSET u.place LIMIT 1
        ) a
        CROSS JOIN LATERAL (SELECT a.one ->> 'data' AS data) found
        WHERE u.connection = %(connection)s AND u.inline AND u.state = 'wanted' AND (u.run = %(run)s OR %(leftovers)s)
        LIMIT 500
    ) few
    WINDOW w AS (ORDER BY resource_type, resource_id, place)
) counted WHERE n = 1 OR size <= %(together)s
ORDER BY resource_type, resource_id, place

-- name: keep
-- Store contents, each once.
INSERT INTO attachment (sha256, size, content_type, content, text, unread)
SELECT * FROM unnest(%(digests)s, %(sizes)s::bigint[], %(content_types)s, %(contents)s, %(texts)s, %(unread)s) ON CONFLICT DO NOTHING

-- name: attach
-- Note the outcomes of attachments. A former outcome becomes history, if it differs.
WITH d AS (
    SELECT * FROM unnest(%(types)s, %(ids)s, %(places)s, %(states)s, %(notes)s, %(digests)s)
        AS d (resource_type, resource_id, place, state, note, sha256)
), replaced AS (
    INSERT INTO attachment_use_history (connection, resource_type, resource_id, place, content_type, version, outcome, sha256,
        outcome_run, to_run)
    SELECT %(connection)s, u.resource_type, u.resource_id, u.place, u.content_type, u.version, u.outcome, u.sha256, u.outcome_run,
        %(run)s
    FROM d CROSS JOIN LATERAL (
        SELECT * FROM attachment_use
        WHERE connection = %(connection)s AND resource_type = d.resource_type AND resource_id = d.resource_id AND place = d.place OFFSET 0
    ) u
    WHERE u.outcome_run <> %(run)s AND (u.outcome, u.sha256) IS DISTINCT FROM (d.state, coalesce(d.sha256, u.sha256))
    ON CONFLICT DO NOTHING
)
UPDATE attachment_use u SET run = %(run)s, state = d.state, note = d.note, sha256 = coalesce(d.sha256, u.sha256), checked_at = %(at)s::timestamptz,
    outcome = d.state, outcome_run = CASE WHEN (u.outcome, u.sha256) IS DISTINCT FROM (d.state, coalesce(d.sha256, u.sha256)) THEN %(run)s
        ELSE u.outcome_run END
FROM d WHERE u.connection = %(connection)s AND u.resource_type = d.resource_type AND u.resource_id = d.resource_id AND u.place = d.place

-- name: outcome
-- The outcomes of the documents that this run wanted, or fetched for earlier ones; and how many stored ones have no text.
SELECT u.state, coalesce(u.note, a.unread, ''), count(*)::int
FROM attachment_use u LEFT JOIN attachment a ON a.sha256 = u.sha256 AND u.state = 'stored'
WHERE u.connection = %(connection)s AND u.run = %(run)s GROUP BY 1, 2 ORDER BY 1, 2
