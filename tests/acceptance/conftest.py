"""Fixtures of the acceptance tier: a user's directory over a fresh database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.histories.stage import Stage
from tests.user_site import Site

VENDORS = ("epic", "cerner", "allscripts", "va", "generic")


@pytest.fixture
def site(tmp_path: Path, store_url: str) -> Site:
    return Site(tmp_path, store_url)


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def stage(store_server: str) -> Iterator[Stage]:
    """A tenant of its own on the embedded server, on which nights are played in this process."""
    found = Stage(store_server, "nights")
    yield found
    found.close()
