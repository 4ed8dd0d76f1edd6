"""Whole runs through random faults and kills, chosen by a seed: whatever happened, the store ends as exactly the source."""
