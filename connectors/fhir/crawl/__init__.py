"""A crawl from its first unit to its last: whom it asks about, what is planned, in which order."""
