"""cli turns command lines into calls of use cases, and outcomes into exit codes; only cli builds objects."""
