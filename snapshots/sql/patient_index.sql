-- name: number
-- A connection's number.
SELECT id FROM connection WHERE name = %(connection)s

-- name: unindexed_of
-- Of these Patients those whose stored content is not the indexed one.
SELECT r.id, r.content_hash, r.body::text FROM unnest(%(ids)s) AS k (id)
CROSS JOIN LATERAL (
    SELECT * FROM resource WHERE resource_type = 'Patient' AND connection = %(connection)s AND id = k.id OFFSET 0
) r
LEFT JOIN LATERAL (
    SELECT content_hash FROM patient_index WHERE connection = %(connection)s AND patient_id = k.id OFFSET 0
) i ON true
WHERE i.content_hash IS DISTINCT FROM r.content_hash

-- name: unindexed
-- The next Patients of a connection whose stored content is not the indexed one.
SELECT r.id, r.content_hash, r.body::text
FROM resource r LEFT JOIN patient_index i ON i.connection = r.connection AND i.patient_id = r.id
WHERE r.resource_type = 'Patient' AND r.connection = %(connection)s AND r.id > %(after)s
    AND i.content_hash IS DISTINCT FROM r.content_hash
ORDER BY r.id LIMIT %(limit)s

-- name: forget
-- These Patients had other tokens.
DELETE FROM patient_token WHERE connection = %(connection)s AND patient_id = ANY(%(ids)s)

-- name: index
-- Keep the tokens of Patients, and which content they are of.
WITH told AS (
    INSERT INTO patient_token (connection, token, patient_id)
    SELECT %(connection)s, t.token, t.id FROM unnest(%(tokens)s, %(owners)s) AS t (token, id)
    ON CONFLICT DO NOTHING
)
INSERT INTO patient_index (connection, patient_id, content_hash)
SELECT %(connection)s, p.id, p.hash FROM unnest(%(ids)s, %(hashes)s) AS p (id, hash)
ON CONFLICT (connection, patient_id) DO UPDATE SET content_hash = excluded.content_hash

-- name: find
-- The live Patients of a connection who have a token, as they are now.
SELECT r.id FROM connection c JOIN patient_token t ON t.connection = c.id AND t.token = %(token)s
JOIN patient_index i ON i.connection = t.connection AND i.patient_id = t.patient_id
CROSS JOIN LATERAL (
    SELECT * FROM resource WHERE resource_type = 'Patient' AND connection = t.connection AND id = t.patient_id OFFSET 0
) r
WHERE c.name = %(connection)s AND r.deleted_at IS NULL AND r.content_hash = i.content_hash
ORDER BY r.id
