-- How many patients were erased of a connection, and its newest run when the last one was. Nothing says whose charts they were, so what
-- was exported before cannot be brought up to date by what has changed since: it is made anew.
ALTER TABLE connection ADD COLUMN erasures integer NOT NULL DEFAULT 0, ADD COLUMN erased_after bigint;
-- Those of before are in the audit, as far as it was kept.
UPDATE connection c SET erasures = e.patients, erased_after = (SELECT max(run.id) FROM run WHERE run.connection = c.id)
FROM (SELECT name, count(*) AS patients FROM audit_event, unnest(connections) AS name WHERE action = 'erase' GROUP BY name) e
WHERE e.name = c.name;
