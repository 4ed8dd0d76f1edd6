"""The small shapes of what resources lead to: references to others, and the documents that they have attached.

Standard library only. Which references are followed and which documents are fetched is left to
`connectors.fhir.search`; what is remembered of them, to `references` and `attachments`.
"""

from __future__ import annotations

from typing import NamedTuple


class ReferencePath(NamedTuple):
    """Where resources of one type refer to others: a jsonpath to the reference's text, and the types that are wanted there."""

    source: str
    path: str  # "$.result.reference"; lax, so that one element and a list are the same
    targets: tuple[str, ...]


class ReferenceTarget(NamedTuple):
    """What a reference leads to on the EHR's own FHIR base."""

    resource_type: str
    id: str
    patient_id: str | None = None  # of a chart that mentions it


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
    """What became of one attachment. `content` is there where it was got; `text` where it could be read."""

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
    inline: bool  # it stands in the resource
    size: int | None  # as claimed, bytes
    hash: str | None  # as claimed, base64 of SHA-1
