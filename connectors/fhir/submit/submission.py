"""What is sent to a receiver, and what its result says (Bulk Data Access STU 4, Bulk Submit). Pure.

A submission is named by its content, so the same one has the same name in each run and on each machine, and its status can be
requested before it is sent again. `submit` sends, waits and reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from connectors.fhir.errors import ProtocolError
from connectors.fhir.json_answers import UnreadableJsonError, count_from, json_from

SCOPE = "system/bulk-submit"
_OF_A_MANIFEST = frozenset({"transactionTime", "manifestType", "output", "outcome", "error"})


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One state of one dataset, for one receiver. Headers are secret, and not in the repr.

    `submitter` is system and value of the identifier by which the receiver knows us. `state` names what the dataset holds.
    """

    submitter: tuple[str, str]
    manifest_url: str
    fhir_base_url: str
    state: str
    oauth_metadata_url: str | None = None
    file_request_headers: Sequence[tuple[str, str]] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """Its submissionId: 32 digits, equal for equal content from the same place."""
        named = [*self.submitter, self.manifest_url, self.fhir_base_url, self.state]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]

    def status_request(self) -> bytes:
        """Return the body that asks for its status."""
        return _parameters(self._named())

    def request(self) -> bytes:
        """Return the body that submits it: one manifest, after which nothing more will come."""
        return _parameters([*self._named(), *self._sent()])

    def _named(self) -> list[dict[str, Any]]:
        system, value = self.submitter
        return [
            {"name": "submitter", "valueIdentifier": {"system": system, "value": value}},
            {"name": "submissionId", "valueString": self.id},
        ]

    def _sent(self) -> Iterator[dict[str, Any]]:
        yield {"name": "submissionStatus", "valueCode": "completed"}
        yield {"name": "manifestUrl", "valueUrl": self.manifest_url}
        yield {"name": "fhirBaseUrl", "valueUrl": self.fhir_base_url}
        if self.oauth_metadata_url is not None:
            yield {"name": "oauthMetadataUrl", "valueUrl": self.oauth_metadata_url}
        for name, value in self.file_request_headers:
            parts = [{"name": "headerName", "valueString": name}, {"name": "headerValue", "valueString": value}]
            yield {"name": "fileRequestHeader", "part": parts}


def _parameters(listed: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"resourceType": "Parameters", "parameter": listed})


class OutcomeFile(NamedTuple):
    """A file of OperationOutcomes. `lines` is how many the result says that it has; None: it does not say."""

    url: str
    lines: int | None


@dataclass(frozen=True)
class ResultPage:
    """One page of a submission's result."""

    files: tuple[OutcomeFile, ...]
    with_token: bool
    next: str | None


def result_page(body: bytes, submission_id: str) -> ResultPage:
    """Read a page of the result of a submission.

    Raises:
        ProtocolError: it is no manifest, or another submission's; what cannot be read is never taken for "nothing was refused".
    """
    try:
        document = json_from(body)
    except UnreadableJsonError:
        document = None
    if not isinstance(document, dict) or not _OF_A_MANIFEST.intersection(document):
        raise ProtocolError("the receiver's answer to the finished submission is not a manifest")
    if document.get("submissionId", submission_id) != submission_id:
        raise ProtocolError("the receiver's answer is the result of another submission")
    lists = [document.get(name, []) for name in ("outcome", "error")]  # the latter: STU 3's name
    if not all(isinstance(entries, list) for entries in lists):
        raise ProtocolError("the result's `outcome` is not a list")
    entries = [entry for listed in lists for entry in listed]
    if not all(isinstance(entry, dict) and isinstance(entry.get("url"), str) for entry in entries):
        raise ProtocolError("an entry of the result's `outcome` has no url")
    files = tuple(OutcomeFile(entry["url"], count_from(entry.get("count"))) for entry in entries)
    return ResultPage(files, document.get("requiresAccessToken") is not False, _next(document.get("link", [])))


def _next(links: Any) -> str | None:
    if not isinstance(links, list) or not all(isinstance(one, dict) for one in links):
        raise ProtocolError("the result's `link` is not a list of objects")
    following = [one.get("url") for one in links if one.get("relation") == "next"]
    if len(following) > 1 or not all(isinstance(url, str) and url for url in following):
        raise ProtocolError("the result's `link` has more than one next, or one without a url")
    return following[0] if following else None
