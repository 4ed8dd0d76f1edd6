"""How much memory the embedded server's settings reckon with."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from snapshots.machine_memory import memory_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Control groups of both versions: `site` may use 1 MB, and `site/unit` within it has no limit, or 2 MB."""
    for folder in ("site/unit", "memory/site/unit"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "site/memory.max").write_text("1048576\n")
    (tmp_path / "site/unit/memory.max").write_text("max\n")
    (tmp_path / "memory/site/memory.limit_in_bytes").write_text("1048576\n")
    (tmp_path / "memory/site/unit/memory.limit_in_bytes").write_text("2097152\n")
    return tmp_path


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ("0::/site/unit\n", 1 << 20),
        ("9:name=systemd:/\n4:cpu,memory:/site/unit\n0::/\n", 1 << 20),
        ("4:memory:/elsewhere\n", MACHINE),
        ("0::/\n", MACHINE),
        ("", MACHINE),
    ],
    ids=["version 2", "version 1", "a group without files", "the root", "nothing"],
)
def test_the_tightest_limit_of_the_own_group_and_those_around_it_counts(own: str, found: int, groups: Path) -> None:
    (groups / "own").write_text(own)
    assert memory_bytes(groups / "own", groups) == found


def test_where_nothing_says_a_limit_the_machines_memory_counts(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path / "none", tmp_path) == MACHINE


def test_a_limit_of_the_address_space_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (900_000_000, resource.RLIM_INFINITY))
    assert memory_bytes(tmp_path / "none", tmp_path) == 900_000_000
