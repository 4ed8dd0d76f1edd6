"""Reads OperationOutcomes in all the shapes that servers give them. Pure.

Only severities and codes are read, never texts: they may contain PHI. `records.grade` grades an outcome; one that could not
be read, in whole or in part, never counts as "no issue".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from connectors.fhir.issue_types import ISSUE_TYPES
from connectors.fhir.json_answers import UnreadableJsonError, json_from, objects_beside

_KIND = "OperationOutcome"
_NAMES = frozenset(
    [
        "resourceType",
        "id",
        "meta",
        "implicitRules",
        "language",
        "text",
        "contained",
        "extension",
        "modifierExtension",
        "issue",
    ]
)
_SEVERITIES = frozenset({"fatal", "error", "warning", "information", "success"})  # the last: R5
_MOST_ISSUES = 100_000
_EMPTY: tuple[Any, ...] = (None, "", 0, [], {})  # False is 0


class Issue(NamedTuple):
    """One issue of an OperationOutcome, without its texts."""

    severity: str
    code: str  # "": not stated
    vendor_codes: tuple[str, ...]


class Outcome(NamedTuple):
    """What was read: issues, and how many items beside them nobody can read, any of which may be an error."""

    issues: tuple[Issue, ...]
    unread: int = 0


class UnreadableOutcomeError(ValueError):
    """Something that is no OperationOutcome, or says nothing that can be read. The message quotes nothing."""


def outcome_from(body: bytes) -> Outcome:
    """Read the outcome that a text is.

    Raises:
        UnreadableOutcomeError: it is no JSON, or no outcome that can be read.
    """
    try:
        value = json_from(body)
    except UnreadableJsonError as error:
        raise UnreadableOutcomeError(str(error)) from None
    return outcome_of(value)


def outcome_of(value: Any) -> Outcome:
    """Read an outcome out of JSON: an OperationOutcome, with or without its type's name, a list or a Bundle of them.

    Without any issue only where there is an empty list of them. A severity that is missing or unknown counts as an error.

    Raises:
        UnreadableOutcomeError: there is no outcome, or nothing of it can be read.
    """
    issues: list[Issue] = []
    unread = 0
    outcomes, strangers = _outcomes(value)
    for outcome in outcomes:
        found = outcome.get("issue")
        listed = [found] if isinstance(found, dict) else found
        if not isinstance(listed, list):
            strangers += 1
            continue
        for item in listed[:_MOST_ISSUES]:
            issue = _issue(item) if isinstance(item, dict) else None
            if issue is None:
                unread += 1
            else:
                issues.append(issue[0])
                unread += issue[1]
        unread += max(0, len(listed) - _MOST_ISSUES) + len(objects_beside(outcome, _NAMES))
    if not outcomes or (not issues and unread + strangers):
        raise UnreadableOutcomeError("not a readable OperationOutcome")
    return Outcome(tuple(issues), unread + strangers)


def outcome_beside(value: Any) -> Outcome:
    """Read what a document has in the place of outcomes: one outcome, a list or a Bundle of them, or bare issues.

    `unread` counts what cannot be read; an empty value counts nothing.
    """
    issues: list[Issue] = []
    unread = 0
    for item in _listed(value):
        if item in _EMPTY:
            continue
        bare_issue = isinstance(item, dict) and "severity" in item and not is_outcome(item)
        try:
            found = outcome_of({"issue": [item]} if bare_issue else item)
        except UnreadableOutcomeError:
            unread += 1
        else:
            issues += found.issues
            unread += found.unread
    return Outcome(tuple(issues), unread)


def _outcomes(value: Any) -> tuple[list[dict[str, Any]], int]:
    """The outcomes of a document, and how many items are none."""
    if isinstance(value, dict):
        kind = value.get("resourceType")
        if kind == "Bundle":
            entries = value.get("entry")
            value = [one.get("resource") if isinstance(one, dict) else None for one in _listed(entries)]
        else:
            value = [value]
    if not isinstance(value, list):
        return [], 1
    found = [one for one in value if is_outcome(one)]
    return found, len(value) - len(found)


def is_outcome(value: Any) -> bool:
    """Whether it is one outcome, with or without its type's name."""
    if not isinstance(value, dict):
        return False
    kind = value.get("resourceType")
    return kind == _KIND or (kind is None and "issue" in value)


def _issue(item: dict[str, Any]) -> tuple[Issue, int]:
    """One issue, and how many of its codes nobody can read: a vendor's code may say more than the severity."""
    stated = item.get("severity")
    severity = stated.strip().lower() if isinstance(stated, str) else ""
    # a number is a vendor's, not FHIR's
    own = [None] if type(item.get("code")) is int else list(_codes(item.get("code")))
    vendor = [code for one in _listed(item.get("details")) for code in _details(one)]
    code = next(filter(None, own), "")
    issue = Issue(
        severity if severity in _SEVERITIES else "error",
        code.lower() if code.lower() in ISSUE_TYPES else code,
        tuple(filter(None, vendor)),
    )
    return issue, sum(code is None for code in (*own, *vendor))


def _details(details: Any) -> Iterator[str | None]:
    """The codes of `issue.details`; a text in its place says none."""
    if isinstance(details, dict):
        for coding in _listed(details.get("coding")):
            yield from _codes(coding) if coding is not None else (None,)
    elif not isinstance(details, str):
        yield None


def _codes(value: Any) -> Iterator[str | None]:
    """The codes of a code, Coding or CodeableConcept; None for each that cannot be read, nothing if there is none."""
    codes = [value]
    if isinstance(value, dict):
        codes = [value.get("code")]
        codes += [one.get("code") if isinstance(one, dict) else one for one in _listed(value.get("coding"))]
    for one in codes:
        if isinstance(one, str):
            yield from filter(None, (one.strip(),))
        elif one is not None:
            yield str(one) if type(one) is int else None


def _listed(value: Any) -> list[Any]:
    """A list as it is; nothing as no item; any other value as the only item."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
