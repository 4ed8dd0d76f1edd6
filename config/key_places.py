"""Finds the place of a key in a model of nested tables, if it is in the wrong table or has a former flat name. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from config.near_words import nearest


def places_of(key: str, model: type[BaseModel]) -> tuple[str, ...]:
    """Return the dotted paths in `model` that `key` names; none: it names nothing there.

    First the paths that it spells together with their table ("poll_cap_s": poll.cap_s, "reference_depth": references.depth), else
    those that end in it ("page_size": search.page_size).
    """
    spelt, ending = _spellings(model)
    return spelt.get(key) or ending.get(key) or ()


def place_near(key: str, model: type[BaseModel]) -> str | None:
    """Return the dotted path in `model` that `key` most likely means, if one is close."""
    spelt, ending = _spellings(model)
    word = nearest(key, {*spelt, *ending})
    return None if word is None else (spelt.get(word) or ending[word])[0]


def tables_of(model: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """Return the fields of `model` that are tables."""
    annotations = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: kind for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def _spellings(model: type[BaseModel]) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """The words that may mean a path: its last one, and that with its table."""
    spelt: dict[str, tuple[str, ...]] = {}
    ending: dict[str, tuple[str, ...]] = {field.alias or name: (name,) for name, field in model.model_fields.items()}
    for table, inner in tables_of(model).items():
        for field in inner.model_fields:
            path = f"{table}.{field}"
            for word in {f"{table}_{field}", f"{table.removesuffix('s')}_{field}"}:
                spelt[word] = (*spelt.get(word, ()), path)
            ending[field] = (*ending.get(field, ()), path)
    return spelt, ending
