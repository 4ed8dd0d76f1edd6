"""Where profile overrides belong that are written by the flat names from before the profile had groups. Pure.

Such a configuration goes on working: a nightly sync must not fail because a key has moved. `config check` names the new places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from config.key_places import places_of, tables_of

# flat names that do not say their place by their spelling
_RENAMED = {
    "types": "search.types",
    "post_search_over": "search.post_over",
    "kickoff_429_means_running": "kickoff.busy_means_running",
}


def former_places(overrides: Mapping[str, Any], model: type[BaseModel]) -> dict[str, str]:
    """Return the former flat keys among these overrides, each with its dotted path in `model`."""
    found = {}
    for key in sorted(overrides.keys() - model.model_fields.keys()):
        places = (_RENAMED[key],) if key in _RENAMED else places_of(key, model)
        if len(places) == 1:
            found[key] = places[0]
    return found


def placed(overrides: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return the overrides with former flat keys in their tables; a key that is also written there keeps that value."""
    former = former_places(overrides, model)
    laid: dict[str, Any] = {}
    for key, path in former.items():
        table, _, field = path.partition(".")
        laid.setdefault(table, {})[field] = overrides[key]
    for key in overrides.keys() - former.keys():
        value = overrides[key]
        nested = key in laid and key in tables_of(model) and isinstance(value, Mapping)
        laid[key] = {**laid[key], **value} if nested else value
    return laid
