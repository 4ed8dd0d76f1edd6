-- What SQL needs of a unit are columns, its key is opaque, and what was asked of an export is told by one too.

ALTER TABLE unit
    ADD COLUMN template text NOT NULL DEFAULT '',
    ADD COLUMN split text NOT NULL DEFAULT '',
    ADD COLUMN incremental boolean NOT NULL DEFAULT false,  -- it asks for news only
    ADD COLUMN since text,  -- from when, where the unit says so itself
    ADD COLUMN ids text[] COLLATE "C" NOT NULL DEFAULT '{}',  -- the resources that it asks for by id
    ADD COLUMN of_chart text COLLATE "C",  -- the patient whose chart mentions what it asks for
    ADD COLUMN page integer;  -- of the manifest that lists the file

UPDATE unit SET
    template = coalesce(detail ->> 'template', ''),
    split = coalesce(detail ->> 'split', ''),
    incremental = coalesce(detail -> 'incremental' = 'true', false),
    since = detail ->> 'since',
    ids = CASE jsonb_typeof(detail -> 'ids') WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(detail -> 'ids'))
        ELSE CASE WHEN detail ->> 'id' IS NULL THEN '{}' ELSE ARRAY[detail ->> 'id'] END END,
    of_chart = detail ->> 'patient',
    page = CASE WHEN kind IN ('file', 'deleted-file', 'error-file') AND key LIKE '%:%:%:%' THEN split_part(key, ':', 3)::integer END,
    -- the incremental files of an earlier version say what they prove by that alone
    detail = CASE WHEN kind IN ('file', 'no-file', 'deleted-file', 'error-file') THEN
        jsonb_build_object('lists_all', NOT coalesce(detail -> 'incremental' = 'true', false), 'list', split_part(key, ':', 2),
            'position', CASE WHEN key LIKE '%:%:%:%' THEN split_part(key, ':', 4)::integer ELSE 0 END)
        ELSE '{}'::jsonb END || (detail - '{template,split,incremental,since,ids,id,patient}'::text[]),
    key = left(encode(sha256(convert_to(key, 'UTF8')), 'hex'), 32);
UPDATE quarantine SET unit_key = left(encode(sha256(convert_to(unit_key, 'UTF8')), 'hex'), 32) WHERE unit_key IS NOT NULL;

ALTER TABLE attachment_use ADD COLUMN asked_run bigint;  -- the newest run that asked for it by its URL
UPDATE attachment_use a SET asked_run = u.run FROM unit u JOIN run r ON r.id = u.run
WHERE r.finished_at IS NULL AND u.kind = 'attachment' AND a.connection = r.connection AND a.resource_type = u.resource_type
    AND a.resource_id = u.ids[1] AND a.place = (u.detail ->> 'place')::integer;

ALTER TABLE bulk_job ADD COLUMN elements boolean NOT NULL DEFAULT false;  -- asked for with `_elements`: its files are not whole
UPDATE bulk_job SET elements = coalesce(asked -> 'elements' = 'true', false);
