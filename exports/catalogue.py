"""Finds and reads views: the built-in ViewDefinition files in `exports/views`, and any file of the user's.

A folder in `exports/views` is a set of views that are exported only where they are named: `omop` (an example for OMOP CDM 5.4),
`identifying` (social security numbers). `compiler` checks whether a definition makes sense.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

from exports.errors import UnknownViewError, ViewError
from snapshots.stored_documents import STORED_DOCUMENT

_FOLDER = files("exports").joinpath("views")
_SUFFIX = ".json"


@dataclass(frozen=True)
class LoadedView:
    """A definition as read. `digest` is the SHA-256 (hex) of its file's bytes; the manifest uses it to identify the view."""

    name: str
    definition: dict[str, Any]
    digest: str

    @property
    def resource(self) -> str:
        """The resource type of the view; empty if the definition lacks it."""
        return str(self.definition.get("resource", ""))

    @property
    def is_whole(self) -> bool:
        """Whether it leaves out no resource of its type: it has no `where`."""
        return not self.definition.get("where")

    @property
    def reads_documents(self) -> bool:
        """Whether it may ask for what is stored of its resources' documents: it names their extension somewhere."""
        return STORED_DOCUMENT in json.dumps(self.definition, default=str)


def builtin_names() -> tuple[str, ...]:
    """Names of the built-in views that an export has unless it names others, sorted."""
    return _names_in(_FOLDER)


def view_sets() -> dict[str, tuple[str, ...]]:
    """The sets of built-in views that are exported only where they are named, and the names of their views; all sorted."""
    folders = sorted((entry for entry in _FOLDER.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    return {folder.name: names for folder in folders if (names := _names_in(folder))}


def load_views(names_or_files: Sequence[str]) -> list[LoadedView]:
    """Load the requested views, in that order; the name of a set means all its views.

    Raises:
        ViewError: as `load_view`.
    """
    sets = view_sets()
    return [load_view(one) for named in names_or_files for one in sets.get(named, (named,))]


def _names_in(folder: Traversable) -> tuple[str, ...]:
    return tuple(sorted(entry.name.removesuffix(_SUFFIX) for entry in folder.iterdir() if entry.name.endswith(_SUFFIX)))


def _places() -> dict[str, Traversable]:
    """The file of each built-in view."""
    folders = {"": builtin_names(), **view_sets()}
    return {name: _FOLDER.joinpath(folder, name + _SUFFIX) for folder, names in folders.items() for name in names}


def load_view(name_or_file: str) -> LoadedView:
    """Load a built-in view by its name, or a ViewDefinition from a JSON file.

    Raises:
        UnknownViewError: there is neither; the message lists the built-in views.
        ViewError: the file is not a JSON object, or has no `name`.
    """
    places = _places()
    if name_or_file in places:
        return _loaded(name_or_file, places[name_or_file].read_bytes())
    path = Path(name_or_file)
    if not path.is_file():
        close = difflib.get_close_matches(name_or_file, places, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        problem = f"neither a built-in view nor a file has that name{hint}"
        allowed = f"{', '.join((*builtin_names(), *view_sets()))}, or a file"
        raise UnknownViewError(name_or_file, "", problem, allowed=allowed)
    try:
        return _loaded(path.name, path.read_bytes())
    except OSError as error:
        raise ViewError(name_or_file, "", f"cannot be read: {error.strerror}") from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _loaded(origin: str, content: bytes) -> LoadedView:
    try:
        definition = json.loads(content, parse_float=Decimal, parse_constant=_no_number)
    except ValueError as error:
        raise ViewError(origin, "", f"the file is not JSON: {error}") from error
    except RecursionError:
        raise ViewError(origin, "", "the file is nested too deeply") from None
    if not isinstance(definition, dict):
        raise ViewError(origin, "", "the file does not contain a JSON object", allowed="a ViewDefinition")
    name = definition.get("name")
    if not isinstance(name, str) or not name:
        raise ViewError(
            origin,
            "name",
            "a view needs a name, which also names its file",
            allowed="a letter, then letters, digits and _",
        )
    return LoadedView(name, definition, hashlib.sha256(content).hexdigest())
