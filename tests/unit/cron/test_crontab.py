from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from cli.command_line import command
from config.crontab_fields import schedule_problem
from cron import launch

CRONTAB = Path(launch.__file__).parent / "crontab"
EXAMPLE = "#: "
SCHEDULED = [
    line.removeprefix(EXAMPLE) for line in CRONTAB.read_text().splitlines() if re.match(rf"^({EXAMPLE})?[\d*]", line)
]


def parse(inside: Any, words: list[str]) -> None:
    """Walk to the command that the words name and let it read them, without running it."""
    with inside.make_context(inside.name, words, resilient_parsing=False) as context:
        if hasattr(inside, "resolve_command"):
            _, inner, rest = inside.resolve_command(context, [*context._protected_args, *context.args])
            parse(inner, rest)


@pytest.mark.parametrize("line", SCHEDULED)
def test_every_line_is_a_cli_call_through_the_launcher(line: str) -> None:
    *fields, rest = line.split(None, 5)
    assert schedule_problem(" ".join(fields)) is None
    assert "%" not in rest  # crontab(5) turns it into a newline
    before, words = rest.split(" -- ")
    python, safe_path, script, *options = shlex.split(before)
    assert (Path(python).name, safe_path, Path(script).name) == ("python3", "-P", "launch.py")
    wanted = launch._arguments([*options, "--", *shlex.split(words)])
    assert wanted.deadline
    assert wanted.log == Path("$CHARTFERRY_LOG")  # a failed night leaves its words somewhere
    assert wanted.command[0] == "chartferry"
    parse(command(), wanted.command[1:])


def test_the_schedule_is_not_empty() -> None:
    assert len(SCHEDULED) >= 3


def test_mail_is_not_switched_off() -> None:
    assert not re.search(r"^MAILTO=", CRONTAB.read_text(), re.MULTILINE)
