"""Finds a manifest page's planned files again in a later answer of that page. Pure.

Links are signed again and lists come in another order, so a file is recognised by its list, type, count and URL path, and by the
unchanged part of its query where files share a path (`/file?id=1`). Its position decides only if nothing else does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from connectors.fhir.bulk.manifest import ListedFile, Manifest
from connectors.fhir.errors import ProtocolError
from connectors.fhir.unit_details import FileDetail
from snapshots.unit import Unit

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")


class PageFiles:
    """What one answer of a manifest page lists. Every file of it can be found for one planned file only."""

    def __init__(self, manifest: Manifest, *, paths_may_change: bool = False) -> None:
        """With `paths_may_change` a file at its old position is known by its type too, if that names only one."""
        self._only = Counter((file.list, file.resource_type) for file in manifest.files()) if paths_may_change else {}
        self._at = {(file.list, file.position): file for file in manifest.files()}
        self._by_path: dict[tuple[str, str], list[ListedFile]] = defaultdict(list)
        for file in self._at.values():
            self._by_path[file.list, _path(file.url)].append(file)
        self._by_pair: dict[tuple[str, str, str], list[ListedFile]] = defaultdict(list)
        for (name, path), files in self._by_path.items():
            if len(files) > 1:
                for file in files:
                    for pair in _pairs(file.url):
                        self._by_pair[name, path, pair].append(file)
        self._found: dict[tuple[str, int], str] = {}

    @property
    def found(self) -> Mapping[tuple[str, int], str]:
        """The files that were found, by list and position, with the key of the unit that each is."""
        return self._found

    def find(self, unit: Unit) -> ListedFile:
        """Return the planned file as this page lists it.

        Raises:
            ProtocolError: the page does not list it any more, or lists it as something else, or several files could be it.
        """
        planned = FileDetail.of(unit)
        name, position = planned.list, planned.position
        where = f"The export's manifest page {unit.page}, fetched again,"
        what = f"{name} file {position}, which it listed before"
        path = _path(planned.url)
        candidates = self._by_path.get((name, path), [])
        here = self._at.get((name, position))
        if not candidates and here is not None:
            # a file that was listed without URL may have one by now
            alone = self._only.get((name, unit.resource_type)) == 1
            candidates = [here] if alone or not planned.url else []
        if not candidates:
            raise ProtocolError(f"{where} does not list {what}: sync again to start a new export.")
        kept = [self._by_pair[name, path, pair] for pair in _pairs(planned.url) if (name, path, pair) in self._by_pair]
        candidates = min(kept, key=len, default=candidates)
        if len(candidates) > 1 and here is not None and here in candidates and _agree(unit, planned, here):
            file = here
        else:
            fitting = [one for one in candidates if _agree(unit, planned, one)]
            if not fitting:
                raise ProtocolError(
                    f"{where} lists another type or count for {what}: the file has changed. Sync again to start a new export."
                )
            if len(fitting) > 1:
                raise ProtocolError(
                    f"{where} lists its files in another order, and {what}, cannot be distinguished from {len(fitting)} "
                    "others: sync again to start a new export."
                )
            (file,) = fitting
        if self._found.setdefault((name, file.position), unit.key) != unit.key:
            raise ProtocolError(
                f"{where} lists one file where it listed several, {what.partition(',')[0]} among them: sync again to "
                "start a new export."
            )
        return file


def last_positions(planned: Iterable[Unit]) -> Mapping[str, int]:
    """The last position in each list that has a unit."""
    last: dict[str, int] = {}
    for file in map(FileDetail.of, planned):
        last[file.list] = max(last.get(file.list, 0), file.position)
    return last


def _agree(unit: Unit, planned: FileDetail, file: ListedFile) -> bool:
    same_count = planned.count is None or file.lines is None or planned.count == file.lines
    return unit.resource_type == file.resource_type and same_count


def _path(url: str) -> str:
    return _ORIGIN.sub("", re.split(r"[?#]", url.strip(), maxsplit=1)[0], count=1)


def _pairs(url: str) -> set[str]:
    return set(filter(None, url.partition("#")[0].partition("?")[2].split("&")))
