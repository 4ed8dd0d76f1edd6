"""The small shapes of references to other resources and of attached documents.

Standard library only. `connectors.fhir.linked` chooses what to follow and fetch; `references` and
`attachments` remember it.
"""

from __future__ import annotations

from typing import NamedTuple


class ReferencePath(NamedTuple):
    """Where resources of one type refer to others: a jsonpath to the reference's text, and the wanted types."""

    source: str
    path: str  # "$.result.reference"; lax, so that a single element counts as a list
    targets: tuple[str, ...]


class ReferenceTarget(NamedTuple):
    """What a reference leads to on the EHR's own FHIR base."""

    resource_type: str
    id: str
    patient_id: str | None = None  # the patient of a chart that mentions it


class AttachmentUse(NamedTuple):
    """One place where a document is attached: the n-th attachment of a resource, as the resource describes it."""

    resource_type: str
    resource_id: str
    place: int
    patient_id: str | None
    content_type: str | None
    url: str | None
    inline: bool
    size: int | None  # as claimed, bytes
    hash: str | None  # as claimed, base64 of SHA-1


class Document(NamedTuple):
    """The result of one attachment. `content` is set if it was fetched; `text` if it could be read."""

    resource_type: str
    resource_id: str
    place: int
    state: str  # "stored" | "missing" | "restricted" | "foreign" | "unwanted" | "too-large" | "empty"
    note: str | None = None  # no PHI
    content: bytes | None = None
    content_type: str = ""
    text: str | None = None
    unread: str | None = None  # why there is no text


class Attached(NamedTuple):
    """One document that a resource has attached, as the resource describes it."""

    place: int  # from 0, as in content[0], presentedForm[0]
    content_type: str | None
    url: str | None
    inline: bool  # it is inline in the resource
    size: int | None  # as claimed, bytes
    hash: str | None  # as claimed, base64 of SHA-1
