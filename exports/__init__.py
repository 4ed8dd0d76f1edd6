"""exports owns the files for analysts: views, NDJSON, CSV, manifests. It never contacts an EHR and cannot write resources."""
