-- name: rows
-- Live resources of a type as the runs that have ended left them, whenever it is read: a FROM item with connection, id and body.
(
    SELECT c.name AS connection, r.id, {body} AS body FROM {ended} r JOIN connection c ON c.id = r.connection
    WHERE r.resource_type = {resource_type} {once}
)

-- name: open
-- Runs that have not ended, as an array.
ARRAY(SELECT run.id FROM run WHERE run.finished_at IS NULL)

-- name: relations
-- Objects with these names in the tenant's schema (NULL: any name), with comment and columns.
SELECT c.relname::text, c.relkind::text, obj_description(c.oid, 'pg_class'),
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND (%(names)s::text[] IS NULL OR c.relname = ANY(%(names)s::text[]))
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'i', 'I', 'S', 'c')
ORDER BY c.relname

-- name: create
-- A view.
CREATE VIEW {name} AS {query}

-- name: replace
-- Replace a view; its grants stay.
CREATE OR REPLACE VIEW {name} AS {query}

-- name: create_materialized
-- Create a materialised view of a view's present rows.
CREATE MATERIALIZED VIEW {name} AS {query}

-- name: refresh
-- Refresh the rows.
REFRESH MATERIALIZED VIEW {name}

-- name: drop
-- A view.
DROP VIEW {name}

-- name: drop_materialized
-- A materialised view.
DROP MATERIALIZED VIEW {name}

-- name: comment
-- Comment a view, so that chartferry recognises it.
COMMENT ON VIEW {name} IS {comment}

-- name: comment_materialized
-- Comment a materialised view likewise.
COMMENT ON MATERIALIZED VIEW {name} IS {comment}

-- name: newest
-- When the newest ended run began.
SELECT max(started_at) FROM run WHERE finished_at IS NOT NULL
