"""transport owns the wire: the one module that sends, its limits, its retries and their budget."""
