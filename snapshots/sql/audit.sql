-- name: read_only
-- Let a subtransaction write nothing. The setting ends with it; within it Postgres refuses to change it back.
SET TRANSACTION READ ONLY

-- name: export_moment
-- Let other transactions see what this one sees, while it is open. Not allowed in a subtransaction.
SELECT pg_export_snapshot()

-- name: enter
-- Until this transaction ends, no range is closed that its event could still belong to. Other reads do not wait for it.
SELECT pg_advisory_xact_lock_shared(hashtextextended('chartferry audit ' || %(tenant)s, 0))

-- name: event
-- Note a read. The server supplies the time and the login.
INSERT INTO audit_event (actor, account, roles, origin, reason, action, connections, types, runs, everyone, erased,
    broke_glass)
VALUES (%(actor)s, %(account)s, %(roles)s, %(origin)s, %(reason)s, %(action)s, %(connections)s, %(types)s, %(runs)s, %(everyone)s,
    %(erased)s, %(broke_glass)s)
RETURNING id

-- name: pruned_through
-- Mark an event as having deleted all events up to another. Only the tables' owner may, because `verify` then misses none of them.
UPDATE audit_event SET through = %(through)s WHERE id = %(event)s

-- name: patients
-- Note whose data were read: the rows of a query (connection, patient_id).
INSERT INTO audit_patient (event, connection, patient_id)
SELECT {event}, q.connection, q.patient_id FROM ({patients}) q

-- name: named_patients
-- Patients of a connection by their ids.
SELECT c.id AS connection, p.id AS patient_id
FROM connection c CROSS JOIN unnest({patients}::text[]) AS p (id) WHERE c.name = {connection}

-- name: reads_of_patient
-- What the audit has of a patient, under this id and under those that were merged with it: the former ones, and the surviving one.
WITH RECURSIVE who (id, connection) AS (
    SELECT {patient}::text COLLATE "C", NULL::integer  -- of any connection
    UNION SELECT CASE WHEN a.surviving_id = who.id THEN a.former_id ELSE a.surviving_id END, a.connection
    FROM alias a JOIN who ON who.id IN (a.surviving_id, a.former_id) AND a.connection = coalesce(who.connection, a.connection)
)
SELECT p.* FROM who JOIN audit_patient p ON p.patient_id = who.id AND p.connection = coalesce(who.connection, p.connection)

-- name: patient_in_audit
-- A patient, of each connection and under each id of which the audit knows reads.
SELECT DISTINCT r.connection, r.patient_id FROM ({reads}) r

-- name: patients_of_type
-- Patients whose live resources of a type a connection has.
SELECT DISTINCT r.connection, r.patient_id FROM resource r JOIN connection c ON c.id = r.connection
WHERE c.name = {connection} AND r.resource_type = {resource_type} AND r.deleted_at IS NULL AND r.patient_id IS NOT NULL

-- name: patients_of_ids
-- Patients whose resources these are.
SELECT DISTINCT r.connection, r.patient_id FROM resource r JOIN connection c ON c.id = r.connection
WHERE c.name = {connection} AND r.resource_type = {resource_type} AND r.id = ANY({ids}::text[]) AND r.patient_id IS NOT NULL

-- name: close_range
-- Whether the range up to the newest event can be closed: nobody is adding an event at this moment.
SELECT pg_try_advisory_xact_lock(hashtextextended('chartferry audit ' || %(tenant)s, 0))

-- name: newest_event
-- The newest event.
SELECT coalesce(max(id), 0) FROM audit_event

-- name: seal_alone
-- Whether nobody else is sealing; until this transaction ends.
SELECT pg_try_advisory_xact_lock(hashtextextended('chartferry seal ' || %(tenant)s, 0))

-- name: newest_seal
-- The end of the chain.
SELECT number, last_event, hash FROM audit_seal ORDER BY number DESC LIMIT 1

-- name: digests
-- The digest of each event of a range: of all its columns and its patients.
SELECT e.id, sha256(
    convert_to(jsonb_build_array(e.id, e.began, e.at, e.login, e.actor, e.account, e.roles, e.origin, e.reason, e.action,
        e.connections, e.types, e.runs, e.everyone, e.through)::text || coalesce(e.erased::text, '') || coalesce(to_jsonb(e.broke_glass)::text, ''),
        'UTF8')
    || coalesce(p.digest, '')
) AS digest
FROM audit_event e LEFT JOIN (
    -- an id with an end of line in it must not look like two
    SELECT event, sha256(convert_to(string_agg(
        connection || ' ' || replace(replace(patient_id, '\', '\\'), chr(10), '\n'), chr(10) ORDER BY connection, patient_id
    ), 'UTF8')) AS digest
    FROM audit_patient WHERE event > {after} AND event <= {last} GROUP BY event
) p ON p.event = e.id
WHERE e.id > {after} AND e.id <= {last}

-- name: hash
-- The hash of a seal: of the seal before, and of all its columns.
sha256({previous} || convert_to(jsonb_build_array({number}, {at}, {after}, {last}, {events}, {digests})::text, 'UTF8'))

-- name: seal
-- Seal a range of events.
WITH sealed AS (
    SELECT coalesce(array_agg(d.id ORDER BY d.id), '{{}}') AS events, coalesce(array_agg(d.digest ORDER BY d.id), '{{}}') AS digests
    FROM ({digests}) d
)
INSERT INTO audit_seal (number, at, after_event, last_event, events, digests, previous, hash)
SELECT {number}, now(), {after}, {last}, s.events, s.digests, {previous}, {hash} FROM sealed s
RETURNING hash

-- name: verify
-- Each seal, with the hash that it should have, and its events that are missing, altered, or were added to its range afterwards.
SELECT s.number, s.after_event, s.last_event, s.previous, s.hash, {hash}, cardinality(s.events), f.missing, f.altered, f.added
FROM audit_seal s CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(o.id ORDER BY o.id) FILTER (WHERE d.id IS NULL), '{{}}') AS missing,
        coalesce(array_agg(o.id ORDER BY o.id) FILTER (WHERE d.digest <> o.digest), '{{}}') AS altered,
        coalesce(array_agg(d.id ORDER BY d.id) FILTER (WHERE o.id IS NULL), '{{}}') AS added
    FROM unnest(s.events, s.digests) AS o (id, digest) FULL JOIN ({digests}) d ON d.id = o.id
) f
ORDER BY s.number

-- name: rest
-- The number of events not sealed yet, of patients without an event, of events that no seal can cover, and the event up to which the audit
-- was pruned.
SELECT (SELECT count(*) FROM audit_event WHERE id > coalesce((SELECT max(last_event) FROM audit_seal), 0)),
    (SELECT count(*) FROM audit_patient p WHERE NOT EXISTS (SELECT FROM audit_event e WHERE e.id = p.event)),
    (SELECT count(*) FROM audit_event WHERE id < 1),
    -- no event can have deleted itself or a later one, whatever it claims
    (SELECT coalesce(max(least(through, id - 1)), 0) FROM audit_event WHERE through IS NOT NULL)

-- name: saw
-- Who read a patient's data between two moments, oldest first; a listing of everybody's ids has only its connections in the audit.
SELECT e.id, e.began, e.at, e.login, e.actor, e.account, e.roles, e.origin, e.reason, e.action, e.connections, e.types, e.runs, e.everyone,
    e.erased, e.broke_glass
FROM audit_event e
WHERE e.at >= coalesce({since}::timestamptz, '-infinity') AND e.at < coalesce({until}::timestamptz, 'infinity')
    AND (e.everyone OR e.id IN (SELECT r.event FROM ({reads}) r))
ORDER BY e.id

-- name: all_reads
-- All events between two moments, with each of their patients.
SELECT e.id, e.began, e.at, e.login, e.actor, e.account, e.roles, e.origin, e.reason, e.action, e.connections, e.types, e.runs, e.everyone,
    e.erased, e.broke_glass, c.name, p.patient_id
FROM audit_event e LEFT JOIN audit_patient p ON p.event = e.id LEFT JOIN connection c ON c.id = p.connection
WHERE e.at >= coalesce(%(since)s::timestamptz, '-infinity') AND e.at < coalesce(%(until)s::timestamptz, 'infinity')
ORDER BY e.id, c.name, p.patient_id

-- name: expired
-- The last event of the newest seal up to which all events are older than a moment. Only an event's time is the server's word: whoever has
-- a role of the tenant can write a seal with any time. A time to come says nothing of its event: it goes with a later one that is old.
SELECT coalesce(max(s.last_event), 0) FROM audit_seal s WHERE s.last_event < (
    SELECT coalesce(min(e.id), 9223372036854775807) FROM audit_event e WHERE e.at >= %(before)s AND e.at <= now()
) AND s.last_event <= (SELECT coalesce(max(e.id), 0) FROM audit_event e WHERE e.at < %(before)s)

-- name: prune
-- Delete events up to one, with their patients. Their seals stay, so that the chain stays whole.
WITH events AS (DELETE FROM audit_event WHERE id <= %(through)s RETURNING id),
    patients AS (DELETE FROM audit_patient WHERE event <= %(through)s)
SELECT count(*) FROM events
