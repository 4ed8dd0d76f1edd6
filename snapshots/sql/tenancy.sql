-- name: repeatable_read
-- Let every statement of this transaction see the moment of the first.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: moment
-- Let it see what an open transaction sees that exported its moment. Nothing may be asked before this.
SET TRANSACTION SNAPSHOT {moment}

-- name: bind
-- Bind the transaction to a tenant and an actor: unqualified names are the tenant's own; policies and triggers may read app.*.
SELECT set_config('role', %(role)s, true), set_config('search_path', %(search_path)s, true),
    set_config('app.current_tenant_id', %(tenant)s, true),
    set_config('app.current_user_id', %(user)s, true), set_config('app.current_user_roles', %(roles)s, true)
