"""Scripted faults, limits, latency and bandwidth, as a client sees them on a real socket."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from tests.fix_ehr import ServeEhr
from tests.integration.mocks.raw_client import client, export

OBSERVATIONS = "Observation?patient=pat-1&_count=100"


def test_an_answer_can_be_truncated_within_its_body(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True)
    ehr.faults.add({"match": {"purpose": "search"}, "nth": 1, "action": {"cut_after_bytes": 500}})
    with client(ehr) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            http.get(OBSERVATIONS)
        assert http.get(OBSERVATIONS).status_code == 200
    assert ehr.log.of("search")[0].sent_bytes == 500
    assert ehr.faults.hits == 1


def test_a_file_can_be_truncated_within_its_body(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True)
    with client(ehr) as http:
        manifest, _ = export(http, "$export?_type=Observation")
        ehr.faults.add({"match": {"purpose": "file"}, "action": {"cut_after_bytes": 1000}})
        with (
            http.stream("GET", manifest.json()["output"][0]["url"]) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            list(answer.iter_raw())
        (entry,) = ehr.log.of("file")
    assert int(answer.headers["content-length"]) > entry.sent_bytes == 1000


def test_a_connection_can_be_dropped_without_an_answer(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True)
    ehr.faults.add({"nth": 1, "action": {"drop": True}})
    with client(ehr) as http:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            http.get("Patient")
        assert http.get("Patient").status_code == 200


def test_a_stalled_request_gets_no_answer_and_does_not_delay_the_shutdown(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True)
    ehr.faults.add({"nth": 1, "action": {"stall": True}})
    with client(ehr) as http, pytest.raises(httpx.ReadTimeout):
        http.get("Patient", timeout=httpx.Timeout(None, read=0.1))


@pytest.mark.parametrize(
    ("body", "kind"), [("html", "text/html"), ("operation-outcome", "application/fhir+json"), ("empty", "")]
)
def test_a_status_can_be_given_with_headers_and_any_body(serve_ehr: ServeEhr, body: str, kind: str) -> None:
    ehr = serve_ehr("generic", open=True)
    ehr.faults.add(
        {
            "match": {"path": "/Patient"},
            "last": 2,
            "action": {"status": 503, "headers": {"Retry-After": "7"}, "body": body},
        }
    )
    with client(ehr) as http:
        answers = [http.get("Patient") for _ in range(3)]
        other = http.get("Organization")
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].headers.get("content-type", "").startswith(kind)
    assert other.status_code == 200


def test_a_firewall_page_can_stand_in_for_an_answer(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va", open=True)
    ehr.faults.add({"match": {"purpose": "search"}, "action": {"wrong_content": True}})
    with client(ehr) as http:
        answer = http.get("Observation?patient=pat-1")
    assert answer.status_code == 200
    assert b"Request Rejected" in answer.content


def test_more_requests_a_second_than_allowed_are_throttled(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr(
        "generic", open=True, max_requests_per_s=0.0001
    )  # so that no machine is slow enough to be allowed more
    with client(ehr) as http:
        statuses = [http.get("Location/loc-1").status_code for _ in range(3)]
    assert statuses == [200, 429, 429]


def test_a_quota_refuses_what_exceeds_it_and_states_what_remains(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("va", open=True, quota=2, rate_limit_headers="ratelimit", throttle_retry_after="7")
    with client(ehr) as http:
        answers = [http.get("Location/loc-1") for _ in range(3)]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert (answers[2].status_code, answers[2].headers["retry-after"]) == (429, "7")
    assert "retry-after" not in answers[0].headers


@pytest.mark.anyio
async def test_more_requests_at_once_than_allowed_are_throttled(serve_ehr: ServeEhr) -> None:
    ehr = serve_ehr("generic", open=True, max_concurrency=3, latency_s=1)
    async with httpx.AsyncClient(base_url=ehr.base_url + "/", verify=False) as http:
        answers = await asyncio.gather(*(http.get("Location/loc-1") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [429] * 3
    assert ehr.log.max_concurrency > 3


def test_latency_and_bandwidth_take_the_time_they_should(serve_ehr: ServeEhr) -> None:
    slow = serve_ehr("generic", open=True, latency_s=0.1)
    narrow = serve_ehr("generic", open=True, bandwidth_bytes_s=100_000)
    with client(slow) as http:
        began = time.monotonic()
        http.get("Location/loc-1")
        assert time.monotonic() - began >= 0.1
    with client(narrow) as http:
        began = time.monotonic()
        size = len(http.get(OBSERVATIONS, headers={"Accept-Encoding": "identity"}).content)
        assert time.monotonic() - began >= size / 100_000 * 0.9
