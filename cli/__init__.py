"""cli turns words into use cases and outcomes into exit codes; the only place that builds objects."""
