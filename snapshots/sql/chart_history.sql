-- name: chart_history
-- What each ended run did to a patient's chart, by type: how many rows it added, changed and deleted. The chart is every row that in any
-- version was filed under the patient's id or named the patient among others. Runs before the kept history are omitted.
WITH c AS (
    SELECT id, history_from FROM connection WHERE name = %(connection)s
), chart AS (
    SELECT r.resource_type, r.id FROM resource r, c WHERE r.connection = c.id AND r.patient_id = %(patient)s
    UNION SELECT h.resource_type, h.id FROM resource_history h, c WHERE h.connection = c.id AND h.patient_id = %(patient)s
    UNION SELECT m.resource_type, m.id FROM member m, c WHERE m.connection = c.id AND m.patient_id = %(patient)s
    UNION SELECT m.resource_type, m.id FROM member_history m, c WHERE m.connection = c.id AND m.patient_id = %(patient)s
), versions AS (
    SELECT r.resource_type, r.id, r.last_changed_run AS run, r.first_run, r.deleted_run FROM chart k, c
    CROSS JOIN LATERAL (
        SELECT * FROM resource WHERE resource_type = k.resource_type AND connection = c.id AND id = k.id OFFSET 0
    ) r
    UNION ALL
    SELECT h.resource_type, h.id, h.from_run, NULL, h.deleted_run FROM chart k, c
    CROSS JOIN LATERAL (
        SELECT * FROM resource_history WHERE resource_type = k.resource_type AND connection = c.id AND id = k.id OFFSET 0
    ) h
), events AS (
    SELECT v.run, v.resource_type, v.run = max(v.first_run) OVER (PARTITION BY v.resource_type, v.id) AS is_first, false AS deleted
    FROM versions v
    UNION ALL SELECT deleted_run, resource_type, false, true FROM versions WHERE deleted_run IS NOT NULL
)
SELECT e.run, run.started_at, e.resource_type, count(*) FILTER (WHERE is_first)::int,
    count(*) FILTER (WHERE NOT is_first AND NOT deleted)::int, count(*) FILTER (WHERE deleted)::int
FROM events e JOIN run ON run.id = e.run AND run.finished_at IS NOT NULL JOIN c ON e.run >= coalesce(c.history_from, 0)
GROUP BY 1, 2, 3 ORDER BY 1, 3

-- name: kept_from
-- The first run that the connection's history is kept from.
SELECT history_from FROM connection WHERE name = %(connection)s
