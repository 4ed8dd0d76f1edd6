"""What an error says: what was found, and what to look at next."""

from __future__ import annotations

import pytest

from connectors.fhir.errors import ProtocolError, TerminalFetchError, TransientFetchError
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.explain import error_for
from connectors.fhir.transport.retry_table import TryResult, judge

GROUP = "GET /Group/{group}/$export"
STATUS = "GET the export's status URL"


def error(template="GET /X", purpose="search", *, auth=True, tries=1, **seen):
    call = Call("GET", "https://ehr.example/fhir/X?name=SECRET", template, purpose, auth=auth)
    found = TryResult(**{"speaker": "ehr", **seen})
    raised = error_for(call, found, judge(call, found), tries=tries)
    assert "SECRET" not in str(raised)
    return raised


def test_xml_in_place_of_json_is_reported_as_xml():
    raised = error("GET /metadata", "discovery", status=200, body_start=b"<CapabilityStatement/>")
    assert isinstance(raised, ProtocolError)
    assert "the answer was 200 with XML instead of JSON; check that base_url is" in str(raised)


@pytest.mark.parametrize(
    ("status", "purpose", "advice"),
    [
        (302, "search", "a redirect that does not say where to (Location); check base_url (https, and the path"),
        (302, "file", "a redirect that does not say where to (Location); sync again soon"),
        (304, "search", "which is no answer to this request; check base_url and what"),
    ],
)
def test_a_redirect_without_a_location_is_named(status: int, purpose: str, advice: str):
    assert f"the answer was {status}, {advice}" in str(error(purpose=purpose, status=status))


def test_a_kick_off_for_a_missing_group_names_the_group_setting():
    assert "`group` setting" in str(error(GROUP, "kickoff", status=404))
    assert "base_url" in str(error("GET /$export", "kickoff", status=404))


def test_a_failed_export_job_is_the_servers_failure_and_a_new_one_can_be_started():
    raised = error(STATUS, "status", status=500, codes=("processing",))
    assert isinstance(raised, TerminalFetchError)
    assert str(raised) == (
        f"{STATUS}: the server's export failed (status 500, issue codes processing); sync again to start a new one"
    )
    assert "scopes" in str(error(STATUS, "status", status=403, codes=("forbidden",)))


def test_an_answer_is_summarised_by_its_status_or_else_by_what_went_wrong():
    assert error(status=404).answer == "HTTP 404"
    assert "compressed in a way that was not requested (br)" in error(failure="unasked", coding="br").answer


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (200, "not a FHIR address"),
        (400, "https, where it says http"),
        (403, "a firewall or a gateway"),
        (429, "max_concurrency"),
        (503, "run again later"),
    ],
)
def test_a_web_page_is_explained_by_its_status(status, advice):
    raised = error(status=status, media_type="text/html", speaker="page", body_start=b"<html>")
    assert "with a web page instead of FHIR" in str(raised)
    assert advice in str(raised)


@pytest.mark.parametrize("failure", ["name", "connect", "connect-timeout", "certificate-name", "malformed"])
def test_advice_about_an_address_names_the_setting_behind_the_request(failure):
    of_a_token, of_a_search = str(error(purpose="token", failure=failure)), str(error(failure=failure))
    assert "profile.login.token_url" in of_a_token
    assert "base_url" not in of_a_token
    assert "in base_url" in of_a_search
    assert "{" not in of_a_token + of_a_search


@pytest.mark.parametrize(
    ("failure", "reason", "advice"),
    [
        ("name", "the host name was not found", "DNS"),
        ("connect", "refused, or there is no route to the host", "host and port in base_url"),
        ("connect-timeout", "no connection was made within the time allowed", "firewall"),
        ("handshake", "the TLS handshake failed", "https"),
    ],
)
def test_reasons_for_an_unreachable_server_are_distinguished_and_name_it(failure, reason, advice):
    raised = error(failure=failure, origin="https://ehr.example:8443", tries=3)
    assert isinstance(raised, TransientFetchError)
    assert f"{reason} (https://ehr.example:8443) after 3 tries" in str(raised)
    assert advice in str(raised)


@pytest.mark.parametrize(("failure", "advice"), [("coding", "truncates or damages"), ("malformed", "Content-Length")])
def test_a_damaged_answer_does_not_count_as_an_outage(failure, advice):
    raised = str(error("GET output file 2", "file", failure=failure))
    assert advice in raised
    assert "overloaded" not in raised


@pytest.mark.parametrize("failure", ["dropped", "malformed"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_only_an_http_base_url_gets_the_hint_that_its_port_may_speak_https(failure, scheme):
    raised = error("GET /metadata", "discovery", failure=failure, origin=f"{scheme}://ehr.example")
    assert ("base_url must begin with https://" in str(raised)) == (scheme == "http")
    assert "must begin with https" not in str(error(failure=failure, origin="http://ehr.example"))


def test_a_wrong_answer_to_a_poll_does_not_blame_base_url():
    raised = str(error(STATUS, "status", status=206))
    assert "what its status URL answers" in raised
    assert "base_url" not in raised


@pytest.mark.parametrize("status", [201, 206, 302])
def test_an_export_link_without_a_file_does_not_blame_base_url(status):
    raised = str(error("GET output file 2", "file", status=status))
    assert "what the export's links answer" in raised
    assert "base_url" not in raised
    assert "base_url" in str(error(status=status))


def test_a_status_url_refused_by_a_gateway_does_not_blame_search_settings():
    raised = str(error(STATUS, "status", status=400, speaker="page", media_type="text/html", body_start=b"<html>"))
    assert "does not accept the export's status URL" in raised
    assert "search" not in raised


def test_a_401_to_a_file_requested_without_a_token_explains_why_none_was_sent():
    assert "requiresAccessToken" in str(error("GET Patient file 1", "file", auth=False, status=401))


@pytest.mark.parametrize(("status", "setting"), [(414, "profile.search.post_over"), (431, "fewer scopes")])
def test_a_request_that_is_too_long_is_reported_with_the_part_that_is(status, setting):
    assert setting in str(error(status=status))


FILE = "GET output file 1"
KICK_OFF = "POST /Patient/$export"


@pytest.mark.parametrize(
    ("template", "purpose", "status", "cause", "step"),
    [
        (STATUS, "status", 404, "deleted or has expired", "sync again to start a new export"),
        (STATUS, "status", 410, "deleted or has expired", "sync again to start a new export"),
        (STATUS, "status", 413, "manifest is larger", "fewer `types`"),
        (FILE, "file", 404, "its link has expired", "sync again"),
        (FILE, "file", 410, "its link has expired", "how long the EHR keeps its exports"),
        (FILE, "file", 413, "the file is larger", "smaller files"),
        ("GET /Binary/{id}", "read", 413, "larger than the EHR", "raise that limit"),
        (KICK_OFF, "kickoff", 413, "the request is larger", "Group"),
        (KICK_OFF, "kickoff", 500, "failed on the request itself", "administrators"),
        (GROUP, "kickoff", 410, "the group's id", "--group"),
    ],
)
@pytest.mark.parametrize("codes", [(), ("processing",)])
def test_a_status_is_explained_for_its_request_with_the_next_step(template, purpose, status, cause, step, codes):
    text = str(error(template, purpose, status=status, codes=codes))
    assert cause in text
    assert step in text
    assert "page_size" not in text


def test_a_404_of_a_status_url_that_is_not_the_ehrs_own_says_how_to_abandon_the_job():
    raised = error(STATUS, "status", status=404, speaker="other")
    assert isinstance(raised, TransientFetchError)
    assert "runs discard" in str(raised)


def test_a_413_to_a_search_is_blamed_on_its_page_size():
    assert "page_size" in str(error("GET /Observation", "search", status=413))


@pytest.mark.parametrize(
    ("status", "who"), [(407, "a proxy wants a login"), (426, "HTTP/1.1"), (511, "the network wants")]
)
def test_an_intermediary_between_us_and_the_ehr_is_named(status, who):
    page = {"media_type": "text/html", "speaker": "page", "body_start": b"<html>"}
    assert who in str(error(status=status))
    assert who in str(error(status=status, **page))
