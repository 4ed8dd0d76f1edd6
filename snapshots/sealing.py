"""Encrypts the identifying values of records on their way into the store, and decrypts those of rows on their way out.

Pure. In place: every other byte of a body stays as it is. A plain value is kept as Postgres writes it in jsonb, so that what is
read from an encrypted store equals, byte for byte, what a plain one gives. `identifying` says which values; `ledger` calls this
before anything of a batch reaches Postgres, `copy_stream` before a row leaves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from functools import partial
from hashlib import blake2b

from snapshots.errors import SealedValueError
from snapshots.identifying import Leaf, escaped, leaves, may_identify
from snapshots.json_spans import Items, Node, NotJsonError, Span, has_unicode_escape, structure_of
from snapshots.record import Quarantined, Record
from snapshots.sealed_values import MARK, Place, Sealer

# what Postgres refuses in JSON, encrypted or not (`refusals` has the same words for it)
_NOT_STORABLE = "the JSON contains \\u0000 or a lone surrogate, which Postgres cannot store"
_NOT_UTF8 = "not valid UTF-8"
_OUT_OF_RANGE = "a number in the JSON is out of range"
MASK = "***"  # what is shown of an encrypted value to those who may not see it
_MARK_BYTES = 4  # behind a mask, where a comparison tells values apart
_HASH = Record._fields.index("content_hash")  # the body comes next
_MOST_DIGITS, _FINEST = 131_072, -16_383  # of numeric, before and behind the point


class UnsealableError(ValueError):
    """A record has a value that Postgres could not store either. The message says why and quotes nothing."""


def sealed_records(
    records: Sequence[Record], sealer: Sealer
) -> tuple[list[tuple[Record, Record]], list[tuple[Record, str]]]:
    """Return records as they may leave the process, each before the given one, and those to quarantine, each with the reason."""
    sealed, unsealable = [], []
    for record in records:
        try:
            sealed.append((sealed_record(record, sealer), record))
        except UnsealableError as error:
            unsealable.append((record, str(error)))
    return sealed, unsealable


def sealed_record(record: Record, sealer: Sealer) -> Record:
    """Return a record with its identifying values encrypted, and its hash keyed: a plain hash of a Patient can be guessed.

    Raises:
        UnsealableError: it must be quarantined.
    """
    digest = sealer.digest(record.content_hash)
    body = record.body
    if may_identify(record.resource_type, body, sealer.further) or MARK in body:
        body = _sealed_body(record, sealer)
    return Record._make((*record[:_HASH], digest, body, *record[_HASH + 2 :]))  # a third of the time of `_replace`


def _sealed_body(record: Record, sealer: Sealer) -> bytes:
    body = record.body
    try:
        tree = structure_of(body)
    except NotJsonError:
        _utf8(body)
        raise UnsealableError("not valid JSON to Postgres") from None
    found = {leaf.span: leaf for leaf in leaves(tree, body, sealer.further)}
    # what already looks like an encrypted value, or holds one, is encrypted as well: none in the store is anybody else's word
    if MARK in body or has_unicode_escape(body):
        found |= {leaf.span: leaf for leaf in _strings(tree, body, _holds_mark) if leaf.span not in found}
    edits = []
    for leaf in found.values():
        place = Place(record.resource_type, record.id, leaf.pointer)
        plain = _as_jsonb(body[slice(*leaf.span)])
        edits.append((leaf.span, b'"' + sealer.seal(plain, place) + b'"'))
    return _edited(body, edits)


def _as_jsonb(literal: bytes) -> bytes:
    """Return a string or number as jsonb's output has it."""
    if literal[:1] == b'"':
        if b"\\" not in literal:
            return _utf8(literal)
        text = str(json.loads(_utf8(literal)))
        if "\x00" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
            raise UnsealableError(_NOT_STORABLE)
        return json.dumps(text, ensure_ascii=False).encode()
    try:
        number = Decimal(literal.decode())
    except (InvalidOperation, UnicodeDecodeError):
        raise UnsealableError("not valid JSON to Postgres") from None
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or number.adjusted() >= _MOST_DIGITS or exponent < _FINEST:
        raise UnsealableError(_OUT_OF_RANGE)
    return format(abs(number) if number.is_zero() else number, "f").encode()


def _utf8(literal: bytes) -> bytes:
    try:
        literal.decode()
    except UnicodeDecodeError:
        raise UnsealableError(_NOT_UTF8) from None
    return literal


def opened_row(text: bytes, kind: str, id_: str, sealer: Sealer, below: str = "") -> bytes:
    """Return a row's JSON with its values decrypted. `below`: the JSON pointer of the resource in it.

    Raises:
        SealedValueError: a value was altered, or belongs to another row or another place in it.
    """
    return _edited(text, [(span, plain) for span, plain, _ in _opened(text, kind, id_, sealer, below)])


def masked_row(text: bytes) -> bytes:
    """Return a row's JSON with a mask instead of each encrypted value. Nothing is decrypted."""
    if MARK not in text:
        return text
    found = _strings(structure_of(text), text, _is_sealed)
    return _edited(text, [(leaf.span, f'"{MASK}"'.encode()) for leaf in found])


def marked_row(text: bytes, kind: str, id_: str, sealer: Sealer) -> bytes:
    """Return a row's JSON with masks: at one place, two masks differ exactly if their values do, under any keys.

    Masks at two places cannot be compared, so a known value cannot be found elsewhere. Raises SealedValueError.
    """
    return _edited(
        text, [(span, _marked(plain, place, sealer)) for span, plain, place in _opened(text, kind, id_, sealer)]
    )


def _marked(plain: bytes, place: Place, sealer: Sealer) -> bytes:
    # JSON, since no two lists of texts are the same one
    content = json.dumps(["mask", *place, plain.decode()]).encode()
    return f'"{MASK}{sealer.digest(content, _MARK_BYTES).hex()}"'.encode()


def resealed_row(text: bytes, kind: str, id_: str, sealer: Sealer) -> bytes:
    """Return a row's JSON with its encrypted values re-encrypted with the current key; raises SealedValueError.

    It also encrypts what has to be encrypted only since the row was written.
    """
    found = [(span, plain, place) for span, plain, place in _opened(text, kind, id_, sealer)]
    if sealer.further:
        known = {span for span, _, _ in found}
        plain_yet = [leaf for leaf in leaves(structure_of(text), text, sealer.further) if leaf.span not in known]
        found += [(leaf.span, _as_jsonb(text[slice(*leaf.span)]), Place(kind, id_, leaf.pointer)) for leaf in plain_yet]
    return _edited(text, [(span, b'"' + sealer.seal(plain, place) + b'"') for span, plain, place in found])


def values_of(text: bytes, kind: str, sealer: Sealer) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield of each encrypted value of a row its JSON pointer, and what decrypts it, or raises SealedValueError."""
    for leaf in _strings(structure_of(text), text, _is_sealed):
        token = text[slice(*leaf.span)][1:-1]
        yield leaf.pointer, partial(_plain, token, kind, sealer)


def _plain(token: bytes, kind: str, sealer: Sealer) -> bytes:
    return sealer.unseal(token, kind)[0]


def _opened(text: bytes, kind: str, id_: str, sealer: Sealer, below: str = "") -> Iterator[tuple[Span, bytes, Place]]:
    """The encrypted values of a row: where each is in its JSON, what it contains, and where it belongs."""
    if MARK not in text:
        return
    for leaf in _strings(structure_of(text), text, _is_sealed):
        plain, place = sealer.unseal(text[slice(*leaf.span)][1:-1], kind)
        here = Place(kind, id_, leaf.pointer.removeprefix(below))
        if place != here:
            raise SealedValueError(
                f"{sealer.name_of(here)} has the encrypted value of another row or place: somebody moved it. Restore the row "
                "from a backup, or sync it again into an empty store."
            )
        yield leaf.span, plain, place


def _strings(tree: Node, text: bytes, wanted: Callable[[bytes], bool]) -> Iterator[Leaf]:
    """Return the strings of a body whose literals are wanted."""
    waiting: list[tuple[Node, str]] = [(tree, "")]
    while waiting:
        node, pointer = waiting.pop()
        if isinstance(node, tuple):
            if text.startswith(b'"', node[0]) and wanted(text[slice(*node)]):
                yield Leaf(pointer, node)
        elif isinstance(node, Items):
            waiting += [(one, f"{pointer}/{number}") for number, one in enumerate(node)]
        else:
            waiting += [(one, f"{pointer}/{escaped(name)}") for name, one in node]


def _is_sealed(literal: bytes) -> bool:
    """Whether a string that Postgres wrote, which escapes none of these signs, is an encrypted value."""
    return literal.startswith(b'"' + MARK)


def _holds_mark(literal: bytes) -> bool:
    """Whether a string has the beginning of an encrypted value anywhere, however that is written."""
    return MARK in literal or (has_unicode_escape(literal) and MARK.decode() in json.loads(_utf8(literal)))


def _edited(text: bytes, edits: list[tuple[Span, bytes]]) -> bytes:
    parts, at = [], 0
    for span, new in sorted(edits):
        parts += [text[at : span[0]], new]
        at = span[1]
    return b"".join((*parts, text[at:]))


def sealed_input(one: Quarantined, sealer: Sealer | None) -> tuple[bytes, bytes]:
    """Return the hash (of source and bytes) and the bytes of quarantined input as they are stored.

    With a sealer all of it is encrypted, because nobody knows what is in it, and the hash is keyed.
    """
    digest = blake2b(one.source.encode() + b"\x00" + one.raw, digest_size=16).digest()
    if sealer is None:
        return digest, one.raw
    return sealer.digest(digest), sealer.seal_whole(one.raw, Place("quarantine", one.source, ""))


def opened_input(sealed: bytes, source: str, sealer: Sealer) -> bytes:
    """Return the bytes of quarantined input; raises SealedValueError."""
    return sealer.unseal_whole(sealed, Place("quarantine", source, ""))
