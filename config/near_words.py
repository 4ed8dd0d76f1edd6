"""Finds the known word that a typo most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most likely meant, if one is close."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return close[0] if close else next((each for each in options if len(word) > 2 and word in each), None)  # noqa: PLR2004
