"""Whom a run is for: cohorts, Groups, merges, and whose chart a resource lies in."""
