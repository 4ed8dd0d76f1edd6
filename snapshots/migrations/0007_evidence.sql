-- Who listed what, who missed it, and what is believed of it (docs/completeness.md).

-- A way is what can list something: a search by patient and its split, a directory listing, an export at a level with its filters,
-- a batch or read of Patients, a reference. Group ids are no part of it: the roster tells whose patients an export speaks for.
CREATE TABLE way (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection integer NOT NULL REFERENCES connection,
    name text COLLATE "C" NOT NULL,
    UNIQUE (connection, name)
);

-- the first way that brought a row; NULL: written before ways were kept, or lost by its way
ALTER TABLE resource ADD COLUMN first_way integer;

-- further ways that have listed a row
CREATE TABLE listed (
    connection integer NOT NULL,
    way integer NOT NULL REFERENCES way,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (connection, resource_type, id, way)
);

-- Patients of a row beyond resource.patient_id: R4's patient compartment may name several, and a patient's search may bring a row
-- that does not name him literally (`searched`).
CREATE TABLE member (
    connection integer NOT NULL,
    resource_type text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    patient_id text COLLATE "C" NOT NULL,
    searched boolean NOT NULL,
    PRIMARY KEY (connection, resource_type, id, patient_id)
);
CREATE INDEX member_by_patient ON member (patient_id, connection);
