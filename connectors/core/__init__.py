"""What every source shares: a run's units, the bounded pipeline into the store, endings and errors."""
