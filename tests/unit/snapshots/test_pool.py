"""Where the embedded store lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapshots.store_url import embedded_directory


@pytest.mark.parametrize(
    ("user", "environ", "expected"),
    [
        (1000, {"HOME": "/home/jo"}, "/home/jo/.local/share/chartferry/postgres"),
        (0, {"HOME": "/root"}, "/var/lib/chartferry/postgres"),
        (0, {"HOME": "/root", "XDG_DATA_HOME": "/data"}, "/data/chartferry/postgres"),
    ],
)
def test_the_default_store_is_in_the_users_data_directory_and_roots_never_in_its_home(
    monkeypatch: pytest.MonkeyPatch, user: int, environ: dict[str, str], expected: str
):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert embedded_directory("embedded") == Path(expected)


def test_a_store_may_be_a_directory_but_a_server_url_is_none():
    assert embedded_directory("embedded:/srv/charts") == Path("/srv/charts")
    assert embedded_directory("postgresql://db/charts") is None
