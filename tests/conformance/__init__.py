"""conformance runs the official SQL on FHIR tests and writes their report."""
