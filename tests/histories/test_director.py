"""A seed is one history, for ever; all seeds together meet everything that there is a word for."""

from __future__ import annotations

from typing import get_args

from tests.histories import steps as s
from tests.histories.director import history

LIES = (s.Lie, s.Patients410, s.All410, s.Misled)
SEEDS = range(1, 401)


def _runs(one: s.History) -> list[s.Run]:
    return [step for step in one.steps if isinstance(step, s.Run)]


def test_a_seed_always_gives_the_same_history() -> None:
    assert [history(seed) for seed in range(1, 30)] == [history(seed) for seed in range(1, 30)]


def test_four_hundred_seeds_cover_every_step_fault_and_request() -> None:
    all_ = [history(seed) for seed in SEEDS]
    runs = [run for one in all_ for run in _runs(one)]
    assert {type(step) for one in all_ for step in one.steps} == set(get_args(s.Step))
    assert {type(fault) for run in runs for fault in run.faults} == set(get_args(s.Fault))
    assert {run.kill.at for run in runs if run.kill} == {"request", "write", "written"}
    assert {run.ask.who.partition(":")[0] for run in runs} == {"all", "store", "group", "cohort", "pull"}
    assert {run.ask.mode for run in runs} == {"auto", "bulk", "crawl"}
    assert {run.since for run in runs} == {"auto", "none", "1h", "36h", "100h"}
    assert {run.ask.narrowed for run in runs} == {"", "filter", "elements", "until"}
    assert {one.site.told_twice for one in all_} == {"", "first", "second", "third"}


def test_the_ehr_lies_on_at_most_one_night_of_a_history() -> None:
    for seed in SEEDS:
        nights = [run for run in _runs(history(seed)) if any(isinstance(fault, LIES) for fault in run.faults)]
        assert len(nights) <= 1


def test_a_printed_history_can_be_read_back() -> None:
    words = {name: getattr(s, name) for name in dir(s) if not name.startswith("_")}
    for seed in range(1, 30):
        one = history(seed)
        site, *steps = str(one).splitlines()
        again = s.History(eval(site, words), tuple(eval(step, words) for step in steps))
        assert again == one
