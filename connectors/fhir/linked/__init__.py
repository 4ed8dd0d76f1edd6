"""What resources lead to: references that are followed, documents that are fetched."""
