"""Chooses the level of an export: everyone by Patient or by system, a Group, named patients. Tries one after the other.

`plan` says which levels are worth a try; `steps` runs one export. A refused level has started no job, so the next level does
not make a second export. A level that was accepted without a status URL may have started a job that nobody can follow; the next
level does no harm then either. Each level is a way of listing of its own, with its own watermarks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from connectors.core.errors import ConnectorError, PlanError
from connectors.fhir.bulk.kick_off import PATHS, proofs_from
from connectors.fhir.bulk.steps import fetch_by_bulk
from connectors.fhir.capability import Capability
from connectors.fhir.errors import ExportRefusedError, UntraceableExportError
from connectors.fhir.issue_types import shown
from connectors.fhir.plan import bulk_levels
from connectors.fhir.profile import BulkLevel
from connectors.fhir.run import EhrRun, Readable

_NO_OPERATION = frozenset({404, 405, 501})
_REFUSED, _NO_JOB = 400, " without an export job"  # what is not even refused: a page, a Bundle
_LOST_JOB = " without a status URL (a job that nobody can follow may have begun)"
_Refused = list[tuple[BulkLevel, ExportRefusedError]]


class NoExportHereError(ConnectorError):
    """chartferry chose the mode, but the export that the server declares does not exist."""


async def fetch_at_some_level(
    run: EhrRun,
    capability: Capability,
    readable: Readable,
    granted: Sequence[str],
    since: Callable[[], Awaitable[Mapping[str, str]]],
) -> str | None:
    """Export at the first level that the server accepts, and return the new watermark.

    `since` says from when to request, once the store knows which patients this run covers.

    Raises:
        PlanError: no level fits the request.
        NoExportHereError: the declared export does not exist, and crawling was as good a choice.
        ExportRefusedError: every level was refused; the message names each.
        RequestError: as `fetch_by_bulk`.
    """
    refused: _Refused = []
    for level in await _levels(run, capability):
        await run.store.knowledge.speak_for(f"{run.store.selection} by export {level}", granted)
        notes = [f"{_named(refused)}: exported by /{PATHS[level]} instead"] if refused else []
        try:
            return await fetch_by_bulk(run, capability, readable, await since(), level, notes=notes)
        except ExportRefusedError as error:
            refused.append((level, error))
    raise _refusal(run, refused)


async def _levels(run: EhrRun, capability: Capability) -> Sequence[BulkLevel]:
    """Return the levels to try; if a job is in progress, only its level."""
    job = await run.store.jobs.current()
    if job is not None and not job.is_unanswered:
        return (proofs_from(job).level,)
    request = run.request
    insisted = "bulk" in (request.mode, request.profile.mode)
    named = request.cohort is not None and request.group is None and request.mode == "bulk"
    found = bulk_levels(request.profile, capability, group=request.group, named=named, insisted=insisted)
    if not found:
        raise PlanError("The server offers no bulk level that this request can use: try --mode crawl.")
    return found


def _refusal(run: EhrRun, refused: _Refused) -> ConnectorError:
    request, (_, last) = run.request, refused[-1]
    ours_to_choose = request.mode == "auto" and request.profile.mode == "auto" and request.group is None
    if ours_to_choose and all(error.status in _NO_OPERATION for _, error in refused):
        return NoExportHereError(f"{_sentence(refused)}.")
    if request.group is not None or request.cohort is not None:
        return last  # one level, and what may be wrong is what was named
    untried = [
        f"/{PATHS['group']}: not tried, because no Group is named"
        for level in request.profile.bulk.levels
        if level == "group"
    ]
    return ExportRefusedError(
        f"{'; '.join([_sentence(refused), *untried])}. If this EHR exports, ask its administrators at which level: name it in "
        "profile.bulk.levels, or a Group in `group` or --group; check the connection's types and `bulk` table against what it "
        "documents; else use --mode crawl." + (f" {last}" if len(refused) == 1 else ""),
        status=last.status,
        codes=last.codes,
    )


def _without(error: ExportRefusedError) -> str:
    """Return what an answer lacks if its status is no refusal."""
    if isinstance(error, UntraceableExportError):
        return _LOST_JOB
    return _NO_JOB if (error.status or _REFUSED) < _REFUSED else ""


def _sentence(refused: _Refused) -> str:
    named = _named(refused)
    return named[0].upper() + named[1:]


def _named(refused: _Refused) -> str:
    """The levels, each with its status and codes."""
    found = [
        f"/{PATHS[level]}: {error.answer}{_without(error)}"
        + (f" (issue codes {', '.join(shown(error.codes))})" if error.codes else "")
        + (f", its answer names {', '.join(error.named)}" if error.named else "")
        for level, error in refused
    ]
    return (
        f"this server refused the bulk export at {'each level' if len(found) > 1 else 'this level'}: {'; '.join(found)}"
    )
