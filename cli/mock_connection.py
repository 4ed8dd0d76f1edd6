"""The configuration for a mock EHR: its key, its cohort if the vendor is crawled, and the TOML that names them.

`mock serve` prints it, `demo` uses it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc.jwk import import_key

from config.errors import ConfigError
from connectors.fhir.vendors import profile_for
from mocks.keys import make_key_pair
from mocks.manners import MANNERS
from mocks.serving import Served

PRIVATE = 0o600
# for bulk exports; a vendor's own waits are made for those of minutes and hours
_EXPORTS_IN_SECONDS = "poll.first_s = 0.5, poll.cap_s = 1"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, PRIVATE)
            file.write(text)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written ({exc.strerror}); choose another folder") from exc


def mock_jwks(path: Path, vendor: str) -> dict[str, Any]:
    """Return the public keys for a private key file; create the file if it is missing, so that a later start reuses it."""
    if path.is_file():
        try:
            key = import_key(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError) as exc:
            raise ConfigError(f"{path} exists but is not a JWK; remove it, or name another folder with --keys") from exc
        return {"keys": [{**key.as_dict(private=False), "key_ops": ["verify"]}]}
    algs = MANNERS[vendor].algs
    alg = next(each for each in ("ES384", "RS384", "RS256") if each in algs)
    pair = make_key_pair(alg, f"mock-{vendor}")
    write_private(path, json.dumps(pair.private))
    return pair.jwks


@dataclass(frozen=True, kw_only=True)
class MockConnection:
    """A connection to a mock EHR, as in the configuration."""

    name: str
    vendor: str
    base_url: str
    client_id: str | None = None  # None: no login
    key: Path | None = None
    group: str | None = None
    cohort: Path | None = None
    audience: str | None = None  # None: the token URL, as everywhere except VA
    tenant: str | None = None

    def toml(self) -> str:
        """Return the connection's table."""
        lines = [f"[connections.{self.name}]", f'vendor = "{self.vendor}"', f'base_url = "{self.base_url}"']
        if self.tenant is not None:
            lines.append(f'tenant = "{self.tenant}"')
        if self.client_id is not None and self.key is not None:
            lines += [f"client_id = {json.dumps(self.client_id)}", f"key = {json.dumps(f'file:{self.key}')}"]
        if self.group is not None:
            lines.append(f"group = {json.dumps(self.group)}")
        if self.cohort is not None:
            lines.append(f"cohort = {json.dumps(f'file:{self.cohort}')}")
        profile = []
        if self.audience is not None:
            profile.append(f"login.audience = {json.dumps(self.audience)}")
        if self.group is not None:
            profile.append(_EXPORTS_IN_SECONDS)
        if profile:
            lines.append(f"profile = {{ {', '.join(profile)} }}")
        return "\n".join(lines) + "\n"


def connection_to(
    served: Served, *, name: str, key: Path | None, folder: Path, tenant: str | None = None
) -> MockConnection:
    """Return the connection to a running mock; write a cohort file if the vendor is crawled and lists no patients."""
    profile = profile_for(served.vendor)
    cohort = None
    if profile.mode == "crawl" and not profile.search.lists_patients:
        cohort = folder / f"{name}.cohort.csv"
        write_private(cohort, "\n".join(["patient_id", *served.patient_ids]) + "\n")
    return MockConnection(
        name=name,
        tenant=tenant,
        vendor=served.vendor,
        base_url=served.base_url,
        client_id=served.client_id if key is not None else None,
        key=key,
        group=served.group_id if profile.mode == "bulk" else None,
        cohort=cohort,
        audience=served.audience if key is not None and served.audience != served.token_url else None,
    )
