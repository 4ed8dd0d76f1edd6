-- name: session
-- A run's session looks up a few thousand keys in large tables by their primary key. On tables that grow from nothing within
-- minutes the planner cannot know that, and a plan of 36 partitions is worth keeping: so lookups below are LATERAL … OFFSET 0
-- (a nested loop whatever the statistics say), over indexes only, planned once.
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
    set_config('plan_cache_mode', 'force_generic_plan', false), set_config('client_connection_check_interval', '1s', false)

-- name: is_empty
-- Whether nothing of a connection is stored, tombstones included.
SELECT NOT EXISTS (SELECT FROM resource WHERE connection = %(connection)s)

-- name: classify
-- Compare keys and hashes with what is stored: note what is unchanged as seen, and give, as positions in the batch, what is
-- stored but differs (with the stored lastUpdated where this run has already received the resource) and what is the same.
WITH staged AS (
    SELECT * FROM unnest(%(types)s, %(ids)s, %(hashes)s) WITH ORDINALITY AS s (resource_type, id, content_hash, n)
), found AS MATERIALIZED (
    SELECT s.n, s.resource_type, s.id, r.last_updated, r.last_changed_run = %(run)s AS mine,
        r.content_hash = s.content_hash AND r.deleted_at IS NULL AS same
    FROM staged s
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
), noted AS (
    INSERT INTO seen (run, resource_type, id)
    SELECT %(run)s, resource_type, id FROM found WHERE same AND NOT mine
    ON CONFLICT DO NOTHING
    RETURNING resource_type
), differing AS (
    SELECT f.n, CASE WHEN f.mine OR EXISTS (
        SELECT FROM seen WHERE seen.run = %(run)s AND seen.resource_type = f.resource_type AND seen.id = f.id
    ) THEN f.last_updated END AS received
    FROM found f WHERE NOT same
)
SELECT
    (SELECT array_agg(n) FROM found WHERE same),
    (SELECT array_agg(n ORDER BY n) FROM differing),
    (SELECT array_agg(received ORDER BY n) FROM differing),
    (SELECT jsonb_object_agg(resource_type, k) FROM (SELECT resource_type, count(*) AS k FROM noted GROUP BY 1) counted)

-- name: keep_whole
-- Which of these resources are stored with all their elements, or as tombstones, by position; they are noted as seen, unchanged.
WITH staged AS (
    SELECT * FROM unnest(%(types)s, %(ids)s) WITH ORDINALITY AS s (resource_type, id, n)
), found AS MATERIALIZED (
    SELECT s.n, s.resource_type, s.id, r.last_changed_run = %(run)s AS mine
    FROM staged s
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
    WHERE r.deleted_at IS NOT NULL OR NOT (
        coalesce(r.body -> 'meta' -> 'tag' @> '[{"code": "SUBSETTED"}]', false)
        -- servers that trim do not all tag: what the files of an `_elements` export last wrote is not whole either
        OR EXISTS (
            SELECT FROM bulk_job b JOIN unit u ON u.run = b.run
            WHERE b.run = r.last_changed_run AND b.asked -> 'elements' = 'true' AND u.kind = 'file' AND u.resource_type = r.resource_type
        )
    )
), noted AS (
    INSERT INTO seen (run, resource_type, id)
    SELECT %(run)s, resource_type, id FROM found WHERE NOT mine
    ON CONFLICT DO NOTHING
    RETURNING resource_type
)
SELECT
    (SELECT array_agg(n) FROM found),
    (SELECT jsonb_object_agg(resource_type, k) FROM (SELECT resource_type, count(*) AS k FROM noted GROUP BY 1) counted)

-- name: copy_new
-- Take in resources that are not stored yet; the JSON is parsed once, on its way into its partition.
COPY resource (connection, first_run, last_changed_run, resource_type, id, patient_id, version_id, last_updated, content_hash,
    body) FROM STDIN (FORMAT binary)

-- name: merge
-- Take in resources that are stored with another hash, or as tombstones. Equal text of the parsed JSON (key order and white
-- space aside; 1.0 and 1.00 differ) is unchanged and writes nothing; else the stored row moves to the history as it is.
WITH staged AS MATERIALIZED (
    SELECT s.resource_type, s.id, s.patient_id, s.version_id, s.last_updated, s.content_hash, s.body::jsonb AS body
    FROM unnest(%(types)s, %(ids)s, %(patients)s, %(versions)s, %(updated)s, %(hashes)s, %(bodies)s)
        AS s (resource_type, id, patient_id, version_id, last_updated, content_hash, body)
), judged AS MATERIALIZED (
    SELECT s.*, r.last_changed_run = %(run)s AS mine, r.deleted_at IS NULL AND r.body::text = s.body::text AS same
    FROM staged s
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
), noted AS (
    INSERT INTO seen (run, resource_type, id)
    SELECT %(run)s, resource_type, id FROM judged WHERE same AND NOT mine
    ON CONFLICT DO NOTHING
    RETURNING resource_type
), kept AS (
    INSERT INTO resource_history (from_run, to_run, deleted_run, deleted_at, connection, resource_type, id, patient_id,
        version_id, last_updated, content_hash, body)
    SELECT r.last_changed_run, %(run)s, r.deleted_run, r.deleted_at, r.connection, r.resource_type, r.id, r.patient_id,
        r.version_id, r.last_updated, r.content_hash, r.body
    FROM judged j
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = j.resource_type AND connection = %(connection)s AND id = j.id OFFSET 0
    ) r
    WHERE NOT j.same
), written AS (
    INSERT INTO resource (connection, first_run, last_changed_run, resource_type, id, patient_id, version_id, last_updated,
        content_hash, body)
    SELECT %(connection)s, %(run)s, %(run)s, resource_type, id, patient_id, version_id, last_updated, content_hash, body
    FROM judged WHERE NOT same
    ON CONFLICT (resource_type, connection, id) DO UPDATE SET last_changed_run = excluded.last_changed_run,
        deleted_run = NULL, deleted_at = NULL, patient_id = excluded.patient_id, version_id = excluded.version_id,
        last_updated = excluded.last_updated, content_hash = excluded.content_hash, body = excluded.body
), unnoted AS (
    DELETE FROM seen WHERE ctid = ANY (ARRAY(
        SELECT s.at FROM judged j
        CROSS JOIN LATERAL (
            SELECT ctid AS at FROM seen WHERE run = %(run)s AND resource_type = j.resource_type AND id = j.id OFFSET 0
        ) s
        WHERE NOT j.same
    ))
    RETURNING resource_type
)
SELECT resource_type, sum(changed)::int, sum(unchanged)::int FROM (
    SELECT resource_type, 1 AS changed, 0 AS unchanged FROM judged WHERE NOT same AND NOT mine
    UNION ALL SELECT resource_type, 0, 1 FROM noted
    UNION ALL SELECT resource_type, 0, -1 FROM unnoted
) counted GROUP BY 1

-- name: delete
-- Make tombstones of what the EHR says is gone; the content stays as the last version. Unknown ids are no matter.
WITH known AS MATERIALIZED (
    SELECT r.* FROM unnest(%(types)s, %(ids)s) AS s (resource_type, id)
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id
            AND deleted_at IS NULL OFFSET 0
    ) r
), gone AS (
    INSERT INTO resource SELECT * FROM known
    ON CONFLICT (resource_type, connection, id) DO UPDATE SET deleted_at = now(), deleted_run = %(run)s
)
SELECT resource_type, count(*)::int FROM known GROUP BY 1

-- name: is_json
-- Whether these texts all become jsonb; the server's error says so when not.
SELECT count(s.body::jsonb) FROM unnest(%(bodies)s) AS s (body)
