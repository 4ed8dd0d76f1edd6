"""A receiver: a server to which published datasets are submitted (Bulk Submit), as written in the configuration.

It is declared like a connection, with its own login. `connectors.fhir.submit` talks to it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from config.fhir_server import FhirServer, secret_ref
from config.secret_refs import SecretRef
from config.urls import is_served, parts_of

SUBMITTER_RULE = (
    'must be "SYSTEM|VALUE", the identifier by which the receiver knows us, such as '
    '"urn:oid:2.16.840.1.113883.4.6|1234567893"'
)


def _submitter(text: str) -> str:
    system, bar, value = text.partition("|")
    if not bar or not system.strip() or not value.strip() or "|" in value:
        raise ValueError(SUBMITTER_RULE)
    return text


def _url(value: str) -> str:
    if not is_served(value) or parts_of(value).username:
        raise ValueError("must be an absolute http or https URL")
    return value


class Receiver(FhirServer):
    """One receiver of datasets. Frozen; refuses unknown keys."""

    table: ClassVar[str] = "receivers"

    submitter: Annotated[str, AfterValidator(_submitter)]
    # how it can fetch our files, if these are behind a login
    oauth_metadata_url: Annotated[str, AfterValidator(_url)] | None = None
    file_request_headers: dict[str, Annotated[SecretRef, BeforeValidator(secret_ref)]] = Field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, SecretRef]:
        """Its secret references, by key: of its login, and of the headers with which it asks for our files."""
        headers = {f"file_request_headers.{name}": ref for name, ref in self.file_request_headers.items()}
        return {**super().secrets, **headers}
