"""Writes one JSON value in the ways that servers write it: close, wide, in ASCII, with names and texts escaped at random."""

from __future__ import annotations

import json
import random
import re
from typing import Any

SPELLINGS = ("close", "wide", "ascii", "escaped")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def spelt(value: Any, spelling: str, rng: random.Random) -> bytes:
    """The value as UTF-8 JSON."""
    if spelling == "wide":
        return json.dumps(value, indent=rng.choice([0, 1, 4]), separators=(" , ", " : "), ensure_ascii=False).encode()
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=spelling != "close")
    if spelling != "escaped":
        return text.encode()
    return _STRING.sub(lambda found: _escaped(json.loads(found[0]), rng), text).encode()


def _escaped(text: str, rng: random.Random) -> str:
    shown = [f"\\u{ord(c):04X}" if rng.random() < 0.3 else "\\/" if c == "/" else json.dumps(c)[1:-1] for c in text]
    return f'"{"".join(shown)}"'
