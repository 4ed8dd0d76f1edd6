"""Downloads the files of an export, and resumes a cut file where it stopped, if the server can.

`file_reading` reads the lines, `file_links` renews the links, `file_verdicts` says how each file ended. If a file is fetched
again from its start, its lines reach the store twice; the merge makes that harmless.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import anyio
import tenacity

from config.how_many import how_many
from connectors.core.pipeline import Emit
from connectors.fhir.bulk.byte_ranges import Part, part_of
from connectors.fhir.bulk.file_links import FileLinks
from connectors.fhir.bulk.file_reading import FileReading
from connectors.fhir.bulk.file_verdicts import FileVerdicts, count_of
from connectors.fhir.errors import BudgetExhaustedError, ProtocolError, TerminalFetchError, TransientFetchError
from connectors.fhir.transport.body import BodyReader
from connectors.fhir.transport.call import Call, StreamReply
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.links import origin
from connectors.fhir.unit_details import FileDetail
from snapshots.unit import Unit, UnitResult

_PIECE_BYTES = 1_000_000  # of bodies handed on at a time: the stream to the writer holds a few of these
# read in one turn of the event loop, of all files together: about 1 ms. The writer comes in between; its socket to Postgres holds
# 2 ms of work, and every statement of a batch waits for a turn
_TURN_BYTES = 65_536
_OK, _EMPTY, _PARTIAL, _UNSATISFIABLE = 200, 204, 206, 416
_EXPIRED = frozenset({400, 401, 403, 404, 410})  # of an expired link (vendor-facts 6.4; S3 answers 400 to some)
# after so many downloads with the same lines and bytes the file is not cut: it is like that. Counts are known to be wrong
# (vendor-facts 6.3), broken last lines less so
_SAME_COUNTS, _SAME_CUTS = 2, 3
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_RESUMES = 50  # of one file within one process; each must have brought something
_RESUMED = "its download was cut, and resumed where it stopped"
_PARTS = 10_000  # of one file, if the server sends less than requested: a bound against nonsense


class _FileBrokenOffError(TransientFetchError):
    """The file started but did not end well, so it is fetched again. The client already retries files that never started."""


@dataclass
class _Attempts:
    """The state that the tries of one file share."""

    unit: Unit
    reading: FileReading
    cut: BodyReader | None = None  # what came before the cut, if the download can be resumed
    etag: str = ""  # a strong one, if the server accepts byte ranges; else ""
    first_byte: int = 0  # where in the file the present answer begins
    size: int | None = None  # of the file on the wire, if its first answer stated it
    part: Part | None = None  # the present answer's; None: the answer is the whole file
    ends: bool = False  # the last answer proves that it is whole, and that the file ends there
    defect: tuple[int, int] | None = None  # lines and bytes of a file that ended as if it was cut ...
    times: int = 0  # ... and how many tries in a row ended so
    resumed: bool = False  # it was cut, and a later answer continued it

    @property
    def next_byte(self) -> int:
        """Where the next try starts: 0 unless the server allows resuming."""
        return self.first_byte + (self.cut.raw_bytes if self.cut is not None else 0)

    def start_over(self) -> None:
        """Discard what came: the next answer is the file from its start."""
        self.reading = FileReading(self.unit, self.reading.base)
        self.cut, self.etag, self.first_byte, self.size, self.part = None, "", 0, None, None

    def place(self, body: BodyReader) -> tuple[str, Mapping[str, Any]] | None:
        """How far the file has come, for a run that resumes after a crash; decompression does not outlive one."""
        found = self.reading.place() if self.etag and body.is_plain else None
        return None if found is None else (self.unit.key, {**found, "etag": self.etag})


class FileFetcher:
    """Fetches file units of one connection's export."""

    def __init__(
        self,
        client: EhrClient,
        links: FileLinks,
        *,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._client = client
        self._profile = client.profile
        self._links = links
        self._base = client.base
        self._sleep = sleep
        self.verdicts = FileVerdicts(client.profile.answers.issue_codes)
        self._turn = anyio.Lock()

    async def fetch(self, unit: Unit, emit: Emit) -> UnitResult:
        """Emit every record of the file, and say how it ended.

        Raises:
            RequestError: the file could not be had; the unit is a hole.
        """
        if unit.page is None:  # a doubt about the manifest itself: there is nothing to fetch
            return self.verdicts.of_manifest(unit)
        if not FileDetail.of(unit).url:
            raise ProtocolError(
                f"{unit.template}: the manifest lists it without a URL under `url`; sync again to start a new export; if it "
                "happens again, ask the EHR's operator what its manifest lists, or use --mode crawl."
            )
        url = await self._links.current(unit)
        attempts = _Attempts(unit=unit, reading=FileReading(unit, self._base))
        place = unit.reached
        if place is not None:  # an interrupted run has stored this much of it
            attempts.reading, attempts.etag = FileReading.going_on(unit, self._base, place), place["etag"]
            attempts.first_byte = place["bytes"]
        try:
            result = await self._tries(attempts, url, emit)
        except TerminalFetchError as error:
            if error.status not in _EXPIRED:
                raise
            # the manifest's link has expired, or the object store's link that it redirects to, which a new request renews (F21)
            url = await self._links.renewed(unit, url) or url
            result = await self._tries(attempts, url, emit)
        self._links.worked(unit, url)
        return result

    async def _tries(self, attempts: _Attempts, url: str, emit: Emit) -> UnitResult:
        last_came = fruitless = 0

        def stop(state: tenacity.RetryCallState) -> bool:
            """A try that made progress with a resumable file is no failure, so that long files arrive over bad lines."""
            nonlocal last_came, fruitless
            came, before = attempts.next_byte, last_came
            last_came = came
            fruitless += came <= before
            return fruitless >= self._profile.retry.max_tries or state.attempt_number >= _RESUMES

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_FileBrokenOffError),
            stop=stop,
            wait=tenacity.wait_exponential(multiplier=self._profile.retry.base_s, max=self._profile.retry.cap_s),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._once, attempts, url, emit)

    async def _once(self, attempts: _Attempts, url: str, emit: Emit) -> UnitResult:
        unit = attempts.unit
        try:
            for _ in range(_PARTS):
                async with self._client.stream(self._call(attempts, url)) as reply:
                    self._take_up(attempts, reply)
                    await self._read(attempts, reply, emit)
                if attempts.cut is None:
                    break
            else:
                raise ProtocolError(f"{unit.template}: the server sends it in more than {_PARTS} parts.")
        except TerminalFetchError as error:
            if error.status != _UNSATISFIABLE or not attempts.next_byte:
                raise
            attempts.start_over()
            self._ask_again(f"{unit.template}: the server no longer has the rest of it.")
        return await self._judged(attempts, emit)

    def _call(self, attempts: _Attempts, url: str) -> Call:
        cut, unit, start = attempts.cut, attempts.unit, attempts.next_byte
        rest = {} if not start else {"Range": f"bytes={start}-", "If-Range": attempts.etag}
        return Call(
            method="GET",
            url=url,
            template=f"GET {unit.template}",
            purpose="file",
            accept="application/fhir+ndjson",
            headers=rest,
            auth=self._wants_token(unit, url),
            token_origins=frozenset(self._profile.bulk.file_hosts),
            ok=frozenset({_OK, _EMPTY, _PARTIAL} if start else {_OK, _EMPTY}),
            continues=cut,
        )

    def _take_up(self, attempts: _Attempts, reply: StreamReply) -> None:
        """Resume where the last try was cut, if this answer does; else start over."""
        if reply.status == _PARTIAL:
            start = attempts.next_byte
            found = part_of(reply.headers, start=start, etag=attempts.etag, size=attempts.size)
            if isinstance(found, str) or (attempts.cut is None and not reply.body.is_plain):
                attempts.start_over()
                why = found if isinstance(found, str) else "the rest of it came compressed"
                self._ask_again(f"{attempts.unit.template}: {why}.")
            attempts.resumed = attempts.resumed or attempts.part is None or attempts.part.end != start
            attempts.part, attempts.size = found, found.size
            reply.body.goes_on = not found.is_last
            return
        attempts.start_over()
        tag, length = reply.headers.get("etag", ""), reply.headers.get("content-length", "")
        may_go_on = tag.startswith('"') and "bytes" in reply.headers.get("accept-ranges", "").lower()
        attempts.etag = tag if may_go_on else ""
        attempts.size = int(length) if _LENGTH.fullmatch(length) else None

    async def _read(self, attempts: _Attempts, reply: StreamReply, emit: Emit) -> None:
        reading = attempts.reading
        try:
            async for chunk in reply.chunks:
                for start in range(0, len(chunk), _TURN_BYTES):
                    async with self._turn:
                        reading.feed(chunk[start : start + _TURN_BYTES])
                    if reading.size >= _PIECE_BYTES:
                        await _hand_on(reading, emit, attempts.place(reply.body))
        except BudgetExhaustedError:
            raise
        except TransientFetchError as error:  # the client has taken this retry out of the budget
            if attempts.etag and reply.body.is_whole_so_far:
                attempts.cut = reply.body
            else:
                attempts.start_over()
            raise _FileBrokenOffError(str(error), status=error.status) from error
        part = attempts.part
        if part is not None and attempts.first_byte + reply.body.raw_bytes != part.end:
            attempts.start_over()
            self._ask_again(f"{attempts.unit.template}: a part of it is longer or shorter than the server states.")
        if part is not None and not part.is_last:  # less than requested, which HTTP allows (RFC 9110, 14.2)
            attempts.cut = reply.body
            return
        attempts.cut, attempts.first_byte = None, 0  # the connection cut nothing
        reading.finish()
        # zeros in place of an end: lines may be missing that only the manifest's `count` knows of
        attempts.ends = (reply.body.proves_its_end or part is not None) and not reading.splitter.padded

    async def _judged(self, attempts: _Attempts, emit: Emit) -> UnitResult:
        """Return how a file ended that the wire delivered completely. A file that looks truncated is fetched again."""
        unit, reading = attempts.unit, attempts.reading
        count = count_of(unit, reading)
        if reading.last_line_unreadable or (count.is_short and reading.form is None):
            seen = (reading.lines, reading.total)
            attempts.times = attempts.times + 1 if attempts.defect == seen else 1
            attempts.defect = seen
            if attempts.times < (_SAME_CUTS if reading.last_line_unreadable else _SAME_COUNTS):
                if reading.last_line_unreadable:
                    reading.give_up_last_line()
                    self._ask_again(f"{unit.template} ends in the middle of line {reading.lines}.")
                self._ask_again(
                    f"{unit.template} has {how_many(reading.lines, 'line')}, the manifest promises {count.promised}."
                )
        await _hand_on(reading, emit)
        result = self.verdicts.of(unit, reading, count, ends=attempts.ends)
        if not attempts.resumed:
            return result
        return replace(result, reason="; ".join(filter(None, (result.reason, _RESUMED))))

    def _ask_again(self, message: str) -> NoReturn:
        """Raise for a file that was cut without the wire noticing; asking again comes out of the connection's budget."""
        raise _FileBrokenOffError(message) if self._client.budget.take_retry() else BudgetExhaustedError(message)

    def _wants_token(self, unit: Unit, url: str) -> bool:
        """As the manifest says (Bulk Data IG: if false, the token SHALL NOT be sent); by default only to the EHR's origin."""
        required = FileDetail.of(unit).requires_token
        return origin(self._base.resolve(url)) == origin(self._base.url) if required is None else bool(required)


async def _hand_on(reading: FileReading, emit: Emit, place: tuple[str, Mapping[str, Any]] | None = None) -> None:
    fetched = reading.take()
    if fetched is not None:
        await emit(fetched if place is None else replace(fetched, place=place))
