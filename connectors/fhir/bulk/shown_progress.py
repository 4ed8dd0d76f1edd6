"""Decides what to show of a server's X-Progress. Pure. The header is free text and may contain PHI: only safe parts stay."""

from __future__ import annotations

import re

_PERCENT = re.compile(r"(?<![\w.,-])(\d{1,3})(\.\d{1,2})?\d* ?%", re.ASCII)
_OF = re.compile(r"(?<![\w.,/-])(\d{1,9}) of (\d{1,9})(?![\w.,/-])", re.ASCII | re.IGNORECASE)
_WORDS = frozenset(
    {
        "accepted",
        "active",
        "building",
        "complete",
        "completed",
        "exporting",
        "finalizing",
        "in progress",
        "initializing",
    }
    | {
        "loading",
        "pending",
        "preparing",
        "processing",
        "queued",
        "running",
        "searching",
        "started",
        "submitted",
        "waiting",
    }
)
_UNSAID = "in progress"
_ALL = 100


def shown_progress(header: str | None) -> str:
    """Give a percentage ("45 %"), counts ("3 of 20") or a state from a list; "in progress" for anything else."""
    text = (header or "").strip()
    percent, of = _PERCENT.search(text), _OF.search(text)
    if percent is not None and int(percent[1]) <= _ALL:
        return f"{percent[1]}{percent[2] or ''} %"
    if of is not None and int(of[1]) <= int(of[2]):
        return f"{int(of[1])} of {int(of[2])}"
    state = re.sub(r"[-_\s]+", " ", text.rstrip(".…")).lower()
    return state if state in _WORDS else _UNSAID
