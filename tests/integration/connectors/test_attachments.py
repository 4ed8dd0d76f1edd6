"""Documents behind DocumentReferences, fetched from mock EHRs on real sockets into a real store."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from mocks.faults import Action, FaultRule, Match
from mocks.serving import Served
from tests.integration.connectors.chart_lines import resource, to
from tests.integration.connectors.kept_rows import KeptRows, cut_off
from tests.integration.connectors.runs import run
from tests.integration.snapshots.stored import rows
from tests.user_site import mock, reachable

pytestmark = pytest.mark.anyio

STORED = "SELECT u.resource_id, u.place, u.state, a.content, a.text FROM attachment_use u LEFT JOIN attachment a USING (sha256)"


def note(identity: str, *attachments: dict[str, Any]) -> bytes:
    content = [{"attachment": attachment} for attachment in attachments]
    return resource("DocumentReference", identity, subject=to("Patient/p1"), content=content)


def linked(identity: str, content_type: str | None = "text/html", **rest: Any) -> dict[str, Any]:
    typed = {} if content_type is None else {"contentType": content_type}
    return {"url": f"Binary/{identity}", **typed, **rest}


def binary(identity: str, content: bytes, content_type: str = "text/html") -> bytes:
    return resource("Binary", identity, contentType=content_type, data=b64encode(content).decode())


PATIENT = resource("Patient", "p1")


def fetched(served: Served, since: int = 0) -> list[str]:
    return [e.target.rpartition("/")[2] for e in list(served.log)[since:] if e.resource_type == "Binary"]


def uses(url: str) -> dict[tuple[str, int], tuple[str, bytes | None, str | None]]:
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows(url, STORED)}


@pytest.mark.parametrize("vendor", ["epic", "cerner", "generic", "va", "allscripts"])
async def test_every_vendors_documents_are_stored_unchanged_with_their_text(
    vendor: str, store: KeptRows, store_url: str
) -> None:
    with mock(vendor, documents=True, patients=2) as served:
        report = await run(served, store, scopes=SCOPES.get(vendor, ()))
        notes = served.dataset.of_type("DocumentReference")
        sources = {row.id: row.body for row in served.dataset.of_type("Binary")}
    assert (report.status, list(report.holes)) == ("complete", [])
    kinds = set()
    found = uses(store_url)
    for row in notes:
        for place, content in enumerate(row.body["content"]):
            attachment = content["attachment"]
            state, stored, text = found.pop((row.id, place))
            if "url" not in attachment:
                assert (state, stored) == ("empty", None)
                continue
            kinds.add(attachment["contentType"])
            source = sources[attachment["url"].removeprefix("Binary/")]
            assert (state, b64encode(stored or b"").decode()) == ("stored", source["data"])
            assert text
            assert "<" not in text
    assert not found
    assert kinds == {"text/html", "text/rtf", "application/pdf", "application/xml"}


# what these servers want named in words, Binary included
SCOPES = {"cerner": (), "va": ()}


async def test_an_unchanged_document_is_not_fetched_again_and_a_changed_one_is(store: KeptRows, store_url: str) -> None:
    data = [
        PATIENT,
        note("d1", linked("b1")),
        note("d2", linked("b2")),
        binary("b1", b"<p>one"),
        binary("b2", b"<p>two"),
    ]
    with mock("epic", data=data) as served:
        await run(served, store)
        before = len(served.log)
        await run(served, store)
        assert fetched(served, before) == []
        served.dataset.replace(binary("b1", b"<p>one, amended"))
        served.dataset.replace(note("d1", linked("b1", title="amended")))
        report = await run(served, store)
        assert fetched(served, before) == ["b1"]
    assert report.status == "complete"
    assert uses(store_url)["d1", 0] == ("stored", b"<p>one, amended", "one, amended")


async def test_one_content_is_one_row_however_often_it_is_attached(store: KeptRows, store_url: str) -> None:
    same = [note(f"d{n}", linked(f"b{n}")) for n in range(5)] + [binary(f"b{n}", b"<p>the same") for n in range(5)]
    inline = note("d9", {"contentType": "text/html", "data": b64encode(b"<p>the same").decode()})
    with mock("epic", data=[PATIENT, *same, inline]) as served:
        await run(served, store)
    assert rows(store_url, "SELECT count(*), (SELECT count(*) FROM attachment_use) FROM attachment") == [(1, 6)]


async def test_an_inline_document_needs_no_request_and_invalid_base64_is_noted(store: KeptRows, store_url: str) -> None:
    good = b64encode(b"plain words").decode()
    data = [
        PATIENT,
        note("d1", {"contentType": "text/plain", "data": good[:6] + "\n " + good[6:]}),
        note("d2", {"contentType": "text/plain", "data": "%%%not base64"}),
        note("d3", {"title": "neither"}),
        resource(
            "DiagnosticReport",
            "r1",
            subject=to("Patient/p1"),
            presentedForm=[{"contentType": "text/plain", "data": good}],
        ),
    ]
    with mock("epic", data=data) as served:
        report = await run(served, store)
        assert fetched(served) == []
    found = uses(store_url)
    assert found["d1", 0] == found["r1", 0] == ("stored", b"plain words", "plain words")
    assert (found["d2", 0][0], found["d3", 0][0]) == ("missing", "empty")
    assert report.status == "complete"
    assert (
        "attachments: 4 in all: 2 stored, 1 not there (its data is not base64), 1 without URL and content"
        in report.notes
    )


async def test_missing_or_restricted_documents_are_noted_and_not_requested_while_that_is_fresh(
    store: KeptRows, store_url: str
) -> None:
    data = [
        PATIENT,
        note("d1", linked("gone")),
        note("d2", linked("closed")),
        note("d3", linked("b3")),
        binary("b3", b"<p>x"),
    ]
    with mock("epic", data=[*data, binary("closed", b"<p>secret")]) as served:
        rule = FaultRule(match=Match(path="Binary/closed"), action=Action(status=403, body="operation-outcome"))
        served.faults.add(rule)
        report = await run(served, store)
        before = len(served.log)
        again = await run(served, store)
        assert fetched(served, before) == []
    assert {key[0]: use[0] for key, use in uses(store_url).items()} == {
        "d1": "missing",
        "d2": "restricted",
        "d3": "stored",
    }
    assert (report.status, again.status) == ("complete", "complete")
    notes = " ".join(report.notes)
    assert "attachments: 3 in all: 1 stored, 1 not there, 1 restricted by the server for this client" in notes
    assert not any(word in notes for word in ("gone", "closed", "b3", "d1", "p1"))


async def test_a_failed_document_is_a_hole_that_names_nobody_and_the_next_run_fills_it(
    store: KeptRows, store_url: str
) -> None:
    data = [
        PATIENT,
        note("secret-note", linked("b1", "application/pdf")),
        binary("b1", b"%PDF-1.4 no", "application/pdf"),
    ]
    with mock("epic", data=data) as served:
        served.faults.add(FaultRule(match=Match(path="Binary/b1"), action=Action(wrong_content=True)))
        report = await run(served, store, profile={"retry.max_tries": 2})
        assert (report.status, [hole.resource_type for hole in report.holes]) == ("partial", ["DocumentReference"])
        assert not any(word in repr(report) for word in ("secret-note", "b1", "p1"))
        served.faults.clear()
        report = await run(served, store)
    assert report.status == "complete"
    assert uses(store_url)["secret-note", 0] == ("stored", b"%PDF-1.4 no", None)
    assert any("stored (damaged" in one for one in report.notes)


@pytest.mark.parametrize("notes", [1, 12])
async def test_documents_that_no_login_can_open_are_holes_and_the_chart_is_kept(
    store: KeptRows, store_url: str, notes: int
) -> None:
    documents = [note(f"d{n}", linked(f"b{n}")) for n in range(notes)]
    with mock("epic", data=[PATIENT, *documents, *(binary(f"b{n}", b"<p>x") for n in range(notes))]) as served:
        served.faults.add(FaultRule(match=Match(path="Binary/"), action=Action(status=401)))
        report = await run(served, store)
        assert (report.status, len(report.holes)) == ("partial", notes), report.error
        # each twice, and no more than three in a row: not every document of a hospital
        assert len(fetched(served)) <= 12
        served.faults.clear()
        report = await run(served, store)
    assert report.status == "complete"
    assert {use[0] for use in uses(store_url).values()} == {"stored"}


async def test_a_link_that_leaves_the_base_is_never_requested(store: KeptRows, store_url: str) -> None:
    climbing = [note(f"d{n}", linked(url)) for n, url in enumerate(("../../../admin", "%2e%2E/x"))]
    with mock("epic", data=[PATIENT, *climbing]) as served:
        await run(served, store)
        assert not any("admin" in entry.target or entry.target.endswith("/x") for entry in served.log)
    assert {use[0] for use in uses(store_url).values()} == {"foreign"}


async def test_a_truncated_body_is_fetched_again(store: KeptRows, store_url: str) -> None:
    data = [PATIENT, note("d1", linked("b1")), binary("b1", b"<p>" + b"long " * 20_000)]
    with mock("epic", data=data) as served:
        served.faults.add(FaultRule(match=Match(path="Binary/b1"), nth=1, action=Action(cut_after_bytes=200)))
        report = await run(served, store)
        assert len(fetched(served)) == 2
    assert report.status == "complete"
    assert len(uses(store_url)["d1", 0][1] or b"") == 100_003


async def test_the_policy_decides_by_type_and_size_what_is_fetched(store: KeptRows, store_url: str) -> None:
    data = [
        PATIENT,
        note("scan", linked("i", "image/tiff")),
        note("claims-much", linked("c", size=1_000_000)),
        note("is-much", linked("m")),
        note("small", linked("s")),
        *(binary(name, b"<p>x" * size) for name, size in (("i", 1), ("c", 1), ("m", 900), ("s", 1))),
    ]
    with mock("epic", data=data) as served:
        await run(served, store, profile={"attachments": {"fetch": False}})
        assert fetched(served) == []
        report = await run(served, store, profile={"attachments": {"max_bytes": 2_000}})
        assert sorted(fetched(served)) == ["m", "s"]
        states = {key[0]: use[0] for key, use in uses(store_url).items()}
        assert states == {"scan": "unwanted", "claims-much": "too-large", "is-much": "too-large", "small": "stored"}
        assert report.status == "complete"
        await run(served, store, profile={"attachments": {"types": ["image/*", "text/*"]}})
    assert {use[0] for use in uses(store_url).values()} == {"stored"}  # a new policy decides anew


async def test_another_server_is_contacted_only_by_policy_and_never_with_the_token(
    store: KeptRows, store_url: str
) -> None:
    with mock("generic", data=[binary("far", b"<p>far")], open=True) as other:
        url = f"{other.base_url}/Binary/far"
        with mock("epic", data=[PATIENT, note("d1", {"contentType": "text/html", "url": url})]) as served:
            report = await run(served, store)
            assert (len(other.log), uses(store_url)["d1", 0][0]) == (0, "foreign")
            assert (
                "attachments: 1 in all: 1 not requested (on other servers, not requested without attachments.foreign)"
                in report.notes
            )
            await run(served, store, profile={"attachments": {"foreign": True}, "links.private_hosts": ["127.0.0.1"]})
            requests = list(other.log)
    assert [entry.had_authorization for entry in requests] == [False]
    assert uses(store_url)["d1", 0][1:] == (b"<p>far", "far")


async def test_a_wrong_size_or_hash_is_noted_and_the_document_kept(store: KeptRows, store_url: str) -> None:
    data = [PATIENT, note("d1", linked("b1", size=3, hash="AAAA")), binary("b1", b"<p>whole")]
    with mock("epic", data=data) as served:
        report = await run(served, store)
    assert uses(store_url)["d1", 0][0] == "stored"
    assert "attachments: 1 in all: 1 stored (its size and hash differ from what the resource says)" in report.notes


async def test_a_run_killed_while_fetching_documents_requests_no_stored_one_again(
    store: KeptRows, store_url: str
) -> None:
    data = [
        PATIENT,
        *(note(f"d{n}", linked(f"b{n}")) for n in range(8)),
        *(binary(f"b{n}", b"<p>%d" % n) for n in range(8)),
    ]
    with mock("epic", data=data) as served:
        stall = FaultRule(match=Match(path="Binary/"), first=6, last=8, action=Action(stall=True))
        served.faults.add(stall)
        stored: set[str] = set()

        def five_are_stored() -> bool:
            stored.update(f"b{place[0][1:]}" for place, use in uses(store_url).items() if use[0] == "stored")
            return len(stored) == 5

        await cut_off(run(served, store), five_are_stored)
        before = len(served.log)
        served.faults.clear()
        report = await run(served, store)
        requests = fetched(served, before)
    assert report.status == "complete"
    assert sorted(requests) == sorted({f"b{n}" for n in range(8)} - stored)
    assert all(use[0] == "stored" for use in uses(store_url).values())


async def test_attachment_places_that_a_changed_resource_no_longer_has_are_forgotten(
    store: KeptRows, store_url: str
) -> None:
    data = [PATIENT, note("d1", linked("b1"), linked("b2")), binary("b1", b"<p>1"), binary("b2", b"<p>2")]
    with mock("epic", data=data) as served:
        await run(served, store)
        served.dataset.replace(note("d1", linked("b2")))
        await run(served, store)
    assert uses(store_url) == {("d1", 0): ("stored", b"<p>2", "2")}


async def test_without_permission_to_read_binary_none_is_requested_and_a_note_says_so(store: KeptRows) -> None:
    data = [PATIENT, note("d1", linked("b1")), binary("b1", b"<p>1")]
    with mock("generic", data=data, bulk_levels=()) as served:
        report = await run(served, store, scopes=("system/Patient.rs", "system/DocumentReference.rs"))
        assert fetched(served) == []
        assert {("DocumentReference", "d1")} <= set(reachable(served))
    assert "attachments: Binary is not granted by the token's scopes, so none was fetched by URL" in report.notes


async def test_a_binary_that_comes_wrapped_in_json_is_unwrapped(store: KeptRows, store_url: str) -> None:
    data = [PATIENT, note("d1", linked("b1", None)), binary("b1", b"<p>wrapped")]
    with mock("epic", data=data) as served:
        await run(served, store)
        accepts = [entry.headers["accept"] for entry in served.log if entry.resource_type == "Binary"]
    assert accepts == ["application/fhir+json"]
    assert uses(store_url)["d1", 0] == ("stored", b"<p>wrapped", "wrapped")
    assert json.loads(data[-1])["contentType"] == "text/html"


ODD_TYPES = [
    "text/plain\r\nX-Evil: 1",
    "text/plain\n",
    "text/pl\x07ain",
    'text/plain; x="\u0394"',
    "  ",
    "a" * 70_000,
    "5",
]


async def test_an_invalid_content_type_is_not_sent_and_the_document_is_still_fetched(
    store: KeptRows, store_url: str
) -> None:
    odd = [note(f"d{n}", linked(f"b{n}", claimed)) for n, claimed in enumerate(ODD_TYPES)]
    binaries = [binary(f"b{n}", b"%d words" % n, "text/plain") for n in range(len(ODD_TYPES))]
    with mock("generic", data=[PATIENT, *odd, *binaries]) as served:
        report = await run(served, store, profile={"attachments": {"types": ["*"]}})
        accepts = {entry.headers["accept"] for entry in served.log if entry.resource_type == "Binary"}
    assert report.status == "complete"
    assert accepts <= {"application/fhir+json", "text/plain"}
    assert {(use[0], use[1]) for use in uses(store_url).values()} == {
        ("stored", b"%d words" % n) for n in range(len(ODD_TYPES))
    }


async def test_the_token_goes_to_no_path_outside_the_base_even_at_its_own_origin(
    store: KeptRows, store_url: str
) -> None:
    with mock("generic", data=[PATIENT]) as served:
        root = served.base_url.rpartition("/")[0]
        outside = [
            f"{root}/other-tenant/Binary/b1",
            f"{root}/admin",
            "Binary/../../admin/delete?all=1",
            "Binary/%252e%252e/%252e%252e/admin",
            "Patient?name=x",
            "//Binary/x",
            f"{served.base_url}-evil/Binary/b1",
            "#contained",
        ]
        for n, url in enumerate(outside):
            served.dataset.replace(note(f"d{n}", {"contentType": "text/html", "url": url}))
        report = await run(served, store)
        assert [entry.target for entry in served.log if "admin" in entry.target or "Binary" in entry.target] == []
    assert {use[0] for use in uses(store_url).values()} == {"foreign"}
    (line,) = [note for note in report.notes if note.startswith("attachments")]
    assert line.startswith(f"attachments: {len(outside)} in all: ")
    for count, why in (
        (3, "on the EHR's own origin but outside base_url"),
        (1, "on other servers"),
        (4, "their URL is"),
    ):
        assert f"{count} not requested ({why}" in line


async def test_a_setting_fetches_documents_beside_the_base_on_the_ehrs_own_origin_with_the_token(
    store: KeptRows, store_url: str
) -> None:
    with mock("generic", data=[PATIENT]) as served:
        root = served.base_url.rpartition("/")[0]
        urls = [f"{root}/files/b1?version=2", f"{root}/files/../admin", "Patient?name=x"]
        for n, url in enumerate(urls):
            served.dataset.replace(note(f"d{n}", {"contentType": "text/plain", "url": url}))
        served.faults.add(FaultRule(match=Match(path="/files/b1"), action=Action(status=404)))
        report = await run(served, store, profile={"attachments": {"same_origin": True}})
        requests = [entry for entry in served.log if "/files/" in entry.target or "admin" in entry.target]
    assert [(entry.target.partition("/files")[2], entry.had_authorization) for entry in requests] == [
        ("/b1?version=2", True)
    ]
    assert {key[0]: use[0] for key, use in uses(store_url).items()} == {
        "d0": "missing",
        "d1": "foreign",
        "d2": "foreign",
    }
    assert report.status == "complete"


NO_TYPES = ["ASCII Text", "pdf", "", "*/*", "application/*", "text", "text/"]


async def test_a_document_with_an_invalid_content_type_is_requested_as_fhir_json_and_noted(
    store: KeptRows, store_url: str
) -> None:
    """As servers write it: "pdf", "ASCII Text", nothing at all."""
    odd = [note(f"d{n}", linked(f"b{n}", claimed)) for n, claimed in enumerate(NO_TYPES)]
    binaries = [binary(f"b{n}", b"%d words" % n, "text/plain") for n in range(len(NO_TYPES))]
    inline = note("inline", {"contentType": "pdf", "data": b64encode(b"a few words").decode()})
    image = note("image", linked("i", "image/png; x"))
    in_url = note("url", {"contentType": "txt", "url": "data:text/plain;base64,aGVsbG8="})
    with mock("generic", data=[PATIENT, *odd, *binaries, inline, image, in_url]) as served:
        report = await run(served, store)
        accepts = {entry.headers["accept"] for entry in served.log if entry.resource_type == "Binary"}
    assert (report.status, accepts) == ("complete", {"application/fhir+json"})
    found = uses(store_url)
    assert [found[f"d{n}", 0] for n in range(len(NO_TYPES))] == [
        ("stored", b"%d words" % n, f"{n} words") for n in range(len(NO_TYPES))
    ]
    assert (found["inline", 0], found["image", 0][0]) == (("stored", b"a few words", "a few words"), "unwanted")
    assert found["url", 0] == ("stored", b"hello", "hello")
    assert (
        f"attachments: {len(NO_TYPES) + 3} in all: 1 stored, {len(NO_TYPES) + 1} stored (its content type is not a media type), "
        "1 of types that profile.attachments leaves out"
    ) in report.notes


async def test_documents_left_over_by_an_earlier_run_are_counted_by_the_run_that_fetches_them(store: KeptRows) -> None:
    data = [PATIENT, note("d1", linked("b1")), note("d2", linked("lost")), binary("b1", b"<p>1")]
    with mock("epic", data=data) as served:
        served.faults.add(FaultRule(match=Match(path="Binary/lost"), action=Action(status=500)))
        first = await run(served, store, profile={"retry.max_tries": 1})
        assert "attachments: 2 in all: 1 stored, 1 not fetched" in first.notes
        served.faults.clear()
        again = await run(served, store)
    assert "attachments: 1 in all: 1 not there" in again.notes


async def test_an_answer_that_is_an_operationoutcome_or_a_web_page_is_never_a_document(
    store: KeptRows, store_url: str
) -> None:
    outcome = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"processing"}]}'
    in_xml = b'<?xml version="1.0"?><OperationOutcome xmlns="http://hl7.org/fhir"><issue/></OperationOutcome>'
    page = b"<html><body>log in, please</body></html>"
    answers = {
        "plain": ("text/plain", outcome, "text/plain"),
        "xml": ("text/xml", in_xml, "application/fhir+xml"),
        "page": ("application/pdf", page, "text/html"),
        "unsaid": ("application/pdf", page, "application/octet-stream"),
    }
    data = [PATIENT]
    for name, (claimed, content, label) in answers.items():
        data += [note(name, linked(name, claimed)), binary(name, content, label)]
    with mock("generic", data=data) as served:
        report = await run(served, store, profile={"attachments": {"types": ["*"]}})
    assert {use[:2] for use in uses(store_url).values()} == {("wanted", None)}
    assert report.status == "partial"
    assert len(report.holes) == len(answers)
    # which one: the patient by its mark, and no id, no URL
    assert all(hole.scope.startswith("patient ~") and "document" in hole.scope for hole in report.holes)


async def test_a_binary_that_comes_wrapped_in_xml_is_unwrapped(store: KeptRows, store_url: str) -> None:
    wrapped = b'<Binary xmlns="http://hl7.org/fhir"><contentType value="text/plain"/><data value="aGVsbG8="/></Binary>'
    data = [PATIENT, note("d1", linked("b1", "text/plain")), binary("b1", wrapped, "application/fhir+xml")]
    with mock("generic", data=data) as served:
        await run(served, store)
    assert uses(store_url)["d1", 0] == ("stored", b"hello", "hello")


async def test_a_document_in_a_data_url_is_read_like_an_inline_one(store: KeptRows, store_url: str) -> None:
    data = [
        PATIENT,
        note("d1", {"contentType": "text/plain", "url": "data:text/plain;base64,aGVsbG8="}),
        note("d2", {"url": "data:,a%20word"}),
        note("d3", {"url": "data:nothing"}),
    ]
    with mock("generic", data=data) as served:
        await run(served, store)
        assert fetched(served) == []
    found = uses(store_url)
    assert (found["d1", 0], found["d2", 0]) == (("stored", b"hello", "hello"), ("stored", b"a word", "a word"))
    assert found["d3", 0][0] == "missing"
