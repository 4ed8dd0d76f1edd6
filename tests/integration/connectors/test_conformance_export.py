"""What the Bulk Data IG asks of a client, as it shows on the wire. docs/conformance.md says which rule each test holds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote

import psycopg
import pytest

from connectors.fhir.run import CohortSource
from tests.integration.connectors.kept_rows import KeptRows
from tests.integration.connectors.scripted_export import (
    OBSERVATION,
    OUTCOME,
    PATIENT,
    Answer,
    accepted,
    bearer,
    busy,
    export_server,
    manifest,
    ndjson,
    outcome,
)
from tests.integration.connectors.wire import Seen

pytestmark = pytest.mark.anyio

BOTH = {("Patient", "p1"), ("Observation", "o1")}


# -- kick-off


@pytest.mark.parametrize(
    ("level", "path"), [("patient", "Patient/$export"), ("group", "Group/g%201/$export"), ("system", "$export")]
)
async def test_a_kick_off_is_a_get_that_requests_an_asynchronous_answer_in_fhir_json(
    store: KeptRows, level: str, path: str
) -> None:
    async with export_server() as server:
        group = {"group": "g 1"} if level == "group" else {}
        report = await server.sync(store, {"bulk.levels": [level]}, types=("Patient", "Observation"), **group)
        (kickoff,) = server.kicked_off
    assert (report.status, report.error) == ("complete", None)
    assert kickoff.method == "GET"
    target, _, query = kickoff.target.partition("?")
    assert target == f"/fhir/{path}"
    assert parse_qs(query) == {"_type": ["Patient,Observation"]}
    assert kickoff.headers["accept"] == "application/fhir+json"
    assert "respond-async" in kickoff.headers["prefer"]
    assert bearer(kickoff) == "token-1"
    assert kickoff.body == b""


async def test_patients_are_named_in_a_posted_parameters_resource(store: KeptRows) -> None:
    async with export_server() as server:
        cohort = CohortSource(values=("p1",))
        await server.sync(store, {"bulk.levels": ["patient-list"]}, types=("Patient", "Observation"), cohort=cohort)
        (kickoff,) = server.kicked_off
    body = json.loads(kickoff.body)
    assert (kickoff.method, kickoff.target) == ("POST", "/fhir/Patient/$export")
    assert kickoff.headers["content-type"] == "application/fhir+json"
    assert body["resourceType"] == "Parameters"
    assert {"name": "patient", "valueReference": {"reference": "Patient/p1"}} in body["parameter"]


async def test_a_server_of_the_fourth_version_gets_a_post_with_repeated_parameters(store: KeptRows) -> None:
    canonical = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data|4.0.0"
    async with export_server(capability={"instantiates": [canonical]}) as server:
        await server.sync(store, types=("Patient", "Observation"))
        (kickoff,) = server.kicked_off
    named = [part["valueString"] for part in json.loads(kickoff.body)["parameter"] if part["name"] == "_type"]
    assert (kickoff.method, named) == ("POST", ["Patient", "Observation"])


@pytest.mark.parametrize(
    "headers",
    [{"Content-Location": "{origin}/jobs/1"}, {"Content-Location": "/jobs/1"}, {"Location": "{origin}/jobs/1"}],
)
async def test_the_status_url_is_read_from_content_location_even_if_relative_or_misnamed(
    store: KeptRows, headers: dict
) -> None:
    async with export_server(kickoffs=[accepted(None, **headers)]) as server:
        report = await server.sync(store)
        polled = server.sent("/jobs/1", "GET")
    assert report.status == "complete"
    assert polled


async def test_a_body_of_the_202_is_ignored(store: KeptRows) -> None:
    body = Answer(
        202, OUTCOME.format(severity="information", code="informational"), {"Content-Location": "{origin}/jobs/1"}
    )
    async with export_server(kickoffs=[body]) as server:
        assert (await server.sync(store)).status == "complete"


async def test_a_synchronous_answer_to_a_kick_off_is_an_error_and_not_data(store: KeptRows) -> None:
    bundle = Answer(200, {"resourceType": "Bundle", "type": "searchset", "entry": []})
    async with export_server(kickoffs=[bundle]) as server:
        report = await server.sync(store)
    assert report.status == "failed"
    assert "did not start an asynchronous export" in (report.error or "")
    assert store.live() == {}


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_optional_parameter_is_omitted_and_reported(store: KeptRows, status: int) -> None:
    refusal = Answer(
        status,
        OUTCOME.format(severity="error", code="not-supported").replace(
            '"code"', '"diagnostics":"_since is not supported","code"'
        ),
    )
    async with export_server(kickoffs=[refusal, accepted()]) as server:
        report = await server.sync(store, since="2026-01-01T00:00:00Z", types=("Patient", "Observation"))
        first, second = server.kicked_off
    assert "_since=2026-01-01T00:00:00Z" in unquote(first.target)
    assert "_since" not in second.target
    assert "_type" in second.target
    assert any("_since" in note for note in report.notes)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_refused_kick_off_is_not_repeated(store: KeptRows, status: int) -> None:
    async with export_server(kickoffs=[outcome(status, "forbidden")]) as server:
        report = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert report.status == "failed"


async def test_an_ambiguous_kick_off_is_not_followed_by_another(store: KeptRows) -> None:
    async with export_server(kickoffs=[Answer(500, "<html>", content_type="text/html"), accepted()]) as server:
        report = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert report.status == "failed"
    assert "may have started" in (report.error or "")


async def test_a_429_to_a_kick_off_is_waited_out_as_long_as_it_says(store: KeptRows) -> None:
    async with export_server(kickoffs=[outcome(429, "throttled", **{"Retry-After": "120"}), accepted()]) as server:
        report = await server.sync(store)
        waited = sum(server.clock.waits)
    assert report.status == "complete"
    assert waited >= 120


async def test_parameters_that_a_server_may_not_know_are_sent_leniently_where_the_profile_says_so(
    store: KeptRows,
) -> None:
    async with export_server() as server:
        await server.sync(store, {"bulk.lenient": True})
        (kickoff,) = server.kicked_off
    assert {"respond-async", "handling=lenient"} <= {word.strip() for word in kickoff.headers["prefer"].split(",")}


async def test_a_status_url_is_in_the_store_before_it_is_polled(store: KeptRows, store_url: str) -> None:
    kept: list[str | None] = []

    def look(seen: Seen) -> None:
        if seen.target.startswith("/jobs/"):
            with psycopg.connect(store_url) as conn:
                row = conn.execute("SELECT status_url FROM tenant_default.bulk_job").fetchone()
                kept.append(row and row[0])

    async with export_server(before=look) as server:
        await server.sync(store)
        assert server.main is not None
        assert kept[0] == f"{server.main.origin}/jobs/1"


# -- status


async def test_a_poll_is_an_authorised_get_for_json_of_the_unchanged_url(store: KeptRows) -> None:
    async with export_server(
        kickoffs=[accepted("{origin}/jobs/a%2Fb?sig=x%3D+y")], polls=[busy(), manifest("Patient", "Observation")]
    ) as server:
        await server.sync(store)
        polled = server.sent("/jobs/", "GET")
    assert [poll.target for poll in polled] == ["/jobs/a%2Fb?sig=x%3D+y"] * 2
    assert all(poll.headers["accept"] == "application/json" and bearer(poll) == "token-1" for poll in polled)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_the_next_poll_waits_as_long_as_the_server_says(store: KeptRows, form: str) -> None:
    async with export_server() as server:
        later = format_datetime(server.clock.moment + timedelta(seconds=40), usegmt=True)
        server.polls = [
            busy(**{"Retry-After": "40" if form == "seconds" else later}),
            manifest("Patient", "Observation"),
        ]
        await server.sync(store)
    assert max(server.clock.waits) == pytest.approx(40, abs=2)


@pytest.mark.parametrize("unit", [1, 1000])
async def test_a_429_whose_retry_after_is_a_date_is_waited_out_until_then(store: KeptRows, unit: int) -> None:
    async with export_server() as server:
        then = str((int(server.clock.moment.timestamp()) + 30) * unit)
        server.polls = [outcome(429, "throttled", **{"Retry-After": then}), manifest("Patient", "Observation")]
        report = await server.sync(store)
    assert report.status == "complete"
    assert sum(server.clock.waits) == pytest.approx(30, abs=3)


async def test_a_server_that_always_says_two_minutes_is_polled_once_early_and_then_as_requested(
    store: KeptRows,
) -> None:
    async with export_server(
        polls=[busy(**{"Retry-After": "120"})] * 4 + [manifest("Patient", "Observation")]
    ) as server:
        report = await server.sync(store)
        waits = [wait for wait in server.clock.waits if wait >= 1]
    assert report.status == "complete"
    assert waits == pytest.approx([10, 120, 120, 120], abs=1)


async def test_an_early_poll_is_sent_even_if_the_kick_off_says_two_minutes(store: KeptRows) -> None:
    headers = {"Retry-After": "120"}
    polls = [busy(**headers), manifest("Patient", "Observation")]
    async with export_server(kickoffs=[accepted(**headers)], polls=polls) as server:
        await server.sync(store)
        waits = [wait for wait in server.clock.waits if wait >= 1]
    assert waits == pytest.approx([10, 120], abs=1)


async def test_a_retry_after_is_a_minimum_from_which_our_own_waits_grow(store: KeptRows) -> None:
    async with export_server(polls=[busy(**{"Retry-After": "3"})] * 6 + [manifest("Patient", "Observation")]) as server:
        await server.sync(store)
        waits = [wait for wait in server.clock.waits if wait >= 1]
    assert waits == pytest.approx([3, 3, 4, 8, 16, 32], abs=1)


async def test_a_retry_after_of_hours_is_capped(store: KeptRows) -> None:
    async with export_server(polls=[busy(**{"Retry-After": "18000"}), manifest("Patient", "Observation")]) as server:
        assert (await server.sync(store, {"poll.cap_s": 300})).status == "complete"
    assert max(server.clock.waits) <= 300


async def test_without_retry_after_polls_become_rarer(store: KeptRows) -> None:
    async with export_server(polls=[busy()] * 5 + [manifest("Patient", "Observation")]) as server:
        await server.sync(store, {"poll.first_s": 2, "poll.floor_s": 1})
        waits = [wait for wait in server.clock.waits if wait >= 1]
    assert waits == sorted(waits)
    assert waits[-1] >= 4 * waits[0]


async def test_an_early_poll_waits_and_polls_the_same_job_again(store: KeptRows) -> None:
    async with export_server(
        polls=[outcome(429, "throttled", **{"Retry-After": "30"}), manifest("Patient", "Observation")]
    ) as server:
        report = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert report.status == "complete"
    assert sum(server.clock.waits) >= 30


@pytest.mark.parametrize(
    "code", ["transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled"]
)
async def test_an_error_with_a_transient_code_leaves_the_job_alive(store: KeptRows, code: str) -> None:
    async with export_server(polls=[outcome(500, code), manifest("Patient", "Observation")]) as server:
        report = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert report.status == "complete"


async def test_any_other_error_ends_the_job_and_starts_no_new_one(store: KeptRows) -> None:
    async with export_server(polls=[outcome(500, "processing"), manifest("Patient")]) as server:
        report = await server.sync(store)
        assert (len(server.kicked_off), len(server.sent("/jobs/1", "GET"))) == (1, 1)
    assert report.status == "failed"
    assert "processing" in (report.error or "")


async def test_a_gateways_page_in_place_of_a_status_is_followed_by_another_poll(store: KeptRows) -> None:
    page = Answer(502, "<html>Bad Gateway</html>", content_type="text/html")
    async with export_server(polls=[page, page, manifest("Patient", "Observation")]) as server:
        assert (await server.sync(store)).status == "complete"


async def test_a_job_that_is_gone_fails_the_run_and_says_so(store: KeptRows) -> None:
    async with export_server(polls=[outcome(404, "not-found")]) as server:
        report = await server.sync(store)
    assert report.status == "failed"
    assert "deleted or has expired" in (report.error or "")


async def test_a_token_that_expires_while_polling_is_renewed_and_the_poll_repeated(store: KeptRows) -> None:
    async with export_server(polls=[outcome(401, "login"), manifest("Patient", "Observation")]) as server:
        assert (await server.sync(store)).status == "complete"
        assert [bearer(poll) for poll in server.sent("/jobs/1", "GET")] == ["token-1", "token-2"]


async def test_a_separate_export_status_overrides_the_http_status(store: KeptRows) -> None:
    polls = [
        Answer(200, "", {"X-Export-Status": "202 Accepted"}),
        Answer(200, "", {"X-Export-Status": "202 Accepted"}),
        manifest("Patient", "Observation"),
    ]
    async with export_server(polls=polls) as server:
        report = await server.sync(store, {"bulk.separate_status": True})
        (kickoff,) = server.kicked_off
        assert len(server.sent("/jobs/1", "GET")) == 3
    assert report.status == "complete"
    assert "separate-export-status" in kickoff.headers["prefer"]


async def test_progress_is_shown_as_counts_and_never_as_the_servers_text(store: KeptRows) -> None:
    async with export_server(
        polls=[busy(**{"X-Progress": "Searched 1 of 2 " + "x" * 500}), manifest("Patient", "Observation")]
    ) as server:
        await server.sync(store)
    shown = next(phase for phase in server.shown if "1 of 2" in phase)
    assert "x" not in shown.replace("export", "")


async def test_an_endless_job_is_left_after_its_time_and_kept_for_the_next_run(store: KeptRows) -> None:
    async with export_server(polls=[busy()]) as server:
        report = await server.sync(store, {"bulk.job_timeout_s": 7200, "poll.cap_s": 600})
        server.polls = [manifest("Patient", "Observation")]
        again = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert report.status == "failed"
    assert "is not ready after" in (report.error or "")
    assert (again.status, again.id) == ("complete", report.id)


# -- manifest


@pytest.mark.parametrize("stated", [True, "true"])
async def test_files_get_the_token_where_the_manifest_requires_it(store: KeptRows, stated: object) -> None:
    async with export_server(polls=[manifest("Patient", "Observation", requires=stated)]) as server:
        await server.sync(store)
        assert {bearer(file) for file in server.sent("/files/")} == {"token-1"}


@pytest.mark.parametrize("stated", [False, "false"])
async def test_files_never_get_the_token_where_the_manifest_says_so(store: KeptRows, stated: object) -> None:
    async with export_server(polls=[manifest("Patient", "Observation", requires=stated)]) as server:
        assert (await server.sync(store)).status == "complete"
        assert {bearer(file) for file in server.sent("/files/")} == {None}


async def test_without_a_statement_in_the_manifest_only_the_ehrs_own_origin_gets_the_token(store: KeptRows) -> None:
    output = [
        {"type": "Patient", "url": "{origin}/files/Patient"},
        {"type": "Observation", "url": "{elsewhere}/files/Observation"},
    ]
    async with export_server(polls=[manifest(requires=None, output=output)]) as server:
        report = await server.sync(store)
        (own,) = server.sent("/files/")
        assert server.elsewhere is not None
        (foreign,) = server.elsewhere.seen
    assert report.status == "complete"
    assert (bearer(own), bearer(foreign)) == ("token-1", None)


async def test_a_token_required_at_a_foreign_origin_is_not_sent_there(store: KeptRows) -> None:
    async with export_server(polls=[manifest("Patient", "Observation", files="{elsewhere}/files")]) as server:
        report = await server.sync(store)
        assert server.elsewhere is not None
        assert server.elsewhere.seen == []
    assert report.status in {"failed", "partial"}
    assert any("bulk.file_hosts" in hole.reason for hole in report.holes)


async def test_an_empty_output_is_a_success_without_data(store: KeptRows) -> None:
    async with export_server(polls=[manifest()]) as server:
        report = await server.sync(store, types=("Patient",))
    assert report.status in {"complete", "nothing"}
    assert (report.holes, store.live()) == ([], {})


@pytest.mark.parametrize("extension", [{"any": {"thing": 1}}, [{"url": "http://x", "valueString": "y"}]])
async def test_unknown_members_of_a_manifest_are_ignored(store: KeptRows, extension: object) -> None:
    more = {"extension": extension, "surprise": [1, 2], "error": None, "request": None}
    async with export_server(polls=[manifest("Patient", "Observation", **more)]) as server:
        assert (await server.sync(store)).status == "complete"


async def test_deletions_become_tombstones_after_all_data(store: KeptRows) -> None:
    gone = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"request": {"method": "DELETE", "url": "Observation/o1"}}],
    }
    async with export_server() as server:
        await server.sync(store)
        server.polls = [manifest("Patient", deleted=[{"type": "Bundle", "url": "{origin}/files/gone"}])]
        server.files["gone"] = [ndjson(json.dumps(gone))]
        report = await server.sync(store, since="2026-02-01T00:00:00Z")
        order = [file.target for file in server.sent("/files/")][-2:]
    assert report.status == "complete"
    assert order == ["/files/Patient", "/files/gone"]
    assert set(store.live()) == {("Patient", "p1")}


@pytest.mark.parametrize("name", ["error", "outcome"])
@pytest.mark.parametrize("severity", ["information", "warning", "error", "fatal"])
async def test_error_files_are_fetched_and_reported_and_the_data_is_kept_at_any_severity(
    store: KeptRows, name: str, severity: str
) -> None:
    errors = {name: [{"type": "OperationOutcome", "url": "{origin}/files/errors"}]}
    async with export_server(polls=[manifest("Patient", "Observation", **errors)]) as server:
        server.files["errors"] = [ndjson(OUTCOME.format(severity=severity, code="processing"))]
        report = await server.sync(store)
    assert report.status == ("partial" if severity in {"error", "fatal"} else "complete")
    assert set(store.live()) == BOTH
    texts = [*report.notes, *(hole.reason for hole in report.holes)]
    assert any("error file has 1 issue," in one or "failed in part: 1 error " in one for one in texts)


async def test_manifest_pages_are_followed_to_the_last_and_waited_for(store: KeptRows) -> None:
    async with export_server(
        polls=[manifest("Patient", link=[{"relation": "next", "url": "{origin}/page2"}])]
    ) as server:
        server.pages["/page2"] = [busy(**{"Retry-After": "1"}), manifest("Observation")]
        report = await server.sync(store)
        pages = server.sent("/page2")
    assert report.status == "complete"
    assert set(store.live()) == BOTH
    assert all(bearer(page) == "token-1" for page in pages)


async def test_files_of_a_partial_manifest_are_fetched_while_the_server_still_works(store: KeptRows) -> None:
    partial = manifest("Patient", link=[{"relation": "next", "url": "{origin}/page2"}])
    partial = Answer(202, partial.body, {"Retry-After": "1"}, content_type="application/json")
    async with export_server(
        polls=[partial, partial, manifest("Patient", link=[{"relation": "next", "url": "{origin}/page2"}])]
    ) as server:
        server.pages["/page2"] = [busy(), manifest("Observation")]
        report = await server.sync(store, {"bulk.partial": "yes"})
        assert server.main is not None
        targets = [seen.target for seen in server.main.seen]
    assert report.status == "complete"
    assert set(store.live()) == BOTH
    assert targets.index("/files/Patient") < targets.index("/files/Observation")
    assert targets.count("/files/Patient") == 1


async def test_a_file_below_its_count_is_downloaded_once_more_and_then_reported(store: KeptRows) -> None:
    output = [
        {"type": "Patient", "url": "{origin}/files/Patient", "count": 2},
        {"type": "Observation", "url": "{origin}/files/Observation", "count": 1},
    ]
    async with export_server(polls=[manifest(output=output)]) as server:
        report = await server.sync(store)
        assert [file.target for file in server.sent("/files/")].count("/files/Patient") == 2
    assert report.status == "partial"
    assert any("promises 2" in hole.reason for hole in report.holes)


async def test_blocks_of_an_organised_export_are_read_by_the_type_of_each_line(store: KeptRows) -> None:
    header = '{"resourceType":"Parameters","parameter":[{"name":"header","valueReference":{"reference":"Patient/p1"}}]}'
    output = [{"url": "{origin}/files/a", "continuesInFile": "{origin}/files/b"}, {"url": "{origin}/files/b"}]
    async with export_server(polls=[manifest(output=output, outputOrganizedBy="Patient")]) as server:
        server.files = {"a": [ndjson(header, PATIENT)], "b": [ndjson(header, OBSERVATION)]}
        from config.bulk_options import BulkOptions

        report = await server.sync(store, bulk=BulkOptions(organize_by="Patient"))
    assert report.status == "complete"
    assert set(store.live()) == BOTH


async def test_the_next_export_requests_changes_since_the_last_transaction_time(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store, {"changes.incremental": True})
        await server.sync(store, {"changes.incremental": True})
        first, second = server.kicked_off
    assert "_since" not in first.target
    assert "_since=2026-03-01T00:00:00Z" in unquote(second.target)


async def test_after_a_week_of_changes_everything_is_exported_again_including_new_members(
    store: KeptRows,
) -> None:
    async with export_server() as server:
        for _ in range(2):
            await server.sync(store, {"changes.incremental": True, "changes.reconcile_every_d": 7})
            server.clock.moment += timedelta(days=8)
        first, second = server.kicked_off
    assert "_since" not in first.target + second.target


async def test_without_a_transaction_time_the_kick_off_less_a_margin_is_the_next_since(store: KeptRows) -> None:
    async with export_server(polls=[manifest("Patient", "Observation", transactionTime=None)]) as server:
        began = server.clock.moment
        await server.sync(store, {"changes.overlap_s": 300})
    assert datetime.fromisoformat(store.watermarks()["Patient"]) == (began - timedelta(seconds=300)).replace(
        microsecond=0
    )


@pytest.mark.parametrize("stated", ["2099-01-01T00:00:00Z", "garbage; drop", "2026-03-01", "2026-03-01T00:00:00", 7])
async def test_an_unreadable_or_future_transaction_time_is_reported_and_replaced_by_the_kick_off(
    store: KeptRows, stated: object
) -> None:
    async with export_server(polls=[manifest("Patient", "Observation", transactionTime=stated)]) as server:
        began = server.clock.moment.replace(microsecond=0)
        report = await server.sync(store, {"changes.incremental": True, "changes.overlap_s": 300})
        await server.sync(store, {"changes.incremental": True})
        since = unquote(server.kicked_off[1].target).partition("_since=")[2].partition("&")[0]
    assert datetime.fromisoformat(since) == began - timedelta(seconds=300)
    assert any("transactionTime is missing, unreadable or ahead" in note for note in report.notes)


async def test_a_transaction_time_by_a_servers_own_clock_that_is_ahead_of_ours_is_believed(store: KeptRows) -> None:
    async with export_server() as server:
        ahead = server.clock.moment.replace(microsecond=0) + timedelta(hours=1)
        answer = manifest("Patient", "Observation", transactionTime=ahead.isoformat())
        server.polls = [replace(answer, headers={"Date": format_datetime(ahead, usegmt=True)})]
        await server.sync(store)
    assert datetime.fromisoformat(store.watermarks()["Patient"]) == ahead


async def test_the_oldest_of_several_watermarks_is_found_whatever_their_zones(store: KeptRows) -> None:
    async with export_server() as server:
        both = ("Patient", "Observation")
        for types, stated in ((both, "2026-03-01T01:00:00Z"), (both[:1], "2026-03-01T10:00:00+14:00")):
            server.polls = [manifest(*types, transactionTime=stated)]
            await server.sync(store, {"changes.incremental": True}, types=types)
        await server.sync(store, {"changes.incremental": True}, types=both)
        assert "_since=2026-03-01T10:00:00+14:00" in unquote(server.kicked_off[2].target)


@pytest.mark.parametrize("back", ["{origin}/jobs/1", "{origin}/jobs/2"])
async def test_manifest_pages_in_a_circle_are_a_hole_and_their_files_are_stored(store: KeptRows, back: str) -> None:
    first = manifest("Patient", link=[{"relation": "next", "url": "{origin}/jobs/2"}])
    second = manifest("Observation", link=[{"relation": "next", "url": back}])
    async with export_server(polls=[first, second]) as server:
        report = await server.sync(store, types=("Patient", "Observation"))
        assert len(server.sent("/jobs/", "GET")) == 2
    assert report.status == "partial"
    assert "loop" in report.holes[0].reason
    assert {kind for kind, _ in store.live()} == {"Patient", "Observation"}
    assert store.watermarks() == {}


async def test_a_partial_resource_never_overwrites_a_full_one(store: KeptRows) -> None:
    full = '{"resourceType":"Patient","id":"p1","gender":"female"}'
    tag = '"meta":{"tag":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}]}'
    async with export_server() as server:
        server.files["Patient"] = [ndjson(full), ndjson('{"resourceType":"Patient","id":"p1",' + tag + "}")]
        await server.sync(store)
        report = await server.sync(store)
    assert store.live()["Patient", "p1"]["gender"] == "female"
    assert (report.status, report.quarantined) == ("partial", 1)
    assert report.holes[0].reason == "it is SUBSETTED, although the whole resource was requested"


# -- files


async def test_a_file_is_requested_as_ndjson_and_may_arrive_compressed(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store)
        files = server.sent("/files/")
    assert all(file.headers["accept"] == "application/fhir+ndjson" for file in files)
    assert all("gzip" in file.headers["accept-encoding"] for file in files)


@pytest.mark.parametrize(
    "media_type", ["application/octet-stream", "application/ndjson", "text/plain", "application/x-ndjson"]
)
async def test_a_file_under_another_media_type_is_read(store: KeptRows, media_type: str) -> None:
    async with export_server() as server:
        server.files["Patient"] = [Answer(200, PATIENT + "\n", content_type=media_type)]
        assert (await server.sync(store)).status == "complete"


async def test_a_web_page_in_place_of_a_file_is_never_data(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Patient"] = [Answer(200, "<html>Request Rejected</html>", content_type="text/html")]
        report = await server.sync(store, {"retry.max_tries": 2})
    assert report.status == "partial"
    assert set(store.live()) == {("Observation", "o1")}


async def test_an_operationoutcome_in_place_of_a_file_is_never_data(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Patient"] = [Answer(200, OUTCOME.format(severity="error", code="exception"))]
        report = await server.sync(store, {"retry.max_tries": 2})
    assert report.status == "partial"
    assert set(store.live()) == {("Observation", "o1")}


async def test_a_redirect_to_an_object_store_goes_without_the_token(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Patient"] = [Answer(307, "", {"Location": "{elsewhere}/files/stored?X-Amz-Signature=a%2Fb"})]
        server.files["stored"] = [ndjson(PATIENT)]
        report = await server.sync(store)
        assert server.elsewhere is not None
        (stored,) = server.elsewhere.seen
    assert report.status == "complete"
    assert (bearer(stored), stored.target) == (None, "/files/stored?X-Amz-Signature=a%2Fb")


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_an_expired_link_is_replaced_from_a_new_manifest(store: KeptRows, status: int) -> None:
    fresh = [
        {"type": "Patient", "url": "{origin}/files/fresh"},
        {"type": "Observation", "url": "{origin}/files/Observation"},
    ]
    async with export_server(polls=[manifest("Patient", "Observation"), manifest(output=fresh)]) as server:
        server.files |= {"Patient": [outcome(status, "expired")], "fresh": [ndjson(PATIENT)]}
        report = await server.sync(store)
        assert len(server.kicked_off) == 1
    assert report.status == "complete"
    assert set(store.live()) == BOTH


@pytest.mark.parametrize(("etag", "resumes"), [('"v1"', True), ('W/"v1"', False), (None, False)])
async def test_a_truncated_file_continues_by_range_only_with_a_strong_etag(
    store: KeptRows, etag: str | None, resumes: bool
) -> None:
    line = PATIENT + "\n"
    headers = {"ETag": etag, "Accept-Ranges": "bytes"}
    rest = Answer(
        206, line[20:], {**headers, "Content-Range": f"bytes 20-{len(line) - 1}/{len(line)}"}, "application/fhir+ndjson"
    )
    whole = Answer(200, line, headers, "application/fhir+ndjson")
    async with export_server() as server:
        server.files["Patient"] = [
            Answer(200, line, headers, "application/fhir+ndjson", cut=20),
            rest if resumes else whole,
        ]
        report = await server.sync(store)
        again = server.sent("/files/Patient")[1]
    assert report.status == "complete"
    assert again.headers.get("range") == ("bytes=20-" if resumes else None)
    assert again.headers.get("if-range") == (etag if resumes else None)
    assert set(store.live()) == BOTH


async def test_lines_of_another_type_are_stored_by_their_type_and_reported(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Patient"] = [ndjson(PATIENT, '{"resourceType":"Group","id":"g1"}')]
        report = await server.sync(store)
    assert ("Group", "g1") in store.live()
    assert any("stored as what they are: Group" in note for note in report.notes)


async def test_an_unreadable_line_costs_that_line_and_is_a_hole(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Patient"] = [ndjson(PATIENT, '{"resourceType":', '{"resourceType":"Patient","id":"p2"}')]
        report = await server.sync(store)
    assert {("Patient", "p1"), ("Patient", "p2")} <= set(store.live())
    assert (report.status, report.quarantined) == ("partial", 1)


# -- delete


async def test_the_job_is_deleted_once_and_only_after_every_file_is_stored(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store)
        assert server.main is not None
        last = server.main.seen[-1]
        assert len(server.sent("/jobs/1", "DELETE")) == 1
    assert (last.method, last.target, bearer(last)) == ("DELETE", "/jobs/1", "token-1")
    assert store.job_deleted() is True


async def test_a_job_with_a_file_missing_is_not_deleted(store: KeptRows) -> None:
    async with export_server() as server:
        server.files["Patient"] = [outcome(422, "processing")]
        report = await server.sync(store)
        assert server.sent("/jobs/1", "DELETE") == []
    assert report.status == "partial"


@pytest.mark.parametrize("status", [200, 202, 204, 404, 500])
async def test_no_answer_to_a_delete_fails_the_run(store: KeptRows, status: int) -> None:
    async with export_server(deletions=[Answer(status, "")]) as server:
        report = await server.sync(store, {"retry.max_tries": 1})
    assert report.status == "complete"
    assert any("could not be deleted" in note for note in report.notes) == (status == 500)


async def test_a_deleted_job_gets_no_further_requests(store: KeptRows) -> None:
    async with export_server() as server:
        await server.sync(store)
        await server.sync(store)
        assert server.main is not None
        methods = [seen.method for seen in server.sent("/jobs/1")]
    assert methods == ["GET", "DELETE", "GET", "DELETE"]
    assert len(server.kicked_off) == 2
