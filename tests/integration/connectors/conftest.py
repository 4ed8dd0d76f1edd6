"""The store of these tests: runs are opened on it as commands open them, and its rows are read back by SQL."""

from __future__ import annotations

import pytest

from snapshots.walls import Walls
from tests.emptied_database import EmptiedDatabase
from tests.fix_store import TESTER
from tests.integration.connectors.kept_rows import KeptRows


@pytest.fixture
def kept(emptied_database: EmptiedDatabase, walls: Walls) -> KeptRows:
    """The default tenant of this test's database."""
    return KeptRows(emptied_database.store(TESTER, walls), emptied_database.url, "default")


@pytest.fixture
def store(kept: KeptRows) -> KeptRows:
    """The same, where a test speaks of a store."""
    return kept
