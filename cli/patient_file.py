"""Reads patients from a file, or from stdin. `connectors.fhir.cohort.cohort_file` says what a line may hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from config.errors import ConfigError
from connectors.fhir.cohort.cohort_file import parse_cohort


def read_patients(source: str, called: str = "the file of --patients") -> Mapping[str, int]:
    """Read patients from a file, or from stdin for "-": one per line, or the first column of a CSV; return each with its line.

    The values are PHI. So may be the name of a file that somebody types: an error has only what it is `called`.
    """
    called = "stdin" if source == "-" else called
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
        text.encode()  # Python lets bytes of other encodings through from stdin, as surrogates
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text; save it as UTF-8"
        raise ConfigError(f"{called} cannot be read: {reason}") from exc
    patients = parse_cohort(text)
    if not patients:
        raise ConfigError(f"{called} names no patient: write one id on each line")
    return patients


def file_name(source: str) -> str:
    """Return the name of the roster for a file of patients: it depends on the path, not on the content."""
    return f"file:{sha256(str(Path(source).resolve()).encode()).hexdigest()[:16]}"
