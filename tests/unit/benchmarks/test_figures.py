"""A figure says pass or MISS by its bar and by the bar for memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import Behaviour, Figure, print_behaviours, print_figures, write_json
from benchmarks.processes import CommandFailedError, measure


@pytest.mark.parametrize(
    ("fields", "passed"),
    [
        ({}, None),
        ({"limit": 100.0}, None),
        ({"limit": 100.0, "bar": 0.6}, True),
        ({"limit": 110.0, "bar": 0.6}, False),
        ({"bar": 65.9, "bar_on": "at most"}, True),
        ({"bar": 65.0, "bar_on": "at most"}, False),
        ({"bar": 65.9, "bar_on": "at least"}, True),
        ({"bar": 66.0, "bar_on": "at least"}, False),
        ({"peak_mb": 199.0}, True),
        ({"limit": 100.0, "bar": 0.6, "peak_mb": 201.0}, False),
    ],
)
def test_a_figure_passes_when_all_its_bars_are_met(fields: dict[str, Any], passed: bool | None) -> None:
    assert Figure(name="x", value=65.9, unit="MB/s", **fields).passed is passed


def test_the_table_and_the_json_carry_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = [Figure(name="sync", value=30, unit="MB/s", limit=50, limit_name="bare COPY", bar=0.7, peak_mb=88)]
    seen = [Behaviour(fault="a cut file", ours="asked again", theirs="lost in silence")]
    print_figures(figures)
    print_behaviours(seen, "other 1.0")
    path = write_json(figures, seen, tmp_path / "results", {"megabytes": 1})
    shown = capsys.readouterr().out
    assert "MISS" in shown
    assert "lost in silence" in shown
    saved = json.loads(path.read_bytes())
    assert saved["behaviours"] == [{"fault": "a cut file", "ours": "asked again", "theirs": "lost in silence"}]
    assert (saved["figures"][0]["ratio"], saved["figures"][0]["passed"], saved["settings"]) == (
        0.6,
        False,
        {"megabytes": 1},
    )


def test_a_measured_command_gives_its_output_time_and_peak_memory(tmp_path: Path) -> None:
    hold_50_mb = "import time; x = bytearray(50_000_000); time.sleep(0.05); print('{\"a\": 1}')"
    done = measure([sys.executable, "-c", hold_50_mb], tmp_path)
    assert done.json == {"a": 1}
    assert done.seconds >= 0.05
    assert sys.platform != "linux" or 50 <= done.peak_mb < 120


def test_a_measured_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="ended with 3:\nalas"):
        measure([sys.executable, "-c", "import sys; sys.stderr.write('alas'); sys.exit(3)"], tmp_path)
