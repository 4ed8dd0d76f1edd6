"""formats owns how rows become bytes: NDJSON, CSV and Bundles."""
