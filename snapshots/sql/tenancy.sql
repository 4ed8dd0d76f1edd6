-- name: bind
-- Bind the transaction to a tenant: unqualified names are its own; app.current_tenant_id is for row-level security.
SELECT set_config('search_path', %(search_path)s, true), set_config('app.current_tenant_id', %(tenant)s, true)
