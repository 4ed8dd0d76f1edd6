"""snapshots owns the Postgres store: runs, the ledger of units, resources, history. It knows neither EHRs nor file formats."""
