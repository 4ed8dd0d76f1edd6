-- name: with_document
-- The body of a row `r`, and in it, as an extension, what is stored of the documents that this version has attached: of the first
-- with a text, otherwise of the first. What a run that is left out has noted of them is not told. Whether there is any document at
-- all is asked once: without one, a row costs a hundredth.
r.body || coalesce((
    SELECT jsonb_build_object('extension', coalesce(r.body -> 'extension', '[]') || jsonb_build_object(
        'url', {url}::text,
        'extension', jsonb_build_array(jsonb_build_object('url', 'status', 'valueCode', d.status))
            || CASE WHEN d.content_type IS NULL THEN '[]'
                ELSE jsonb_build_array(jsonb_build_object('url', 'contentType', 'valueCode', d.content_type)) END
            || CASE WHEN d.text IS NULL THEN '[]'
                ELSE jsonb_build_array(jsonb_build_object('url', 'text', 'valueString', d.text)) END
    ))
    FROM (
        SELECT CASE WHEN u.state = 'stored' AND a.text IS NULL THEN 'unreadable' ELSE u.state END AS status,
            coalesce(a.content_type, u.content_type) AS content_type, a.text
        FROM attachment_use u LEFT JOIN attachment a ON a.sha256 = u.sha256 AND u.state = 'stored'
        WHERE (SELECT EXISTS (SELECT FROM attachment_use)) AND u.connection = r.connection AND u.resource_type = r.resource_type
            AND u.resource_id = r.id AND u.version = r.last_changed_run AND u.run <> ALL({later})
        ORDER BY a.text IS NULL, u.place LIMIT 1
    ) d
), '{{}}')

-- name: once
-- Behind a query that has it as a column: however often a view reads the column, it is computed once a row, in the order of the key.
ORDER BY r.id OFFSET 0
