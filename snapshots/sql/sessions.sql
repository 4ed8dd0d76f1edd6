-- name: pin
-- The settings that this code relies on, whatever the server, the database, the role, the URL or the environment set: how dates, intervals
-- and bytes are written and read, how a transaction begins, that no session is ended while it waits for an EHR or waits without end for a lock, and that a commit is on
-- disk where the code requires it (a stricter synchronous_commit stays). jit: a plan names each type's partition, and compiling that takes
-- Debian's 15 twenty seconds of a query of one. row_security: policies filter in place of refusing each query of a walled table.
-- restrict_nonsystem_relation_kind: our views may be read; it came with minor versions of August 2024, transaction_timeout with Postgres
-- 17. Also returns the server process.
SELECT pg_backend_pid(),
    set_config('DateStyle', 'ISO, MDY', false), set_config('IntervalStyle', 'postgres', false),
    set_config('TimeZone', 'UTC', false), set_config('extra_float_digits', '1', false),
    set_config('standard_conforming_strings', 'on', false), set_config('bytea_output', 'hex', false),
    set_config('jit', 'off', false), set_config('array_nulls', 'on', false), set_config('transform_null_equals', 'off', false),
    set_config('row_security', 'on', false),
    CASE WHEN current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL
        THEN set_config('restrict_nonsystem_relation_kind', '', false) END,
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('default_transaction_read_only', 'off', false), set_config('default_transaction_deferrable', 'off', false),
    set_config('statement_timeout', '0', false), set_config('lock_timeout', '10min', false),
    set_config('idle_in_transaction_session_timeout', '0', false), set_config('idle_session_timeout', '0', false),
    CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL THEN set_config('transaction_timeout', '0', false) END,
    CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END

-- name: log_no_values
-- Keep values of patients out of the server's log, as far as this login may: errors, statements and parameters quote them. A server that
-- logs even less keeps doing so.
SELECT set_config('log_parameter_max_length_on_error', '0', false),
    CASE WHEN has_parameter_privilege('log_parameter_max_length', 'SET') THEN set_config('log_parameter_max_length', '0', false) END,
    CASE WHEN has_parameter_privilege('log_error_verbosity', 'SET') THEN set_config('log_error_verbosity', 'terse', false) END,
    CASE WHEN has_parameter_privilege('log_min_error_statement', 'SET') THEN set_config('log_min_error_statement', 'panic', false) END,
    CASE WHEN has_parameter_privilege('log_min_messages', 'SET') AND current_setting('log_min_messages') NOT IN ('fatal', 'panic')
        THEN set_config('log_min_messages', 'log', false) END

-- name: logs_values
-- The settings that let values of patients of this session into the server's log.
SELECT array_agg(name ORDER BY name) FROM (VALUES
    ('log_parameter_max_length', ARRAY['0']), ('log_error_verbosity', ARRAY['terse']), ('log_min_error_statement', ARRAY['panic']),
    ('log_min_messages', ARRAY['log', 'fatal', 'panic'])
) AS s (name, keeps_them_out)
WHERE current_setting(name) <> ALL (keeps_them_out)

-- name: discard
-- Reset a session after its user: role, settings, cursors, locks, temporary tables. As DISCARD ALL, except for prepared statements: psycopg
-- keeps a list of them, and they contain no data.
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
CLOSE ALL;
UNLISTEN *;
SELECT pg_advisory_unlock_all();
DISCARD TEMP;
DISCARD SEQUENCES

-- name: backend
-- Which of the server's processes answers this statement.
SELECT pg_backend_pid()

-- name: bound_locks
-- How long a statement waits for somebody else's lock.
SELECT set_config('lock_timeout', %(milliseconds)s, false)

-- name: holders
-- The sessions for whose locks a server process waits.
SELECT string_agg(format('session %%s of login %%s%%s', a.pid, a.usename, ', in a transaction since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS UTC')),
    '; ' ORDER BY a.pid)
FROM unnest(pg_blocking_pids(%(process)s)) b (pid) JOIN pg_stat_activity a USING (pid)

-- name: database
-- Whether the server has a database and lets this login into it. Asked in another database.
SELECT has_database_privilege(oid, 'CONNECT'), format('GRANT CONNECT ON DATABASE %%I TO %%I', datname, current_user)
FROM pg_database WHERE datname = %(database)s

-- name: create_database
-- The statement that makes a missing database.
SELECT format('CREATE DATABASE %%I OWNER %%I ENCODING ''UTF8'' TEMPLATE template0', %(database)s::text, current_user)
