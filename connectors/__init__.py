"""connectors own how to get data out of an EHR; what happens to the records is left to whoever passes a store in."""
