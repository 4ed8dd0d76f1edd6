"""What every source shares: a run's units, the bounded way of what they bring into the store, endings and errors."""
