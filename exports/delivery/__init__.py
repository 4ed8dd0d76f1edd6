"""delivery owns writing files: atomic gzip files and the manifest beside them."""
