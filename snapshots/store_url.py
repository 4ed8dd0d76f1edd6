"""What `store.url` means: the directory of an embedded server, or the URL of another. `embedded` runs the server."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

EMBEDDED = "embedded"
SYSTEM_DATA = Path("/var/lib/chartferry")  # FHS 3.0, 5.8: state of one program


def embedded_directory(url: str) -> Path | None:
    """Return the directory that "embedded" or "embedded:DIR" means; None for the URL of a server.

    Root's is a system directory: the server runs under another account, which would otherwise need access to root's home.
    """
    if url == EMBEDDED and os.geteuid() == 0 and not os.environ.get("XDG_DATA_HOME"):
        return SYSTEM_DATA / "postgres"
    if url == EMBEDDED:
        return platformdirs.user_data_path("chartferry") / "postgres"
    name, _, directory = url.partition(":")
    return Path(directory) if name == EMBEDDED and directory else None


def store_exists(url: str) -> bool:
    """Return whether there is a store to open: assumed for a server's URL; an embedded store has left its directory."""
    directory = embedded_directory(url)
    return directory is None or (directory.is_dir() and any(directory.iterdir()))
