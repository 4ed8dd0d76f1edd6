"""The disk with the store is lost, and there is a backup; a tenant moves to another store by a file."""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.user_site import Site, mock

KEY = base64.b64encode(bytes([1]) * 32).decode()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder through which the server's account may pass, whatever other test sessions do to pytest's own."""
    made = Path(tempfile.mkdtemp(prefix="cf-"))
    yield made
    shutil.rmtree(made)


def killed_client_of(directory: Path) -> int:
    """Start a server as a restore does, kill who started it, and return the server's process id."""
    command = [sys.executable, "-m", "tests.integration.snapshots.embedded_client", str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline()
        client.kill()
    return int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])


def test_a_restored_store_equals_the_backup_and_syncs_again(site: Site, folder: Path) -> None:
    site.encrypt(KEY)
    site.use_store(f"embedded:{folder / 'store'}")
    backup = site.folder / "charts.dump"
    with mock("generic", patients=2) as served:
        site.connect(served)
        site.sync()
        before = site.exported()
        assert site.run("store", "backup", "--out", str(backup), "--as", "ana").code == 0
        shown = site.run("audit", "--patient", "-", stdin="anybody").stdout
        assert [word for word in ("ana", "backup", "all charts") if word not in shown] == []
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        site.use_store(f"embedded:{folder / 'again'}")
        assert site.run("store", "restore", str(backup)).code == 0
        assert site.exported() == before
        assert sum(run["new"] + run["changed"] for run in site.sync()["runs"]) == 0
    assert site.run("audit", "verify").code == 0
    for words in (
        ("backup", "--out", str(folder / "nowhere" / "charts.dump")),
        ("restore", str(folder / "missing.dump")),
    ):
        refused = site.run("store", *words)
        assert (refused.code, "No such file or directory" in refused.stderr) == (5, True)
    (folder / "file").touch()
    site.use_store(f"embedded:{folder / 'file'}")
    assert "Not a directory" in site.run("store", "restore", str(backup)).stderr
    site.use_store(f"embedded:{folder / 'again'}")
    over = site.run("store", "restore", str(backup))
    assert (over.code, "never over it" in over.stderr) == (5, True)
    backup.write_bytes(backup.read_bytes()[:-1000])
    site.use_store(f"embedded:{folder / 'third'}")
    (folder / "third.restoring").mkdir()
    (folder / "third.restoring" / "left").touch()
    held = os.open(folder / "third.restoring", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    beside = site.run("store", "restore", str(backup))
    assert (beside.code, "another restore" in beside.stderr) == (5, True)
    assert (folder / "third.restoring" / "left").exists()
    os.close(held)
    server = killed_client_of(folder / "third.restoring")
    cut = site.run("store", "restore", str(backup))
    assert (cut.code, [*folder.glob("third*")]) == (5, [])
    command_line = Path(f"/proc/{server}/cmdline")  # empty: ended, and nobody has looked yet how
    assert not command_line.exists() or not command_line.read_bytes(), (
        "the next restore stops the server of a killed one"
    )
    assert "is not a backup" in site.run("store", "restore", str(site.folder / "k1.key")).stderr


def test_an_operator_moves_a_tenant_into_another_store(site: Site, folder: Path) -> None:
    site.add("[tenants.mercy]\n")
    site.use_store(f"embedded:{folder / 'old'}")
    assert site.run("tenants", "add", "mercy").code == 0
    file = site.folder / "mercy.dump"
    assert site.run("tenants", "export", "mercy", "--out", str(file)).stdout.startswith(f"{file}: ")
    assert site.run("tenants", "export", "nobody", "--out", str(file)).code == 5
    site.use_store(f"embedded:{folder / 'new'}")
    assert site.run("tenants", "add", "other").code == 0
    assert site.run("tenants", "import", str(file)).stdout.startswith(f"restored 1 tenant from {file}: mercy\n")
    assert site.run("tenants", "import", str(file)).code == 5
    listed = site.run("tenants", "list", "--json").json["tenants"]
    assert [(one["name"], one["current"]) for one in listed] == [("mercy", True), ("other", True)]
    shown = site.run("audit", "--tenant", "mercy", "--patient", "-", stdin="anybody")
    assert (shown.code, "backup" in shown.stdout) == (0, True)
