"""What is sent to a receiver, and how its result is read: never an unreadable one as an empty one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from connectors.fhir.errors import ProtocolError
from connectors.fhir.submit.submission import OutcomeFile, Submission, result_page

ONE = Submission(
    submitter=("urn:x", "1"),
    manifest_url="https://data.example.org/manifest.json",
    fhir_base_url="https://ehr.example.org/fhir",
    state="a",
    file_request_headers=(("Authorization", "Bearer hunter2"),),
)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "b"},
        {"manifest_url": "https://x.example.org/manifest.json"},
        {"submitter": ("urn:x", "2")},
        {"fhir_base_url": "https://x.example.org"},
    ],
)
def test_another_content_place_or_submitter_is_another_submission(change: Any) -> None:
    assert dataclasses.replace(ONE, **change).id != ONE.id


def test_another_header_for_the_files_is_the_same_submission_and_no_repr_shows_it() -> None:
    assert dataclasses.replace(ONE, file_request_headers=()).id == ONE.id
    assert "hunter2" not in repr(ONE)
    assert "hunter2" in ONE.request().decode()


def page(**members: Any) -> bytes:
    return json.dumps({"transactionTime": "2026-01-01T00:00:00Z", "submissionId": ONE.id, **members}).encode()


def test_a_result_names_its_outcomes_and_its_next_page() -> None:
    found = result_page(
        page(
            requiresAccessToken=False,
            outcome=[{"url": "a", "count": "2"}, {"url": "b"}],
            link=[{"relation": "next", "url": "p2"}],
        ),
        ONE.id,
    )
    assert found.files == (OutcomeFile("a", 2), OutcomeFile("b", None))
    assert (found.with_token, found.next) == (False, "p2")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        page(outcome={}),
        page(outcome=["a"]),
        page(outcome=[{"count": 1}]),
        page(link={}),
        page(link=[{"relation": "next"}]),
        page(link=[{"relation": "next", "url": "a"}, {"relation": "next", "url": "b"}]),
        page(submissionId="another"),
    ],
)
def test_another_submissions_result_is_never_a_result_without_refusals(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        result_page(body, ONE.id)
