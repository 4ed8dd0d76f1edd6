"""warehouse owns loading views into tables of another Postgres: whole, or what has changed."""
