-- name: parted
-- Keys of rows that one of these runs moved away from these patients.
UNION SELECT resource_type, id FROM member_history
WHERE connection = {connection} AND to_run = ANY({since}::bigint[]) AND patient_id = ANY({patients}::text[])

-- name: lost
-- A connection's resources that the selection had before these runs, and no longer has. Only a run can remove a row.
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
-- The patients they belonged to, for the audit.
SELECT connection, patient_id FROM ({lost}) l WHERE patient_id IS NOT NULL

-- name: differing
-- The rows that a connection's selection has now and did not have so before, with their former content, or NULL if they are new.
SELECT k.connection, k.resource_type, k.id, k.patient_id, k.body, b.patient_id AS was_of, b.body AS was
FROM (
    SELECT r.connection, r.resource_type, r.id, r.patient_id, r.body FROM {rows} r WHERE r.connection = {connection} AND {changed}
) k LEFT JOIN LATERAL (
    SELECT r.body, r.patient_id FROM {before} r
    WHERE r.resource_type = k.resource_type AND r.connection = {connection} AND r.id = k.id AND {selected_before}
) b ON true
WHERE b.body::text IS DISTINCT FROM k.body::text

-- name: differences
-- The differences, one per line; the contents as texts, only of changed rows.
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
-- The id before the JSON, as rows of an encrypted store are read.
d.id,

-- name: patients_of_differing
-- The patients they belonged to before, for the audit.
SELECT connection, was_of AS patient_id FROM ({differing}) q WHERE was_of IS NOT NULL
UNION SELECT m.connection, m.patient_id FROM ({differing}) q
    JOIN {members_before} m ON m.connection = q.connection AND m.resource_type = q.resource_type AND m.id = q.id
WHERE q.was IS NOT NULL
