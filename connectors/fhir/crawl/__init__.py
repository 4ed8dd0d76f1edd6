"""A crawl from its first unit to its last: which patients, which units, in which order."""
