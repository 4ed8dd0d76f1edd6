"""Splits URLs that people or servers wrote, none of which is an error here. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit


def parts_of(url: str) -> SplitResult:
    """Split a URL. What the library refuses to split, such as a bracket without its other half, has no scheme and no host."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def is_served(url: str) -> bool:
    """Return whether it is a complete http or https URL: it has a host, a port from 1 to 65535 or none, and no white space."""
    parts = parts_of(url)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and has_port(parts) and not re.search(r"\s", url)


def has_port(parts: SplitResult) -> bool:
    """Return whether the URL's port is one, from 1 to 65535, or not given."""
    try:
        return parts.port != 0
    except ValueError:
        return False
