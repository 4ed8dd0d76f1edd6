"""The errors that every source shares, and what each costs; a source's own errors extend them (`connectors.fhir.errors`).

    ConnectorError
    ├── PlanError               the request cannot be planned; nothing was fetched
    ├── AuthError               the source does not let this client have what it requested
    │   └── LoginRefusedError   it does not let the client in at all
    └── FetchError              something could not be fetched: costs its own unit, which becomes a hole

Any other error of a connector stops the run. Committed data stay. Messages say what was tried, what was found and what to do
next, and never contain patient data, an id or a secret.
"""

from __future__ import annotations


class ConnectorError(Exception):
    """The base of all errors of connectors."""


class PlanError(ConnectorError):
    """The request cannot be planned; the message says what is missing and how to give it."""


class AuthError(ConnectorError):
    """The source does not let this client have what it requested."""


class LoginRefusedError(AuthError):
    """The login itself was refused, before anything was requested."""


class FetchError(ConnectorError):
    """Something could not be fetched; its unit is a hole, and the others continue."""
