"""A few seeds of `./run chaos` in every test run: whatever happens, the store ends as exactly the source."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.trial import FAULTS, WAYS, trial_of
from tests.chaos.trial_run import CrashingPostgres, prepared
from tests.passing_postgres import folder_for_a_server

# short ones; together: every way but two, kills of both kinds, changes and deletions in the source
SEEDS = (1, 2, 3, 4, 6, 7)


@pytest.fixture(scope="module")
def postgres() -> Iterator[CrashingPostgres]:
    root = folder_for_a_server()
    server = CrashingPostgres(root / "pg")
    yield server
    server.close()
    shutil.rmtree(root)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_faults_the_store_equals_the_source(seed: int, postgres: CrashingPostgres, tmp_path: Path) -> None:
    with prepared(trial_of(seed), postgres, tmp_path) as running:
        assert running.run_all().codes[-1] == 0


def test_two_hundred_seeds_cover_every_mode_every_fault_and_both_kinds_of_kill() -> None:
    seeds = [trial_of(seed) for seed in range(1, 201)]
    assert {(each.vendor, each.mode) for each in seeds} == set(WAYS)
    assert {kind for each in seeds for kind in each.kinds} == {*FAULTS, "storm"}
    assert {kill.victim for each in seeds for kill in each.kills} == {"sync", "postgres"}
    assert {each.earlier_night for each in seeds} == {True, False}
    assert all(0.01 <= each.rate <= 0.20 for each in seeds)
