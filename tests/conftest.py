"""What every tier shares; fixtures for one room live in its `fix_*.py`."""

from __future__ import annotations

import gc
import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# as the command does: with Python's 700, every import and each collected test would be searched for cycles again and again
gc.set_threshold(50_000)

# a busy machine is no reason to be red: how long an example takes is no matter of these tests. CI draws the same examples
# each time, so that a red build is about the change at hand; everybody's own runs draw new ones and keep what fell
settings.register_profile(
    "chartferry",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", settings.get_profile("chartferry"), max_examples=15)
settings.load_profile("chartferry")

# each room's fixtures, by name of the file that owns them; listed only where the file exists, so that tiers start alone
pytest_plugins = [
    f"tests.{name}" for name in ("fix_store", "fix_ehr") if importlib.util.find_spec(f"tests.{name}") is not None
]

FAST_TIER = Path(__file__).resolve().parent / "unit"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="only the fast tier, and of the others the tests that are marked quick"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--quick"):  # half of the fast tier's time is examples; ./run test draws all of them
        settings.load_profile("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        chosen = [item for item in items if FAST_TIER in item.path.parents or item.get_closest_marker("quick")]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


def pytest_collection_finish() -> None:
    gc.freeze()  # what was collected stays: no test needs to have it searched again


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
