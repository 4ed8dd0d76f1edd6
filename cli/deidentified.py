"""The option by which an export is de-identified, and its key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from config.errors import Problem, SecretUnreadableError
from config.settings import Settings
from exports.safe_harbor.deidentify import LEAST_KEY_BYTES, SafeHarbor


class ProfileName(StrEnum):
    """By what an export is de-identified."""

    safe_harbor = "safe-harbor"
    shifted_dates = "shifted-dates"


ProfileOption = Annotated[
    ProfileName | None,
    typer.Option(
        "--profile",
        help="De-identify: by 45 CFR 164.514(b)(2), or with dates shifted by patient, not cut to the year (docs/safe-harbor.md).",
        show_default=False,
    ),
]


def safe_harbor_problems(settings: Settings, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield why the configured key, if there is one, cannot be used."""
    ref = settings.export.safe_harbor_key
    if ref is None:
        return
    try:
        length = len(ref.read(environ).reveal().encode())
    except SecretUnreadableError as exc:
        found, _, allowed = str(exc).rpartition(": ")
        yield Problem("export.safe_harbor_key", found, allowed)
        return
    if length < LEAST_KEY_BYTES:
        yield Problem(
            "export.safe_harbor_key",
            f"{ref}, which has {length} bytes and could be guessed",
            f"at least {LEAST_KEY_BYTES}; `openssl rand -hex {LEAST_KEY_BYTES}` makes one",
        )


def checked_profile(name: ProfileName | None, settings: Settings) -> SafeHarbor | None:
    """Return the profile's choices; a usage error if the configuration names no key.

    Raises:
        SecretUnreadableError: it names one that cannot be read.
    """
    if name is None:
        return None
    ref = settings.export.safe_harbor_key
    if ref is None:
        raise typer.BadParameter(
            'set `safe_harbor_key = "env:NAME"` in [export] of the configuration, the key by which ids are replaced; '
            "`openssl rand -hex 32` makes one"
        )
    key = ref.read(os.environ).reveal().encode()
    return SafeHarbor(key, datetime.now(UTC).year, shifts_dates=name is ProfileName.shifted_dates)
