from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.logs import configure_logging, redact_text

JWT = "eyJhbGciOiJFUzM4NCJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_lines_and_the_libraries_lines_are_json_with_level_and_time() -> None:
    stream = io.StringIO()
    configure_logging(json=True, level="INFO", stream=stream)
    logging.getLogger("chartferry").info("run complete", extra={"fields": {"connection": "site", "new": 3}})
    logging.getLogger("somewhere").warning("odd %s", "thing")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["connection"], ours["new"], ours["level"]) == ("run complete", "site", 3, "info")
    assert str(ours["timestamp"]).endswith("Z")
    assert (theirs["event"], theirs["level"]) == ("odd thing", "warning")


def test_the_http_libraries_log_no_url() -> None:
    stream = io.StringIO()
    configure_logging(json=True, level="DEBUG", stream=stream)
    for library in ("httpx", "httpcore", "httpcore.http11", "aiohttp.client", "hypothesis", "asyncio"):
        logging.getLogger(library).info("GET https://ehr.example.org/Patient?family=Doe")
    assert stream.getvalue() == ""


def test_nothing_secret_passes_at_any_depth() -> None:
    stream = io.StringIO()
    configure_logging(json=True, level="INFO", stream=stream)
    fields = {
        "access_token": "tokenvalue",
        "nested": {"list": ["client_secret=hunter2", {"url": "/Patient?birthdate=1980-01-01"}], "password": "hunter2"},
        "store": "postgresql://me:hunter2@host/db",
    }
    line = f"asked https://h/Patient?family=Doe with Bearer abcdef123 and {JWT}"
    logging.getLogger("x").info("%s", line, extra={"fields": fields})
    text = stream.getvalue()
    for secret in ("Doe", "abcdef123", JWT, "hunter2", "tokenvalue", "1980"):
        assert secret not in text


def test_an_exception_shows_its_type_and_not_its_message() -> None:
    stream = io.StringIO()
    configure_logging(json=True, level="INFO", stream=stream)
    try:
        int("Jane Doe")
    except ValueError:
        logging.getLogger("y").exception("page refused")
    assert "Jane" not in stream.getvalue()
    assert [line["error_type"] for line in lines(stream)] == ["ValueError"]


def test_a_terminal_gets_sentences() -> None:
    stream = io.StringIO()
    configure_logging(json=False, level="INFO", stream=stream)
    logging.getLogger("x").info("run complete", extra={"fields": {"connection": "site"}})
    logging.getLogger("y").warning("the connection was lost")
    assert stream.getvalue() == "run complete (connection site)\nwarning: the connection was lost\n"


@given(
    st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=30),
    st.sampled_from(
        [
            "Bearer {}",
            "authorization: bearer {}",
            "https://h/x?name={}",
            "client_assertion={}&a=b",
            '"access_token": "{}"',
            "postgresql://u:{}@h/db",
            "Patient?identifier=x|{}",
            "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----",
        ]
    ),
)
def test_a_secret_in_any_usual_place_is_redacted(secret: str, form: str) -> None:
    assert secret not in redact_text(f"tried {form.format(secret)} and failed").replace("PRIVATE KEY", "")


def test_plain_text_stays_as_it_is() -> None:
    text = "Observation: 3 of 5 patients; is that all? yes, at https://ehr.example.org/fhir"
    assert redact_text(text) == text
