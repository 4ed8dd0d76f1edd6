-- name: blocks
-- The number of blocks of a table.
SELECT (pg_relation_size(to_regclass(%(table)s)) / current_setting('block_size')::int)::int

-- name: older_in_text
-- Condition: a value in the text is of an older key.
{column}::text ~ %(older)s

-- name: older_in_resource
-- Condition: the resource has a value of an older key, or may have one whose path was added later. The configuration's paths are plain
-- names, so they need no escaping in a regular expression.
({column}::text ~ %(older)s OR {column}::text ~ %(further)s)

-- name: older_as_a_whole
-- Condition: the content is of an older key.
substring({column} FROM 1 FOR length(%(current)s::bytea)) <> %(current)s::bytea

-- name: older
-- Rows in some blocks with values of older keys: each with its place in the table, and the bytes that it has on the disk.
SELECT ctid::text, pg_column_size({column}) FROM {table} WHERE ctid >= %(first)s::tid AND ctid < %(behind)s::tid AND {older}

-- name: at
-- Some of them, with what their values are bound to.
SELECT ctid::text, {kind}, {id}, {column}{shown} FROM {table} WHERE ctid = ANY(%(places)s::tid[])

-- name: write
-- Write them where they were found.
UPDATE {table} SET {column} = ((%(contents)s::{type}[])[array_position(%(places)s::tid[], ctid)])
WHERE ctid = ANY(%(places)s::tid[])

-- name: shut_out
-- Let no run begin until the end of the transaction.
LOCK TABLE run IN SHARE MODE

-- name: forget_older
-- Remove the older keys.
DELETE FROM sealing_key WHERE key_id <> %(current)s
