"""FHIR R4 over HTTP: how to query an EHR, by search or bulk export, and what its answers mean."""
