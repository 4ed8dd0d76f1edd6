from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocks.faults import Faults, FaultScriptError, read_script


def hits(rule: dict, requests: int = 10, seed: int = 1) -> list[int]:
    faults = Faults(seed=seed)
    faults.add({"action": {"status": 500}, **rule})
    return [n for n in range(1, requests + 1) if faults.pick("search", "GET", "/Observation?x=1") is not None]


def test_rules_count_the_requests_that_fit() -> None:
    assert hits({"nth": 3}) == [3]
    assert hits({"every": 4}) == [4, 8]
    assert hits({"first": 2, "last": 4}) == [2, 3, 4]
    assert hits({}) == list(range(1, 11))
    assert hits({"match": {"purpose": "file"}}) == []
    assert hits({"match": {"method": "POST"}}) == []
    assert hits({"match": {"path": "^/Observation"}, "nth": 1}) == [1]


@given(seed=st.integers(0, 1000), probability=st.floats(0, 1))
def test_a_probability_gives_the_same_faults_for_the_same_seed(seed: int, probability: float) -> None:
    assert hits({"probability": probability}, 50, seed) == hits({"probability": probability}, 50, seed)


def test_the_first_matching_rule_wins_and_every_matching_rule_counts() -> None:
    faults = Faults()
    faults.add({"nth": 1, "action": {"status": 500}})
    faults.add({"nth": 2, "action": {"status": 503}})
    found = [faults.pick("read", "GET", "/x") for _ in range(3)]
    assert [action.status if action else None for action in found] == [500, 503, None]


def test_a_script_is_read_from_toml_and_json(tmp_path: Path) -> None:
    toml = tmp_path / "faults.toml"
    toml.write_text(
        '[[rules]]\nmatch = { purpose = "file" }\nevery = 2\naction = { cut_after_bytes = 10, delay_s = 0.5 }\n'
    )
    json = tmp_path / "faults.json"
    json.write_text('{"rules":[{"match":{"purpose":"file"},"every":2,"action":{"cut_after_bytes":10,"delay_s":0.5}}]}')
    assert read_script(toml) == read_script(json)
    assert read_script(toml).rules[0].action.cut_after_bytes == 10


def test_a_flawed_script_is_refused_with_its_file_and_key(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text("[[rules]]\naction = { state = 503 }\n")
    with pytest.raises(FaultScriptError, match=r"faults\.toml.*state.*\$\.rules"):
        read_script(file)
    with pytest.raises(FaultScriptError, match="purpose"):
        Faults().add({"match": {"purpose": "nonsense"}, "action": {}})
