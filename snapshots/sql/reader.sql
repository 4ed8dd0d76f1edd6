-- name: settings
-- Indexes are as good as sequential reads for what fits in memory; big answers may use more of it. What a view joins to a resource is never
-- needed twice: caching it for an equal body took a third of a view's time.
SELECT set_config('random_page_cost', '1.1', true), set_config('work_mem', '64MB', true), set_config('enable_memoize', 'off', true),
    set_config('app.from_id', '', true), set_config('app.before_id', chr(1114111), true)

-- name: little_memory
-- A recursive query allocates and clears memory for the planner's estimate of its rows, a hundred billion: with 64 MB that takes a second
-- for one chart.
SELECT set_config('work_mem', '4MB', true)

-- name: limits
-- The limits of a user's query. Sorts and hashes beyond the memory go to the disk; one worker, so that it does not use the memory several
-- times.
SELECT set_config('statement_timeout', %(milliseconds)s, true), set_config('work_mem', %(memory)s, true),
    set_config('hash_mem_multiplier', '1', true), set_config('max_parallel_workers_per_gather', '0', true),
    CASE WHEN has_parameter_privilege('temp_file_limit', 'SET') THEN set_config('temp_file_limit', %(disk)s, true) END

-- name: connections
-- Connections with their newest run that had ended by then: as the order of ends, or else a time, says (NULL: by now); the newest that left
-- anything (a run that failed before its first batch did not, nor a pull of an unknown patient); and the newest complete sync.
SELECT c.name, c.id, coalesce(c.base_url, ''), newest.id, shown.id, shown.started_at, shown.kind, shown.status, whole.id,
    c.history_from, shown.end_order, c.erasures, c.erased_after
FROM connection c
LEFT JOIN LATERAL (
    SELECT run.id FROM run WHERE run.connection = c.id AND {ended}
    ORDER BY run.id DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT run.id, run.started_at, run.end_order, run.kind, run.status FROM run
    WHERE run.connection = c.id AND {ended} AND (
        (run.status <> 'failed' AND run.kind <> 'pull') OR EXISTS (
            SELECT FROM run_count n WHERE n.run = run.id AND n.new + n.changed + n.unchanged + n.deleted > 0))
    ORDER BY run.id DESC LIMIT 1
) shown ON true
LEFT JOIN LATERAL (
    SELECT run.id FROM run WHERE run.connection = c.id AND run.kind = 'sync' AND run.status = 'complete'
        AND {ended}
    ORDER BY run.id DESC LIMIT 1
) whole ON true
ORDER BY c.name

-- name: ended_by_order
-- Condition: a run had ended when another one had.
run.end_order <= {order}

-- name: ended_by_time
-- Condition: a run had ended by a time (NULL: by now).
run.finished_at <= coalesce({at}::timestamptz, 'infinity')

-- name: open_runs
-- Runs that have not ended: active, suspended, or killed and not yet resumed.
SELECT run.id, c.name, run.started_at FROM run JOIN connection c ON c.id = run.connection
WHERE run.finished_at IS NULL AND run.connection = ANY(%(connections)s)
    AND run.started_at <= coalesce(%(until)s::timestamptz, 'infinity')
ORDER BY run.id

-- name: later_runs
-- Runs after the newest shown one: active, suspended, killed, or of a later time.
SELECT run.id FROM run JOIN unnest(%(connections)s::int[], %(newest)s::bigint[]) AS s (connection, newest) USING (connection)
WHERE run.id > s.newest OR run.finished_at IS NULL ORDER BY run.id

-- name: ended_at
-- When a run ended, and which of all it was.
SELECT finished_at, end_order FROM run WHERE id = %(run)s

-- name: types
-- Live resources of the selection, by type.
SELECT r.resource_type, count(*) FROM {rows} r WHERE {selected} GROUP BY 1 ORDER BY 1

-- name: present
-- Types of which the selection has live rows, with the number that the runs' counts suggest: counting them takes as long as reading them.
-- OFFSET 0: look for one row of each type. The planner would make it a join, which reads all rows of all types.
SELECT t.resource_type, t.promised FROM (
    SELECT c.resource_type, sum(c.new - c.deleted)::bigint AS promised
    FROM run_count c JOIN run ON run.id = c.run
    WHERE run.connection = ANY({connections}::int[]) AND run.finished_at IS NOT NULL GROUP BY 1
) t
WHERE EXISTS (SELECT FROM {rows} r WHERE r.resource_type = t.resource_type AND {selected} OFFSET 0)
ORDER BY 1

-- name: everyone
-- Rows to read: all that are stored.
resource

-- name: of_patients
-- Rows to read: those filed under these patients, and others that belong to them (`named`). Two searches by index.
(
    SELECT * FROM resource WHERE patient_id = ANY({patients}::text[])
    UNION ALL
    SELECT o.* FROM ({keys}) k
    JOIN resource o ON o.resource_type = k.resource_type AND o.connection = k.connection AND o.id = k.id
    WHERE (o.patient_id = ANY({patients}::text[])) IS NOT TRUE
)

-- name: named
-- Keys of rows that belong to these patients whatever they are filed under, and of those that their charts mention; each once.
SELECT connection, resource_type, id FROM {members} m WHERE patient_id = ANY({patients}::text[])
UNION SELECT * FROM unnest({m_connections}::int[], {m_types}::text[], {m_ids}::text[])

-- name: members
-- The patients of rows besides `resource.patient_id`.
member

-- name: members_ended
-- The same as the runs that have ended left it.
(
    SELECT connection, resource_type, id, patient_id FROM member WHERE from_run <> ALL({open}::bigint[])
    UNION ALL
    SELECT connection, resource_type, id, patient_id FROM member_history
    WHERE to_run = ANY({open}::bigint[]) AND from_run <> ALL({open}::bigint[])
)

-- name: moved
-- Keys of rows that an open run has moved from these patients to another.
UNION SELECT connection, resource_type, id FROM resource_history WHERE to_run = ANY({open}::bigint[]) AND patient_id = ANY({patients}::text[])

-- name: ended
-- Rows to read, as the runs that have ended left them: for what an open run has written, the row that it replaced; none where
-- there was none. At most one history row fits, since a connection's runs end one after the other (`ledger.begin`).
(
    SELECT n.connection, n.resource_type, n.id, e.patient_id, e.body, e.last_changed_run
    FROM {rows} n CROSS JOIN LATERAL (
        SELECT n.patient_id, n.body, n.deleted_at, n.deleted_run, n.last_changed_run WHERE n.last_changed_run <> ALL({open}::bigint[])
        UNION ALL
        SELECT h.patient_id, h.body, h.deleted_at, h.deleted_run, h.from_run FROM resource_history h
        WHERE n.last_changed_run = ANY({open}::bigint[])
            AND h.resource_type = n.resource_type AND h.connection = n.connection AND h.id = n.id
            AND h.to_run = ANY({open}::bigint[]) AND h.from_run <> ALL({open}::bigint[])
    ) e
    WHERE e.deleted_at IS NULL OR e.deleted_run = ANY({open}::bigint[])
)

-- name: live
-- Condition: rows that the EHR still has. `ended` rows always meet it.
r.deleted_at IS NULL

-- name: still_of_patients
-- Condition on `ended` rows: they were of these patients then.
(
    r.patient_id = ANY({patients}::text[])
    OR (r.connection, r.resource_type, r.id) IN (SELECT connection, resource_type, id FROM ({keys}) k)
)

-- name: of_connections
-- Condition: resources of these connections.
r.connection = ANY({connections}::int[])

-- name: of_types
-- Condition: resources of these types.
r.resource_type = ANY({types}::text[])

-- name: mentioned
-- Keys of rows without a patient that the charts of these patients mention, and of what those mention: Medication, Practitioner, … Most of
-- a chart's references occur many times, and the pattern costs 20 us.
WITH RECURSIVE mention (connection, reference) AS (
    SELECT d.connection, substring(d.reference FROM '([A-Z][A-Za-z]+/[^/#?]+)(?:/_history/[^/]+)?$') FROM (
        SELECT DISTINCT r.connection, found #>> '{{}}' AS reference
        FROM {rows} r CROSS JOIN LATERAL jsonb_path_query(r.body, '$.**.reference') found
        WHERE {selected}
    ) d
    UNION
    SELECT s.connection, substring(found #>> '{{}}' FROM '([A-Z][A-Za-z]+/[^/#?]+)(?:/_history/[^/]+)?$')
    FROM mention m CROSS JOIN LATERAL ({shared}) s CROSS JOIN LATERAL jsonb_path_query(s.body, '$.**.reference') found
)
SELECT s.connection, s.resource_type, s.id FROM mention m CROSS JOIN LATERAL ({shared}) s

-- name: shared
-- The row that a mention leads to, if it has no patient.
SELECT r.connection, r.resource_type, r.id, r.body FROM {rows} r
WHERE r.resource_type = split_part(m.reference, '/', 1) AND r.connection = m.connection AND r.id = split_part(m.reference, '/', 2)
    AND r.patient_id IS NULL AND {selected} AND NOT EXISTS (
        SELECT FROM {members} o WHERE o.connection = r.connection AND o.resource_type = r.resource_type AND o.id = r.id
    )
OFFSET 0

-- name: kept
-- Condition: rows of a type that meet a criterion, and all rows of other types.
(r.resource_type <> {resource_type} OR {criterion})

-- name: sampled
-- Patients of the selection in an order that depends only on the seed and their ids, so that a sample of 10 is part of one of 100.
SELECT id FROM (SELECT DISTINCT r.id FROM {rows} r WHERE r.resource_type = 'Patient' AND {selected}) p
ORDER BY sha256(convert_to({seed} || ' ' || p.id, 'UTF8')) LIMIT {patients}

-- name: not_stored
-- How many of these patients have no Patient among the rows, and how many they are.
SELECT count(*) FILTER (WHERE p.id NOT IN (SELECT r.id FROM {rows} r WHERE r.resource_type = 'Patient' AND {selected})), count(*)
FROM (SELECT DISTINCT unnest({patients}::text[]) AS id) p

-- name: changed
-- Condition: what one of these runs wrote.
r.last_changed_run = ANY({since}::bigint[])

-- name: changed_or_joined
-- Condition: rows that one of these runs wrote, or assigned to these patients too. If a later run has withdrawn that, an unchanged row is
-- exported needlessly, which does no harm.
(
    r.last_changed_run = ANY({since}::bigint[])
    OR (r.connection, r.resource_type, r.id) IN (
        SELECT connection, resource_type, id FROM member
        WHERE from_run = ANY({since}::bigint[]) AND patient_id = ANY({patients}::text[])
        UNION ALL
        SELECT connection, resource_type, id FROM member_history
        WHERE from_run = ANY({since}::bigint[]) AND patient_id = ANY({patients}::text[])
    )
)

-- name: by_hash
-- Find the patients of rows without sorting the rows: 15 % less CPU for a million rows.
SELECT set_config('enable_sort', 'off', true)

-- name: patients_of_rows
-- The patients whose rows of these types the selection has, for the audit.
SELECT DISTINCT r.connection, r.patient_id FROM {rows} r
WHERE r.resource_type = ANY({types}::text[]) AND r.patient_id IS NOT NULL AND {selected}

-- name: members_of_rows
-- The other patients of those rows, for the audit.
SELECT m.connection, m.patient_id FROM {members} m
WHERE m.resource_type = ANY({types}::text[]) AND EXISTS (
    SELECT FROM {rows} r
    WHERE r.resource_type = m.resource_type AND r.connection = m.connection AND r.id = m.id AND {selected}
)

-- name: source_of_connection
-- Live resources of a type and connection, as something to select from.
(
    SELECT {name}::text AS connection, r.id, {body} AS body FROM {rows} r
    WHERE r.resource_type = {resource_type} AND r.connection = {connection} AND {selected} {of_stretch} {once}
)

-- name: of_stretch
-- Condition: the rows whose ids a session reads now, by the primary key; otherwise all. The planner knows the ids like literals.
AND r.id >= current_setting('app.from_id') AND r.id < current_setting('app.before_id')

-- name: cuts
-- Ids that divide a type's rows into stretches of about equal size, sampled from some of its blocks. Nothing else depends on which ids they
-- are. Only these leave Postgres: a fiftieth of all ids takes 150 MB of Python memory for 50 million rows.
SELECT s.id FROM (
    SELECT r.id, row_number() OVER (ORDER BY r.id) - 1 AS before FROM resource r TABLESAMPLE SYSTEM ({percent})
    WHERE r.resource_type = {resource_type} AND r.connection = {connection}
) s WHERE s.before > 0 AND mod(s.before, {step}) = 0 ORDER BY s.id

-- name: by_key
-- Read a stretch of ids in the order of the primary key, whose index has it: sorting bodies would go through the disk. Or read all of them.
SELECT set_config('enable_sort', %(sort)s, true), set_config('app.from_id', %(from_id)s, true),
    set_config('app.before_id', %(before_id)s, true)

-- name: ndjson
-- Live resources of a type and connection.
SELECT {key} r.body FROM {rows} r WHERE r.resource_type = {resource_type} AND r.connection = {connection} AND {selected} {of_stretch}
ORDER BY r.id

-- name: row_key
-- The id before the JSON: an encrypted value belongs to it.
r.id,

-- name: entries
-- The same as entries of a Bundle: each with its URL below the EHR's base, if that is known (R4, Bundle.entry.fullUrl).
SELECT {key} CASE WHEN {base} = '' THEN '{{}}' ELSE jsonb_build_object('fullUrl', {base} || '/' || r.resource_type || '/' || r.id) END
    || jsonb_build_object('resource', r.body)
FROM {rows} r WHERE r.resource_type = {resource_type} AND r.connection = {connection} AND {selected} {of_stretch} ORDER BY r.id

-- name: first_rows
-- The first rows of a query that has an order and no LIMIT.
{query} LIMIT {rows}

-- name: described
-- A query's columns, and none of its rows.
SELECT * FROM ({query}) q LIMIT 0

-- name: copy_json
-- The one column of a query, jsonb. In binary it is a version byte and the text that ::text gives.
COPY ({query}) TO STDOUT (FORMAT binary)

-- name: copy_csv
-- The rows of a query as CSV.
COPY ({query}) TO STDOUT (FORMAT csv, HEADER {header})
