-- How long a run lay dead before it was resumed or given up: that is no time at work.

ALTER TABLE run
    ADD COLUMN idle interval NOT NULL DEFAULT '0',
    ADD COLUMN resumed_at timestamptz;

-- The last instant that is known of each run: when it did something that is stored.
CREATE VIEW last_known (run, at) AS
SELECT r.id, greatest(
    r.started_at, r.resumed_at,
    (SELECT max(u.ended_at) FROM unit u WHERE u.run = r.id),
    (SELECT max(b.kicked_off_at) FROM bulk_job b WHERE b.run = r.id),
    (SELECT max(p.saved_at) FROM pace p WHERE p.connection = r.connection
        AND NOT EXISTS (SELECT FROM run later WHERE later.connection = r.connection AND later.id > r.id))
)
FROM run r;
