"""synthetic owns made-up patients and their clinical history: seeded, valid R4, no real person."""
