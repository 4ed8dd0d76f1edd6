"""Numbered steps of the schema, applied in order by `snapshots.migrate`."""
