"""vendors hold what each EHR really does, as data: one profile a file, each value with its evidence."""
