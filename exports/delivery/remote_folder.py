"""A destination elsewhere, by fsspec: S3, Google Cloud Storage, Azure, SFTP, and whatever else fsspec knows.

An object store shows an object once all of it is there. Elsewhere a file is written under another name and moved. `destination`
says what a destination is; each library finds credentials where it usually does, never in chartferry's configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import fsspec

from exports.delivery.destination import REMOTE_SCHEMES
from exports.delivery.files import LEFTOVER_SUFFIX, AtomicFile, DeliveredFile, Staged, flat
from exports.errors import DestinationError, MissingExtraError, PlanError

_CHUNK_BYTES = 1 << 20
# where an object appears whole, or not at all; a library of its own reaches each
_OBJECT_STORES = frozenset({"s3", "gs", "az"})


class RemoteFolder:
    """A folder behind a URL, such as s3://bucket/charts or sftp://user@host/charts. Nobody else may write into it meanwhile.

    Raises:
        MissingExtraError: no library is installed for such URLs; the message says which extra has it.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        scheme = parts.scheme
        if scheme not in REMOTE_SCHEMES:
            raise PlanError(
                f"no destination has {scheme}:// URLs; allowed: file, {', '.join(REMOTE_SCHEMES)}, or a folder"
            )
        self._whole_at_once = scheme in _OBJECT_STORES
        # fsspec's own sftp is another library; sshfs has the name ssh
        named = parts._replace(scheme="ssh").geturl() if scheme == "sftp" else url
        try:
            options = {"use_listings_cache": False} if self._whole_at_once else {}
            self._fs, self._root = fsspec.url_to_fs(named, skip_instance_cache=True, **options)
        except ImportError:
            raise MissingExtraError(f"reaches {scheme}://", scheme) from None
        except Exception as error:  # noqa: BLE001 - each library raises its own
            raise self._failed("reached", error) from None

    def __str__(self) -> str:
        return self._shown

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """Give a folder of this machine to write aside in; it is removed at the end, and what was staged and not placed too."""
        with TemporaryDirectory(prefix="chartferry-") as folder:
            if not self._whole_at_once:
                with self._errors("made"):
                    self._fs.makedirs(self._root, exist_ok=True)
            self._clear_staged()  # of an export that was killed
            try:
                yield Path(folder)
            except BaseException:
                with suppress(DestinationError):  # the next export does it; the first error is the one to tell
                    self._clear_staged()
                raise

    def take(self, part: AtomicFile, name: str) -> None:
        """Upload a sealed file."""
        with self._errors("written"):
            self._fs.put_file(str(part.part), self._aside(name))
            self._appear(name)

    def stage(self, part: AtomicFile, sealed: DeliveredFile) -> Staged:
        """Upload it under a name that `names` does not give, and read it back. Its copy on this machine is removed."""
        aside = _beside(sealed.path)
        with self._errors("written"):
            self._fs.put_file(str(part.part), self._path(aside))
        part.part.unlink()  # or all files together would have to fit into the temporary folder
        digest = hashlib.sha256()
        with suppress(FileNotFoundError):
            for chunk in self.chunks(aside):
                digest.update(chunk)
        if digest.hexdigest() != sealed.sha256:
            raise DestinationError(
                f"{self._shown}: {sealed.path} reads back differently from what was written. Run the same command again"
            )
        return _StagedObject(self, sealed.path)

    def put(self, name: str, content: bytes) -> None:
        """Upload a small file."""
        with self._errors("written"):
            self._fs.pipe_file(self._aside(name), content)
            self._appear(name)

    def chunks(self, name: str) -> Iterator[bytes]:
        """Read a file."""
        with self._errors("read", may_be_absent=True), self._fs.open(self._path(name), "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def names(self) -> frozenset[str]:
        """Return the names of the existing files, without those that are being written."""
        return frozenset(name for name in self._all_names() if not name.endswith(LEFTOVER_SUFFIX))

    def has(self, name: str) -> bool:
        """Whether a file exists."""
        with self._errors("read"):
            self._fs.invalidate_cache()
            return bool(self._fs.isfile(self._path(name)))

    def remove(self, name: str) -> None:
        """Remove a file, and its folders if they are empty then; an object store has none."""
        with self._errors("removed"):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return
        with suppress(Exception):  # each library raises its own; a folder that stays harms nobody
            for above in () if self._whole_at_once else list(PurePosixPath(name).parents)[:-1]:
                if self._fs.ls(self._path(str(above)), detail=False):
                    break
                self._fs.rm(self._path(str(above)), recursive=True)  # sshfs has no rmdir of its own

    def place_staged(self, name: str) -> None:
        """Move what `stage` has uploaded to its name. An object store copies it, which it shows when all of it is there."""
        with self._errors("written"):
            if self._whole_at_once:
                self._fs.cp_file(self._path(_beside(name)), self._path(name))
                self._fs.rm_file(self._path(_beside(name)))
            else:
                self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
                self._fs.mv(self._path(_beside(name)), self._path(name))

    def _clear_staged(self) -> None:
        for name in sorted(self._all_names()):
            if name.startswith(".") and name.endswith(LEFTOVER_SUFFIX):
                self.remove(name)

    def _all_names(self) -> frozenset[str]:
        with self._errors("listed"):
            self._fs.invalidate_cache()
            try:
                found = [one["name"].rstrip("/").rpartition("/")[2] for one in self._fs.ls(self._root, detail=True)]
            except FileNotFoundError:  # an object store has no empty folders
                return frozenset()
            return frozenset(filter(None, found))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _aside(self, name: str) -> str:
        return self._path(name if self._whole_at_once else _beside(name))

    def _appear(self, name: str) -> None:
        if not self._whole_at_once:
            self._fs.mv(self._aside(name), self._path(name))

    @contextmanager
    def _errors(self, doing: str, *, may_be_absent: bool = False) -> Iterator[None]:
        """Turn what a library raises into a DestinationError; it may quote a URL with a password, so only its kind is shown."""
        try:
            yield
        except (DestinationError, GeneratorExit):
            raise
        except Exception as error:
            if may_be_absent and isinstance(error, FileNotFoundError):
                raise
            raise self._failed(doing, error) from None

    def _failed(self, doing: str, error: Exception) -> DestinationError:
        check = "check the place, the credentials, and that it can be reached from here"
        if isinstance(error, FileNotFoundError):
            check = "make the bucket, container or folder first, or correct the URL"
        return DestinationError(
            f"{self._shown} cannot be {doing} ({type(error).__name__}); {check}. Then run the same command again"
        )


def _beside(name: str) -> str:
    return f".{flat(name)}{LEFTOVER_SUFFIX}"


@dataclass(frozen=True)
class _StagedObject:
    """A file that `RemoteFolder.stage` has uploaded."""

    folder: RemoteFolder
    name: str

    def place(self) -> None:
        self.folder.place_staged(self.name)
