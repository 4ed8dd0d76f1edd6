"""Receivers that answer oddly: what they did not say is never taken for "all was taken", and nothing is sent on a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.small_server import Small, lines, small_server
from tests.user_site import Done, Site

MANIFEST = "https://data.example.org/charts/manifest.json"
STATUS_URL = "/submissions/1"
ERROR = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid", "diagnostics": "Ada"}]}
WARNING = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "informational"}]}
RESULT = {"transactionTime": "2026-01-01T00:00:00Z", "outcome": []}
Answer = Callable[[str, dict[str, str]], Any]


def submitted(folder: Path, answer: Answer) -> tuple[Done, list[str]]:
    """Submit a dataset of no files to a receiver with these answers; what came of it, and the paths that were asked for."""
    page = {
        "manifestType": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkPublishManifest",
        "transactionTime": "2026-01-01T00:00:00Z",
        "requiresAccessToken": False,
    }
    (folder / "dataset").mkdir()
    (folder / "dataset" / "manifest.json").write_text(json.dumps(page))
    site = Site(folder, "postgresql://127.0.0.1:9/nowhere")
    with small_server() as small:
        small.answer = answer
        site.add(
            f'[receivers.registry]\nbase_url = "{small.base}"\nsubmitter = "urn:x|1"\n'
            "profile = { retry.base_s = 0.01, retry.max_tries = 2, poll.first_s = 0.01, poll.floor_s = 0 }\n"
        )
        words = ("--manifest-url", MANIFEST, "--fhir-base-url", "https://ehr.example.org/fhir")
        return site.run("submit", "dataset", "registry", *words), paths_of(small)


def paths_of(small: Small) -> list[str]:
    return [path.removeprefix("/") for path in small.paths]


def known(result: Any, **files: bytes) -> Answer:
    """A receiver that has the submission already."""

    def answer(path: str, _: dict[str, str]) -> Any:
        if path == "/$bulk-submit-status":
            return 202, b"", {"Content-Location": STATUS_URL}
        return result if path == STATUS_URL else files.get(path.removeprefix("/"))

    return answer


def test_an_already_accepted_submission_is_only_checked(tmp_path: Path) -> None:
    done, paths = submitted(tmp_path, known(RESULT))
    assert (done.code, paths) == (0, ["$bulk-submit-status", "submissions/1"]), done.stderr
    assert "nothing was sent again" in done.stdout


@pytest.mark.parametrize(
    "refusal",
    [
        (404, b"<html>no such page</html>", {"Content-Type": "text/html"}),
        (410, ERROR, {}),
        (500, b"", {}),
        (202, b"", {}),
        (202, b"", {"Content-Location": "http://127.0.0.2:9/submissions/1"}),
    ],
)
def test_nothing_is_sent_unless_the_receiver_says_that_the_submission_is_unknown(tmp_path: Path, refusal: Any) -> None:
    done, paths = submitted(tmp_path, lambda path, _: refusal if path == "/$bulk-submit-status" else None)
    assert (done.code, set(paths)) == (5, {"$bulk-submit-status"}), done.stdout


@pytest.mark.parametrize(
    "result", [{}, b"<html>done</html>", b"", {**RESULT, "outcome": {}}, {**RESULT, "submissionId": "another"}]
)
def test_an_answer_without_a_result_is_no_success(tmp_path: Path, result: Any) -> None:
    done, _ = submitted(tmp_path, known(result))
    assert done.code == 5, done.stdout


def test_a_result_whose_pages_go_in_a_circle_is_no_success(tmp_path: Path) -> None:
    done, paths = submitted(tmp_path, known({**RESULT, "link": [{"relation": "next", "url": STATUS_URL}]}))
    assert (done.code, "form a loop" in done.stderr, paths.count("submissions/1")) == (5, True, 1)


def test_a_status_at_another_origin_is_not_requested(tmp_path: Path) -> None:
    elsewhere = (202, b"", {"Content-Location": "http://127.0.0.2:9/submissions/1"})
    done, _ = submitted(tmp_path, lambda path, _: elsewhere if path == "/$bulk-submit-status" else None)
    assert (done.code, "status URL is at another origin than base_url" in done.stderr) == (5, True), done.stderr


def test_missing_or_unreadable_outcomes_may_be_refusals(tmp_path: Path) -> None:
    result = {**RESULT, "outcome": [{"url": "a", "count": 4}, {"url": "b"}]}
    done, _ = submitted(tmp_path, known(result, a=lines(ERROR, b"half a li"), b=lines(WARNING, WARNING)))
    assert done.code == 3
    assert "3 outcomes missing or unreadable" in done.stdout
    assert "refused 1" in done.stdout
    assert "Ada" not in done.stdout + done.stderr


def test_warnings_alone_are_no_refusals(tmp_path: Path) -> None:
    done, _ = submitted(tmp_path, known({**RESULT, "outcome": [{"url": "b"}]}, b=lines(WARNING)))
    assert (done.code, "took everything" in done.stdout) == (0, True)


def test_a_submission_that_the_receiver_abandons_fails_with_its_codes(tmp_path: Path) -> None:
    done, _ = submitted(tmp_path, known((422, ERROR, {})))
    assert (done.code, "gave up the submission" in done.stderr, "invalid" in done.stderr) == (5, True, True)
    assert "Ada" not in done.stderr
