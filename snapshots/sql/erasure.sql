-- name: unended_run
-- A run of the connection that has not ended.
SELECT id FROM run WHERE connection = %(connection)s AND finished_at IS NULL ORDER BY id DESC LIMIT 1

-- name: who
-- The ids of the patient: this one first, then all that were merged into it.
WITH RECURSIVE who (id, depth) AS (
    SELECT %(patient)s::text COLLATE "C", 0
    UNION SELECT a.former_id, 1 FROM alias a JOIN who ON a.surviving_id = who.id WHERE a.connection = %(connection)s
)
SELECT id FROM who GROUP BY id ORDER BY min(depth), id

-- name: longer_ids
-- How the ids of other patients go on that begin as this one and then have a character that R4 has in no id: EHRs write such ids too.
-- U+10FFFF is behind all ids.
SELECT substr(o.id, length(%(patient)s) + 1) FROM (
    SELECT connection, patient_id FROM resource UNION SELECT connection, patient_id FROM resource_history
    UNION SELECT connection, patient_id FROM member UNION SELECT connection, patient_id FROM roster
) o (connection, id)
WHERE o.connection = %(connection)s AND o.id > %(patient)s AND o.id < %(patient)s || U&'\+10FFFF'
    AND substr(o.id, length(%(patient)s) + 1) ~ ('^' || %(end)s)

-- name: count_erased
-- Count a connection's erased patients, and note its newest run: exports of earlier runs contain the erased chart.
UPDATE connection SET erasures = erasures + %(patients)s, erased_after = (SELECT max(run.id) FROM run WHERE run.connection = connection.id)
WHERE id = %(connection)s

-- name: forget_found
-- Forget what was found for another id.
DROP TABLE erased_key

-- name: find_keys
-- Every resource that is or was the patient's or identifies the patient: filed under the patient, in the patient's compartment, or with a
-- reference to the patient. `trace` is a regular expression; `mentions` are patterns that cost less and find at least as much.
CREATE TEMPORARY TABLE erased_key ON COMMIT DROP AS
SELECT 'Patient'::text COLLATE "C" AS resource_type, %(patient)s::text COLLATE "C" AS id
UNION SELECT resource_type, id FROM resource
    WHERE connection = %(connection)s AND (patient_id = %(patient)s OR body::text LIKE ANY(%(mentions)s) AND body::text ~ %(trace)s)
UNION SELECT resource_type, id FROM resource_history
    WHERE connection = %(connection)s AND (patient_id = %(patient)s OR body::text LIKE ANY(%(mentions)s) AND body::text ~ %(trace)s)
UNION SELECT resource_type, id FROM rival
    WHERE connection = %(connection)s AND (patient_id = %(patient)s OR replace(body, '\/', '/') ~ %(trace)s)  -- as it was sent
UNION SELECT b.resource_type, b.id FROM (
    SELECT resource_type, connection, id, body FROM resource UNION ALL SELECT resource_type, connection, id, body FROM resource_history
) b WHERE b.connection = %(connection)s AND b.resource_type IN ('Bundle', 'Parameters')  -- the Patient within one needs no reference
    AND jsonb_path_exists(
        b.body, '$.**.resource ? (@.resourceType == "Patient" && @.id == $id)', jsonb_build_object('id', %(patient)s::text)
    )
UNION SELECT resource_type, id FROM member WHERE connection = %(connection)s AND patient_id = %(patient)s
UNION SELECT resource_type, id FROM member_history WHERE connection = %(connection)s AND patient_id = %(patient)s
UNION SELECT resource_type, resource_id FROM attachment_use WHERE connection = %(connection)s AND patient_id = %(patient)s

-- name: sealed
-- Bodies with encrypted values, in every version, of resources that are not found yet.
SELECT * FROM (
    SELECT resource_type, id, body::text FROM resource WHERE connection = %(connection)s AND strpos(body::text, '~sealed:') > 0
    UNION ALL SELECT resource_type, id, body::text FROM resource_history
        WHERE connection = %(connection)s AND strpos(body::text, '~sealed:') > 0
    UNION ALL SELECT resource_type, id, body FROM rival WHERE connection = %(connection)s AND strpos(body, '~sealed:') > 0
) s WHERE NOT EXISTS (SELECT FROM erased_key k WHERE k.resource_type = s.resource_type AND k.id = s.id)

-- name: add_keys
-- Further resources to erase.
INSERT INTO erased_key SELECT * FROM unnest(%(types)s::text[], %(ids)s::text[]) AS s EXCEPT SELECT * FROM erased_key

-- name: sealed_input
-- Quarantined input of a connection.
SELECT q.run, q.digest, q.source, q.raw FROM quarantine q JOIN run ON run.id = q.run WHERE run.connection = %(connection)s

-- name: forget_input
-- Delete some of it.
DELETE FROM quarantine q USING unnest(%(runs)s::bigint[], %(digests)s::bytea[]) AS s (run, digest)
WHERE q.run = s.run AND q.digest = s.digest

-- name: shared
-- How many of them are live, and how many also belong to other patients.
SELECT count(*) FROM erased_key k JOIN resource r ON r.connection = %(connection)s AND r.resource_type = k.resource_type AND r.id = k.id
WHERE r.deleted_at IS NULL AND (r.patient_id <> %(patient)s OR EXISTS (
    SELECT FROM member m WHERE m.connection = %(connection)s AND m.resource_type = r.resource_type AND m.id = r.id
        AND m.patient_id <> %(patient)s
))

-- name: forget_up_to_when
-- Rows of others that are erased with the patient and that the EHR still has make their types incomplete: each selection lists these in
-- full before it requests only changes again.
DELETE FROM watermark w WHERE w.connection = %(connection)s AND w.resource_type IN (
    SELECT k.resource_type FROM erased_key k
    JOIN resource r ON r.connection = %(connection)s AND r.resource_type = k.resource_type AND r.id = k.id
    WHERE r.deleted_at IS NULL AND (r.patient_id IS DISTINCT FROM %(patient)s OR EXISTS (
        SELECT FROM member m WHERE m.connection = %(connection)s AND m.resource_type = r.resource_type AND m.id = r.id
            AND m.patient_id <> %(patient)s
    ))
)

-- name: cohorts
-- Digests of cohorts that may be of these patients alone or among others: of ids, they can be guessed. A cohort whose roster has others
-- only is not among them, nor is the patient of a pull whose units name another one.
SELECT DISTINCT r.cohort_digest FROM run r WHERE r.connection = %(connection)s AND r.cohort_digest <> '' AND (
    EXISTS (
        SELECT FROM roster m WHERE m.connection = r.connection AND strpos(m.selection, r.cohort_digest) > 0
            AND m.patient_id = ANY(%(patients)s::text[])
    ) OR NOT EXISTS (SELECT FROM roster m WHERE m.connection = r.connection AND strpos(m.selection, r.cohort_digest) > 0)
    AND NOT (r.kind = 'pull' AND coalesce(
        (SELECT bool_and(u.patient_id <> ALL (%(patients)s::text[])) FROM unit u WHERE u.run = r.id AND u.patient_id IS NOT NULL), false
    ))
)

-- name: forget_cohorts
-- Forget cohorts, and what is known of the selections that have the name of one: the next run of such a selection lists everything in full.
WITH cohort AS (SELECT unnest(%(digests)s::text[]) AS digest), watermarks AS (
    DELETE FROM watermark w USING cohort WHERE w.connection = %(connection)s AND strpos(w.selection, digest) > 0
), listings AS (
    DELETE FROM full_listing f USING cohort WHERE f.connection = %(connection)s AND strpos(f.knowledge, digest) > 0
), lags AS (
    DELETE FROM lag l USING cohort WHERE l.connection = %(connection)s AND strpos(l.selection, digest) > 0
), rosters AS (
    DELETE FROM roster m USING cohort WHERE m.connection = %(connection)s AND strpos(m.selection, digest) > 0
)
UPDATE run r SET cohort_digest = '',
    selection = CASE WHEN strpos(r.selection, digest) > 0 THEN 'erased' ELSE r.selection END,
    knowledge = CASE WHEN strpos(r.knowledge, digest) > 0 THEN 'erased' ELSE r.knowledge END
FROM cohort WHERE r.connection = %(connection)s AND r.cohort_digest = digest

-- name: types
-- Their types.
SELECT array_agg(DISTINCT resource_type ORDER BY resource_type) FROM erased_key

-- name: quarantine
-- Lines that the patient's units fetched, or that name the patient. In escaped form, bytes of any encoding are text.
DELETE FROM quarantine q USING run WHERE run.id = q.run AND run.connection = %(connection)s AND (
    EXISTS (SELECT FROM unit u WHERE u.run = q.run AND u.key = q.unit_key AND u.patient_id = %(patient)s)
    OR encode(q.raw, 'escape') ~ %(named)s
)

-- name: unit
-- Units that requested something for the patient, or by one of the patient's ids.
DELETE FROM unit u USING run WHERE run.id = u.run AND run.connection = %(connection)s AND (
    u.patient_id = %(patient)s OR u.of_chart = %(patient)s OR u.detail::text ~ %(trace)s
    OR EXISTS (SELECT FROM erased_key k WHERE k.resource_type = u.resource_type AND k.id = ANY(u.ids))
)

-- name: attached
-- Places where something is or was attached.
DELETE FROM {table} u USING erased_key k
WHERE u.connection = %(connection)s AND u.resource_type = k.resource_type AND u.resource_id = k.id

-- name: attachment
-- Documents that are no longer attached anywhere, or were not before either: nobody knows whose those were.
DELETE FROM attachment a WHERE NOT EXISTS (SELECT FROM attachment_use u WHERE u.sha256 = a.sha256)
    AND NOT EXISTS (SELECT FROM attachment_use_history h WHERE h.sha256 = a.sha256)

-- name: keyed
-- Rows of a table that has resources by type and id.
DELETE FROM {table} t USING erased_key k WHERE t.connection = %(connection)s AND t.resource_type = k.resource_type AND t.id = k.id

-- name: of_patient
-- Rows of a table that has patients.
DELETE FROM {table} WHERE connection = %(connection)s AND patient_id = %(patient)s

-- name: alias
-- The patients that this one was merged with.
DELETE FROM alias WHERE connection = %(connection)s AND %(patient)s IN (former_id, surviving_id)

-- name: columns
-- Columns that could contain a trace, of all tables except the audit's, with the condition for this connection's rows. Hashes contain none.
SELECT c.relname::text, a.attname::text, t.typname::text,
    EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = c.oid AND x.attname = 'connection'),
    EXISTS (SELECT FROM pg_attribute x WHERE x.attrelid = c.oid AND x.attname = 'run')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname NOT IN ('audit_event', 'audit_patient', 'audit_seal') AND (t.typname IN ('text', '_text', 'jsonb') OR a.attname = 'raw')
ORDER BY c.relname, a.attnum

-- name: of_connection
-- Condition: a row of this connection.
t.connection = %(connection)s

-- name: of_runs
-- Condition: a row of one of this connection's runs.
t.run IN (SELECT id FROM run WHERE connection = %(connection)s)

-- name: text
-- Condition: a column refers to the patient.
replace(t.{column}, '\/', '/') ~ %(trace)s

-- name: document
-- Condition: a document refers to the patient.
t.{column}::text ~ %(trace)s

-- name: list
-- Condition: a list refers to the patient.
array_to_string(t.{column}, ' ') ~ %(trace)s

-- name: patients
-- Condition: the patient is in a list.
%(patient)s = ANY(t.{column})

-- name: resources
-- Condition: the Patient is in a list of resources.
%(patient)s = ANY(t.{column}) AND t.resource_type = 'Patient'

-- name: raw
-- Condition: bytes name the patient.
encode(t.{column}, 'escape') ~ %(named)s

-- name: patient
-- Condition: a column is the patient's id.
t.{column} = %(patient)s

-- name: resource
-- Condition: a row is of the Patient.
t.{column} = %(patient)s AND t.resource_type = 'Patient'

-- name: remaining
-- How many rows of a table have a trace.
SELECT count(*) FROM {table} t WHERE {whose} AND ({conditions})
