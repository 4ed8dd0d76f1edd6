"""What every tier shares; fixtures for one room live in its `fix_*.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

# each room's fixtures, by name of the file that owns them; listed only where the file exists, so that tiers start alone
pytest_plugins = [
    f"tests.{name}" for name in ("fix_store", "fix_ehr") if importlib.util.find_spec(f"tests.{name}") is not None
]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def anyio_backend() -> str:
    """The backend that the application runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def synthea_dir() -> Path:
    """NDJSON.gz of 40 Synthea patients, where the folder beside the checkout has them."""
    folder = SHARED / "data" / "synthea-40"
    if not folder.is_dir():
        pytest.skip("shared/data/synthea-40 is not beside this checkout")
    return folder
