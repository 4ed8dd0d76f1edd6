-- name: load
-- What is remembered of a connection.
SELECT concurrency, file_concurrency, extract(epoch FROM down_until)::float8, down_reason, trips,
    extract(epoch FROM quota_free_at)::float8
FROM pace WHERE connection = %(connection)s

-- name: load_by_name
-- The same, for who has no run open.
SELECT p.concurrency, p.file_concurrency, extract(epoch FROM p.down_until)::float8, p.down_reason, p.trips,
    extract(epoch FROM p.quota_free_at)::float8
FROM pace p JOIN connection c ON c.id = p.connection WHERE c.name = %(connection)s

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
-- Connections whose EHR was found down, and until when it is taken to be.
SELECT c.name, p.down_until, coalesce(p.down_reason, '') FROM pace p JOIN connection c ON c.id = p.connection
WHERE p.down_until IS NOT NULL ORDER BY c.name
