"""auth owns SMART backend-services login: discovery, the signed assertion, tokens.

Whoever wires a connection builds an `EhrClient` without tokens and calls `login.log_in`, which asks the server where to log in
(`discovery`), makes a `TokenSource` that posts through that same client, and hands it over as `client.tokens`.
"""
