"""Export servers that nobody has listed: what does not prove that it is whole deletes nothing, and is told."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from config.bulk_options import BulkOptions
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import (
    OBSERVATION,
    OUTCOME,
    PATIENT,
    Answer,
    ExportServer,
    accepted,
    export_server,
    manifest,
    ndjson,
    outcome,
)

pytestmark = pytest.mark.anyio

TYPES = ("Patient", "Observation")
SECOND = OBSERVATION.replace('"o1"', '"o2"')
CODED = (
    '{{"resourceType":"OperationOutcome","issue":[{{"severity":"{severity}","code":"forbidden",'
    '"details":{{"coding":[{{"code":"{code}"}}]}}}}]}}'
)


def until_closed(*lines: str, **headers: str | None) -> Answer:
    """A body as HTTP/1.0 sends it: the end of the connection is its end."""
    body = "".join(f"{line}\n" for line in lines)
    return Answer(200, body, {"Content-Length": None, **headers}, "application/fhir+ndjson", cut=len(body))


def counted(observations: int) -> Answer:
    output = [
        {"type": "Patient", "url": "{origin}/files/Patient"},
        {"type": "Observation", "url": "{origin}/files/Observation", "count": observations},
    ]
    return manifest(output=output)


async def two_nights(store: KeptRows, second: Answer, poll: Answer | None = None) -> tuple[ExportServer, Any]:
    """A good export of two Observations, then one whose file of them is `second`."""
    async with export_server() as server:
        server.files["Observation"] = [ndjson(OBSERVATION, SECOND)]
        assert (await server.sync(store, types=TYPES)).status == "complete"
        server.files["Observation"] = [second]
        server.polls = [poll or manifest(*TYPES)]
        return server, await server.sync(store, types=TYPES)


async def test_a_file_that_nothing_proves_complete_deletes_nothing_and_is_reported(store: KeptRows) -> None:
    _, report = await two_nights(store, until_closed(OBSERVATION))
    assert (report.status, report.deleted) == ("complete", 0)
    assert any("Observation: nothing proves the file complete" in note for note in report.notes)
    assert ("Observation", "o2") in store.live()


async def test_a_count_proves_a_file_complete(store: KeptRows) -> None:
    _, report = await two_nights(store, until_closed(OBSERVATION), counted(1))
    assert (report.status, report.deleted) == ("complete", 1)
    assert not any("proves" in note for note in report.notes)


@pytest.mark.parametrize(("poll", "deleted"), [(None, 0), (counted(1), 1)], ids=["uncounted", "counted"])
async def test_a_file_that_ends_in_zeros_is_read_and_complete_only_if_a_count_says_so(
    store: KeptRows, poll: Answer | None, deleted: int
) -> None:
    padded = Answer(200, f"{OBSERVATION}\n".encode() + bytes(512), {}, "application/fhir+ndjson")
    _, report = await two_nights(store, padded, poll)
    assert (report.status, report.deleted, report.quarantined) == ("complete", deleted, 0)
    assert any("or it ends in zeros" in note for note in report.notes) is (poll is None)


async def test_a_file_that_ends_in_zeros_moves_no_watermark_unless_a_count_says_that_it_is_whole(
    store: KeptRows,
) -> None:
    moved = []
    for count in (None, 1):
        async with export_server() as server:
            server.files["Observation"] = [
                Answer(200, f"{OBSERVATION}\n".encode() + bytes(512), {}, "application/fhir+ndjson")
            ]
            server.polls = [counted(1) if count else manifest(*TYPES)]
            assert (await server.sync(store, types=TYPES)).status == "complete"
        moved.append("Observation" in store.watermarks())
    assert moved == [False, True]


async def test_a_gzip_trailer_proves_a_file_complete(store: KeptRows) -> None:
    packed = gzip.compress(f"{OBSERVATION}\n".encode())
    headers = {"Content-Length": None, "Content-Encoding": "gzip"}
    answer = Answer(200, packed, headers, "application/fhir+ndjson", cut=len(packed))
    _, report = await two_nights(store, answer)
    assert (report.status, report.deleted) == ("complete", 1)


async def test_an_empty_file_does_not_prove_that_there_are_no_rows(store: KeptRows) -> None:
    _, report = await two_nights(store, ndjson())
    assert (report.status, report.deleted) == ("complete", 0)
    assert any("Observation: the file has no line" in note for note in report.notes)
    assert ("Observation", "o1") in store.live()


async def test_an_empty_file_with_a_count_of_zero_proves_that_there_are_no_rows(store: KeptRows) -> None:
    _, report = await two_nights(store, ndjson(), counted(0))
    # nothing of the type is left that could be read beside them: another full listing must say so too
    assert [(hole.resource_type, hole.reason.partition(" ")[0]) for hole in report.holes] == [("Observation", "2")]


# -- the rest of a file that was cut

LINES = tuple(f"{OBSERVATION}\n".replace('"o1"', f'"o{n}"') for n in range(1, 5))
WHOLE = "".join(LINES)
ONE = len(LINES[0])
TAG = {"ETag": '"v1"', "Accept-Ranges": "bytes"}
CUT = Answer(200, WHOLE, TAG, "application/fhir+ndjson", cut=ONE + 20)
START = ONE + 20


def part(body: str, start: int, last: int, size: object = len(WHOLE), **headers: str | None) -> Answer:
    fields = {"ETag": '"v1"', "Content-Range": f"bytes {start}-{last}/{size}", **headers}
    return Answer(206, body, fields, "application/fhir+ndjson")


async def cut_file(store: KeptRows, *answers: Answer) -> tuple[list[str], Any]:
    """A file of Observations that was cut, and what follows; the last answer is for ever. Gives the Ranges asked for."""
    async with export_server() as server:
        server.files["Observation"] = list(answers)
        report = await server.sync(store, types=TYPES)
        return [seen.headers.get("range", "") for seen in server.sent("/files/Observation")], report


def stored(store: KeptRows) -> set[str]:
    return {id_ for kind, id_ in store.live() if kind == "Observation"}


ALL = {"o1", "o2", "o3", "o4"}
REST = part(WHOLE[START:], START, len(WHOLE) - 1)
AGAIN = Answer(200, WHOLE, TAG, "application/fhir+ndjson")


async def test_the_rest_of_a_truncated_file_is_joined_to_it(store: KeptRows) -> None:
    ranges, report = await cut_file(store, CUT, REST)
    assert (report.status, stored(store), ranges) == ("complete", ALL, ["", f"bytes={START}-"])


@pytest.mark.parametrize("tag", ['"v2"', 'W/"v1"', None])
async def test_a_part_of_another_or_unknown_version_restarts_the_file(store: KeptRows, tag: str | None) -> None:
    other = WHOLE.replace('"o', '"n')
    rest = part(other[START:], START, len(other) - 1, ETag=tag)
    ranges, report = await cut_file(store, CUT, rest, Answer(200, other, {"ETag": '"v2"'}, "application/fhir+ndjson"))
    assert ranges == ["", f"bytes={START}-", ""]
    assert (report.status, stored(store) >= {"n1", "n2", "n3", "n4"}) == ("complete", True)


@pytest.mark.parametrize("end", [2 * ONE, 2 * ONE + 7], ids=["at the end of a line", "within a line"])
async def test_a_part_shorter_than_requested_is_followed_by_the_next(store: KeptRows, end: int) -> None:
    first = part(WHOLE[START:end], START, end - 1)
    ranges, report = await cut_file(store, CUT, first, part(WHOLE[end:], end, len(WHOLE) - 1))
    assert ranges == ["", f"bytes={START}-", f"bytes={end}-"]
    assert (report.status, stored(store)) == ("complete", ALL)
    assert not any("proves the file complete" in note for note in report.notes)


@pytest.mark.parametrize(
    "rest",
    [
        part(WHOLE[3 * ONE :], START, len(WHOLE) - 1),
        part(WHOLE[3 * ONE :], START, len(WHOLE) - 1, **{"Content-Length": None, "Connection": "close"}),
        part(WHOLE[START:], START, len(WHOLE) - 1, len(WHOLE) + 50),
        part(WHOLE[START:], START + 1, len(WHOLE) - 1),
        part(WHOLE[START:], START, len(WHOLE) - 1, **{"Content-Range": None}),
    ],
    ids=["bytes left out", "bytes left out and no length", "another size", "another start", "no Content-Range"],
)
async def test_a_part_that_does_not_match_its_headers_restarts_the_file(store: KeptRows, rest: Answer) -> None:
    if rest.headers.get("Connection") == "close":
        rest = replace(rest, cut=len(rest.body))
    ranges, report = await cut_file(store, CUT, rest, AGAIN)
    assert ranges == ["", f"bytes={START}-", ""]
    assert (report.status, stored(store)) == ("complete", ALL)


async def test_an_unknown_size_does_not_prove_a_part_to_be_the_last(store: KeptRows) -> None:
    unsized = replace(CUT, headers={**TAG, "Content-Length": None, "Transfer-Encoding": "chunked"})
    chunk = f"{len(WHOLE):x}\r\n"
    unsized = replace(unsized, body=chunk + WHOLE, cut=len(chunk) + START)
    shorter = part(WHOLE[START : 2 * ONE], START, 2 * ONE - 1, "*")
    ranges, report = await cut_file(store, unsized, shorter, AGAIN)
    assert ranges == ["", f"bytes={START}-", ""]
    assert (report.status, stored(store)) == ("complete", ALL)


async def test_a_server_that_never_sends_the_right_rest_leaves_a_hole(store: KeptRows) -> None:
    wrong = part(WHOLE[START:], START, len(WHOLE) - 1, ETag='"v2"')
    ranges, report = await cut_file(store, *[CUT, wrong] * 10)
    assert report.status == "partial"
    assert len(ranges) <= 20
    (hole,) = report.holes
    assert "same version" in hole.reason


HEADER = '{"resourceType":"Parameters","parameter":[{"name":"header","valueReference":{"reference":"Patient/p1"}}]}'


@pytest.mark.parametrize(("count", "status"), [(2, "complete"), (3, "complete"), (4, "partial"), (5, "partial")])
async def test_a_count_is_compared_with_an_organised_file_too(store: KeptRows, count: int, status: str) -> None:
    output = [{"url": "{origin}/files/none", "count": 1}, {"url": "{origin}/files/one", "count": count}]
    async with export_server(polls=[manifest(output=output, outputOrganizedBy="Patient")]) as server:
        server.files |= {"none": [ndjson(HEADER)], "one": [ndjson(HEADER, PATIENT, OBSERVATION)]}
        report = await server.sync(store, types=TYPES, bulk=BulkOptions(organize_by="Patient"))
    assert report.status == status
    assert [f"manifest promises {count}" in hole.reason for hole in report.holes] == [True] * (status == "partial")


# -- elements that are left out without a tag


async def test_untagged_partial_resources_never_overwrite_a_whole_one(store: KeptRows) -> None:
    whole = OBSERVATION.replace("}}", '},"valueString":"whole"}')
    options = BulkOptions(elements=("Observation.subject",))
    async with export_server() as server:
        server.files["Observation"] = [ndjson(whole)]
        await server.sync(store, types=TYPES)
        server.files["Observation"] = [ndjson(OBSERVATION, SECOND)]
        report = await server.sync(store, types=TYPES, bulk=options)
        assert (report.status, report.changed, report.new) == ("complete", 0, 1)
        assert store.live()["Observation", "o1"]["valueString"] == "whole"
        server.files["Observation"] = [ndjson(SECOND.replace("p1", "p2"))]
        await server.sync(store, types=TYPES, bulk=options)
        assert store.live()["Observation", "o2"]["subject"] == {"reference": "Patient/p2"}, "trimmed ones are renewed"
        server.files["Observation"] = [ndjson(whole, whole.replace('"o1"', '"o2"'))]
        await server.sync(store, types=TYPES)
    assert store.live()["Observation", "o2"]["valueString"] == "whole"


# -- deletions


async def test_unreadable_deletions_are_a_hole_and_the_others_are_applied(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Observation"] = [ndjson(OBSERVATION, SECOND)]
        await server.sync(store, types=TYPES)
        base = f"{server.main.origin}/fhir" if server.main else ""
        urls = (f"{base}/Observation/o1", "https://other.example.org/fhir/Observation/o2")
        entries = ",".join(f'{{"request":{{"method":"DELETE","url":"{url}"}}}}' for url in urls)
        server.files = {"Observation": [ndjson()], "gone": [ndjson(f'{{"resourceType":"Bundle","entry":[{entries}]}}')]}
        deleted = [{"type": "Bundle", "url": "{origin}/files/gone"}]
        server.polls = [manifest("Observation", deleted=deleted)]
        report = await server.sync(store, types=TYPES, since="2026-01-01T00:00:00Z")
    assert (report.status, report.deleted, report.quarantined) == ("partial", 1, 1)
    assert ("Observation", "o2") in store.live()
    (hole,) = report.holes
    assert "not a DELETE of a resource below the FHIR base" in hole.reason


# -- what the server says of its own export


@pytest.mark.parametrize(
    ("line", "status", "deleted"),
    [
        (OUTCOME.format(severity="warning", code="suppressed"), "complete", 1),
        (OUTCOME.format(severity="error", code="exception"), "partial", 0),
        (OUTCOME.format(severity="fatal", code="exception"), "partial", 0),
    ],
)
async def test_an_export_with_errors_deletes_nothing_and_is_a_hole_and_one_with_warnings_is_believed(
    store: KeptRows, line: str, status: str, deleted: int
) -> None:
    errors = [{"type": "OperationOutcome", "url": "{origin}/files/errors"}]
    async with export_server() as server:
        server.files |= {"Observation": [ndjson(OBSERVATION, SECOND)], "errors": [ndjson(line)]}
        await server.sync(store, types=TYPES)
        server.files["Observation"] = [ndjson(OBSERVATION)]
        server.polls = [manifest(*TYPES, error=errors)]
        report = await server.sync(store, types=TYPES)
        deletions = server.sent("/jobs/1", "DELETE")
    assert (report.status, report.deleted) == (status, deleted)
    texts = [*report.notes, *(hole.reason for hole in report.holes)]
    assert any("error file has 1 issue," in one or "failed in part: 1 error " in one for one in texts)
    assert len(deletions) == 2  # every file is here: the server need not keep them
    if status == "partial":
        (hole,) = report.holes
        assert "1 error (exception)" in hole.reason


async def test_a_fatal_issue_that_the_vendor_explains_as_no_permission_is_no_hole(store: KeptRows) -> None:
    errors = [{"type": "OperationOutcome", "url": "{origin}/files/errors"}]
    async with export_server(polls=[manifest(*TYPES, error=errors)]) as server:
        server.files["errors"] = [ndjson(CODED.format(severity="fatal", code="4118"))]
        report = await server.sync(store, {"answers.issue_codes": {"4118": "restricted"}}, types=TYPES)
    assert (report.status, report.holes) == ("complete", [])


SAID = {"severity": "error", "code": "exception"}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"resourceType": "OperationOutcome", "issue": [SAID]}, indent=2),
        json.dumps({"resourceType": "OperationOutcome", "issue": [{**SAID, "code": None}]}),
        json.dumps({"resourceType": "OperationOutcome", "issue": [{**SAID, "details": {"coding": {"code": "x"}}}]}),
        json.dumps({"resourceType": "OperationOutcome", "issue": SAID}),
        json.dumps({"resourceType": "OperationOutcome", "issue": [{**SAID, "severity": "Error"}]}),
        json.dumps(
            {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "OperationOutcome", "issue": [SAID]}}]}
        ),
        "one Observation could not be written",
        json.dumps({"resourceType": "OperationOutcome"}),
    ],
)
async def test_an_error_in_any_shape_is_a_hole_that_deletes_nothing_and_moves_no_watermark(
    store: KeptRows, body: str
) -> None:
    async with export_server() as server:
        server.files |= {"Observation": [ndjson(OBSERVATION, SECOND)], "errors": [ndjson(body)]}
        await server.sync(store, types=TYPES)
        before = store.watermarks()
        server.files["Observation"] = [ndjson(OBSERVATION)]
        errors = [{"type": "OperationOutcome", "url": "{origin}/files/errors", "count": 7}]
        server.polls = [manifest(*TYPES, error=errors, transactionTime="2026-03-02T00:00:00Z")]
        report = await server.sync(store, types=TYPES)
        assert len(server.sent("/files/errors")) == 1
    assert (report.status, report.deleted, len(report.holes)) == ("partial", 0, 1)
    assert store.watermarks() == before


async def test_an_error_that_the_vendor_explains_as_no_permission_is_no_hole_and_deletes_nothing(
    store: KeptRows,
) -> None:
    errors = [{"type": "OperationOutcome", "url": "{origin}/files/errors"}]
    async with export_server() as server:
        server.files |= {"Observation": [ndjson(OBSERVATION, SECOND)]}
        await server.sync(store, types=TYPES)
        server.files |= {
            "Observation": [ndjson(OBSERVATION)],
            "errors": [ndjson(CODED.format(severity="error", code="4118"))],
        }
        server.polls = [manifest(*TYPES, error=errors)]
        report = await server.sync(store, {"answers.issue_codes": {"4118": "restricted"}}, types=TYPES)
    assert (report.status, report.holes, report.deleted) == ("complete", [], 0)


# -- what of a manifest cannot be understood


async def test_a_file_listed_without_a_url_is_a_hole_and_the_others_are_stored(store: KeptRows) -> None:
    output = [{"type": "Patient", "url": "{origin}/files/Patient"}, {"type": "Observation", "url": None, "count": 3}]
    async with export_server(polls=[manifest(output=output)]) as server:
        report = await server.sync(store, types=TYPES)
    assert (report.status, set(store.live())) == ("partial", {("Patient", "p1")})
    (hole,) = report.holes
    assert "without a URL" in hole.reason
    assert "Observation" not in store.watermarks()


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"link": [{"relation": "further", "url": "{origin}/page2"}]}, "complete"),
        ({"link": [None]}, "complete"),
        ({"error": [None]}, "complete"),
        ({"link": [{"relation": "next", "url": None}]}, "partial"),
        ({"link": "page2"}, "partial"),
        ({"next": "page2"}, "partial"),
        (
            {"errors": [{"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]}]},
            "partial",
        ),
    ],
)
async def test_an_unintelligible_manifest_part_deletes_nothing_and_a_missing_page_is_a_hole(
    store: KeptRows, more: dict, status: str
) -> None:
    async with export_server() as server:
        server.files["Observation"] = [ndjson(OBSERVATION, SECOND)]
        await server.sync(store, types=TYPES)
        before = store.watermarks()
        server.files["Observation"] = [ndjson(OBSERVATION)]
        server.polls = [manifest(*TYPES, transactionTime="2026-03-02T00:00:00Z", **more)]
        report = await server.sync(store, types=TYPES)
    assert (report.status, report.deleted, ("Observation", "o2") in store.live()) == (status, 0, True)
    assert any("manifest" in text for text in (*report.notes, *(hole.reason for hole in report.holes)))
    if status == "partial":
        assert store.watermarks() == before


@pytest.mark.parametrize(
    "member",
    [
        {"link": {"relation": "https://www.iana.org/assignments/relation/NEXT", "url": "{origin}/page2"}},
        {"next": "{origin}/page2"},
    ],
    ids=["relation", "member"],
)
async def test_a_next_manifest_page_is_followed_however_it_is_named(store: KeptRows, member: dict) -> None:
    async with export_server(polls=[manifest("Patient", **member)]) as server:
        server.pages["/page2"] = [manifest("Observation")]
        report = await server.sync(store, types=TYPES)
    assert (report.status, len(store.live())) == ("complete", 2)


async def test_an_outcome_at_the_status_url_is_no_export_of_nothing(store: KeptRows) -> None:
    async with export_server(polls=[outcome(200, "exception")]) as server:
        report = await server.sync(store, types=TYPES)
    assert report.status == "failed"
    assert "no `output` list" in (report.error or "")
    assert "--mode crawl" in (report.error or "")


async def test_an_implausible_transaction_time_earns_no_watermark(store: KeptRows) -> None:
    async with export_server(polls=[manifest(*TYPES, transactionTime="0001-01-01T00:00:00Z")]) as server:
        report = await server.sync(store, types=TYPES)
    assert report.status == "complete"
    assert any("transactionTime is missing" in note for note in report.notes)
    assert all(instant.startswith("20") for instant in store.watermarks().values())


@pytest.mark.parametrize("name", ["error", "outcome"])
async def test_an_error_file_outside_a_list_is_read(store: KeptRows, name: str) -> None:
    alone = {name: {"type": "OperationOutcome", "url": "{origin}/files/errors"}}
    async with export_server(polls=[manifest(*TYPES, **alone)]) as server:
        server.files["errors"] = [ndjson(OUTCOME.format(severity="error", code="exception"))]
        report = await server.sync(store, types=TYPES)
    (hole,) = report.holes
    assert "failed in part: 1 error " in hole.reason


async def test_a_manifest_member_that_should_be_a_list_is_refused(store: KeptRows) -> None:
    async with export_server(polls=[manifest(*TYPES, deleted="none")]) as server:
        report = await server.sync(store, types=TYPES)
    assert report.status == "failed"
    assert "`deleted` is not a list" in (report.error or "")


# -- polls


async def test_an_empty_answer_to_a_poll_is_followed_by_another_poll(store: KeptRows) -> None:
    async with export_server(polls=[Answer(200, ""), Answer(200, "\n"), manifest(*TYPES)]) as server:
        report = await server.sync(store, types=TYPES)
        assert len(server.kicked_off) == 1
    assert (report.status, report.error) == ("complete", None)


async def test_polls_that_stay_empty_end_with_an_error_and_the_job_is_kept(store: KeptRows) -> None:
    async with export_server(polls=[Answer(200, "")]) as server:
        report = await server.sync(store, types=TYPES)
        server.polls = [manifest(*TYPES)]
        again = await server.sync(store, types=TYPES)
        assert len(server.kicked_off) == 1
    assert report.status == "failed"
    assert "without a manifest, 3 times in a row" in (report.error or "")
    assert (again.status, again.id) == ("complete", report.id)


# -- status URLs elsewhere


async def test_an_export_with_a_status_url_at_another_origin_continues_once_that_origin_is_allowed(
    store: KeptRows,
) -> None:
    async with export_server(kickoffs=[accepted("{elsewhere}/jobs/1")]) as server:
        reports = [await server.sync(store, types=TYPES) for _ in range(3)]
        assert len(server.kicked_off) == 1
        assert server.elsewhere is not None
        assert not server.elsewhere.seen
        for report in reports:
            assert report.status == "failed"
            assert f'put "{server.elsewhere.origin}" into profile.bulk.file_hosts' in (report.error or "")
            assert "token" not in (report.error or "")
        report = await server.sync(store, {"bulk.file_hosts": [server.elsewhere.origin]}, types=TYPES)
        assert len(server.kicked_off) == 1
        assert [seen.method for seen in server.elsewhere.seen] == ["GET", "DELETE"]
    assert (report.status, report.id) == ("complete", reports[0].id)


# -- rate headers


async def test_pauses_requested_by_rate_headers_are_reported_once_per_run(store: KeptRows) -> None:
    nothing_left = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999"}
    async with export_server() as server:
        server.files = {
            "Patient": [ndjson(PATIENT, headers=nothing_left)],
            "Observation": [ndjson(OBSERVATION, headers=nothing_left)],
        }
        report = await server.sync(store, {"retry.after_cap_s": 300, "limits.file_concurrency": 1}, types=TYPES)
    (one,) = [note for note in report.notes if "rate headers" in note]
    assert "ordered pauses: 2 times, 600 s in all" in one


@pytest.mark.parametrize("reset", ["-5", "99999999999", "soon"])
async def test_a_wait_requested_by_rate_headers_is_shown_while_it_lasts(store: KeptRows, reset: str) -> None:
    nothing_left = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    async with export_server() as server:
        server.files["Patient"] = [ndjson(PATIENT, headers=nothing_left)]
        report = await server.sync(store, {"retry.after_cap_s": 300, "limits.file_concurrency": 1}, types=TYPES)
    assert report.status == "complete"
    waits = [wait for wait in server.held_up if wait is not None and "its rate headers ask for it" in wait.reason]
    assert [round(wait.until - wait.since) for wait in waits] == [
        round(wait) for wait in server.clock.waits if wait >= 1
    ]
    assert waits
