"""compiler turns a SQL on FHIR ViewDefinition into one Postgres query: parse, typed tree, SQL."""
