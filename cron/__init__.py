"""cron owns schedules as data and the launcher of one scheduled command; every line is a plain CLI call."""
