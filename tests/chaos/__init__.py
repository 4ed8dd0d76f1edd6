"""Whole runs through random bad weather, chosen by a seed: whatever happened, the store ends as exactly the source."""
