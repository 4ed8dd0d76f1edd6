"""Writes files to disk, complete or not at all, and compresses, encrypts and counts them on the way.

A file is written beside its target under a temporary name, flushed to the disk, then renamed. Equal data give equal bytes,
however they were cut into chunks: the gzip header has no time and no name, and the compressor gets blocks of one size. `run`
decides what a file contains. What is encrypted has other bytes each time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Protocol, Self

from isal import isal_zlib

from exports.delivery.encryption import AgeWriter, Recipients
from exports.errors import DestinationError
from exports.formats.file_formats import Compression

LEFTOVER_SUFFIX = ".chartferry-part"
BLOCK_BYTES = 1 << 20
FAST_LEVEL = 2  # ISA-L: 1,900 MB/s at 13x on FHIR NDJSON here; its level 3 is slower and its output hardly smaller
SMALL_LEVEL = 6  # zlib: 110 MB/s, a fifth smaller; 45 ms for a chart of 5 MB
_GZIP_WINDOW = 31  # 15 bits of window, plus 16 for a gzip header
_FILE_MODE = 0o600  # these files contain PHI
_FOLDER_MODE = 0o700
_A_FILE_THERE = "a file is where a folder is needed: name a folder, or a place for a new one"
_NO_RIGHT = "name another place, or let this user write there"
_NO_ROOM = "free some space, and run the same command again"
_NEXT: Mapping[int, str] = {
    errno.EEXIST: _A_FILE_THERE,
    errno.ENOTDIR: _A_FILE_THERE,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.ENAMETOOLONG: "name a place with a shorter name",
}


# fast: gzip of exports of any size; small: gzip of one chart, which people send to others
Compress = Literal["fast", "small", "zstd", "no"]
COMPRESS: dict[Compression, Compress] = {"gzip": "fast", "zstd": "zstd", "none": "no"}


def flat(name: str) -> str:
    """Return the name under which a file waits beside all others, whatever folders it will be in."""
    return name.replace("/", "~")


class _Compressor(Protocol):
    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


@dataclass(frozen=True)
class TableCounts:
    """What one table has of a file with several; each as in DeliveredFile."""

    rows: int
    left_empty: Mapping[str, int] | None = None
    left_out: int | None = None


@dataclass(frozen=True, kw_only=True)
class DeliveredFile:
    """A finished file. `bytes` and `sha256` describe the file itself, `uncompressed_bytes` its content."""

    path: str  # relative to the folder of the export
    kind: str
    rows: int
    bytes: int
    uncompressed_bytes: int
    sha256: str
    rows_by_connection: dict[str, int] | None = None  # NDJSON of several connections: its lines are in this order
    left_empty: dict[str, int] | None = None  # CSV: by column, the cells whose value did not fit
    left_out: int | None = None  # CSV: resources for which the view's own criteria could not be decided
    tables: dict[str, TableCounts] | None = None  # DuckDB: by name; what did not fit is counted there


class _Zstd:
    """Arrow's zstd as a compressor; imported only when asked for."""

    closed = False

    def __init__(self) -> None:
        import pyarrow as pa

        self._done = bytearray()
        self._stream = pa.CompressedOutputStream(pa.PythonFile(self, mode="w"), "zstd")

    def write(self, data: bytes) -> int:
        """What Arrow calls with what it has compressed."""
        self._done += data
        return len(data)

    def close(self) -> None:
        """What Arrow calls at the end."""

    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes:
        """Return what is compressed so far."""
        self._stream.write(bytes(data))
        return self._taken()

    def flush(self) -> bytes:
        """Return the rest and the end of the frame."""
        self._stream.close()
        return self._taken()

    def _taken(self) -> bytes:
        taken, self._done = bytes(self._done), bytearray()
        return taken


def _compressor(compress: Compress) -> _Compressor | None:
    if compress == "zstd":
        return _Zstd()
    if compress == "fast":
        return isal_zlib.compressobj(FAST_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    return zlib.compressobj(SMALL_LEVEL, zlib.DEFLATED, _GZIP_WINDOW) if compress == "small" else None


class Encoder:
    """Gzip, or nothing, then age, if there are recipients, over a binary stream; with counts and checksum of both sides.

    A second thread encodes and writes full blocks while the next ones are read. What it raises, every later call raises.
    """

    def __init__(self, stream: BinaryIO, *, compress: Compress, recipients: Recipients | None = None) -> None:
        """`finish` or `abandon` it: threads wait for that."""
        self._stream = stream
        self._compressor = _compressor(compress)
        self._encrypting = None if recipients is None else AgeWriter(self._write, recipients)
        # one is filled while the other is encoded; used again and again: new memory costs as much as what is written into it
        self._block, self._other_block = memoryview(bytearray(BLOCK_BYTES)), memoryview(b"")
        self._filled = 0
        self._thread: ThreadPoolExecutor | None = None
        self._at_work: Future[None] | None = None
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.uncompressed_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add a chunk of any size."""
        self.uncompressed_bytes += len(chunk)
        rest = memoryview(chunk)
        while (room := BLOCK_BYTES - self._filled) <= len(rest):
            self._block[self._filled :] = rest[:room]
            self._hand_over()
            rest = rest[room:]
        self._block[self._filled : self._filled + len(rest)] = rest
        self._filled += len(rest)

    def _hand_over(self) -> None:
        """Let the thread encode the block, which is full, and begin another."""
        self._wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "encode")
            self._other_block = memoryview(bytearray(BLOCK_BYTES))
        self._at_work = self._thread.submit(self._encode, self._block)
        self._block, self._other_block, self._filled = self._other_block, self._block, 0

    def _wait(self) -> None:
        if self._at_work is not None:
            self._at_work.result()  # what it raised, it raises again, so that nobody finishes a file with a block missing
            self._at_work = None

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def finish(self) -> None:
        """Write what is left and the end of the gzip stream."""
        self._wait()
        self._end_thread()
        self._encode(self._block[: self._filled])
        self._block, self._other_block, self._filled = memoryview(b""), memoryview(b""), 0
        if self._compressor is not None:
            self._put(self._compressor.flush())
        if self._encrypting is not None:
            self._encrypting.close()

    def abandon(self) -> None:
        """Write no more, whether it is finished or not."""
        self._end_thread()
        if self._encrypting is not None:
            self._encrypting.abandon()

    def _encode(self, block: memoryview) -> None:
        self._put(self._compressor.compress(block) if self._compressor is not None else block)

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        if self._encrypting is None:
            self._write(data)
        else:
            self._encrypting.add(data)

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        while rest:  # a file without a buffer may take a part: on a full disk it takes what fits, and refuses only the next write
            rest = rest[self._stream.write(rest) :]
        self._digest.update(data)
        self.bytes += len(data)

    def delivered(self, *, path: str, kind: str, rows: int) -> DeliveredFile:
        """Return the description of what was written, after `finish`."""
        return DeliveredFile(
            path=path,
            kind=kind,
            rows=rows,
            bytes=self.bytes,
            uncompressed_bytes=self.uncompressed_bytes,
            sha256=self._digest.hexdigest(),
        )


class Staged(Protocol):
    """A whole file that lies beside its place, where no reader looks."""

    def place(self) -> None:
        """Make it appear under its name, replacing what is there. DestinationError if that fails."""


class AtomicFile:
    """A file that appears at `target` on `commit`, or not at all; mode 0600. A killed process leaves only the part file.

    `seal` and `place` are the two halves of `commit`, for files that appear together.

    Raises:
        DestinationError: the folder cannot be written, or another process is writing the same file.
    """

    def __init__(self, target: Path, *, compress: Compress, recipients: Recipients | None = None) -> None:
        """`recipients`: those for whom its content is encrypted; None: it is not."""
        self._target = target
        self._part = target.with_name(f".{target.name}{LEFTOVER_SUFFIX}")
        self._compress = compress
        self._recipients = recipients

    def __enter__(self) -> Self:
        with destination_errors(self._target):
            descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, _FILE_MODE)
        self._stream = os.fdopen(descriptor, "wb", buffering=0)
        if not self._own(descriptor):
            self._stream.close()
            raise DestinationError(f"{self._target} is being written by another process; wait until it ends")
        self._encoder = Encoder(self._stream, compress=self._compress, recipients=self._recipients)
        self._placed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._encoder.abandon()
        if not self._placed:
            self._part.unlink(missing_ok=True)
        self._stream.close()

    def _own(self, descriptor: int) -> bool:
        """Lock the part file for this process and empty it; return False if another process has it."""
        with destination_errors(self._target):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # its owner may have renamed it between our open and our lock: then it is a finished file, and we must not empty
                # it
                mine = os.path.samestat(os.fstat(descriptor), os.lstat(self._part))
            except (BlockingIOError, FileNotFoundError):
                return False
            if mine:
                os.ftruncate(descriptor, 0)
                os.fchmod(descriptor, _FILE_MODE)
            return mine

    def write(self, chunk: bytes) -> None:
        """Add a chunk of any size."""
        with destination_errors(self._target):
            self._encoder.write(chunk)

    def write_all(self, made: Path) -> None:
        """Add what a file has that was made elsewhere."""
        with destination_errors(made, "read"), made.open("rb") as stream:
            while chunk := stream.read(BLOCK_BYTES):
                self.write(chunk)

    @property
    def uncompressed_bytes(self) -> int:
        """Bytes added so far."""
        return self._encoder.uncompressed_bytes

    def seal(self, *, kind: str, rows: int) -> DeliveredFile:
        """Complete the file: it is whole and on the disk, under its temporary name."""
        with destination_errors(self._target):
            self._encoder.finish()
            os.fsync(self._stream.fileno())
        return self._encoder.delivered(path=self._target.name, kind=kind, rows=rows)

    @property
    def part(self) -> Path:
        """Where the file is until it is placed."""
        return self._part

    def place(self, name: str | None = None) -> None:
        """Rename the sealed file to its target, or to another name beside or below it, whose folders are made."""
        with destination_errors(self._target):
            target = self._target if name is None else self._target.parent / name
            target.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._part.replace(target)
            self._placed = True
            self._stream.close()
            if target.parent != self._target.parent:
                _flush(target.parent)  # the folder of the export itself is flushed once, at its end

    def rest(self) -> None:
        """Close a sealed file until it is placed, and give up its lock: an export may have more files than a process may open."""
        self._stream.close()

    def commit(self, *, kind: str, rows: int) -> DeliveredFile:
        """Complete and rename the file; after this it is whole and on the disk."""
        delivered = self.seal(kind=kind, rows=rows)
        self.place()
        return delivered


def _flush(folder: Path) -> None:
    """Put the renames in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield the folder of one export; create it if it is missing (mode 0700), and lock it against other exports until the end.

    What was created goes again if nothing is in it then: a refused export leaves no trace. The kernel holds the lock, so a killed
    export leaves none; part files that it left are removed here.

    Raises:
        DestinationError: it is no folder, cannot be written, or another export is writing into it.
    """
    with destination_errors(folder):
        created = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DestinationError(
                f"another export is writing into {folder}; wait until it ends, or choose another folder"
            ) from error
        with destination_errors(folder):
            for leftover in folder.glob(f".*{LEFTOVER_SUFFIX}"):
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink(missing_ok=True)
        yield folder
        with destination_errors(folder):
            os.fsync(descriptor)  # the renames themselves
    finally:
        with suppress(OSError):  # something is in it
            for one in created:
                one.rmdir()
        os.close(descriptor)


@contextmanager
def destination_errors(place: Path, doing: Literal["write", "read"] = "write") -> Iterator[None]:
    """Turn an error of the operating system into a DestinationError that names the place."""
    try:
        yield
    except OSError as error:
        advice = _NEXT.get(error.errno or 0)
        raise DestinationError(
            f"cannot {doing} {place}: {error.strerror or error}{f'; {advice}' if advice else ''}"
        ) from error
