"""One resource of the EHR in memory: what it is, whose it is, and what it looks like in an answer.

Rows are made anew at each change, so that a look at them stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.histories import steps as s

Key = tuple[str, str]
CONTENTS: Mapping[str, Mapping[str, str]] = {"first": {}, "second": {"language": "de"}, "third": {"language": "fr"}}
ELEMENTS = ("subject",)  # that exports in part are asked for


@dataclass(frozen=True)
class Row:
    """One resource as it now is."""

    type: str
    id: str
    patient: str | None
    at: datetime  # as its date says
    version: int = 1
    shown: bool = True
    withheld: bool = False
    device: str | None = None
    link: tuple[str, str] | None = None  # of a Patient: (type, other)
    uses: int = 1  # of the id, one after another
    also: str | None = None  # another patient whose compartment it is in
    category: str = "a"

    @property
    def key(self) -> Key:
        return self.type, self.id

    @property
    def patients(self) -> tuple[str, ...]:
        """In whose compartments it is."""
        return tuple(one for one in (self.patient, self.also) if one is not None)

    def body(self, *, dated: bool = True) -> dict[str, Any]:
        """The resource; a version is also a content."""
        found: dict[str, Any] = {"resourceType": self.type, "id": self.id}
        if dated:
            found["meta"] = {"versionId": str(self.version), "lastUpdated": fhir_instant(self.at)}
        if self.type == s.PATIENT:
            found |= {"active": self.link is None or self.link[0] != "replaced-by", "name": [{"family": self._text}]}
            if self.link is not None:
                other = {"reference": f"Patient/{self.link[1]}"}
                found["link"] = [{"other": other, "type": self.link[0]}]
            return found
        if self.type == s.ORGANIZATION:
            return {**found, "name": self._text}
        if self.type != s.DEVICE:
            found |= {"code": {"text": self._text}}
        if self.type == s.OBSERVATION:
            found |= {"status": "final", "category": [{"coding": [{"code": self.category}]}]}
        if self.also is not None:
            other = {"reference": f"Patient/{self.also}"}
            found |= {"performer": [other]} if self.type == s.OBSERVATION else {"asserter": other}
        if self.patient is not None:
            found |= {"subject": {"reference": f"Patient/{self.patient}"}}
        if self.device is not None:
            found |= {"device": {"reference": f"Device/{self.device}"}}
        return found

    @property
    def _text(self) -> str:
        return f"{self.id} v{self.version}" + (f" use {self.uses}" if self.uses > 1 else "")


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body without what its contents of one version differ in (`Site.told_twice`)."""
    return {name: value for name, value in body.items() if name != "language"}


def fhir_instant(at: datetime) -> str:
    """A FHIR instant."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def in_part(body: Mapping[str, Any]) -> dict[str, Any]:
    """The elements that an export is asked for, and those that each resource has; tagged where there is a meta."""
    found = {name: value for name, value in body.items() if name in {"resourceType", "id", "meta", *ELEMENTS}}
    if "meta" in found:
        found["meta"] = {**found["meta"], "tag": [{"code": "SUBSETTED"}]}
    return found


def matches(pattern: str, key: Key) -> bool:
    """Whether "Type/id", with * at the end, names the row."""
    name = f"{key[0]}/{key[1]}"
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def same(left: Mapping[Key, Any], right: Mapping[Key, Any]) -> dict[Key, Any]:
    """What both have alike."""
    return {key: body for key, body in left.items() if right.get(key) == body}
