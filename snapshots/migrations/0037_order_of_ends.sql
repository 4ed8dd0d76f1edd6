-- In which order the tenant's runs ended. What had ended when a run had ended is no question of times: clocks are set back, and those of
-- two machines differ.
ALTER TABLE run ADD COLUMN end_order bigint;
-- Of runs of before, only the times are known; of one connection, they ended in the order of their numbers.
UPDATE run SET end_order = o.end_order FROM (
    SELECT e.id, row_number() OVER (ORDER BY e.at, e.id) AS end_order FROM (
        SELECT id, min(finished_at) OVER (PARTITION BY connection ORDER BY id DESC) AS at FROM run WHERE finished_at IS NOT NULL
    ) e
) o WHERE o.id = run.id;
CREATE UNIQUE INDEX run_end_order ON run (end_order);
