"""What is asked patient by patient: the searches of a crawl, and how each ends."""
