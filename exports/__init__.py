"""exports own handing data to people: views, NDJSON, CSV, manifests. They never touch an EHR and cannot write resources."""
