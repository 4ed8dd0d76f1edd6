-- name: collect
-- Note where resources of one type that this run changed or saw have documents attached. What stood there before with the same
-- content, and was got or could not be, stays as it is and writes nothing.
INSERT INTO attachment_use AS u (connection, resource_type, resource_id, place, patient_id, content_type, url, inline,
    claimed_size, claimed_hash, version, run)
SELECT %(connection)s, %(source)s, s.id, a.n - 1, s.patient_id, a.one ->> 'contentType', a.one ->> 'url', a.one ? 'data',
    CASE WHEN jsonb_typeof(a.one -> 'size') = 'number' THEN least((a.one ->> 'size')::numeric, 1e15)::bigint END,
    a.one ->> 'hash', s.last_changed_run, %(run)s
FROM (
    SELECT id, patient_id, body, last_changed_run FROM resource
    WHERE resource_type = %(source)s AND connection = %(connection)s AND last_changed_run = %(run)s AND deleted_at IS NULL
    UNION ALL
    SELECT r.id, r.patient_id, r.body, r.last_changed_run FROM seen
    CROSS JOIN LATERAL (
        SELECT * FROM resource
        WHERE resource_type = %(source)s AND connection = %(connection)s AND id = seen.id AND deleted_at IS NULL OFFSET 0
    ) r
    WHERE seen.run = %(run)s AND seen.resource_type = %(source)s
) s
CROSS JOIN LATERAL jsonb_path_query(s.body, %(path)s::jsonpath) WITH ORDINALITY AS a (one, n)
WHERE jsonb_typeof(a.one) = 'object'
ON CONFLICT (connection, resource_type, resource_id, place) DO UPDATE SET state = 'wanted', patient_id = excluded.patient_id,
    content_type = excluded.content_type, url = excluded.url, inline = excluded.inline, claimed_size = excluded.claimed_size,
    claimed_hash = excluded.claimed_hash, version = excluded.version, run = excluded.run, note = NULL
WHERE u.version <> excluded.version OR u.state NOT IN ('stored', 'missing', 'restricted')

-- name: detach
-- Forget places that a resource's new content no longer has.
DELETE FROM attachment_use u USING resource r
WHERE r.resource_type = %(source)s AND r.connection = %(connection)s AND r.last_changed_run = %(run)s
    AND u.connection = %(connection)s AND u.resource_type = %(source)s AND u.resource_id = r.id AND u.version <> %(run)s

-- name: due
-- What to get by its URL, or to decide on: wanted by this run (a sync also takes what earlier ones left over), not asked by it yet;
-- and what was not there or restricted, once that is no longer fresh.
SELECT resource_type, resource_id, place, patient_id, content_type, url, inline, claimed_size, claimed_hash
FROM attachment_use u
WHERE connection = %(connection)s AND NOT inline AND (
    state = 'wanted' AND (run = %(run)s OR %(leftovers)s)
    OR state IN ('missing', 'restricted') AND %(leftovers)s AND checked_at < %(at)s::timestamptz - %(fresh)s::interval
)
AND NOT EXISTS (
    SELECT FROM unit WHERE unit.run = %(run)s AND key = concat('attachment:', resource_type, ':', resource_id, ':', place)
)
ORDER BY resource_type, resource_id, place LIMIT %(limit)s

-- name: inline
-- Documents that stand in their resource, as base64, some at a time: at least one, and together no more than a number of characters.
-- One that is too large gives NULL.
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
-- Store one content, once.
INSERT INTO attachment (sha256, size, content_type, content, text, unread)
VALUES (%(sha256)s, %(size)s, %(content_type)s, %(content)s, %(text)s, %(unread)s) ON CONFLICT DO NOTHING

-- name: attach
-- Note what became of attachments.
UPDATE attachment_use u SET run = %(run)s, state = d.state, note = d.note, sha256 = coalesce(d.sha256, u.sha256), checked_at = %(at)s::timestamptz
FROM unnest(%(types)s::text[], %(ids)s::text[], %(places)s::int[], %(states)s::text[], %(notes)s::text[], %(digests)s::bytea[])
    AS d (resource_type, resource_id, place, state, note, sha256)
WHERE u.connection = %(connection)s AND u.resource_type = d.resource_type AND u.resource_id = d.resource_id AND u.place = d.place

-- name: outcome
-- How what this run wanted, or got of what earlier ones left over, stands; and of what was stored how much has no text.
SELECT u.state, coalesce(u.note, a.unread, ''), count(*)::int
FROM attachment_use u LEFT JOIN attachment a ON a.sha256 = u.sha256 AND u.state = 'stored'
WHERE u.connection = %(connection)s AND u.run = %(run)s GROUP BY 1, 2 ORDER BY 1, 2
