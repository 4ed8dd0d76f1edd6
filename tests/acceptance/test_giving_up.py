"""Somebody whose mock EHRs, or whose EHR, came back at another address; and somebody who gives up a run by hand."""

from __future__ import annotations

import signal

from mocks.mock_config import MockConfig
from mocks.serving import serve
from tests.user_site import Site, key_pair, until

SLOW = MockConfig(vendor="cerner", patients=2, jwks=key_pair("cerner").jwks, polls=1_000, retry_after_s=0)


def _stopped(site: Site, served: object) -> int:
    """Begin a sync, stop it while its export is prepared, and give its number."""
    process = site.start("sync")
    until(lambda: served.log.of("status"), process)  # type: ignore[attr-defined]
    process.send_signal(signal.SIGINT)
    process.communicate()
    return int(site.run("runs", "--json").json["runs"][0]["id"])


def test_a_sync_whose_ehr_moved_during_an_interruption_starts_over_and_says_so(site: Site) -> None:
    with serve(SLOW) as served:
        site.connect(served)
        old = _stopped(site, served)
    with serve(MockConfig(vendor="cerner", patients=2, jwks=key_pair("cerner").jwks)) as moved:
        site.move(moved)
        (report,) = site.sync()["runs"]
    assert (report["id"] != old, report["status"]) == (True, "complete")
    assert any("base_url has changed" in note and "1 export job and 1 open run" in note for note in report["notes"])


def test_a_discarded_run_lets_the_next_sync_start_over(site: Site) -> None:
    with serve(SLOW) as served:
        name = site.connect(served)
        old = _stopped(site, served)
        done = site.run("runs", "discard", str(old))
        assert (done.code, f"run {old} is closed" in done.stdout) == (0, True)
        process = site.start("sync")
        until(lambda: [entry.status for entry in served.log.of("kickoff")].count(202) >= 2, process)
        process.send_signal(signal.SIGINT)
        process.communicate()
        newest = site.run("runs", "--connection", name, "--json").json["runs"][0]["id"]
    assert newest != old
    assert site.run("runs", "discard", "4711").code == 2


def test_an_invalid_run_number_is_refused_with_what_is_expected(site: Site) -> None:
    for words in (["discard"], ["discard", "x"], ["12", "13"], ["last"], ["discard", "1", "2"]):
        done = site.run("runs", *words)
        assert done.code == 2
        assert "run" in done.stderr
