"""What answers mean: the retry table, Retry-After, and the codes read from an OperationOutcome."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.transport.call import Call
from connectors.fhir.transport.retry_table import (
    FEW_TRIES,
    TYPO_TRIES,
    TryResult,
    Verdict,
    issue_codes,
    judge,
    retry_after_s,
    server_time,
    server_wait_s,
    speaker_of,
)

NOW = 1_800_000_000.0
HTML = b"<!DOCTYPE html><html><body>Request Rejected</body></html>"


def a_call(purpose="search", ok=frozenset({200}), accept="application/fhir+json", auth=True):
    return Call("GET", "https://ehr.example/fhir/X", "GET /X", purpose, accept, ok=ok, auth=auth)


def outcome(*issues):
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": list(issues)})


@pytest.mark.parametrize(
    ("purpose", "seen", "expected"),
    [
        ("search", TryResult(status=200, body_start=b'{"resourceType"'), Verdict(action="ok")),
        ("search", TryResult(status=200, body_start=b" \n"), Verdict(action="retry", tries=FEW_TRIES)),
        ("search", TryResult(status=200, body_start=HTML), Verdict(action="retry", tries=FEW_TRIES, html=True)),
        (
            "search",
            TryResult(status=200, media_type="text/html", body_start=b"Request Rejected"),
            Verdict(action="retry", tries=FEW_TRIES, html=True),
        ),
        (
            "search",
            TryResult(status=200, body_start=b'<?xml version="1.0"?><Bundle/>'),
            Verdict(action="protocol", xml=True),
        ),
        (
            "search",
            TryResult(status=200, body_start=b'\xef\xbb\xbf <Bundle xmlns="x"/>'),
            Verdict(action="protocol", xml=True),
        ),
        (
            "search",
            TryResult(status=404, media_type="text/html", body_start=HTML),
            Verdict(action="terminal", html=True),
        ),
        ("search", TryResult(status=503, media_type="text/html", body_start=HTML), Verdict(action="retry", html=True)),
        ("search", TryResult(status=429, retry_after_s=7.0), Verdict(action="retry", after_s=7.0, paced=True)),
        ("search", TryResult(status=500, codes=("exception",)), Verdict(action="retry")),
        ("search", TryResult(status=500, codes=("required",)), Verdict(action="terminal")),
        ("search", TryResult(status=401), Verdict(action="auth")),
        ("search", TryResult(status=401, foreign=True), Verdict(action="terminal")),
        ("search", TryResult(status=204), Verdict(action="protocol")),
        ("search", TryResult(status=304), Verdict(action="protocol")),
        ("search", TryResult(failure="dropped"), Verdict(action="retry")),
        ("search", TryResult(failure="certificate"), Verdict(action="terminal")),
        ("search", TryResult(failure="certificate-dates"), Verdict(action="terminal")),
        ("search", TryResult(failure="proxy"), Verdict(action="retry")),
        ("discovery", TryResult(failure="proxy"), Verdict(action="retry", tries=3)),
        ("status", TryResult(status=500, codes=("transient",)), Verdict(action="retry")),
        ("status", TryResult(status=403, codes=("lock-error",)), Verdict(action="retry")),
        ("status", TryResult(status=500, codes=("processing",)), Verdict(action="terminal")),
        ("status", TryResult(status=404, codes=("not-found",)), Verdict(action="terminal")),
        ("status", TryResult(status=503, body_start=HTML), Verdict(action="retry", html=True)),
        (
            "status",
            TryResult(status=429, codes=("throttled",), retry_after_s=9.0),
            Verdict(action="retry", after_s=9.0, paced=True),
        ),
        ("kickoff", TryResult(status=503), Verdict(action="retry", tries=1)),
        ("kickoff", TryResult(failure="timeout"), Verdict(action="retry", tries=1)),
        ("kickoff", TryResult(failure="connect"), Verdict(action="retry")),
        ("kickoff", TryResult(failure="name"), Verdict(action="retry")),
        ("discovery", TryResult(failure="connect"), Verdict(action="retry", tries=TYPO_TRIES)),
        ("discovery", TryResult(failure="name"), Verdict(action="retry", tries=TYPO_TRIES)),
        ("discovery", TryResult(failure="connect-timeout"), Verdict(action="retry", tries=TYPO_TRIES)),
        ("discovery", TryResult(failure="dropped"), Verdict(action="retry", tries=TYPO_TRIES)),
        ("discovery", TryResult(failure="malformed"), Verdict(action="retry", tries=TYPO_TRIES)),
        ("search", TryResult(failure="bomb"), Verdict(action="terminal")),
        ("discovery", TryResult(failure="timeout"), Verdict(action="retry")),
        ("file", TryResult(failure="handshake", elsewhere="x"), Verdict(action="retry", tries=TYPO_TRIES)),
        ("file", TryResult(failure="handshake"), Verdict(action="retry")),
        ("kickoff", TryResult(status=429), Verdict(action="retry", paced=True)),
        ("file", TryResult(status=202, retry_after_s=5), Verdict(action="retry", after_s=5, paced=True)),
        ("search", TryResult(status=202), Verdict(action="protocol")),
    ],
)
def test_every_row_of_the_table_gives_its_verdict(purpose, seen, expected):
    assert judge(a_call(purpose), seen) == expected


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 524, 529, 598])
def test_overload_statuses_are_retried(status):
    assert judge(a_call(), TryResult(status=status)).action == "retry"


@pytest.mark.parametrize("status", [400, 403, 404, 405, 406, 409, 410, 413, 422, 451, 501, 505, 511, 600, 999])
def test_refusals_are_final(status):
    assert judge(a_call(), TryResult(status=status)).action == "terminal"


def test_a_kickoff_429_is_not_retried_where_it_means_that_a_job_is_running():
    verdict = judge(a_call("kickoff"), TryResult(status=429), busy_means_running=True)
    assert verdict == Verdict(action="retry", tries=1)


def test_a_web_page_is_accepted_where_one_was_requested():
    assert (
        judge(a_call("read", accept="text/html"), TryResult(status=200, media_type="text/html", body_start=HTML)).action
        == "ok"
    )


def test_401_without_login_is_a_refusal_of_the_link():
    assert judge(a_call("file", auth=False), TryResult(status=401)).action == "terminal"


@given(
    st.sampled_from(["discovery", "search", "read", "kickoff", "status", "file", "delete"]),
    st.integers(100, 599),
    st.binary(max_size=40),
    st.sampled_from(["", "text/html", "application/fhir+json"]),
)
def test_every_answer_has_a_verdict_and_only_ok_statuses_are_accepted(purpose, status, body, media_type):
    verdict = judge(a_call(purpose), TryResult(status=status, body_start=body, media_type=media_type))
    assert verdict.action != "ok" or status == 200


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("18000", 300.0),
        (str(int(NOW) + 60), 60.0),
        (f"{NOW + 60:.1f}", 60.0),
        (str(int(NOW + 60) * 1000), 60.0),
        (str(int(NOW) - 60), 0.0),
        (str(int(NOW + 18_000)), 300.0),
        (str(int(NOW) + 30 * 86_400), None),
        ("999999999", None),
        ("9" * 5000, None),
        (format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=60), usegmt=True), 60.0),
        (format_datetime(datetime.fromtimestamp(NOW, UTC) - timedelta(days=9), usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        (format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(days=90), usegmt=True), None),
        ("soon", None),
        ("", None),
        (None, None),
        ("NaN", None),
        ("1e3", None),
        ("7, 30", 30.0),
        ("999999999, 7", 7.0),
        ("7, soon", None),
    ],
)
def test_retry_after_is_read_in_every_form_and_capped_and_nonsense_is_ignored(value, expected):
    assert retry_after_s(value, now=NOW, cap_s=300.0) == expected


@pytest.mark.parametrize("value", [int(NOW) + 20, (int(NOW) + 20) * 1000])
def test_a_retry_date_is_measured_by_the_servers_own_clock(value):
    headers = {"retry-after": str(value), "date": format_datetime(datetime.fromtimestamp(NOW, UTC), usegmt=True)}
    assert server_wait_s(headers, now=NOW - 3600, cap_s=300.0) == 20
    assert server_wait_s({"retry-after": str(value)}, now=NOW + 5, cap_s=300.0) == 15
    assert server_wait_s({}, now=NOW, cap_s=300.0) is None


@given(
    st.text()
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes(timezones=st.just(UTC)).map(format_datetime)
)
def test_retry_after_never_leaves_its_bounds_whatever_it_says(value):
    wait = retry_after_s(value, now=NOW, cap_s=300.0)
    assert wait is None or 0 <= wait <= 300


@given(st.text())
def test_a_date_header_is_an_instant_or_ignored(value):
    assert server_time(value) is None or isinstance(server_time(value), float)


def test_issue_codes_are_read_from_code_and_details_and_never_from_text():
    body = outcome(
        {"severity": "fatal", "code": "not-found", "diagnostics": "Jane Doe", "details": {"text": "Jane Doe"}},
        {"code": "business-rule", "details": {"coding": [{"code": "59108", "display": "Jane Doe"}, {"code": "59108"}]}},
        {"code": "Jane Doe is not here"},
    )
    assert issue_codes(body) == ("not-found", "business-rule", "59108")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'""', HTML, b'{"resourceType":"Patient"}', outcome(1, None, {"code": 5, "details": []})],
)
def test_only_an_operationoutcome_has_issue_codes(body):
    assert issue_codes(body) == ()


def test_an_empty_answer_to_a_poll_is_accepted() -> None:
    assert judge(a_call("status", ok=frozenset({200, 202})), TryResult(status=202)) == Verdict(action="ok")


@pytest.mark.parametrize(
    ("body", "speaker"),
    [
        (b'{"resourceType":"OperationOutcome","issue":[]}', "ehr"),
        (b'{"resourceType":"OperationOutcome"}', "ehr"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<OperationOutcome xmlns="http://hl7.org/fhir"/>', "ehr"),
        (b"", "nobody"),
        (b" \r\n", "nobody"),
        (HTML, "page"),
        (b"404 page not found", "other"),
        (b'{"message":"no Route matched with those values"}', "other"),
        (b'[{"resourceType":"OperationOutcome"}]', "other"),
    ],
)
def test_only_an_outcome_counts_as_the_ehrs_own_answer(body: bytes, speaker: str) -> None:
    assert speaker_of(body) == speaker
