-- name: server_version
-- The server's version as one number: 150004 for 15.4.
SELECT current_setting('server_version_num')::int
