"""smart_fetch_command owns smart-fetch's command lines. `smart_fetch` measures it; `smart_fetch_faults` observes it under faults.

Its environment is separate, and made at the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.separate_environment import locked_version, separate_environment


def smart_fetch_program() -> Path:
    """Return the path of smart-fetch.

    Raises:
        CommandFailedError: its environment could not be made, most likely because there is no network.
    """
    return separate_environment("smart-fetch") / "bin" / "smart-fetch"


def smart_fetch_version() -> str:
    """Return the version in the lock file."""
    return locked_version("smart-fetch", "smart-fetch")


def smart_fetch(
    verb: str, out: Path, base_url: str, types: Sequence[str], *options: str, compress: bool = True
) -> list[str]:
    """Return the command line of a `smart-fetch crawl` or `bulk`. It must not split searches, so that both send the same ones."""
    return [
        str(smart_fetch_program()), verb, str(out), "--fhir-url", base_url, "--type", ",".join(types), "--no-default-filters",
        *([] if compress else ["--no-compression"]), *options,
    ]  # fmt: skip
