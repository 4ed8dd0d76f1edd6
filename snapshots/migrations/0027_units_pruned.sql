-- What the run asked for, and how that ended, was kept long enough and is deleted: nobody can say any more which holes it had.
ALTER TABLE run ADD COLUMN units_pruned boolean NOT NULL DEFAULT false;
