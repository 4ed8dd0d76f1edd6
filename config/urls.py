"""Splits URLs that people or servers wrote, none of which is an error here. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def parts_of(url: str) -> SplitResult:
    """Split a URL. What the library refuses to split, such as a bracket without its other half, has no scheme and no host."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def is_served(url: str) -> bool:
    """Return whether it is a complete http or https URL."""
    parts = parts_of(url)
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
