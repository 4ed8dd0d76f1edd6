"""snapshots owns the Postgres store: runs, the ledger of units, resources, history. It knows no EHR and no file format."""
