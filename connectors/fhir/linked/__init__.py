"""What resources link to: references that are followed, documents that are fetched."""
