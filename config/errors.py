"""The errors of config, and nothing else.

    ConfigError                    the configuration cannot be used; carries every problem found
    ├── ConfigNotFoundError        no configuration file where we looked
    └── SecretUnreadableError      a `file:` or `env:` reference leads to nothing readable

A problem names a key path, what was found there and what is allowed. Values of secret keys are never quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with a configuration."""

    path: str  # "connections.mercy-epic.vendor"
    found: str  # what stands there, without secrets
    allowed: str  # what may stand there, or what to do

    def __str__(self) -> str:
        return f"{self.path}\n    found:   {self.found}\n    allowed: {self.allowed}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` holds every one that was found, in the file's order."""

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), source: Path | None = None) -> None:
        super().__init__("\n".join([message, *(str(problem) for problem in problems)]))
        self.problems = tuple(problems)
        self.source = source


class ConfigNotFoundError(ConfigError):
    """No configuration file where we looked; the message lists the places."""


class SecretUnreadableError(ConfigError):
    """A `file:` or `env:` reference leads to nothing readable; the message names the reference, never the content."""
