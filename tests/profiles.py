"""Overrides of a vendor's profile as tests write them: flat, so that they add up by `**`, each by its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def grouped(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration writes for these: {"retry.max_tries": 2} or retry__max_tries=2 is {"retry": {"max_tries": 2}}."""
    found: dict[str, Any] = {}
    for path, value in flat.items():
        group, _, field = path.replace("__", ".").partition(".")
        more = {field: value} if field else value
        found[group] = {**found.get(group, {}), **more} if isinstance(more, Mapping) else more
    return found
