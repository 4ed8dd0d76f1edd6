"""publishing owns datasets that others follow: Bulk Publish manifests, the chain of increments, and their check."""
