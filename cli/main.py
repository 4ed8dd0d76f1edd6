"""Where the `chartferry` process begins and ends: Ctrl-C there is silent. `command_line` reads and runs the command.

Imports next to nothing: until `command_line` is imported, which takes a third of a second, nobody else could answer Ctrl-C.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import signal
import sys

# Reference counts free records and pages. With Python's default of 700, the collector would search everything that a plan and the
# libraries hold at every second page: 3 % of a crawl's CPU, in pauses of 30 to 50 ms during which nothing is sent. Imports, too,
# would be searched a hundred times.
_COLLECT_EVERY = 50_000


def _open_closed_streams() -> None:
    """Open what the parent has closed of stdin, stdout and stderr, so that no file or socket gets their numbers.

    stdin is then empty, stderr takes everything, and stdout nothing: a result that nobody gets is an error.
    """
    for number, name, how in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)  # noqa: PLR2004 - stderr
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, how, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process


_IN_ASCII = {"…": "...", "×": "x", "→": "->", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "µ": "u"}  # noqa: RUF001


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return for what an encoding lacks: our punctuation in ASCII, any other character as its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in lacking), error.end


def _print_in_any_encoding() -> None:
    """Let no command fail at a letter that the encoding of the terminal or of cron (ASCII, Latin-1) lacks."""
    codecs.register_error("chartferry", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="chartferry")


def main() -> None:
    """Run the command line and exit with its code. Before and after the command, Ctrl-C ends the process at once."""
    _open_closed_streams()
    _print_in_any_encoding()
    gc.set_threshold(_COLLECT_EVERY)
    during = signal.getsignal(signal.SIGINT)
    # the parent may have it ignored (nohup)
    around = signal.SIG_DFL if during is signal.default_int_handler else during
    signal.signal(signal.SIGINT, around)
    from cli.command_line import call  # noqa: PLC0415  its import is what takes so long

    signal.signal(signal.SIGINT, during)
    code = call(sys.argv[1:])
    signal.signal(signal.SIGINT, around)
    try:
        sys.stdout.flush()
    except OSError:  # what the command could not write either, and has said so; the interpreter would try it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    gc.freeze()  # else the interpreter's end searches all modules for cycles: a fifth of a second, and nothing comes of it
    sys.exit(code)


if __name__ == "__main__":
    main()
