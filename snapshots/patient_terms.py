"""The terms that find a patient (an identifier, a social security number, a name with a birth date), and how each is normalised.

Pure. Two terms are equal if both normalise to the same words; a part of a word, or a word that sounds the same, is another term.
`patient_index` turns terms into tokens and keeps these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

_DIGITS_OF_SSN = 9
_SSN_SYSTEMS = frozenset({"http://hl7.org/fhir/sid/us-ssn", "urn:oid:2.16.840.1.113883.4.1"})
_SSN_CODE = "SS"  # of HL7's v2-0203
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Kind(StrEnum):
    """What a term is."""

    IDENTIFIER = "identifier"
    SSN = "ssn"
    NAME = "name"


class Term(NamedTuple):
    """One thing to find a patient by, normalised; the functions below make it."""

    kind: Kind
    words: tuple[str, ...]


class TermError(ValueError):
    """A text is no search term. The message says what is expected, and quotes nothing."""


def identifier_term(system: str, value: str) -> Term:
    """Return the term of an identifier, an MRN for example: outer white space aside, both as the EHR writes them.

    An identifier without a system has the empty one. Raises TermError.
    """
    if not value.strip():
        raise TermError("an identifier is SYSTEM|VALUE, such as urn:oid:1.2.3.4|12345; |VALUE if it has no system")
    return Term(Kind.IDENTIFIER, (_composed(system), _composed(value)))


def ssn_term(value: str) -> Term:
    """Return the term of a social security number: its nine digits, however they are separated. Raises TermError."""
    digits = re.sub(r"[\s.-]", "", value)
    if len(digits) != _DIGITS_OF_SSN or not (digits.isascii() and digits.isdigit()):
        raise TermError(f"a social security number has {_DIGITS_OF_SSN} digits")
    return Term(Kind.SSN, (digits,))


def name_term(family: str, given: str | None, birth_date: str) -> Term:
    """Return the term of a family name, perhaps one given name, and a whole birth date (YYYY-MM-DD).

    Of names letters and digits count, without accents, upper or lower case: `O'Neill-Núñez` is `oneillnunez`. Raises TermError.
    """
    if _DATE.fullmatch(birth_date.strip()) is None:
        raise TermError("a birth date is a whole date, YYYY-MM-DD")
    names = [_letters(one) for one in (family, given) if one is not None]
    if not all(names):
        raise TermError("a name is FAMILY or FAMILY,GIVEN, each with a letter or digit")
    return Term(Kind.NAME, (*names, birth_date.strip()))


def terms_of(patient: bytes) -> frozenset[Term]:
    """Return all terms of a Patient, as JSON: former names and identifiers too. Any other value gives none.

    A Patient that is nested too deeply for a parser has none.
    """
    try:
        body = orjson.loads(patient)
    except orjson.JSONDecodeError:
        return frozenset()
    return frozenset(_terms(body)) if isinstance(body, dict) else frozenset()


def _terms(body: dict[str, Any]) -> Iterator[Term]:
    for one in _objects(body.get("identifier")):
        system, value = _text(one.get("system")), _text(one.get("value"))
        if value.strip():
            yield identifier_term(system, value)
        if system.strip() in _SSN_SYSTEMS or _is_coded_ssn(one):
            yield from _valid(ssn_term, value)
    birth_date = _text(body.get("birthDate"))
    for name in _objects(body.get("name")):
        family = _text(name.get("family"))
        yield from _valid(name_term, family, None, birth_date)
        given = name.get("given")
        for each in given if isinstance(given, list) else [given]:
            yield from _valid(name_term, family, _text(each), birth_date)


def _valid(make: Any, *values: str | None) -> Iterator[Term]:
    try:
        yield make(*values)
    except TermError:
        return


def _is_coded_ssn(identifier: dict[str, Any]) -> bool:
    return any(
        coding.get("code") == _SSN_CODE
        for kind in _objects(identifier.get("type"))
        for coding in _objects(kind.get("coding"))
    )


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _letters(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(sign for sign in unicodedata.normalize("NFKD", plain) if sign.isalnum())
