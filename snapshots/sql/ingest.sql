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
-- Compare keys and hashes with what is stored: note what is unchanged as seen, teach rows the ways that list them, and give, as
-- positions in the batch, what needs no write (the same content, or one that its way has given of this version), what is older than
-- what is known, and what is stored but differs (with the stored lastUpdated and versionId where this run has already received the
-- resource). Evidence counts as of its own instant (`as_of`), but clocks differ: what is older is asked for by its id. `{type}` is one type
-- for all, or each row's: with one, Postgres leaves out the other partitions once, and not for each row (0.9 of 9.6 µs).
WITH staged AS (
    SELECT * FROM unnest(%(types)s, %(ids)s, %(hashes)s, %(ways)s, %(updated)s)
        WITH ORDINALITY AS s (resource_type, id, content_hash, way, updated, n)
), found AS MATERIALIZED (
    SELECT s.n, s.resource_type, s.id, s.way, s.content_hash, r.last_updated, r.version_id, r.first_way,
        r.last_changed_run = %(run)s AS mine,
        r.deleted_at IS NULL AND (r.content_hash = s.content_hash OR %(rivals)s AND EXISTS (
            SELECT FROM rival v WHERE v.connection = %(connection)s AND v.resource_type = s.resource_type AND v.id = s.id
                AND v.way = s.way AND v.content_hash = s.content_hash OFFSET 0
        ) OR %(by_way)s AND EXISTS (
            SELECT FROM version_by_way v WHERE v.connection = %(connection)s AND v.resource_type = s.resource_type AND v.id = s.id
                AND v.way = s.way AND v.content_hash = s.content_hash OFFSET 0
        )) AS same,
        -- of the same content it is not asked: that saves a look at its run
        %(as_of)s::timestamptz IS NOT NULL AND s.way IS NOT NULL AND (r.deleted_at IS NOT NULL OR r.content_hash <> s.content_hash) AND (
            coalesce(r.deleted_at > %(as_of)s::timestamptz, false)
            OR r.last_changed_run <> %(run)s AND coalesce(s.updated <= r.last_updated, true) AND (
                SELECT coalesce(x.as_of, x.started_at) > %(as_of)s::timestamptz FROM run x WHERE x.id = r.last_changed_run
            )
        ) AS outdated
    FROM staged s
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = {type} AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
), taught AS (
    INSERT INTO listed (connection, way, resource_type, id)
    SELECT %(connection)s, way, resource_type, id FROM found WHERE way IS NOT NULL AND first_way IS DISTINCT FROM way
    ON CONFLICT DO NOTHING
), given AS (
    -- a way that gives what is stored may have given something else before: to give that again will be news
    UPDATE version_by_way v SET content_hash = f.content_hash FROM found f
    WHERE %(by_way)s AND f.same AND v.connection = %(connection)s AND v.resource_type = f.resource_type AND v.id = f.id AND v.way = f.way
        AND v.content_hash <> f.content_hash
), noted AS (
    -- nobody else notes for this run, and a batch has a row once: ON CONFLICT would look twice, and cost 0.4 µs a row more
    INSERT INTO seen (run, resource_type, id)
    SELECT %(run)s, resource_type, id FROM found WHERE same AND NOT mine AND NOT EXISTS (
        SELECT FROM seen WHERE run = %(run)s AND resource_type = found.resource_type AND id = found.id OFFSET 0
    )
    RETURNING resource_type
), to_be_asked AS (
    INSERT INTO absence (run, resource_type, id)
    SELECT %(run)s, resource_type, id FROM found WHERE outdated AND NOT same
    ON CONFLICT DO NOTHING
), differing AS (
    -- OFFSET 0, also above: otherwise one differing row has Postgres read all that the run has seen, to look up this one
    SELECT f.n, f.last_updated, f.version_id, f.mine OR EXISTS (
        SELECT FROM seen WHERE seen.run = %(run)s AND seen.resource_type = f.resource_type AND seen.id = f.id OFFSET 0
    ) AS received
    FROM found f WHERE NOT same AND NOT coalesce(outdated, false)
)
SELECT
    (SELECT array_agg(n) FROM found WHERE same),
    (SELECT array_agg(n) FROM found WHERE outdated AND NOT same),
    (SELECT array_agg(n ORDER BY n) FROM differing),
    (SELECT array_agg(CASE WHEN received THEN last_updated END ORDER BY n) FROM differing),
    (SELECT array_agg(CASE WHEN received THEN version_id END ORDER BY n) FROM differing),
    (SELECT array_agg(received ORDER BY n) FROM differing),
    (SELECT jsonb_object_agg(resource_type, k) FROM (SELECT resource_type, count(*) AS k FROM noted GROUP BY 1) counted)

-- name: teach
-- Note further ways that listed resources.
INSERT INTO listed (connection, way, resource_type, id)
SELECT %(connection)s, s.way, s.resource_type, s.id FROM unnest(%(types)s, %(ids)s, %(ways)s) AS s (resource_type, id, way)
CROSS JOIN LATERAL (
    SELECT first_way FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
) r
WHERE r.first_way IS DISTINCT FROM s.way
ON CONFLICT DO NOTHING

-- name: has_evidence
-- Whether anything is open about a row of this connection, whether several contents of one version are known (from one way together, or
-- from different ways), and whether any row is only a part.
SELECT EXISTS (SELECT FROM evidence WHERE connection = %(connection)s), EXISTS (SELECT FROM rival WHERE connection = %(connection)s),
    EXISTS (SELECT FROM version_by_way WHERE connection = %(connection)s), EXISTS (SELECT FROM subsetted WHERE connection = %(connection)s)

-- name: clear_evidence
-- What was received is there: nothing stays open about it, except which ways missed it, until they list it again.
WITH came AS (
    SELECT resource_type, id, array_agg(way) AS ways FROM unnest(%(types)s, %(ids)s, %(ways)s) AS s (resource_type, id, way) GROUP BY 1, 2
), others AS (
    UPDATE evidence e SET ways = ARRAY(SELECT unnest(e.ways) EXCEPT SELECT unnest(c.ways)) FROM came c
    WHERE e.connection = %(connection)s AND e.resource_type = c.resource_type AND e.id = c.id
        AND e.state = 'contradicted' AND NOT e.ways <@ c.ways AND e.ways && c.ways
)
DELETE FROM evidence e USING came c
WHERE e.connection = %(connection)s AND e.resource_type = c.resource_type AND e.id = c.id
    AND (e.state <> 'contradicted' OR e.ways <@ c.ways)

-- name: rivalled
-- Which of these resources have had several contents of one version, by position.
SELECT array_agg(s.n) FROM unnest(%(types)s, %(ids)s) WITH ORDINALITY AS s (resource_type, id, n)
WHERE EXISTS (SELECT FROM rival WHERE connection = %(connection)s AND resource_type = s.resource_type AND id = s.id)

-- name: note_rivals
-- Note which contents ways gave of the stored version. For contents that came `late`, after others that the way gave earlier in this run,
-- also note those others: what is stored, or what is known of this way. Nothing else remembers which way gave what is stored.
WITH came AS MATERIALIZED (
    SELECT s.*, r.content_hash AS stored
    FROM unnest(%(types)s, %(ids)s, %(ways)s, %(hashes)s, %(patients)s, %(versions)s, %(updated)s, %(bodies)s, %(late)s::boolean[])
        AS s (resource_type, id, way, content_hash, patient_id, version_id, last_updated, body, late)
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
    WHERE r.deleted_at IS NULL AND (r.version_id, r.last_updated) IS NOT DISTINCT FROM (s.version_id, s.last_updated)
), given AS (
    SELECT DISTINCT ON (c.resource_type, c.id, c.way) c.resource_type, c.id, c.way, coalesce((
        SELECT v.content_hash FROM version_by_way v
        WHERE v.connection = %(connection)s AND v.resource_type = c.resource_type AND v.id = c.id AND v.way = c.way
    ), c.stored) AS content_hash, c.version_id, c.last_updated
    FROM came c
    WHERE c.late AND NOT EXISTS (
        SELECT FROM rival v WHERE v.connection = %(connection)s AND v.resource_type = c.resource_type AND v.id = c.id
            AND v.way = c.way AND v.run = %(run)s
    )
)
INSERT INTO rival (connection, resource_type, id, way, content_hash, run, patient_id, version_id, last_updated, body)
SELECT DISTINCT ON (resource_type, id, way, content_hash) %(connection)s, resource_type, id, way, content_hash, %(run)s, patient_id,
    version_id, last_updated, body
FROM (
    SELECT resource_type, id, way, content_hash, patient_id, version_id, last_updated, body FROM came
    UNION ALL SELECT resource_type, id, way, content_hash, NULL, version_id, last_updated, NULL FROM given
) noted
ORDER BY resource_type, id, way, content_hash, body IS NULL
ON CONFLICT (connection, resource_type, id, way, content_hash) DO UPDATE SET run = excluded.run,
    patient_id = coalesce(excluded.patient_id, rival.patient_id), version_id = excluded.version_id,
    last_updated = excluded.last_updated, body = coalesce(excluded.body, rival.body)

-- name: forget_rivals
-- Other contents of these resources have come, so what the same way gave before no longer counts, nor what any way gave of another version.
-- Contents without a version belong to another version, unless one of them comes again.
DELETE FROM rival v USING unnest(%(types)s, %(ids)s, %(ways)s, %(hashes)s, %(versions)s, %(updated)s)
    AS s (resource_type, id, way, content_hash, version_id, last_updated)
WHERE v.connection = %(connection)s AND v.resource_type = s.resource_type AND v.id = s.id AND (
    v.way = s.way OR (v.version_id, v.last_updated) IS DISTINCT FROM (s.version_id, s.last_updated)
    OR coalesce(s.version_id, s.last_updated) IS NULL AND NOT EXISTS (
        SELECT FROM rival k WHERE k.connection = %(connection)s AND k.resource_type = s.resource_type AND k.id = s.id
            AND k.content_hash = s.content_hash
    )
)

-- name: forget_former_rivals
-- Forget what a way gave before, and not in this run, if it gave other contents. While a way gives what is stored, a content that is
-- missing for one night stays known.
DELETE FROM rival v
WHERE v.connection = %(connection)s AND v.run <> %(run)s AND EXISTS (
    SELECT FROM rival n WHERE n.connection = %(connection)s AND n.resource_type = v.resource_type AND n.id = v.id AND n.way = v.way
        AND n.run = %(run)s
) AND NOT EXISTS (
    SELECT FROM rival n
    CROSS JOIN LATERAL (
        SELECT content_hash FROM resource WHERE resource_type = v.resource_type AND connection = %(connection)s AND id = v.id OFFSET 0
    ) r
    WHERE n.connection = %(connection)s AND n.resource_type = v.resource_type AND n.id = v.id AND n.way = v.way AND n.run = %(run)s
        AND n.content_hash = r.content_hash
)

-- name: forget_other_versions
-- A new version of these resources has come, so what ways gave of the former one no longer counts.
DELETE FROM version_by_way v USING unnest(%(types)s, %(ids)s, %(versions)s, %(updated)s) AS s (resource_type, id, version_id, last_updated)
CROSS JOIN LATERAL (
    SELECT version_id, last_updated FROM resource
    WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
) r
WHERE v.connection = %(connection)s AND v.resource_type = s.resource_type AND v.id = s.id
    AND (r.version_id, r.last_updated) IS DISTINCT FROM (s.version_id, s.last_updated)

-- name: note_by_way
-- For resources that differ from what is stored under the same version, and that several ways list: what this way gives. A version without
-- a name is no version, and its content may change.
INSERT INTO version_by_way AS v (connection, resource_type, id, way, content_hash)
SELECT %(connection)s, s.resource_type, s.id, s.way, s.content_hash
FROM unnest(%(types)s, %(ids)s, %(versions)s, %(updated)s, %(ways)s, %(hashes)s)
    AS s (resource_type, id, version_id, last_updated, way, content_hash)
CROSS JOIN LATERAL (
    SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
) r
WHERE s.way IS NOT NULL AND r.deleted_at IS NULL AND coalesce(s.version_id, s.last_updated) IS NOT NULL
    AND (r.version_id, r.last_updated) IS NOT DISTINCT FROM (s.version_id, s.last_updated)
    AND (r.first_way <> s.way OR EXISTS (
        SELECT FROM listed l WHERE l.connection = %(connection)s AND l.resource_type = s.resource_type AND l.id = s.id AND l.way <> s.way
    ))
ON CONFLICT (connection, resource_type, id, way) DO UPDATE SET content_hash = excluded.content_hash

-- name: lone_rivals
-- Contents that came in this run without the stored one, which their way used to give beside them: they have taken its place.
SELECT DISTINCT ON (v.resource_type, v.id) v.resource_type, v.id, v.patient_id, v.version_id, v.last_updated, v.content_hash, v.body
FROM rival v
CROSS JOIN LATERAL (
    SELECT content_hash FROM resource
    WHERE resource_type = v.resource_type AND connection = %(connection)s AND id = v.id AND deleted_at IS NULL OFFSET 0
) r
WHERE v.connection = %(connection)s AND v.run = %(run)s AND v.body IS NOT NULL AND v.content_hash <> r.content_hash
    AND EXISTS (
        SELECT FROM rival s WHERE s.connection = %(connection)s AND s.resource_type = v.resource_type AND s.id = v.id
            AND s.way = v.way AND s.content_hash = r.content_hash
    )
    AND NOT EXISTS (
        SELECT FROM rival s WHERE s.connection = %(connection)s AND s.resource_type = v.resource_type AND s.id = v.id
            AND s.content_hash = r.content_hash AND s.run = %(run)s
    )
ORDER BY v.resource_type, v.id, v.content_hash

-- name: forget_members
-- Move to the history which patients resources named before their content changed, unless this run itself had said so; and whose searches
-- brought them, if this run searches for those patients too: searches that still return the new content say so again.
WITH forgotten AS (
    DELETE FROM member m USING unnest(%(types)s, %(ids)s) AS s (resource_type, id)
    WHERE m.connection = %(connection)s AND m.resource_type = s.resource_type AND m.id = s.id AND (NOT m.searched OR EXISTS (
        SELECT FROM unit u WHERE u.run = %(run)s AND u.kind = 'search' AND u.resource_type = m.resource_type
            AND u.patient_id = m.patient_id
    ))
    RETURNING m.*
)
INSERT INTO member_history (connection, resource_type, id, patient_id, searched, from_run, to_run)
SELECT connection, resource_type, id, patient_id, searched, from_run, %(run)s FROM forgotten WHERE from_run <> %(run)s

-- name: note_members
-- Note further patients of resources.
INSERT INTO member (connection, resource_type, id, patient_id, searched, from_run)
SELECT %(connection)s, s.*, %(run)s FROM unnest(%(types)s, %(ids)s, %(patients)s, %(searched)s::bool[])
    AS s (resource_type, id, patient_id, searched)
ON CONFLICT DO NOTHING

-- name: unmerge
-- Patients that came under an id that led to another one are no longer merged; an id that is its own alias says so.
UPDATE alias SET surviving_id = former_id, gone = false, first_run = %(run)s, last_run = %(run)s
WHERE connection = %(connection)s AND former_id = ANY(%(ids)s::text[]) AND gone AND former_id <> surviving_id

-- name: keep_whole
-- Which of these resources are stored with all their elements, by position, dead or alive; they are noted as seen, unchanged.
WITH staged AS (
    SELECT * FROM unnest(%(types)s, %(ids)s) WITH ORDINALITY AS s (resource_type, id, n)
), found AS MATERIALIZED (
    SELECT s.n, s.resource_type, s.id, r.last_changed_run = %(run)s AS mine
    FROM staged s
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
    WHERE NOT (
        coalesce(r.body -> 'meta' -> 'tag' @> '[{"code": "SUBSETTED"}]', false)
        -- servers that trim do not all tag
        OR EXISTS (
            SELECT FROM subsetted p WHERE p.connection = %(connection)s AND p.resource_type = s.resource_type AND p.id = s.id OFFSET 0
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

-- name: note_parts
-- Note that these rows are only parts.
INSERT INTO subsetted (connection, resource_type, id)
SELECT %(connection)s, resource_type, id FROM unnest(%(types)s, %(ids)s) AS s (resource_type, id)
ON CONFLICT DO NOTHING

-- name: forget_parts
-- These rows are whole from now on.
DELETE FROM subsetted p USING unnest(%(types)s, %(ids)s) AS s (resource_type, id)
WHERE p.connection = %(connection)s AND p.resource_type = s.resource_type AND p.id = s.id

-- name: copy_new
-- Store resources that are not stored yet; their JSON is parsed once, on its way into its partition.
COPY resource_stored (connection, first_run, last_changed_run, resource_type, id, patient_id, version_id, last_updated, content_hash,
    first_way, body) FROM STDIN (FORMAT binary)

-- name: stale
-- Those of these resources that have values encrypted with an older key, or plain values that are to be encrypted since then.
SELECT r.resource_type, r.id, r.body::text FROM unnest(%(types)s, %(ids)s) AS s (resource_type, id)
CROSS JOIN LATERAL (
    SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
) r
WHERE r.deleted_at IS NULL AND (r.body::text ~ %(older)s OR r.body::text ~ %(further)s)

-- name: seal_stale
-- Store the same contents, encrypted as others are today: that is no new version.
UPDATE resource r SET body = s.body::jsonb FROM unnest(%(types)s::text[], %(ids)s::text[], %(bodies)s::text[]) AS s (resource_type, id, body)
WHERE r.resource_type = s.resource_type AND r.connection = %(connection)s AND r.id = s.id

-- name: merge
-- Store resources that are stored with another hash, or as tombstones. If the parsed JSON has equal text (key order and white space aside;
-- 1.0 and 1.00 differ), it is unchanged and nothing is written; otherwise the stored row moves to the history as it is. What differs only
-- in what this connection ignores is unchanged too: the row keeps its content, and learns under which version and hash it came.
WITH staged AS MATERIALIZED (
    SELECT s.resource_type, s.id, s.patient_id, s.version_id, s.last_updated, s.content_hash, s.body::jsonb AS body
    FROM unnest(%(types)s, %(ids)s, %(patients)s, %(versions)s, %(updated)s, %(hashes)s, %(bodies)s)
        AS s (resource_type, id, patient_id, version_id, last_updated, content_hash, body)
), compared AS MATERIALIZED (
    SELECT s.*, r.last_changed_run = %(run)s AS mine, r.deleted_at IS NULL AND r.body::text = s.body::text AS equal,
        CASE WHEN r.deleted_at IS NOT NULL OR cardinality(%(ignored)s::text[]) = 0 THEN false
            ELSE significant(r.body, %(ignored)s::text[])::text = significant(s.body, %(ignored)s::text[])::text END AS alike,
        r.deleted_at IS NOT NULL AS dead, r.patient_id AS was_of
    FROM staged s
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id OFFSET 0
    ) r
), judged AS MATERIALIZED (
    SELECT *, equal OR alike AS same, alike AND NOT equal AS touched FROM compared
), learnt AS (
    INSERT INTO resource (connection, first_run, last_changed_run, resource_type, id, patient_id, version_id, last_updated,
        content_hash, body)
    SELECT %(connection)s, %(run)s, %(run)s, resource_type, id, patient_id, version_id, last_updated, content_hash, body
    FROM judged WHERE touched
    ON CONFLICT (resource_type, connection, id) DO UPDATE SET version_id = excluded.version_id,
        last_updated = excluded.last_updated, content_hash = excluded.content_hash
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
), revived AS (
    INSERT INTO revived (run, resource_type, patient_id)
    SELECT DISTINCT %(run)s::bigint, j.resource_type, coalesce(p.id, '') FROM judged j
    CROSS JOIN LATERAL (VALUES (j.patient_id), (j.was_of)) AS p (id)
    WHERE j.dead
    ON CONFLICT DO NOTHING
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
SELECT resource_type, sum(changed)::int, sum(unchanged)::int, array_agg(touched) FILTER (WHERE touched IS NOT NULL) FROM (
    SELECT resource_type, 1 AS changed, 0 AS unchanged, NULL::bytea AS touched FROM judged WHERE NOT same AND NOT mine
    UNION ALL SELECT resource_type, 0, 1, NULL FROM noted
    UNION ALL SELECT resource_type, 0, -1, NULL FROM unnoted
    UNION ALL SELECT resource_type, 0, 0, content_hash FROM judged WHERE touched
) counted GROUP BY 1

-- name: note_words
-- Note what the EHR said of resources that it did not return; the end of the run decides what to believe. For a resource that is not
-- stored, or is a tombstone, there is nothing to decide. A list of deletions that is older than what is known of a row says nothing about
-- it: the row is requested by its id. That a read does not find it either, as that of a mention, takes nothing back from such a list.
INSERT INTO absence AS a (run, resource_type, id, way, patient_id, said)
SELECT DISTINCT ON (s.resource_type, s.id) %(run)s, s.resource_type, s.id, s.way, r.patient_id, CASE
    WHEN s.said = 'deleted' AND r.last_changed_run <> %(run)s AND (
        SELECT coalesce(x.as_of, x.started_at) > %(as_of)s::timestamptz FROM run x WHERE x.id = r.last_changed_run
    ) THEN NULL ELSE s.said END
FROM unnest(%(types)s, %(ids)s, %(ways)s, %(said)s) WITH ORDINALITY AS s (resource_type, id, way, said, n)
CROSS JOIN LATERAL (
    SELECT patient_id, last_changed_run FROM resource
    WHERE resource_type = s.resource_type AND connection = %(connection)s AND id = s.id AND (
        deleted_at IS NULL OR EXISTS (
            SELECT FROM absence k WHERE k.run = %(run)s AND k.resource_type = s.resource_type AND k.id = s.id
        )
    ) OFFSET 0
) r
ORDER BY s.resource_type, s.id, s.n DESC
ON CONFLICT (run, resource_type, id) DO UPDATE SET way = coalesce(a.way, excluded.way),
    said = CASE WHEN a.said = 'deleted' AND excluded.said IN ('not-found', 'gone') THEN a.said ELSE coalesce(excluded.said, a.said) END

-- name: refused
-- Which of these texts do not become jsonb, by position, and the SQLSTATE of each.
SELECT place, state FROM refused_bodies(%(bodies)s)
