-- name: parted
-- Keys of what one of these runs said to be no more of these patients.
UNION SELECT resource_type, id FROM member_history
WHERE connection = {connection} AND to_run = ANY({since}::bigint[]) AND patient_id = ANY({patients}::text[])

-- name: lost
-- A connection's resources that the selection had before these runs, and no longer has. What is gone was touched by one.
SELECT b.connection, b.resource_type, b.id, b.patient_id
FROM (
    SELECT resource_type, id FROM resource
    WHERE connection = {connection} AND (last_changed_run = ANY({since}::bigint[]) OR deleted_run = ANY({since}::bigint[]))
    {parted}
) k CROSS JOIN LATERAL (
    SELECT r.connection, r.resource_type, r.id, r.patient_id FROM {before} r
    WHERE r.resource_type = k.resource_type AND r.connection = {connection} AND r.id = k.id AND {selected_before}
) b
WHERE NOT EXISTS (
    SELECT FROM {rows} r
    WHERE r.resource_type = k.resource_type AND r.connection = {connection} AND r.id = k.id AND {selected}
)

-- name: removed
-- Keys of the resources that the selection has lost.
SELECT jsonb_build_object('type', k.resource_type, 'id', k.id) FROM (SELECT DISTINCT resource_type, id FROM ({lost}) l) k
ORDER BY k.resource_type, k.id

-- name: patients_of_lost
-- Whose they were, for the audit.
SELECT connection, patient_id FROM ({lost}) l WHERE patient_id IS NOT NULL

-- name: differing
-- What a connection's selection has now and had not so before: with what it was then, or nothing where it is new.
SELECT k.connection, k.resource_type, k.id, k.patient_id, k.body, b.patient_id AS was_of, b.body AS was
FROM (
    SELECT r.connection, r.resource_type, r.id, r.patient_id, r.body FROM {rows} r WHERE r.connection = {connection} AND {changed}
) k LEFT JOIN LATERAL (
    SELECT r.body, r.patient_id FROM {before} r
    WHERE r.resource_type = k.resource_type AND r.connection = {connection} AND r.id = k.id AND {selected_before}
) b ON true
WHERE b.body::text IS DISTINCT FROM k.body::text

-- name: differences
-- What differs, one a line; the contents as texts, and of what has changed only.
SELECT {key} jsonb_build_object('type', d.resource_type, 'id', d.id, 'patient', d.patient_id, 'change', d.change, 'old', d.was, 'new', d.body)
FROM (
    SELECT patient_id, resource_type, id, CASE WHEN was IS NULL THEN 'added' ELSE 'changed' END AS change,
        was::text AS was, CASE WHEN was IS NOT NULL THEN body::text END AS body
    FROM ({differing}) q
    UNION ALL
    SELECT patient_id, resource_type, id, 'deleted', NULL, NULL FROM (SELECT DISTINCT patient_id, resource_type, id FROM ({lost}) l) q
) d
ORDER BY d.patient_id NULLS LAST, d.resource_type, d.id

-- name: id_first
-- The id before the JSON, as an encrypted store's rows are read.
d.id,

-- name: patients_of_differing
-- Whose they were before, for the audit.
SELECT connection, was_of AS patient_id FROM ({differing}) q WHERE was_of IS NOT NULL
UNION SELECT m.connection, m.patient_id FROM ({differing}) q
    JOIN {members_before} m ON m.connection = q.connection AND m.resource_type = q.resource_type AND m.id = q.id
WHERE q.was IS NOT NULL
