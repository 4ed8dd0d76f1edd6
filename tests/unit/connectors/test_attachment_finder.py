"""What a resource has attached is read as a walk of the whole resource reads it, at the places where jsonpath finds it."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.linked.attachment_finder import attached_to, with_attached
from snapshots.record import Record
from snapshots.referred import Attached
from tests.unit.connectors.spelling import SPELLINGS, spelt

TEXTS = st.sampled_from(["text/html", "Binary/1", "", "é", "a\nb", '"'])
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXTS
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "contentType": TEXTS,
        "url": TEXTS,
        "data": TEXTS,
        "size": st.integers(0, 10**17) | st.just(12.0),
        "hash": TEXTS | st.none(),
        "title": TEXTS,
    },
)
ODD = st.dictionaries(
    st.sampled_from(["contentType", "url", "data", "size", "hash"]), SCALARS | st.lists(TEXTS, max_size=1)
)
ATTACHMENTS = PLAIN | ODD | SCALARS | st.lists(PLAIN, max_size=2)
CONTENTS = st.fixed_dictionaries({}, optional={"attachment": ATTACHMENTS, "format": SCALARS}) | SCALARS
CONTENT = st.lists(CONTENTS | st.lists(CONTENTS, max_size=2), max_size=3) | CONTENTS
FORMS = st.lists(ATTACHMENTS, max_size=3) | ATTACHMENTS


def record(kind: str, body: bytes) -> Record:
    return Record(kind, "1", "p1", None, None, b"", body)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def described(place: int, one: dict[str, Any]) -> Attached:
    def text(name: str) -> str | None:
        value = one.get(name)
        return (
            value
            if value is None or isinstance(value, str)
            else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        )

    size = one.get("size")
    number = isinstance(size, int | float) and not isinstance(size, bool)
    claimed = round(max(-(10**15), min(size, 10**15))) if number else None
    return Attached(place, text("contentType"), text("url"), "data" in one, claimed, text("hash"))


def expected(found: list[Any]) -> list[Attached]:
    return [described(place, one) for place, one in enumerate(found) if isinstance(one, dict)]


@given(content=CONTENT, spelling=st.sampled_from(SPELLINGS), seed=st.integers())
def test_a_document_reference_gives_each_attachment_with_its_place(content: Any, spelling: str, seed: int) -> None:
    body = spelt({"resourceType": "DocumentReference", "content": content}, spelling, random.Random(seed))
    members = [one for part in listed(content) for one in listed(part)]
    found = [one["attachment"] for one in members if isinstance(one, dict) and "attachment" in one]
    assert list(attached_to(record("DocumentReference", body))) == expected(found)


@given(forms=FORMS, spelling=st.sampled_from(SPELLINGS), seed=st.integers())
def test_a_report_gives_each_presented_form_with_its_place(forms: Any, spelling: str, seed: int) -> None:
    body = spelt({"resourceType": "DiagnosticReport", "presentedForm": forms}, spelling, random.Random(seed))
    assert list(attached_to(record("DiagnosticReport", body))) == expected(listed(forms))


def test_only_documents_are_searched_for_attachments_and_may_have_none() -> None:
    records = [record("Observation", b'{"content":[{"attachment":{}}]}'), record("DiagnosticReport", b"{}")]
    assert [one.attached for one in with_attached(records)] == [None, ()]
    assert with_attached(records[:1]) == records[:1]


def test_a_body_that_no_store_accepts_has_no_attachments_and_fails_nothing_else() -> None:
    for body in (b"", b"{", b"[]", b'{"content":[{"attachment":{"url":"\xff"}}]}'):
        assert attached_to(record("DocumentReference", body)) == ()
