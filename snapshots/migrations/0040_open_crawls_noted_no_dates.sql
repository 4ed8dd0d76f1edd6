-- A crawl that was open when `notes_dates` came looked at no dates: if it is resumed with `changes.incremental` switched on, its watermark is
-- the clock's all the same. So the next crawl is a full one.
UPDATE run SET notes_dates = false WHERE finished_at IS NULL;
