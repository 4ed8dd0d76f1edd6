"""Scopes: which ones to ask for, in the syntax the server speaks, and what the granted ones allow (vendor-facts 5.6). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from connectors.core.errors import PlanError
from connectors.fhir.profile import VendorProfile

Syntax = Literal["v1", "v2"]

_SCOPE = re.compile(r"(?:(?i:system|patient|user)/)?([A-Za-z]+|\*)\.([A-Za-z]+|\*)(\?.*)?")
_SUFFIX: dict[Syntax, str] = {"v1": "read", "v2": "rs"}
_BETWEEN = re.compile(r"\s+|,(?=(?i:system|patient|user)/)")  # a comma within a filter is the filter's
_READ = frozenset({"read", "*"})
_SEARCH = frozenset({"read", "search", "*"})
_V2 = re.compile(r"c?r?u?d?s?")


@dataclass(frozen=True)
class Granted:
    """What a token may do. `partly` are types granted with a filter only (`…?category=…`): their listings may lack some."""

    readable: frozenset[str]
    partly: frozenset[str]

    def may_read(self, resource_type: str) -> bool:
        """Whether resources of this type may be read, and exported in bulk."""
        return bool({resource_type, "*"} & self.readable)


def syntax_for(profile: VendorProfile, capabilities: Iterable[str]) -> Syntax:
    """The profile's syntax; "auto" means v1 unless only permission-v2 is advertised (vendor-facts 5.1)."""
    if profile.login.scope_syntax != "auto":
        return profile.login.scope_syntax
    offered = set(capabilities)
    return "v2" if "permission-v2" in offered and "permission-v1" not in offered else "v1"


def requested_scopes(types: Iterable[str], profile: VendorProfile, syntax: Syntax) -> str:
    """Return the `scope` of a token request (SMART backend services: "system/Type.read", v2 "system/Type.rs").

    One for each type, or the wildcard if no type is given and the EHR accepts it; the profile's extra scopes come first.

    Raises:
        PlanError: no type is given, and the EHR refuses wildcards.
    """
    wanted = sorted(set(types))
    if not wanted and not profile.login.scope_wildcards:
        raise PlanError(
            f"{profile.label} requires a scope for every resource type; set the connection's types or scopes"
        )
    scopes = [f"system/{name}.{_SUFFIX[syntax]}" for name in wanted or ["*"]]
    return " ".join(dict.fromkeys((*profile.login.extra_scopes, *scopes)))


def granted_scopes(scope: str) -> Granted:
    """Return what a granted `scope` allows; words that are not scopes of types are ignored.

    Accepts v1, v2, split `.r` and `.s`, filters, commas between scopes, a missing `system/` and any letter case.
    """
    readable: set[str] = set()
    bare: set[str] = set()
    filtered: set[str] = set()
    for part in _BETWEEN.split(scope.strip()):
        found = _SCOPE.fullmatch(part)
        if found is None:
            continue
        name, rights = found[1], found[2].lower()
        v2 = _V2.fullmatch(rights) is not None
        reads, searches = rights in _READ or (v2 and "r" in rights), rights in _SEARCH or (v2 and "s" in rights)
        if reads:
            readable.add(name)
        if reads or searches:
            (filtered if found[3] else bare).add(name)
    partly = frozenset() if "*" in bare else frozenset(filtered - bare)
    return Granted(frozenset(readable), partly)
