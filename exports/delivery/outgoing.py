"""The files of one export on their way: written aside, in parts of a certain size if requested, staged, and placed together.

The caller decides what a file contains; `destination` stages and places it, `manifest` is written beside the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NoReturn, Protocol, Self

from exports.delivery.destination import Destination
from exports.delivery.encryption import SUFFIX, Recipients
from exports.delivery.files import (
    LEFTOVER_SUFFIX,
    AtomicFile,
    Compress,
    DeliveredFile,
    Staged,
    destination_errors,
    flat,
)
from exports.delivery.manifest import MANIFEST_NAME, clear_former, foreign_names, listed_before, retire_manifest
from exports.errors import DestinationError


class Outgoing:
    """The files of one export. Use as a context, which removes at its end what was not placed.

    Raises:
        DestinationError: a file that no export has written has the name of one of the export's.
    """

    def __init__(
        self,
        destination: Destination,
        folder: Path,
        *,
        part_size: int | None = None,
        recipients: Recipients | None = None,
    ) -> None:
        """`folder`: where files are made. `part_size`: bytes of content at which the next part of a file begins; None: never.

        `recipients`: for whom files that hold data are encrypted.
        """
        self._destination = destination
        self._folder = folder
        self.part_size = part_size
        self._recipients = recipients
        self._unplaced = ExitStack()
        self._staged: list[Staged] = []
        self._foreign: frozenset[str] = frozenset()
        self._own: frozenset[str] = frozenset()
        self._names: dict[AtomicFile, str] = {}  # of what is being written
        self.delivered: dict[str, list[DeliveredFile]] = {}  # by planned name

    def __enter__(self) -> Self:
        self._foreign, self._own = foreign_names(self._destination), listed_before(self._destination)
        self._refuse_foreign(MANIFEST_NAME)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._unplaced.close()

    def _refuse_foreign(self, name: str) -> None:
        in_folder = "/" in name and name not in self._own and self._destination.has(name)
        if name in self._foreign or in_folder:
            self._refuse(name)
        for folder in list(PurePosixPath(name).parents)[:-1]:
            if self._destination.has(str(folder)):
                self._refuse(f"{folder}, a file where a folder must be,")

    def _refuse(self, what: str) -> NoReturn:
        raise DestinationError(
            f"{what} in {self._destination} was not written by an export: nothing was replaced. Move it away, or choose "
            "another destination"
        )

    def begin(self, planned: str, compress: Compress) -> AtomicFile:
        """Return a file to write: the planned one, or its next part, `Patient.0001.ndjson.gz`. `.age`: encrypted."""
        former = self.delivered.setdefault(planned, [])
        folder, slash, last = planned.rpartition("/")
        stem, _, ending = last.partition(".")
        name = planned if self.part_size is None else f"{folder}{slash}{stem}.{len(former) + 1:04}.{ending}"
        if self._recipients is not None:
            name += SUFFIX
        self._refuse_foreign(name)
        file = AtomicFile(self._folder / flat(name), compress=compress, recipients=self._recipients)
        self._names[file] = name
        return self._unplaced.enter_context(file)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """Yield a private folder beside the files, for writers that need a path; it is removed afterwards."""
        with destination_errors(self._folder):
            room = TemporaryDirectory(dir=self._folder, prefix=".", suffix=LEFTOVER_SUFFIX)
        with room as path:
            yield Path(path)

    def add(self, planned: str, part: AtomicFile, sealed: DeliveredFile) -> None:
        """Stage a file that has been written and sealed."""
        sealed = replace(sealed, path=self._names.pop(part))
        self._staged.append(self._destination.stage(part, sealed))
        self.delivered[planned].append(sealed)

    def in_order(self, planned: Iterable[str]) -> tuple[DeliveredFile, ...]:
        """Return all files that hold data, in the order of what was planned, whichever was complete first."""
        return tuple(file for name in planned for file in self.delivered[name])

    def describe(self, name: str, kind: str, content: bytes) -> DeliveredFile:
        """Stage a small file that holds no data; it has no parts."""
        self._refuse_foreign(name)
        part = self._unplaced.enter_context(AtomicFile(self._folder / name, compress="no"))
        part.write(content)
        sealed = part.seal(kind=kind, rows=0)
        self._staged.append(self._destination.stage(part, sealed))
        return sealed

    def place(self, own: frozenset[str], manifest: bytes) -> None:
        """Put the new files, which are `own`, in the place of the former ones, the manifest last."""
        former = listed_before(self._destination)
        retire_manifest(self._destination, former | own)
        for one in self._staged:
            one.place()
        self._destination.put(MANIFEST_NAME, manifest)
        clear_former(self._destination, former - own)


class RowWriter(Protocol):
    """The writer of a format: takes whole rows, and hands on its file's bytes."""

    def add(self, chunk: bytes) -> None:
        """Take whole rows."""

    def close(self) -> None:
        """Give what is left."""


@dataclass(frozen=True)
class Tally:
    """What has been written so far: rows, and by column the cells left empty, and by connection the rows if there are several."""

    rows: int = 0
    left_empty: Mapping[str, int] = field(default_factory=dict)
    rows_by_connection: Mapping[str, int] | None = None

    def beyond(self, former: Tally, sealed: DeliveredFile) -> DeliveredFile:
        """Return the tally of a file that was begun at a former one."""
        empty = {name: cells - former.left_empty.get(name, 0) for name, cells in self.left_empty.items()}
        before = former.rows_by_connection or {}
        lines = {name: rows - before.get(name, 0) for name, rows in (self.rows_by_connection or {}).items()}
        return replace(
            sealed,
            left_empty={name: cells for name, cells in empty.items() if cells} or None,
            rows_by_connection=lines or None,
        )


Open = Callable[[Callable[[bytes], None]], AbstractContextManager[RowWriter]]


class Parts:
    """The rows of one type or table, as one file or as parts of a size. No row is split. Use as a context.

    A part ends with the chunk of rows that fills it, so equal rows give equal parts.
    """

    def __init__(
        self,
        files: Outgoing,
        name: str,
        *,
        kind: str,
        compress: Compress,
        open_: Open,
        header_of: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """`open_` makes a format's writer. `header_of` finds the header in the first chunk, which each part is given first."""
        self._files = files
        self._of = (name, kind, compress)
        self._open = open_
        self._header_of = header_of
        self._header = b""
        self._writer: RowWriter | None = None
        self._at_work = ExitStack()
        self._content = 0
        self._former = Tally()
        self._sealed_bytes = 0

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._at_work.__exit__(kind, error, traceback)

    @property
    def uncompressed_bytes(self) -> int:
        """Bytes written so far, in all parts."""
        return self._sealed_bytes + (self._part.uncompressed_bytes if self._writer is not None else 0)

    def add(self, chunk: bytes, tally: Callable[[], Tally]) -> None:
        """Take whole rows, if there are any; `tally` tells what there is with them."""
        if not chunk:  # it would begin a part without rows
            return
        if self._writer is None:
            self._begin()
        assert self._writer is not None
        if self._header_of is not None and self._files.part_size is not None and not self._header:
            self._header = self._header_of(chunk)
        self._writer.add(chunk)
        self._content += len(chunk)
        if self._files.part_size is not None and self._content >= self._files.part_size:
            self._end(tally())

    def close(self, tally: Tally, *, left_out: int | None = None) -> None:
        """Complete the last part, the only one that says how many resources were left out of all."""
        if self._writer is not None:
            self._end(tally, left_out)
        elif left_out is not None:
            delivered = self._files.delivered[self._of[0]]
            delivered[-1] = replace(delivered[-1], left_out=left_out)

    def _begin(self) -> None:
        name, _, compress = self._of
        self._part = self._files.begin(name, compress)
        self._writer = self._at_work.enter_context(self._open(self._part.write))
        self._content = 0
        if self._header:
            self._writer.add(self._header)

    def _end(self, tally: Tally, left_out: int | None = None) -> None:
        assert self._writer is not None
        self._writer.close()
        self._at_work.close()
        sealed = self._part.seal(kind=self._of[1], rows=tally.rows - self._former.rows)
        self._sealed_bytes += sealed.uncompressed_bytes
        self._files.add(self._of[0], self._part, replace(tally.beyond(self._former, sealed), left_out=left_out))
        self._former, self._writer = tally, None
