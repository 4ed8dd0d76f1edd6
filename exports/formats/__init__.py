"""formats own how rows become bytes: NDJSON and CSV."""
