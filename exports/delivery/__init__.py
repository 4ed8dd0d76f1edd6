"""delivery owns how bytes reach a place: atomic gzip files and the manifest beside them."""
