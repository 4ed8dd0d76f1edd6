-- Which way gave each of several contents of a version: what one way leaves out says nothing of what another gives. Of those noted so
-- far it is not known; they are noted anew when they come. What is stored is no exception any more: each content has its version.
DELETE FROM rival;
ALTER TABLE rival ADD COLUMN way integer NOT NULL REFERENCES way,
    DROP CONSTRAINT rival_pkey,
    ADD PRIMARY KEY (connection, resource_type, id, way, content_hash);
