"""FHIR R4 over HTTP: how an EHR is asked, by search or bulk export, and what its answers mean."""
