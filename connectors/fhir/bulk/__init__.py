"""bulk owns FHIR Bulk Data export: kick-off, polling, the manifest, and files of NDJSON."""
