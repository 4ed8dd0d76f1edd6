"""Follows references to what no search by patient lists: breadth first, batch by batch, after a crawl or an export.

Each round requests what the previous round mentioned. The store remembers every mention and its answer, so circles end, a
killed run continues, and nothing fresh is requested again. `reference_paths` lists the paths; `reference_fetch` requests one
batch and reads the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from connectors.core.drain import fetch_pending
from connectors.fhir.capability import Capability
from connectors.fhir.linked.reference_fetch import ReferenceFetcher
from connectors.fhir.linked.reference_finder import ABOUT, ReferenceFinder
from connectors.fhir.linked.reference_paths import followed_types, paths_to
from connectors.fhir.linked.reference_resolver import Astray, Resolver
from connectors.fhir.run import EhrRun, Readable
from snapshots.referred import ReferenceTarget
from snapshots.unit import UnitKind

_DUE_AT_ONCE = 5_000  # references in memory


def reference_finder(run: EhrRun, capability: Capability, readable: Readable) -> ReferenceFinder | None:
    """Return what finds the references to follow in a run's records; None if it follows none."""
    profile = run.request.profile
    types = followed_types(run.request.types, profile, capability, readable)
    return ReferenceFinder(paths_to(types, profile), Resolver(run.client.base)) if types else None


async def follow_references(run: EhrRun, capability: Capability, readable: Readable, resolver: Resolver) -> None:
    """Fetch what the run's resources refer to, and what those refer to, until nothing new is mentioned.

    A batch that fails is a hole, and raises nothing; the next run requests its contents again. What the EHR does not
    have, or will not show, is noted and left alone while that knowledge is fresh.
    """
    profile = run.request.profile
    types = followed_types(run.request.types, profile, capability, readable)
    references = run.store.references
    fetcher = ReferenceFetcher(run.client, capability)
    fresh = timedelta(days=profile.references.fresh_d)
    paths = paths_to(types, profile)
    astray: Counter[str] = Counter()  # further on than a listing: a run that goes on takes all these steps again

    def resolve(text: str) -> ReferenceTarget | None:
        target = resolver(text)
        if isinstance(target, ReferenceTarget):
            return target
        astray[target] += 1
        return None

    run.show("following references")
    await references.follow(types)
    await _ask_pending(run, fetcher)  # of a run that was killed
    await references.note_answers()
    for depth in range(profile.references.depth):
        more = await references.collect(paths, resolve, depth=depth, fresh=fresh)
        leftovers = depth == 0 and run.request.kind == "sync"
        while due := await references.due(types, depth=depth + 1, fresh=fresh, limit=_DUE_AT_ONCE, leftovers=leftovers):
            await run.store.plan(fetcher.units(due))
            await references.note_requested(depth=depth + 1)
            more = True
            await _ask_pending(run, fetcher)
            await references.note_answers()
        if not more:
            break
    else:
        run.notes.append(f"references were followed for only {profile.references.depth} steps")
    for one, number in (await run.store.counted()).items():
        if one.about == ABOUT:
            astray[one.what] += number
    run.notes += [*_notes(await references.note_answers()), *_notes_astray(astray)]


async def _ask_pending(run: EhrRun, fetcher: ReferenceFetcher) -> None:
    await fetch_pending(
        run,
        (UnitKind.REFERENCE,),
        fetcher.fetch,
        doing=None,
        workers=run.workers,
        notice=run.notices.received,
        let_in=lambda: True,
    )


_WORDS = {"missing": "not there", "restricted": "restricted by the server for this client"}


def _notes(outcome: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"{resource_type}: {count} mentioned and {_WORDS[state]}"
        for resource_type, states in sorted(outcome.items())
        for state, count in sorted(states.items())
        if state in _WORDS
    ]


_ASTRAY: Mapping[Astray, str] = {
    "foreign": "references to other servers, never followed",
    "odd": "references that could not be read",
}


def _notes_astray(astray: Mapping[str, int]) -> list[str]:
    return [f"{words}: {astray[kind]}" for kind, words in _ASTRAY.items() if kind in astray]
