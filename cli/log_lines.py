"""How a command's log lines look: sentences for people, JSON for machines."""

from __future__ import annotations

import sys

from cli.invocation import Invocation
from config.logs import configure_logging


def start_logging(invocation: Invocation, level: str = "INFO") -> None:
    """Send log lines to stderr: JSON unless it is a terminal."""
    configure_logging(json=not invocation.terminal, level=level, stream=sys.stderr)
