-- name: connections
-- All connections of the tenant.
SELECT name FROM connection

-- name: parts
-- The tables that hold a table's rows: its partitions, or itself.
SELECT c.relname::text FROM pg_partition_tree(to_regclass(%(table)s)) t JOIN pg_class c ON c.oid = t.relid WHERE t.isleaf
UNION SELECT relname::text FROM pg_class WHERE oid = to_regclass(%(table)s) AND relkind = 'r' ORDER BY 1

-- name: others_views
-- Views made by others: materialised ones in the tenant's schema, which store rows, and any that read its tables.
SELECT CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, oid::regclass::text FROM pg_class
WHERE relkind IN ('m', 'v') AND NOT (relnamespace = current_schema()::regnamespace AND relname = ANY(%(ours)s)) AND (
    relkind = 'm' AND relnamespace = current_schema()::regnamespace
    OR oid IN (
        SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid IN (
            SELECT p.relid FROM unnest(%(tables)s::text[]) AS t (name) CROSS JOIN pg_partition_tree(to_regclass(t.name)) p
            UNION SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) AS t (name)
        )
    )
) ORDER BY 2

-- name: note_tables
-- Note the tables to encrypt.
INSERT INTO to_encrypt (table_name) SELECT unnest(%(tables)s::text[])

-- name: waiting
-- The tables that may still have plain rows, each with the key up to which it has none.
SELECT table_name, resource_type, connection, id FROM to_encrypt

-- name: upto
-- The key of the last of the next rows after a key: at least one row, and together at most a number of bytes on the disk.
SELECT resource_type, connection, id FROM (
    SELECT resource_type, connection, id, row_number() OVER w AS n, sum(size) OVER w AS size FROM (
        SELECT resource_type, connection, id, {size} AS size FROM {table} WHERE ({key}) > ({after}) ORDER BY {key} LIMIT %(most)s
    ) few WINDOW w AS (ORDER BY {key} ROWS UNBOUNDED PRECEDING)
) counted WHERE n = 1 OR size <= %(together)s ORDER BY {last} LIMIT 1

-- name: between
-- The rows after a key, up to another: each with its place in the table.
SELECT ctid::text, resource_type, id, content_hash, {body} FROM {table} WHERE ({key}) > ({after}) AND ({key}) <= ({upto})

-- name: write
-- Write them where they were found; a row without a new body keeps its own.
UPDATE {table} t SET content_hash = n.content_hash {and_body}
FROM unnest(%(places)s::tid[], %(hashes)s::bytea[], %(bodies)s::text[]) AS n (place, content_hash, body) WHERE t.ctid = n.place

-- name: and_body
-- The new body.
, body = coalesce(n.body::{type}, t.body)

-- name: quarantine
-- Quarantine rows that no encrypted store could have, as input of the run that wrote them, or else of the connection's newest run.
INSERT INTO quarantine (run, digest, resource_type, source, reason, raw)
SELECT brought.id, n.digest, t.resource_type, n.source, n.reason, n.raw
FROM unnest(%(places)s::tid[], %(digests)s::bytea[], %(sources)s::text[], %(reasons)s::text[], %(raws)s::bytea[])
    AS n (place, digest, source, reason, raw)
JOIN {table} t ON t.ctid = n.place
CROSS JOIN LATERAL (SELECT id FROM run r WHERE r.connection = t.connection ORDER BY r.id = t.run DESC, r.id DESC LIMIT 1) brought
ON CONFLICT DO NOTHING

-- name: forget
-- Delete them, once they are quarantined.
DELETE FROM {table} WHERE ctid = ANY(%(places)s::tid[])

-- name: reached
-- Note how far a table has come.
UPDATE to_encrypt SET resource_type = %(resource_type)s, connection = %(connection)s, id = %(id)s WHERE table_name = %(table)s

-- name: encrypted
-- A table has no plain rows any more.
DELETE FROM to_encrypt WHERE table_name = %(table)s

-- name: input
-- The next quarantined input behind a key, likewise.
SELECT run, digest, source, raw FROM (
    SELECT *, row_number() OVER w AS n, sum(pg_column_size(raw)) OVER w AS size FROM (
        SELECT run, digest, source, raw FROM quarantine WHERE (run, digest) > (%(run)s, %(digest)s::bytea)
        ORDER BY run, digest LIMIT %(most)s
    ) few WINDOW w AS (ORDER BY run, digest ROWS UNBOUNDED PRECEDING)
) counted WHERE n = 1 OR size <= %(together)s ORDER BY run, digest

-- name: write_input
-- Write it encrypted.
UPDATE quarantine q SET digest = n.digest, raw = n.raw
FROM unnest(%(runs)s::bigint[], %(former)s::bytea[], %(digests)s::bytea[], %(raws)s::bytea[]) AS n (run, former, digest, raw)
WHERE q.run = n.run AND q.digest = n.former

-- name: documents
-- The next documents behind a key, likewise.
SELECT sha256, content, text FROM (
    SELECT *, row_number() OVER w AS n, sum(pg_column_size(content) + coalesce(pg_column_size(text), 0)) OVER w AS size FROM (
        SELECT sha256, content, text FROM attachment WHERE sha256 > %(after)s::bytea ORDER BY sha256 LIMIT %(most)s
    ) few WINDOW w AS (ORDER BY sha256 ROWS UNBOUNDED PRECEDING)
) counted WHERE n = 1 OR size <= %(together)s ORDER BY sha256

-- name: add_document
-- A document under its keyed hash.
INSERT INTO attachment (sha256, size, content_type, content, text, unread, stored_at)
SELECT %(digest)s, size, content_type, %(content)s, %(text)s, unread, stored_at FROM attachment WHERE sha256 = %(former)s

-- name: move_uses
-- Where it is attached, or was.
WITH former AS (UPDATE attachment_use_history SET sha256 = %(digest)s WHERE sha256 = %(former)s)
UPDATE attachment_use SET sha256 = %(digest)s WHERE sha256 = %(former)s

-- name: forget_document
-- The plain one.
DELETE FROM attachment WHERE sha256 = %(former)s

-- name: forget_terms
-- Delete the plain hashes of the patient index, which is built again.
TRUNCATE patient_token, patient_index

-- name: emptied
-- Whether a table has no rows but may have had some: ANALYZE does not touch the samples of an empty table.
SELECT reltuples >= 0 AND NOT EXISTS (SELECT FROM {table}) FROM pg_class WHERE oid = to_regclass(%(table)s)

-- name: types
-- Columns that may have values or hashes of values, with their types. Ids have a separate collation.
SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped
    AND (atttypid IN ('jsonb'::regtype, 'bytea'::regtype) OR atttypid = 'text'::regtype AND attcollation = 'pg_catalog.default'::regcollation)

-- name: retype
-- Give a column the type that it already has: this deletes its samples, in all partitions too, and writes no row.
ALTER COLUMN {column} TYPE {type}

-- name: sample
-- Take new samples.
ANALYZE resource, resource_history, rival, version_by_way, quarantine, attachment, attachment_use, attachment_use_history, patient_token, patient_index
