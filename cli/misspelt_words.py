"""Finds which option or command a misspelt word of the command line means. Pure; `commands` answers with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from itertools import takewhile

_LONG_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # what word processors and chats make of hyphens
_DASHES = "-" + _LONG_DASHES


def with_long_dash(words: Sequence[str], known: Collection[str]) -> tuple[str, str] | None:
    """Return the first word that is a known option but for its dashes, and that option. Behind `--` there are no options."""
    for word in words[: words.index("--")] if "--" in words else words:
        if word[:1] and any(dash in word[:2] for dash in _LONG_DASHES) and (option := _as_option(word)) in known:
            return word.partition("=")[0], option
    return None


def as_typed(words: Iterable[str], refused: str) -> str:
    """The whole word of which the parser refused an option's beginning (`-o` of `-out=x`), without what follows `=`."""
    found = next((word for word in words if word.startswith(refused)), refused)
    return found.partition("=")[0]


def showable(word: str, refused: str, known: Collection[str]) -> str:
    """What may be shown of a misspelt option, since a patient's id or name may be stuck to it (`-p12345`, `--patientDoe`).

    An option but for its dashes and case is shown whole, of others that begin with one hyphen what the parser refused, and else
    the letters, up to the end of a known option.
    """
    letters = "".join(takewhile(lambda each: each.isalpha() or each in f"_{_DASHES}", word))
    if _as_option(word) in known:
        return letters
    if not word.startswith("--"):
        return refused
    stuck = max((each for each in known if letters.lower().startswith(each)), key=len, default=None)
    return letters if stuck is None else f"{stuck}…"


def options_meant(word: str, known: Collection[str]) -> list[str]:
    """The known long options that a word most likely means: the same but for dashes and case, else those that look like it."""
    option = _as_option(word)
    if option in known:
        return [option]
    if len(option) == len("--o"):
        return sorted(each for each in known if each.startswith(option))
    return get_close_matches(option, sorted(known))


def command_meant(word: str, known: Collection[str]) -> str | None:
    """The command that a word is but for case."""
    return word.lower() if word.lower() in known else None


def _as_option(word: str) -> str:
    return "--" + word.partition("=")[0].lstrip(_DASHES).lower().replace("_", "-")
