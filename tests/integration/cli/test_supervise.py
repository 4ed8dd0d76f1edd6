"""Signals, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.supervise import InterruptedBySignalError, supervise_blocking

CODE = """
import asyncio, logging, sys
from cli.command_line import call
from cli.supervise import supervise

async def work():
    try:
        print("ready", flush=True)
        await asyncio.sleep(60)
    finally:
        logging.getLogger("psycopg").warning("error ignored terminating a COPY")
        print("closed", flush=True)

import typer
from cli.commands import CommandGroup, Unloaded
from cli.command_line import command

def pretend():
    supervise(work, resume="run the same command again")

alone = typer.Typer()
alone.command()(pretend)
command().add_command(Unloaded("pretend", "", lambda: typer.main.get_command(alone)))
sys.exit(call(["pretend"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_command_close_and_becomes_the_exit_code(number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait() == code
        assert process.stdout.read() == "closed\n"
        shown = process.stderr.read()
        assert "run the same command again" in shown
        assert "error ignored" not in shown


BLOCKING = """
import asyncio, signal, threading
from cli.supervise import InterruptedBySignalError, supervise

async def work():
    try:
        print("ready", flush=True)
        threading.Event().wait()  # as a library does whose server does not answer
    finally:
        try:
            threading.Event().wait()
        finally:
            await asyncio.sleep(0)
            print("closed", flush=True)

try:
    supervise(work, resume="run it again")
except InterruptedBySignalError as error:
    print(error, signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_blocks_the_loop_also_while_it_closes(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKING], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == f"closed\nstopped by {number.name}; run it again True\n"
    assert process.returncode == 0


def test_a_second_signal_ends_a_command_that_blocks_the_loop_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", BLOCKING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert "closed" not in process.stdout.read()
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_a_blocking_call_and_the_former_handlers_are_restored(number: signal.Signals) -> None:
    former = signal.getsignal(number)

    def work() -> None:
        signal.raise_signal(number)
        raise AssertionError

    with pytest.raises(InterruptedBySignalError, match="run it again") as stopped:
        supervise_blocking(work, resume="run it again")
    assert (stopped.value.signal, signal.getsignal(number)) == (number, former)


INTERRUPTED_WHILE_IT_IMPORTS = """
import signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "cli.command_line":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["chartferry", "--version"]
if "ignoring" in {words!r}:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from cli.main import main
main()
"""


@pytest.mark.parametrize(("words", "code"), [("", -signal.SIGINT), ("ignoring", 0)])
def test_ctrl_c_before_the_command_is_imported_ends_the_process_silently_unless_ignored(words: str, code: int) -> None:
    text = INTERRUPTED_WHILE_IT_IMPORTS.replace("{words!r}", repr(words))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    connection = '[connections.somewhere]\nvendor = "generic"\nbase_url = "http://127.0.0.1:1/fhir"\n'
    (tmp_path / "chartferry.toml").write_text(f'[store]\nurl = "embedded:store"\n{connection}')
    return tmp_path


@pytest.mark.parametrize(
    ("words", "closed", "code", "message"),
    [
        ("--version", ">&-", 5, "cannot write: stdout is closed"),
        ("views list --json", ">&-", 5, "cannot write: stdout is closed"),
        ("--version", "2>&-", 0, ""),
        ("pull somewhere -", "<&-", 2, "stdin names no patient"),
    ],
)
def test_a_closed_standard_stream_is_no_bug(words: str, closed: str, code: int, message: str, folder: Path) -> None:
    command = f"'{sys.executable}' -c 'from cli.main import main; main()' {words} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == code
    assert message in done.stderr
    assert "Exception" not in done.stderr


def test_an_id_on_stdin_in_another_encoding_is_refused_without_being_quoted(folder: Path) -> None:
    command = [sys.executable, "-c", "from cli.main import main; main()", "pull", "somewhere", "-"]
    environment = {"LC_ALL": "C"}
    done = subprocess.run(command, input=b"M\xfcller\n", capture_output=True, env=environment, check=False, cwd=folder)
    assert (done.returncode, b"not UTF-8" in done.stderr, b"ller" in done.stderr) == (2, True, False)
