-- name: settings
-- Indexes are as good as sequential reads for what fits in memory; big answers may use more of it.
SELECT set_config('random_page_cost', '1.1', true), set_config('work_mem', '64MB', true)

-- name: connections
-- Connections with their newest finished run and when it began.
SELECT c.name, c.id, newest.id, newest.started_at
FROM connection c
LEFT JOIN LATERAL (
    SELECT run.id, run.started_at FROM run WHERE run.connection = c.id AND run.finished_at IS NOT NULL
    ORDER BY run.id DESC LIMIT 1
) newest ON true
ORDER BY c.name

-- name: types
-- Live resources of the selection, by type.
SELECT r.resource_type, count(*) FROM resource r WHERE r.deleted_at IS NULL AND {selected} GROUP BY 1 ORDER BY 1

-- name: present
-- Types of which the selection has anything live, with the rows that the runs' counts promise: to count them takes as long as to read.
SELECT t.resource_type, t.promised FROM (
    SELECT c.resource_type, sum(c.new - c.deleted)::bigint AS promised
    FROM run_count c JOIN run ON run.id = c.run WHERE run.connection = ANY({connections}::int[]) GROUP BY 1
) t
WHERE EXISTS (SELECT FROM resource r WHERE r.resource_type = t.resource_type AND r.deleted_at IS NULL AND {selected})
ORDER BY 1

-- name: of_connections
-- Condition: resources of these connections.
r.connection = ANY({connections}::int[])

-- name: of_types
-- Condition: resources of these types.
r.resource_type = ANY({types}::text[])

-- name: of_patients
-- Condition: resources in the compartments of these patients.
r.patient_id = ANY({patients}::text[])

-- name: mentioned
-- What charts of these patients mention, and what that mentions, as "Type/id": of no patient, such as Medication and Practitioner.
WITH RECURSIVE mention (key) AS (
    SELECT substring(found #>> '{{}}' FROM '([A-Z][A-Za-z]+/[^/#?]+)(?:/_history/[^/]+)?$')
    FROM resource r CROSS JOIN LATERAL jsonb_path_query(r.body, '$.**.reference') found
    WHERE r.connection = ANY({connections}::int[]) AND r.patient_id = ANY({patients}::text[]) AND r.deleted_at IS NULL
    UNION
    SELECT substring(found #>> '{{}}' FROM '([A-Z][A-Za-z]+/[^/#?]+)(?:/_history/[^/]+)?$')
    FROM mention m CROSS JOIN LATERAL (
        SELECT body FROM resource
        WHERE resource_type = split_part(m.key, '/', 1) AND connection = ANY({connections}::int[])
            AND id = split_part(m.key, '/', 2) AND patient_id IS NULL AND deleted_at IS NULL OFFSET 0
    ) r CROSS JOIN LATERAL jsonb_path_query(r.body, '$.**.reference') found
)
SELECT key FROM mention WHERE key IS NOT NULL

-- name: of_patients_and_mentioned
-- Condition: resources in the compartments of these patients, and those of no patient that they mention.
(r.patient_id = ANY({patients}::text[]) OR r.patient_id IS NULL AND r.resource_type || '/' || r.id = ANY({mentioned}::text[]))

-- name: source
-- Live resources of a type, as something to select from.
(
    SELECT c.name AS connection, r.id, r.body FROM resource r JOIN connection c ON c.id = r.connection
    WHERE r.resource_type = {resource_type} AND r.deleted_at IS NULL AND {selected}
)

-- name: by_key
-- Read in the order of the primary key, whose index has it; sorting bodies would go through the disk.
SELECT set_config('enable_sort', %(sort)s, true)

-- name: ndjson
-- Live resources of a type and connection. jsonb in binary is a version byte and the text that ::text gives.
COPY (
    SELECT r.body FROM resource r
    WHERE r.resource_type = {resource_type} AND r.connection = {connection} AND r.deleted_at IS NULL AND {selected}
    ORDER BY r.id
) TO STDOUT (FORMAT binary)

-- name: csv
-- The rows of a query as CSV with a header.
COPY ({query}) TO STDOUT (FORMAT csv, HEADER true)
