"""queries owns SQLQuery and SQLView libraries of SQL on FHIR: read, checked, and compiled to one statement over views."""
