"""Prints a proof for people: a table and its verdict. `render` makes its JSON, as it does for reports.

`connectors.fhir.prove.prove` decides what it contains. If not everything could be asked, the verdict itself says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.render import print_line, print_table
from config.how_many import how_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snapshots.proof import Certificate, Finding, TypeProof

_IN_WORDS = {
    "equal": "proved equal",
    "more": "nothing is missing; the store holds more than the EHR still has",
    "fewer": "NOT equal: the store holds fewer than the EHR",
    "unanswered": "NOT proved: some questions were not answered",
    "not asked": "nothing could be compared",
}
_GRAVEST_FIRST = ("fewer", "unanswered", "more", "not asked", "equal")
_NAMED_TYPES = 8  # types named in the verdict's line


def print_certificate(certificate: Certificate, *, most: int = 20, every: bool = False) -> None:
    """Print a proof: a line for each type with differences (with `every`, for all types), then what was not equal."""
    silent = [] if every else [one for one in certificate.types if not _has_finding(one)]
    answered = [one for one in certificate.types if one not in silent]

    if answered:
        print_table(
        ("type", "how", "equal#", "more#", "fewer#", "cannot be asked#", "unanswered#", "at the EHR#", "stored#", "missing#"),
        [
            (one.resource_type, f"by {one.method}" if one.method else "", one.equal, one.more, one.fewer, one.not_asked,
             one.unanswered, one.at_ehr, one.stored, one.missing)
            for one in answered
        ],
        )  # fmt: skip
    if silent:
        print_line(_in_one_line(silent))
    shown = sorted(certificate.findings, key=lambda one: _GRAVEST_FIRST.index(one.verdict))
    if not every:
        for line in _unanswerable(shown):
            print_line(line)
        shown = [finding for finding in shown if finding.verdict != "not asked"]
    for finding in shown if every else shown[:most]:
        verdict = "cannot be asked" if finding.verdict == "not asked" else finding.verdict
        print_line(f"{verdict:17}{finding.resource_type}, {finding.scope}: {finding.reason}")
    hidden = certificate.findings_unnamed + (0 if every else max(0, len(shown) - most))
    if hidden:
        print_line(
            f"and {how_many(hidden, 'more finding')}: `chartferry runs {certificate.run}` lists those that were kept"
        )
    for note in certificate.notes:
        print_line(f"{'note':17}{note}")
    scope = (
        f"all {how_many(certificate.of_patients, 'patient')}"
        if certificate.seed is None and certificate.patients == certificate.of_patients
        else f"{certificate.patients:,} of {how_many(certificate.of_patients, 'patient')}"
        + ("" if certificate.seed is None else f" (seed {certificate.seed})")
    )
    print_line(
        f"{in_words(certificate)}: {certificate.connection}, run {certificate.run}, {scope}, asked "
        f"{certificate.at:%Y-%m-%d %H:%M} UTC, {how_many(certificate.requests, 'request')} in {certificate.seconds:.1f} s"
    )


def _has_finding(one: TypeProof) -> bool:
    return bool(one.fewer or one.more or one.unanswered or one.missing)


def _in_one_line(types: Sequence[TypeProof]) -> str:
    """Return one line about the types that are equal as far as they could be asked."""
    equal = [one for one in types if one.equal]
    resources = sum(one.stored for one in equal)
    text = f"{'equal':17}{how_many(len(equal), 'type')}, {how_many(resources, 'resource')}"
    return (
        f"{text} (--all asks about every patient, and shows every type)"
        if equal
        else "nothing could be asked (--all shows every type)"
    )


def _unanswerable(findings: Sequence[Finding]) -> list[str]:
    """Return one line per reason: which types could not be asked."""
    by_reason: dict[str, dict[str, None]] = {}
    for finding in findings:
        if finding.verdict == "not asked":
            by_reason.setdefault(finding.reason, {})[finding.resource_type] = None
    return [
        f"{'cannot be asked':17}{', '.join(list(types)[:_NAMED_TYPES])}"
        + (f", … {len(types) - _NAMED_TYPES} more types" if len(types) > _NAMED_TYPES else "")
        + f": {reason}"
        for reason, types in by_reason.items()
    ]


def in_words(certificate: Certificate) -> str:
    """Return the verdict, with what it does not cover."""
    verdict = certificate.verdict
    partly = [one for one in certificate.types if one.not_asked]
    if verdict not in ("equal", "more") or not partly:
        return _IN_WORDS[verdict]
    left_out = [
        f"{one.not_asked:,} of {one.equal + one.more + one.fewer + one.not_asked + one.unanswered:,} questions of "
        f"{one.resource_type}"
        for one in partly[:_NAMED_TYPES]
    ]
    rest = sum(one.not_asked for one in partly[_NAMED_TYPES:])
    if rest:
        left_out.append(f"{rest:,} of other types")
    text = "equal" if verdict == "equal" else _IN_WORDS["more"]
    return f"{text} as far as could be asked ({', '.join(left_out)} could not)"
