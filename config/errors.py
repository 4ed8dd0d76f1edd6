"""The errors of config, and nothing else.

    ConfigError                    the configuration cannot be used; lists every problem
    ├── ConfigNotFoundError        no configuration file was found
    └── SecretUnreadableError      a `file:` or `env:` reference cannot be read

A problem names a key path, what was found there and what is allowed. It never quotes the values of secret keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong with a configuration."""

    path: str  # "connections.mercy-epic.vendor"
    found: str  # the value found, without secrets
    allowed: str  # the values allowed, or what to do

    def __str__(self) -> str:
        return f"{self.path}\n    found:   {self.found}\n    allowed: {self.allowed}"


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has every problem, in the file's order."""

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), source: Path | None = None) -> None:
        super().__init__("\n".join([message, *(str(problem) for problem in problems)]))
        self.problems = tuple(problems)
        self.source = source


class ConfigNotFoundError(ConfigError):
    """No configuration file was found; the message lists the places searched."""


class SecretUnreadableError(ConfigError):
    """A `file:` or `env:` reference cannot be read; the message names the reference, never the content."""
