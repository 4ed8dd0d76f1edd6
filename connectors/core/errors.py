"""The errors of connectors, and nothing else.

    ConnectorError
    ├── PlanError                 the request cannot be planned: no cohort, a mode that this server does not offer
    ├── DiscoveryError            the server does not say what is needed to log in
    ├── AuthError                 the token endpoint refused us, or the EHR refused a new token
    ├── FetchError                one request finally failed
    │   ├── TransientFetchError   worth trying again later; all tries are used up
    │   │   ├── BudgetExhaustedError   the connection's retry budget is empty
    │   │   ├── EhrDownError           not sent: too many calls before this one got no answer
    │   │   └── QuietHoursError        not sent: the configuration forbids requests at this hour
    │   ├── TerminalFetchError    the server's answer will not change: 400, 403, 404, …
    │   │   └── ExportRefusedError     a kick-off was refused because of its request; no job has begun
    │   └── ProtocolError         an answer that the specification does not allow
    └── UnsafeLinkError           a link or redirect that the token or the request must not follow

`transport.retry_table` decides whether an error is worth another try; the error's type says so. Messages name the
request by its template: never a query value, an id, a token or a body.
"""

from __future__ import annotations


class ConnectorError(Exception):
    """The base of all errors of connectors."""


class PlanError(ConnectorError):
    """The request cannot be planned; the message says what is missing and how to give it."""


class DiscoveryError(ConnectorError):
    """The server does not say what is needed to log in; the message says which setting overrides it."""


class AuthError(ConnectorError):
    """The token endpoint refused the client, or the EHR refused a new token.

    `code` is the OAuth error ("invalid_client"), where the server gave one.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class FetchError(ConnectorError):
    """One request finally failed.

    `status` is the HTTP status (None: no answer came), `codes` an OperationOutcome's issue codes: FHIR issue types and
    vendor codes such as Epic's "4113", never free text, which may carry PHI.
    """

    def __init__(self, message: str, *, status: int | None = None, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class TransientFetchError(FetchError):
    """Worth trying again later; all tries are used up."""


class BudgetExhaustedError(TransientFetchError):
    """The connection's retry budget is empty: no storm, the unit becomes a hole."""


class EhrDownError(TransientFetchError):
    """Not sent: too many calls before this one got no answer; the message says until when."""


class QuietHoursError(TransientFetchError):
    """Not sent: the configuration forbids requests at this hour, and for longer than the run may wait."""


class TerminalFetchError(FetchError):
    """Another try will not change the server's answer."""


class ExportRefusedError(TerminalFetchError):
    """A kick-off was refused because of its request: no job has begun, and another level may be accepted.

    `named` are parameters of ours that the answer's text names.
    """

    def __init__(
        self, message: str, *, status: int | None = None, codes: tuple[str, ...] = (), named: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, status=status, codes=codes)
        self.named = named


class ProtocolError(FetchError):
    """An answer that the specification does not allow."""


class UnsafeLinkError(ConnectorError):
    """A link or redirect that the token or the request must not follow."""
