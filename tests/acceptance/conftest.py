"""Fixtures of the acceptance tier: a user's directory over a fresh database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.user_site import Site

VENDORS = ("epic", "cerner", "allscripts", "va", "generic")


@pytest.fixture
def site(tmp_path: Path, store_url: str) -> Site:
    return Site(tmp_path, store_url)


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)
