"""Finds invalid paths in `[encryption]`: `config` checks their form, this module whether R4 has the element."""

from __future__ import annotations

from collections.abc import Iterator

from config.errors import Problem
from config.settings import Settings
from exports.elements.table import reached, unknown_in
from snapshots.identifying import PLAIN


def path_problems(settings: Settings) -> Iterator[Problem]:
    """Yield which paths of `[encryption]` would encrypt nothing: those that R4 does not have, and those of what stays plain."""
    for path in sorted(settings.encryption.paths):
        outer, _, last = path.rpartition(".")
        if unknown := unknown_in(path):
            name, instead = unknown
            yield Problem(
                "encryption.paths", f"{path!r}: R4 has no {name}", instead or "an element of R4, as JSON spells it"
            )
        elif last in PLAIN or reached(path)[1] == ("boolean",):
            yield Problem(
                "encryption.paths", repr(path), f"an element within {outer} that says more: {last!r} stays plain"
            )
