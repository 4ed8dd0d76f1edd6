from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.exit_codes import ExitCode, explain, worst
from config.errors import ConfigError
from connectors.core.errors import AuthError, ConnectorError, PlanError
from exports.errors import ExportError
from snapshots.errors import ConnectionBusyError, StoreError

README = Path(__file__).resolve().parents[3] / "cron" / "README.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (PlanError("x"), 2),
        (AuthError("x"), 5),
        (ConnectorError("x"), 5),
        (StoreError("x"), 5),
        (ExportError("x"), 5),
        (ConnectionBusyError("x", run=3), 6),
        (ValueError("x"), 1),
    ],
)
def test_each_error_has_its_code(error: Exception, code: int) -> None:
    assert explain(error)[0] == code


def test_an_unexpected_error_is_reported_by_type_and_place_and_never_quoted() -> None:
    with pytest.raises(ValueError, match="Jane") as caught:
        int("Jane Doe")
    code, message = explain(caught.value)
    assert code == ExitCode.UNEXPECTED
    assert "unexpected ValueError in test_exit_codes." in message
    assert "Jane" not in message


def test_a_full_disk_is_reported_with_the_next_step_and_not_as_a_bug() -> None:
    code, message = explain(OSError(errno.ENOSPC, "No space left on device"))
    assert code == ExitCode.FAILED
    assert message == "cannot write: No space left on device. Free some space, and run the same command again."


def test_an_exception_group_is_reported_by_its_typed_error() -> None:
    group = ExceptionGroup("tasks", [ValueError("y"), ExceptionGroup("inner", [StoreError("no server")])])
    assert explain(group) == (ExitCode.FAILED, "no server")


@given(st.lists(st.sampled_from(ExitCode), min_size=1))
def test_a_command_exits_with_the_worst_code_of_its_runs(codes: list[ExitCode]) -> None:
    code = worst(codes)
    assert code in codes
    if code == ExitCode.COMPLETE:
        assert set(codes) <= {ExitCode.COMPLETE, ExitCode.NOTHING}
    if ExitCode.FAILED in codes:
        assert code in (ExitCode.FAILED, ExitCode.UNEXPECTED)


def test_a_command_without_runs_had_nothing_to_do() -> None:
    assert worst([]) == ExitCode.NOTHING


def test_every_code_is_documented_for_operators() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", README.read_text(), re.MULTILINE)}
    assert {int(code) for code in ExitCode} <= documented
