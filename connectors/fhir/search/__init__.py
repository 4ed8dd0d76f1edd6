"""The searches of a crawl, patient by patient, and how each ends."""
