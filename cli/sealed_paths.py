"""Which paths of `[encryption]` are none: `config` knows how one is written, FHIR's elements know which there are."""

from __future__ import annotations

from collections.abc import Iterator

from config.errors import Problem
from config.settings import Settings
from exports.elements.table import unknown_in
from snapshots.identifying import PLAIN


def path_problems(settings: Settings) -> Iterator[Problem]:
    """Yield which paths of `[encryption]` would encrypt nothing: those that R4 does not have, and those of what stays plain."""
    for path in sorted(settings.encryption.paths):
        if path.rpartition(".")[2] in PLAIN:
            yield Problem("encryption.paths", repr(path), f"another element: {', '.join(sorted(PLAIN))} stay plain")
        if unknown := unknown_in(path):
            name, instead = unknown
            yield Problem(
                "encryption.paths", f"{path!r}: R4 has no {name}", instead or "an element of R4, as JSON spells it"
            )
