"""Which patients somebody means: ids and MRNs of a file, members of a Group."""
