"""What the embedded server takes of the machine, and does to the folders around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapshots.embedded import _open_way, shared_buffers_mb


def test_folders_opened_to_the_servers_account_are_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    closed = tmp_path / "closed"
    inner = closed / "inner"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    inner.chmod(0o755)
    _open_way(inner / "data")
    assert closed.stat().st_mode & 0o777 == 0o701
    (record,) = caplog.records
    assert f"{closed}" in record.getMessage()
    assert f"{inner}" not in record.getMessage()
    caplog.clear()
    _open_way(inner / "data")
    assert not caplog.records


@pytest.mark.parametrize(
    ("memory_gb", "megabytes"), [(0.25, 128), (1, 128), (2, 256), (4, 512), (8, 1024), (24, 1024), (512, 1024)]
)
def test_the_server_keeps_pages_in_an_eighth_of_the_memory_within_bounds(memory_gb: float, megabytes: int):
    assert shared_buffers_mb(int(memory_gb * (1 << 30))) == megabytes
