"""Merged patients, and the charts to which a resource belongs."""
