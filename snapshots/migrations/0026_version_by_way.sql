-- What a way last gave as the content of a version that another way gives otherwise: while it gives the same again, nothing is written.
-- Only rows of which two ways say different things have any.
CREATE TABLE version_by_way (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    way integer NOT NULL REFERENCES way,
    content_hash bytea NOT NULL,
    PRIMARY KEY (connection, resource_type, id, way)
);
