-- name: load
-- The remembered pace of a connection: its own level, and the findings of all connections to its origin, newest first.
WITH place AS (
    SELECT id, regexp_replace(lower(substring(base_url FROM '^[A-Za-z]+://[^/?#]+')),
        '^(https://.*):443$|^(http://.*):80$', '\1\2') AS origin
    FROM connection
), own AS (SELECT id, origin FROM place WHERE id = %(connection)s), near AS (
    SELECT p.*, p.connection = own.id AS is_own FROM own, pace p JOIN place o ON o.id = p.connection
    WHERE o.id = own.id OR o.origin = own.origin
), newest AS (SELECT * FROM near ORDER BY saved_at DESC, is_own DESC LIMIT 1)
SELECT max(near.concurrency) FILTER (WHERE near.is_own), max(near.file_concurrency) FILTER (WHERE near.is_own),
    extract(epoch FROM newest.down_until)::float8, newest.down_reason, newest.trips,
    extract(epoch FROM max(near.quota_free_at))::float8
FROM near, newest GROUP BY newest.down_until, newest.down_reason, newest.trips

-- name: number
-- A connection's number, outside a run.
SELECT id FROM connection WHERE name = %(name)s

-- name: save
-- Remember it.
INSERT INTO pace (connection, concurrency, file_concurrency, down_until, down_reason, trips, quota_free_at, saved_at)
VALUES (%(connection)s, %(concurrency)s, %(file_concurrency)s, to_timestamp(%(down_until)s), %(down_reason)s, %(trips)s,
    to_timestamp(%(quota_free_at)s), clock_timestamp())
ON CONFLICT (connection) DO UPDATE SET concurrency = excluded.concurrency, file_concurrency = excluded.file_concurrency,
    down_until = excluded.down_until, down_reason = excluded.down_reason, trips = excluded.trips,
    quota_free_at = excluded.quota_free_at, saved_at = excluded.saved_at

-- name: count
-- Add to a run what it sent since it was last counted.
UPDATE run SET requests = requests + %(requests)s, retries = retries + %(retries)s,
    retries_spent = retries_spent + %(spent)s, retries_left = %(left)s, down_until = to_timestamp(%(down_until)s)
WHERE id = %(run)s

-- name: down
-- Connections whose EHR was found down, and until when it counts as down.
SELECT c.name, p.down_until, coalesce(p.down_reason, '') FROM pace p JOIN connection c ON c.id = p.connection
WHERE p.down_until IS NOT NULL ORDER BY c.name
