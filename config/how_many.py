"""Says how many of something there are: "1 row", "2 rows"."""

from __future__ import annotations


def how_many(number: int, one: str, several: str = "") -> str:
    """Return the number with its word. `several` is the word for any number but one; default: `one` with an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
