-- A store with a row here is encrypted. Each row is the secret that keys the tenant's hashes, encrypted with one of the configured
-- keys: whether it can be opened tells whether the key is right.
CREATE TABLE sealing_key (
    key_id text COLLATE "C" PRIMARY KEY,
    secret bytea NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
