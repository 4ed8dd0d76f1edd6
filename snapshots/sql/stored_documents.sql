-- name: with_document
-- The body of a row `r` with, as an extension, the stored outcome of a document that this version has attached: of the first with a text,
-- otherwise of the first. Whether any document exists is checked once: without one, a row costs a hundredth.
r.body || coalesce((
    SELECT jsonb_build_object('extension', coalesce(r.body -> 'extension', '[]') || jsonb_build_object(
        'url', {url}::text,
        'extension', jsonb_build_array(
            jsonb_build_object('url', 'status', 'valueCode', d.status),
            jsonb_build_object('url', 'contentType', 'valueCode', d.content_type),
            jsonb_build_object('url', 'text', 'valueString', d.text)
        )
    ))
    FROM (
        SELECT CASE WHEN u.outcome = 'stored' AND a.text IS NULL THEN 'unreadable' ELSE u.outcome END AS status,
            coalesce(a.content_type, u.content_type) AS content_type, a.text
        FROM {uses} u LEFT JOIN attachment a ON a.sha256 = u.sha256 AND u.outcome = 'stored'
        WHERE (SELECT EXISTS (SELECT FROM {uses} any_use)) AND u.connection = r.connection AND u.resource_type = r.resource_type
            AND u.resource_id = r.id AND u.version = r.last_changed_run
        ORDER BY a.text IS NULL, u.place LIMIT 1
    ) d
), '{{}}')

-- name: once
-- Follows a query that has it as a column: it is then computed once per row, however often a view reads the column.
OFFSET 0

-- name: once_by_key
-- The same, for a query that must keep reading in the order of the key.
ORDER BY r.id OFFSET 0

-- name: uses
-- The places of attached documents, and their outcomes.
attachment_use

-- name: uses_ended
-- The same, as ended runs left it.
(
    SELECT connection, resource_type, resource_id, place, content_type, version, outcome, sha256 FROM attachment_use
    WHERE outcome_run <> ALL({open})
    UNION ALL
    SELECT connection, resource_type, resource_id, place, content_type, version, outcome, sha256 FROM attachment_use_history
    WHERE to_run = ANY({open}) AND outcome_run <> ALL({open})
)

-- name: of_changed
-- Condition: rows that one of these runs wrote, or whose documents got a new outcome in one of them.
({changed} OR (r.connection, r.resource_type, r.id) IN (
    SELECT connection, resource_type, resource_id FROM attachment_use WHERE outcome_run = ANY({since})
    UNION ALL
    SELECT connection, resource_type, resource_id FROM attachment_use_history WHERE outcome_run = ANY({since})
))
