"""What to say of a word of the command line that a command cannot take. Pure; `commands` answers with it.

The word itself is not quoted where it may be a patient's id: what is printed ends in logs. `misspelt_words` finds what is meant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cli.misspelt_words import command_meant
from config.how_many import how_many
from config.near_words import nearest

# by pydantic's kind of error: typer reads values with it, and shows its sentences
_WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    "finite_number": "must be a number that is not infinite",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}


def too_many(count: int, names: Sequence[str], options: Collection[str]) -> str:
    """Say that `count` words more came than a command takes; `names` are those that it takes, `options` its long options."""
    takes = f"this command takes {' and '.join(names)}" if names else "this command takes options only"
    named = "; name a connection with --connection" if not names and "--connection" in options else ""
    hidden = f"not shown, since {'it' if count == 1 else 'they'} may name a patient"
    return f"{how_many(count, 'word')} too many ({hidden}): {takes}{named}. Put a value with blanks in it in quotes."


def lacking_value(words: Sequence[str], flags: Collection[str], options: Collection[str]) -> str | None:
    """Say which word is empty, as an unset variable of a script is, or stands where a value is due; None if all is well.

    An empty value is no default: `--patients ""` must not mean everybody. `flags` are those of the `options` that take no value.
    """
    before = ""
    for word in words[: words.index("--")] if "--" in words else words:
        option, equals, value = word.partition("=")
        if not word.strip() or (option in options and equals and not value.strip()):
            where = f"{option} is" if equals else f"the word behind {before} is" if before else "a word is"
            return f"{where} empty, as an unset variable of a script is; give a value, or leave it out"
        if before and before not in flags and option in options:
            return f"{before} needs a value, but {option} follows it"
        before = word if word in options else ""
    return None


def no_stream(name: str) -> str:
    """Say that `-` is no path for this option or argument."""
    return f"{name} -: this is neither read from stdin nor written to stdout; name a file or a folder"


def no_command(word: str, known: Iterable[str], options: Collection[str]) -> str:
    """Say that a group has no such command, and what is meant: one of the `known`, or a patient."""
    names = sorted(known)
    meant = [one] if (one := command_meant(word, names)) else get_close_matches(word, names)
    hint = f" Did you mean {', '.join(map(repr, meant))}?" if meant else f" There are: {', '.join(names)}."
    patient = " Name a patient with --patient." if not meant and "--patient" in options else ""
    return f"No such command{_shown(word, bool(meant))}.{hint}{patient}"


def no_such(kind: str, word: str, known: Collection[str], where: str) -> str:
    """Say that there is no connection, receiver or tenant of this name `where`, and which is meant, or which there are."""
    guess = nearest(word, known)
    hint = f"did you mean {guess}? " if guess else ""
    return f"no {kind}{_shown(word, guess is not None)} {where}; {hint}there are: {', '.join(known) or 'none'}"


def _shown(word: str, resembles: bool) -> str:
    """Quote a word only if it resembles what may stand there: else it may be a patient's id or name in the wrong place."""
    return f" {word!r}" if resembles else " of this name (not shown, since it may name a patient)"


def refused_value(errors: Iterable[Mapping[str, Any]]) -> str | None:
    """Say what a value must be, from pydantic's errors; None if there is an unknown one among them."""
    kinds = [(_WANTED.get(one["type"]), one.get("ctx", {})) for one in errors]
    if not kinds or any(text is None for text, _ in kinds):
        return None
    return "; ".join(dict.fromkeys(text.format(**context).rstrip(".") for text, context in kinds if text))
