"""Where whole files are delivered to: what a destination is, and the one for a folder on this machine.

A file that is written aside appears complete, or not at all. `files` writes the files themselves, `remote_folder` reaches other
machines, `place_name` finds the destination that a name means; the caller decides which file is placed last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from exports.delivery.files import LEFTOVER_SUFFIX, AtomicFile, DeliveredFile, Staged, destination_errors, output_folder
from exports.errors import DestinationError

_CHUNK_BYTES = 1 << 20
REMOTE_SCHEMES = ("s3", "gs", "az", "sftp")  # `remote_folder` reaches them; each is an extra of that name


class Destination(Protocol):
    """A folder, here or elsewhere. Every method raises DestinationError where the place cannot be read or written."""

    def __str__(self) -> str:
        """The place in words, for messages; without a secret."""

    def opened(self) -> AbstractContextManager[Path]:
        """Keep other exports out until the end; give a folder of this machine to write files aside in."""

    def take(self, part: AtomicFile, name: str) -> None:
        """Let a sealed file, written aside in that folder, appear under a name."""

    def stage(self, part: AtomicFile, sealed: DeliveredFile) -> Staged:
        """Bring a sealed file beside its place. What arrived has its checksum, or DestinationError is raised."""

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a small file: a reader sees either the whole old one or the whole new one."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file; FileNotFoundError if there is none."""

    def names(self) -> frozenset[str]:
        """Return the names of the existing files."""

    def has(self, name: str) -> bool:
        """Whether a file exists; its name may lead into folders, `observation/status=final/observation.csv`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists, and the folders in its name, if they are empty then."""


def read_small(destination: Destination, name: str) -> bytes | None:
    """Return the content of a small file; None if there is none."""
    try:
        return b"".join(destination.chunks(name))
    except FileNotFoundError:
        return None


class LocalFolder:
    """A destination on this machine: files are renamed into place, after they are on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def opened(self) -> AbstractContextManager[Path]:
        """Lock the folder, which is created where needed; files are written aside in it."""
        return output_folder(self._folder)

    def take(self, part: AtomicFile, name: str) -> None:
        """Rename the file."""
        part.place(name)

    def stage(self, part: AtomicFile, sealed: DeliveredFile) -> Staged:
        """Leave it where it is: beside its place, and on the disk. The folder is locked."""
        part.rest()
        return _StagedHere(part, sealed.path)

    def put(self, name: str, content: bytes) -> None:
        """Write the file beside its target, and rename it."""
        with AtomicFile(self._folder / name, compress="no") as file:
            file.write(content)
            file.commit(kind="document", rows=0)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file."""
        try:
            with (self._folder / name).open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise
        except OSError as error:
            where = self._folder / name
            raise DestinationError(
                f"cannot read {where}: {error.strerror}; check the path, and who may read it"
            ) from None

    def names(self) -> frozenset[str]:
        """Return the names of the existing files, without those that are being written."""
        with destination_errors(self._folder):
            return frozenset(
                path.name
                for path in self._folder.iterdir()
                if path.is_file() and not path.name.endswith(LEFTOVER_SUFFIX)
            )

    def has(self, name: str) -> bool:
        """Whether a file exists."""
        return (self._folder / name).is_file()

    def remove(self, name: str) -> None:
        """Remove a file, and its folders if they are empty then."""
        # somebody's file is where its folder was
        with (
            destination_errors(self._folder / name),
            suppress(NotADirectoryError),
        ):
            (self._folder / name).unlink(missing_ok=True)
        for above in list(PurePosixPath(name).parents)[:-1]:
            try:
                (self._folder / above).rmdir()
            except OSError:  # something else is in it, or it is gone
                break


@dataclass(frozen=True)
class _StagedHere:
    """A file that waits beside the others of its export."""

    part: AtomicFile
    name: str

    def place(self) -> None:
        self.part.place(self.name)
