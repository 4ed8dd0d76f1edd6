"""A hospital hands its published dataset to a registry, and learns what the registry refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mocks.receiver import Receiver, serve_receiver
from tests.integration.exports.datasets import static
from tests.user_site import Site, key_pair, mock

SUBMITTER = ("urn:oid:2.16.840.1.113883.4.6", "1234567893")


def _nothing(resource: Any) -> str | None:
    return None


def _no_conditions(resource: Any) -> str | None:
    return "business-rule" if resource["resourceType"] == "Condition" else None


@contextlib.contextmanager
def published(site: Site, refuses: Callable[[Any], str | None] = _nothing) -> Iterator[tuple[Receiver, str]]:
    """A dataset that is served, and the receiver `registry`."""
    (site.folder / "registry.jwk.json").write_text(json.dumps(key_pair("generic").private))
    with (
        mock("generic", patients=2, open=True) as served,
        static(site.folder / "dataset") as url,
        serve_receiver(jwks=key_pair("generic").jwks, submitter=SUBMITTER, refuses=refuses) as receiver,
    ):
        site.connect(served)
        site.add(
            "[receivers.registry]\n"
            f'base_url = "{receiver.base_url}"\n'
            f'submitter = "{"|".join(SUBMITTER)}"\n'
            'client_id = "chartferry"\nkey = "file:registry.jwk.json"\n'
            "profile = { retry.base_s = 0.01, poll.first_s = 0.01, poll.floor_s = 0, poll.cap_s = 0.05 }\n"
        )
        site.sync()
        assert site.run("export", "--publish", "dataset").code == 0
        yield receiver, url


def test_a_receiver_gets_the_whole_dataset_and_a_second_call_sends_nothing(site: Site) -> None:
    with published(site) as (receiver, url):
        done = site.run("submit", url, "registry")
        assert (done.code, "took everything" in done.stdout) == (0, True), done.stderr
        assert receiver.received.keys() == site.exported().keys()
        (job,) = receiver.jobs.values()
        assert (job.base["submissionStatus"], job.base["manifestUrl"]) == ("completed", url)
        assert job.base["fhirBaseUrl"].startswith("http")
        again = site.run("submit", url, "registry", "--json").json
        assert (again["sent"], again["status"], receiver.requests["submit"]) == (False, "complete", 1)


def test_refusals_are_counted_by_code_and_kept_only_on_request(site: Site) -> None:
    with published(site, _no_conditions) as (_, url):
        done = site.run("submit", url, "registry", "--json", "--outcomes", "outcomes.ndjson")
        refused = [key for key in site.exported() if key[0] == "Condition"]
        assert (done.code, done.json["status"]) == (3, "partial")
        assert done.json["issues"] == [{"severity": "error", "code": "business-rule", "count": len(refused)}]
        kept = (site.folder / "outcomes.ndjson").read_text().splitlines()
        assert len(kept) == len(refused)
        printed = site.run("submit", url, "registry")
        assert (printed.code, f"refused {len(refused)}" in printed.stdout) == (3, True)
        assert not any(id_ in printed.stdout + printed.stderr for _, id_ in refused)


def test_a_place_where_outcomes_cannot_be_kept_is_refused_before_anything_is_sent(site: Site) -> None:
    with published(site) as (receiver, url):
        done = site.run("submit", url, "registry", "--outcomes", "dataset")
        assert (done.code, "it is a folder" in done.stderr) == (5, True)
        assert (receiver.requests["submit"], len(receiver.jobs)) == (0, 0)


def test_a_lost_answer_causes_no_second_submission(site: Site) -> None:
    with published(site) as (receiver, url):
        receiver.lose_answers = 1
        done = site.run("submit", url, "registry", "--json")
        assert (done.code, receiver.requests["submit"], len(receiver.jobs)) == (0, 1, 1), done.stderr


def test_a_submission_that_the_receiver_refuses_fails_with_its_issue_code(site: Site) -> None:
    with published(site) as (receiver, url):
        receiver.submitter = ("urn:x", "another")
        done = site.run("submit", url, "registry")
        assert (done.code, "forbidden" in done.stderr, receiver.jobs) == (5, True, {})


def test_a_local_folder_needs_its_served_url_and_headers_give_access(site: Site) -> None:
    with published(site) as (receiver, url):
        done = site.run("submit", "dataset", "registry")
        assert (done.code, "--manifest-url" in done.stderr) == (2, True)
        site.add('file_request_headers = { X-Files = "file:header.txt" }\n')
        (site.folder / "header.txt").write_text("hunter2\n")
        done = site.run("submit", "dataset", "registry", "--manifest-url", url)
        assert done.code == 0, done.stderr
        assert [job.headers for job in receiver.jobs.values()] == [{"X-Files": "hunter2"}]
        assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dataset", "regitsry"), "did you mean registry?"),
        (("nowhere", "registry"), "no manifest at nowhere/manifest.json"),
    ],
)
def test_a_typo_is_refused_before_anything_is_sent(site: Site, words: tuple[str, ...], message: str) -> None:
    site.add('[receivers.registry]\nbase_url = "http://127.0.0.1:9"\nsubmitter = "urn:x|1"\n')
    done = site.run("submit", *words)
    assert (done.code in {2, 5}, message in done.stderr) == (True, True), done.stderr
