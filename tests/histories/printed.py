"""Writes a history's words as Python, without what stands as by default."""

from __future__ import annotations

from typing import NamedTuple


def printed(word: NamedTuple) -> str:
    """The call that makes it, with the fields that are not as they are by default."""
    defaults = word._field_defaults
    shown = [(name, value) for name, value in word._asdict().items() if name not in defaults or defaults[name] != value]
    return f"{type(word).__name__}({', '.join(f'{name}={_value(value)}' for name, value in shown)})"


def _value(value: object) -> str:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return printed(value)  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))}{',' if len(value) == 1 else ''})"
    return repr(value)
