from __future__ import annotations

import errno
import inspect
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from rich.text import Text

from cli.command_line import call, command
from cli.commands import COMMANDS, Command, Unloaded

SHARED = ("--config", "--tenant", "--json", "--debug", "--as", "--reason")
HEAVY = ("httpx", "aiohttp", "psycopg", "fhir", "starlette", "uvicorn", "joserfc", "isal", "rich.progress")


def parse(inside: Any, words: list[str]) -> None:
    with inside.make_context(inside.name, words) as context:
        if hasattr(inside, "resolve_command"):
            _, inner, rest = inside.resolve_command(context, [*context._protected_args, *context.args])
            parse(inner, rest)


def inside_of(group: Any) -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(group, "commands", {}).items():
        yield name, inner.load() if isinstance(inner, Unloaded) else inner


def leaves(inside: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in inside_of(inside):
        if hasattr(inner, "commands"):
            yield from leaves(inner, (*words, name))
        else:
            yield (*words, name)


@pytest.mark.parametrize("words", [*leaves(command())], ids=" ".join)
def test_every_command_has_help_with_examples_and_the_shared_options(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    assert call([*words, "--help"]) == 0
    own, shared = capsys.readouterr().out.split("Options of every command")
    assert "[[" not in own  # "[[CONNECTION…]]...": brackets of ours within the library's
    assert not any(python in own + shared for python in ("<bool>", "<str>", "<int", "<list["))
    assert f"chartferry {' '.join(words)}" in shared.partition("Examples:")[2]
    for option in SHARED:
        assert option in shared
        assert f"│ {option} " not in own


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out == f"chartferry {version('chartferry')}\n"


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([]) == 2
    shown = capsys.readouterr()
    assert "config" in shown.out + shown.err


def test_help_texts_keep_their_square_brackets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def texts(inside: Any) -> Iterator[str]:
        yield from (text for text in (inside.help, inside.epilog) if text)
        yield from (param.help for param in inside.params if getattr(param, "help", None))
        for _, inner in inside_of(inside):
            yield from texts(inner)

    for text in texts(command()):
        assert Text.from_markup(text).plain == text.replace("\\[", "[")
    monkeypatch.setenv("COLUMNS", "200")
    assert call(["export", "--help"]) == 0
    assert "default: [export] out." in capsys.readouterr().out


def every_listed() -> Iterator[Command]:
    for listed in COMMANDS:
        yield from (listed,) if isinstance(listed, Command) else listed.commands


@pytest.mark.parametrize("listed", [*every_listed()], ids=lambda listed: listed.function)
def test_a_command_is_listed_with_the_first_line_of_its_help(listed: Command) -> None:
    help_ = inspect.getdoc(resolve_name(listed.function)) or ""
    assert " ".join(help_.split()).startswith(listed.summary)


def examples() -> Iterator[str]:
    for listed in every_listed():
        yield from getattr(resolve_name(listed.function.partition(":")[0]), listed.examples)


@pytest.mark.parametrize("example", [*examples()])
def test_every_example_parses(example: str) -> None:
    words = shlex.split(example.partition(" > ")[0].partition(" < ")[0])
    assert words[0] == "chartferry"
    parse(command(), words[1:])


def test_a_mistyped_command_is_reported_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["snyc"]) == 2
    assert "sync" in capsys.readouterr().err


def test_machines_get_json_when_a_command_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["sync", "--config", str(tmp_path / "none.toml"), "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == "failed"
    assert "there is no such file" in shown.err


def test_a_full_disk_behind_stdout_is_reported_on_stderr_and_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "chartferry.toml"
    file.write_text('[store]\nurl = "embedded"\n')
    monkeypatch.setattr(sys, "stdout", Full())
    assert call(["config", "check", "--config", str(file), "--json"]) == 5
    assert "cannot write: No space left on device" in capsys.readouterr().err


def test_parsing_a_command_line_loads_no_heavy_library() -> None:
    code = f"import sys, cli.command_line; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("encoding", "umlaut"), [("ascii", "\\xfc"), ("latin-1", "ü")])
def test_a_terminal_whose_encoding_lacks_a_letter_gets_its_like_in_ascii(
    encoding: str, umlaut: str, tmp_path: Path
) -> None:
    (tmp_path / "chartferry.toml").write_text(
        f'[connections.site]\nvendor = "generic"\nbase_url = "https://ehr.example.org"\nkid = "{"ü" * 201}"\n', "utf-8"
    )
    run = [str(Path(sys.executable).with_name("chartferry")), "config", "check", "--show"]
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(run, capture_output=True, env=environ, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding)
    assert f"{umlaut}... (201 characters)" in " ".join(shown.split())


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "{file}", "--json", "config", "check"],
        ["--json", "config", "--config={file}", "check"],
        ["config", "--json", "check", "--config", "{file}"],
        ["--debug", "--tenant", "default", "--json", "--config", "{file}", "config", "check"],
    ],
)
def test_the_shared_options_work_before_and_after_a_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "site.toml"
    file.write_text("")
    assert call([word.format(file=file) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == str(file)


def test_an_option_before_a_command_applies_unless_repeated_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first.toml", "second.toml"):
        (tmp_path / name).write_text("")
    first, second = (str(tmp_path / name) for name in ("first.toml", "second.toml"))
    assert call(["--config", first, "config", "check", "--json", "--config", second]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == second


def test_the_demo_says_that_it_writes_its_own_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--config", "x.toml", "demo"]) == 2
    assert "--config and --tenant are not for the demo" in " ".join(capsys.readouterr().err.split())
    assert call(["--config"]) == 2
    assert call(["--json"]) == 2


def test_the_top_level_help_names_the_shared_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    assert call(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(option in out for option in SHARED)


@pytest.mark.parametrize("words", [("--help",), ("views", "list")])
def test_a_closed_pipe_is_not_reported_as_a_bug(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert call(words) == 128 + signal.SIGPIPE


def test_an_interrupt_before_a_run_begins_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.command_line.version", interrupted)  # what --version asks, in place of any command
    assert call(["--version"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "chartferry: interrupted\n"
