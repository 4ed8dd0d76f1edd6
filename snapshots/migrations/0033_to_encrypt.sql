-- A plain store that is being encrypted: the tables that may still have plain rows. Of a table that is gone through in the order of
-- its key, everything up to this one is encrypted. While a row is here, `chartferry keys rotate-store` alone opens the store.
CREATE TABLE to_encrypt (
    table_name text COLLATE "C" PRIMARY KEY,
    resource_type text COLLATE "C" NOT NULL DEFAULT '',
    connection integer NOT NULL DEFAULT 0,
    id text COLLATE "C" NOT NULL DEFAULT ''
);
