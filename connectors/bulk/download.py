"""Downloads the files of a bulk export: bytes to lines to records. One bad line costs that line; a cut file is fetched again.

Lines of a file that is then fetched again may reach the store twice: the merge makes that harmless.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn

import anyio.lowlevel
import tenacity

from connectors.bulk.ndjson import Line, LineSplitter, OverlongLine
from connectors.errors import BudgetExhaustedError, ProtocolError, TerminalFetchError, TransientFetchError
from connectors.fhir import Issue, UnreadableResourceError, codes_of, deletions_from, issues_from, record_from
from connectors.pipeline import Emit, Fetched
from connectors.profile import VendorProfile
from connectors.transport.call import Call
from connectors.transport.client import EhrClient
from connectors.transport.links import origin, resolve
from snapshots.record import Deletion, Quarantined, Record, Unit, UnitResult, UnitState

_PIECE_BYTES = 1_000_000  # of bodies handed on at a time: the stream to the writer holds a few of these
# read in one turn of the event loop, about 1 ms: the writer's socket to Postgres holds 2 ms of work, and idles after that
_TURN_BYTES = 65_536
_EXPIRED = frozenset({403, 404, 410})  # of a pre-signed or expired link (vendors.md 6.4)

RefreshUrl = Callable[[Unit], Awaitable[str | None]]


class _FileBrokenOffError(TransientFetchError):
    """The file began and did not end well: it is asked for again from its start. A file that never began is not ours to retry."""


@dataclass
class _FileReading:
    """What has been read of one file so far."""

    records: list[Record] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    size: int = 0
    lines: int = 0
    unreadable: int = 0


class FileFetcher:
    """Fetches file units of one connection's export."""

    def __init__(
        self,
        client: EhrClient,
        profile: VendorProfile,
        refresh_url: RefreshUrl,
        *,
        sleep: Callable[[float], Awaitable[None]],
        note: Callable[[str], None],
    ) -> None:
        self._client = client
        self._profile = profile
        self._refresh_url = refresh_url
        self._sleep = sleep
        self._note = note

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit every record of the file, and say how it ended.

        Raises:
            FetchError: the file could not be had; the unit is a hole.
        """
        url = str(unit.detail["url"])
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_FileBrokenOffError),
            stop=tenacity.stop_after_attempt(self._profile.max_tries),
            wait=tenacity.wait_exponential(multiplier=self._profile.retry_base_s, max=self._profile.retry_cap_s),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await retrying(self._once, unit, url, emit)
        except TerminalFetchError as error:
            fresh = await self._refresh_url(unit) if error.status in _EXPIRED else None
            if fresh is None or fresh == url:
                raise
            return await retrying(self._once, unit, fresh, emit)

    async def _once(self, unit: Unit, url: str, emit: Emit) -> UnitResult:
        call = Call(
            method="GET",
            url=url,
            template=f"GET {unit.detail['template']}",
            purpose="file",
            accept="application/fhir+ndjson",
            auth=self._wants_token(unit, url),
            token_origins=frozenset(self._profile.bulk_file_hosts),
        )
        reading = _FileReading()
        splitter = LineSplitter()
        async with self._client.stream(call) as reply:
            try:
                async for chunk in reply.chunks:
                    for start in range(0, len(chunk), _TURN_BYTES):
                        self._read_all(unit, splitter.feed(chunk[start : start + _TURN_BYTES]), reading)
                        if reading.size >= _PIECE_BYTES:
                            await _hand_on(reading, emit)
                        else:
                            await anyio.lowlevel.checkpoint()
            except BudgetExhaustedError:
                raise
            except TransientFetchError as error:  # the client has taken this retry out of the budget
                raise _FileBrokenOffError(str(error), status=error.status) from error
        whole = reading.unreadable
        self._read_all(unit, splitter.finish(), reading)
        if reading.unreadable > whole:  # a last line without its newline that cannot be read: the file was cut
            reading.quarantined.pop()
            self._ask_again(f"{unit.detail['template']} ends in the middle of line {reading.lines}.")
        promised = unit.detail.get("count")
        if promised is not None and reading.lines < promised:
            self._ask_again(f"{unit.detail['template']} has {reading.lines} lines, the manifest promises {promised}.")
        await _hand_on(reading, emit)
        return self._ended(unit, reading)

    def _ask_again(self, message: str) -> NoReturn:
        """Raise for a file that was cut without the wire noticing; asking again comes out of the connection's budget."""
        raise _FileBrokenOffError(message) if self._client.budget.take_retry() else BudgetExhaustedError(message)

    def _wants_token(self, unit: Unit, url: str) -> bool:
        """False: the token SHALL NOT be sent (Bulk Data IG); unsaid: only to the EHR's own origin."""
        said = unit.detail["requires_token"]
        return (
            bool(said)
            if said is not None
            else origin(resolve(url, self._client.base_url)) == origin(self._client.base_url)
        )

    def _read_all(self, unit: Unit, lines: list[Line | OverlongLine], reading: _FileReading) -> None:
        """Read lines into the file's account: the plain way for resources, everything else one by one."""
        if unit.kind != "file":
            for line in lines:
                self._read(unit, line, reading)
            return
        key, keep, size = unit.key, reading.records.append, 0
        for line in lines:
            try:
                record = record_from(line[1], key) if type(line) is tuple else None
            except UnreadableResourceError:
                record = None
            if record is None or record.resource_type == "OperationOutcome":
                self._read(unit, line, reading)
                continue
            keep(record)
            size += len(record.body)
            reading.lines += 1
        reading.size += size

    def _read(self, unit: Unit, line: Line | OverlongLine, reading: _FileReading) -> None:
        reading.lines += 1
        if isinstance(line, OverlongLine):
            self._quarantine(unit, line.number, "longer than a line may be", line.head, reading)
            return
        number, body = line
        try:
            if unit.kind == "deleted-file":
                reading.deletions += deletions_from(body)
                reading.size += len(body)
                return
            if unit.kind == "error-file":
                reading.issues += issues_from(body)
                return
            record = record_from(body, unit.key)
        except UnreadableResourceError as error:
            found = issues_from(body) if b'"OperationOutcome"' in body else ()
            if found:
                reading.issues += found
            else:
                self._quarantine(unit, number, str(error), body, reading)
            return
        if record.resource_type == "OperationOutcome":
            reading.issues += issues_from(body)
            return
        reading.records.append(record)
        reading.size += len(body)

    def _quarantine(self, unit: Unit, number: int, reason: str, raw: bytes, reading: _FileReading) -> None:
        reading.unreadable += 1
        resource_type = None if unit.resource_type == "*" else unit.resource_type
        reading.quarantined.append(
            Quarantined(resource_type, f"{unit.detail['template']}, line {number}", reason, raw, unit.key)
        )
        reading.size += len(raw)

    def _ended(self, unit: Unit, reading: _FileReading) -> UnitResult:
        if unit.kind == "error-file":
            grave = sum(issue.severity in {"error", "fatal"} for issue in reading.issues)
            self._note(
                f"the server's error files hold {len(reading.issues)} issues, {grave} of them errors"
                f" ({', '.join(codes_of(reading.issues)) or 'no codes'})"
            )  # normal on Epic, and never a reason to fail (F27)
            return UnitResult(key=unit.key, state=UnitState.SETTLED, complete_listing=True)
        if any(issue.severity in {"error", "fatal"} for issue in reading.issues):
            raise ProtocolError(
                f"{unit.detail['template']} holds an OperationOutcome in place of data: {', '.join(codes_of(reading.issues))}."
            )
        if reading.unreadable:
            reason = f"{reading.unreadable} of {reading.lines} lines could not be read: see quarantine"
            return UnitResult(key=unit.key, state=UnitState.FAILED, reason=reason, records=reading.lines)
        return UnitResult(
            key=unit.key,
            state=UnitState.SETTLED,
            complete_listing=not unit.detail.get("incremental", False),
            records=reading.lines,
        )


async def _hand_on(reading: _FileReading, emit: Emit) -> None:
    if reading.records or reading.deletions or reading.quarantined:
        await emit(
            Fetched(
                records=reading.records,
                deletions=reading.deletions,
                quarantined=reading.quarantined,
                size=reading.size,
            )
        )
        reading.records, reading.deletions, reading.quarantined, reading.size = [], [], [], 0
