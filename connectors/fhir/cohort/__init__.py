"""The patients that a run is for: ids and MRNs in a file, members of a Group."""
