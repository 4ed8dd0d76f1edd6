-- Which stored rows are only parts, that an export of some `_elements` brought: servers that trim do not all tag (SUBSETTED). It is noted when a
-- part is stored, since which unit of a run wrote a row nobody can tell afterwards.
CREATE TABLE subsetted (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (connection, resource_type, id)
);
-- What such exports wrote, but for what the same runs read by id.
INSERT INTO subsetted (connection, resource_type, id)
SELECT r.connection, r.resource_type, r.id
FROM bulk_job b
JOIN resource r ON r.last_changed_run = b.run AND r.deleted_at IS NULL
LEFT JOIN (
    SELECT DISTINCT u.run, u.resource_type, i.id FROM unit u CROSS JOIN LATERAL unnest(u.ids) AS i (id)
    WHERE u.kind IN ('confirm', 'reference') AND u.state = 'settled'
) whole ON whole.run = b.run AND whole.resource_type = r.resource_type AND whole.id = r.id
WHERE b.elements AND whole.id IS NULL
    AND EXISTS (SELECT FROM unit f WHERE f.run = b.run AND f.kind = 'file' AND f.resource_type = r.resource_type)
ON CONFLICT DO NOTHING;
