-- Bulk export jobs: what must survive a crash. A row without a status URL is a kick-off whose answer is not known: a job may run
-- at the server that nobody can find.
ALTER TABLE bulk_job
    ALTER COLUMN status_url DROP NOT NULL,
    ADD COLUMN asked jsonb NOT NULL DEFAULT '{}',  -- what the files prove and do not prove, as it was kicked off
    ADD COLUMN progress text,
    ADD COLUMN next_poll_at timestamptz,
    ADD COLUMN expires_at timestamptz,  -- the manifest's links, and maybe the files, are gone after this
    ADD COLUMN pages text[] NOT NULL DEFAULT '{}';  -- URLs of the manifest's pages whose files are units

-- How far a file has been read and stored, where its server lets us go on within it.
ALTER TABLE unit ADD COLUMN reached jsonb;
