"""Proofs: what the EHR counts and what the store holds, side by side. Shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ProvedRun:
    """The sync that a proof checks."""

    id: int
    started_at: datetime
    mode: str  # "bulk" | "crawl" | "auto"
    types: tuple[str, ...]  # requested by name; empty: whatever the server returns
    holes: int = 0


Verdict = Literal["equal", "more", "fewer", "not asked", "unanswered"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One question of a proof whose answer was not "equal". `scope` never contains unmasked PHI."""

    resource_type: str
    scope: str  # "patient ~3f2a9c41", "everyone"
    verdict: Verdict
    at_ehr: int | None  # None: the EHR did not say
    stored: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class TypeProof:
    """What a proof found about one resource type. The five verdicts count questions, one per patient."""

    resource_type: str
    method: str  # how the EHR was asked: "count", "ids", or both
    equal: int = 0
    more: int = 0
    fewer: int = 0
    not_asked: int = 0
    unanswered: int = 0
    at_ehr: int = 0  # resources, over all answered questions
    stored: int = 0
    missing: int = 0  # at the EHR, but not in the store


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What the EHR counts and what the store holds, side by side, at one moment after a sync."""

    at: datetime
    connection: str
    run: int  # the sync that is proved
    patients: int  # asked
    of_patients: int  # there are
    seed: int | None  # of the sample; None: the proof covers everyone
    types: Sequence[TypeProof] = ()
    findings: Sequence[Finding] = ()  # at most a few hundred are named
    findings_unnamed: int = 0
    notes: Sequence[str] = ()
    requests: int = 0
    seconds: float = 0
    gave_way: bool = False  # a sync began, so the proof stopped before its last question

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of all questions: fewer, then unanswered, more, equal; "not asked" if nothing could be compared."""
        ranked: tuple[Verdict, ...] = ("fewer", "unanswered", "more", "equal")
        return next((one for one in ranked if any(getattr(found, one) for found in self.types)), "not asked")
