-- name: number
-- The number of a way; a new way gets one. A newer version may redefine what a way means.
INSERT INTO way (connection, name, scope, strict, codes)
VALUES (%(connection)s, %(name)s, %(scope)s, %(strict)s, %(codes)s::text[])
ON CONFLICT (connection, name) DO UPDATE SET scope = excluded.scope, strict = excluded.strict, codes = excluded.codes
RETURNING id

-- name: all
-- The connection's ways.
SELECT id, name, scope, strict, codes FROM way WHERE connection = %(connection)s
