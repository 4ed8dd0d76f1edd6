"""What the profile allows: the elements of each type, and the codes of HL7's systems, as two files list them.

A line of `allowed.txt` is a type and the paths of its elements, a choice with `[x]`. An element stands for its whole datatype, of
which `datatypes` lets out what is safe. A line of `codes.txt` is a code system and its codes. All else is dropped, and types
without a line are left out. A unit test holds the list against R4's elements.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def allowed_paths() -> dict[str, frozenset[str]]:
    """Return, by resource type, the paths of its elements below the type: `birthDate`, `reaction.severity`, `onset[x]`."""
    lines = files("exports.safe_harbor").joinpath("allowed.txt").read_text(encoding="utf-8").splitlines()
    return {name: frozenset(paths) for name, *paths in map(str.split, lines)}


@cache
def allowed_codes() -> dict[str, frozenset[str]]:
    """Return, by code system, the codes of HL7's own systems that may leave (`codes.txt`)."""
    lines = files("exports.safe_harbor").joinpath("codes.txt").read_text(encoding="utf-8").splitlines()
    return {system: frozenset(codes) for system, *codes in map(str.split, lines)}


@cache
def leads_on(resource_type: str) -> frozenset[str]:
    """Return the paths that have allowed ones below them."""
    paths = allowed_paths().get(resource_type, frozenset())
    return frozenset(path[:at] for path in paths for at, sign in enumerate(path) if sign == ".")
