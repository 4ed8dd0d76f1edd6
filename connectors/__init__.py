"""connectors owns getting data out of an EHR; the caller passes in a store, which decides what happens to the records."""
