-- name: secrets
-- The tenant's secret, as each key that was ever current has encrypted it.
SELECT key_id, secret FROM sealing_key

-- name: paths
-- The additional encrypted paths that a configuration ever named.
SELECT DISTINCT unnest(paths) FROM sealing_key

-- name: shut_out
-- Let no run begin until the end of the transaction.
LOCK TABLE run IN SHARE MODE

-- name: has_runs
-- Whether anything was ever stored: every row belongs to a run.
SELECT EXISTS (SELECT FROM run)

-- name: keep
-- Keep the secret, encrypted with a key.
INSERT INTO sealing_key (key_id, secret) VALUES (%(key)s, %(secret)s) ON CONFLICT DO NOTHING

-- name: keep_paths
-- Store the paths with each key, so that any remaining key has them.
UPDATE sealing_key SET paths = %(paths)s

-- name: may_keep
-- Whether this login may add a key.
SELECT has_table_privilege('sealing_key', 'INSERT') AND has_table_privilege('run', 'UPDATE')

-- name: being_encrypted
-- Whether the store has plain rows to encrypt.
SELECT EXISTS (SELECT FROM to_encrypt)
