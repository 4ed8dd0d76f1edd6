"""The errors of FHIR over HTTP, as a part of the tree of `connectors.core.errors`, whose bases say what each costs a run.

    ConnectorError
    ├── PlanError
    ├── DiscoveryError                   the server does not say what is needed to log in
    ├── AuthError                        the EHR refused a new token
    │   └── LoginRefusedError
    │       └── TokenRefusedError        the token endpoint refused the client
    │           └── ScopesRefusedError   it refused the scopes, not the client
    └── FetchError
        ├── UnsafeLinkError              a link or redirect that the token or the request must not follow
        └── RequestError                 one request finally failed
            ├── TransientFetchError      worth trying again later; all tries are used up
            │   ├── BudgetExhaustedError    the connection's retry budget is empty
            │   ├── EhrDownError            not sent: too many calls before this one got no answer
            │   └── QuietHoursError         not sent: the configuration forbids requests at this hour
            ├── TerminalFetchError       the server's answer will not change: 400, 403, 404, …
            │   ├── UntrustedServerError    its certificate is not trusted, has expired or is for another host
            │   ├── ExportRefusedError      a kick-off was refused because of its request; no job has begun
            │   │   └── UntraceableExportError  it was accepted, but says nowhere where to follow the job
            │   └── SubmissionError         a receiver refused a submission, or gave it up
            └── ProtocolError            an answer that the specification does not allow

`transport.retry_table` decides whether an error is worth another try; the error's type says so. Messages name the
request by its template: never a query value, an id, a token or a body.
"""

from __future__ import annotations

from typing import Literal

from connectors.core.errors import ConnectorError, FetchError, LoginRefusedError

# who wrote an answer that was not accepted: the EHR (an OperationOutcome), nobody's (no body), a web page's, another's
Speaker = Literal["ehr", "nobody", "page", "other"]
NOT_THE_EHRS: frozenset[Speaker] = frozenset({"page", "other"})


class DiscoveryError(ConnectorError):
    """The server does not say what is needed to log in; the message says which setting overrides it."""


class TokenRefusedError(LoginRefusedError):
    """The token endpoint refused the client. `code` is the OAuth error ("invalid_client"), where the server gave one."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ScopesRefusedError(TokenRefusedError):
    """The token endpoint refused the scopes that were requested; it may grant fewer."""


class UnsafeLinkError(FetchError):
    """A link or redirect that the token or the request must not follow."""


class RequestError(FetchError):
    """One request finally failed.

    `status` is the HTTP status (None: no answer came), `codes` an OperationOutcome's issue codes: FHIR issue types and vendor
    codes such as Epic's "4113", never free text, which may contain PHI. `speaker` is who answered. `led_to` is the address that
    answered, if a redirect led away from the requested one; it is PHI and stands in no message.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        codes: tuple[str, ...] = (),
        speaker: Speaker = "other",
        led_to: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes
        self.speaker = speaker
        self.led_to = led_to

    @property
    def answer(self) -> str:
        """What came, in short: the status; where none was usable (damaged, packed otherwise, no connection), the message."""
        return f"HTTP {self.status}" if self.status is not None else str(self)


class TransientFetchError(RequestError):
    """Worth trying again later; all tries are used up."""


class BudgetExhaustedError(TransientFetchError):
    """The connection's retry budget is empty: no storm, the unit becomes a hole."""


class EhrDownError(TransientFetchError):
    """Not sent: too many calls before this one got no answer; the message says until when."""


class QuietHoursError(TransientFetchError):
    """Not sent: the configuration forbids requests at this hour, and for longer than the run may wait."""


class TerminalFetchError(RequestError):
    """Another try will not change the server's answer."""


class UntrustedServerError(TerminalFetchError):
    """The server's certificate is not trusted, has expired, or is for another host: nothing was sent."""


class ExportRefusedError(TerminalFetchError):
    """A kick-off was refused because of its request: no job has begun, and another level may be accepted.

    `named` are parameters of ours that the answer's text names.
    """

    def __init__(
        self, message: str, *, status: int | None = None, codes: tuple[str, ...] = (), named: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, status=status, codes=codes)
        self.named = named


class UntraceableExportError(ExportRefusedError):
    """A kick-off was accepted without a status URL: a job that nobody can follow may have started.

    Another level may name one.
    """


class SubmissionError(TerminalFetchError):
    """A receiver refused a submission, or gave it up."""


class ProtocolError(RequestError):
    """An answer that the specification does not allow."""
