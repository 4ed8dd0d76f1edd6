"""The machine dies in the middle of the night; cron runs the same command again."""

from __future__ import annotations

import signal
import threading

import psycopg
import pytest

from mocks.request_log import RequestLog
from mocks.serving import Served
from tests.user_site import Site, mock, reachable


class KillAfter:
    """Kills a process the moment the mock has seen its n-th request of a purpose."""

    def __init__(self, site: Site, log: RequestLog, purpose: str, nth: int) -> None:
        self._process = site.start("sync", "--json")
        self._log = log
        self._purpose = purpose
        self._nth = nth

    def wait(self) -> int:
        stop = threading.Event()
        while self._process.poll() is None:
            if sum(entry.purpose == self._purpose for entry in list(self._log)) >= self._nth:
                self._process.send_signal(signal.SIGKILL)
                break
            stop.wait(0.002)
        self._process.communicate()
        return self._process.returncode


def settled(store_url: str, served: Served) -> set[str]:
    """URLs of the searches, reads and files whose units have committed."""
    with psycopg.connect(store_url) as connection:
        found = connection.execute(
            "SELECT CASE kind WHEN 'batch' THEN 'Patient?_id=' || array_to_string(ids, ',') ELSE detail->>'path' END,"
            " detail->>'url'"
            " FROM tenant_default.unit WHERE state = 'settled'"
        ).fetchall()
    return {url or f"{served.base_url}/{path}" for path, url in found}


def requested_urls(served: Served) -> list[str]:
    """URLs of the searches, reads and files that were asked for; further pages of a search belong to its first."""
    origin = "/".join(served.base_url.split("/", 3)[:3])
    wanted = {"search", "read", "file"}
    return [
        origin + entry.target
        for entry in list(served.log)
        if entry.purpose in wanted and "sessionID" not in entry.target
    ]


CRAWL_MOMENTS = [("token", 1), ("search", 1), ("search", 12), ("search", 60)]
BULK_MOMENTS = [("kickoff", 1), ("status", 1), ("file", 1), ("file", 14), ("delete", 1)]


@pytest.mark.parametrize(
    ("vendor", "purpose", "nth"),
    [*(("epic", *moment) for moment in CRAWL_MOMENTS), *(("cerner", *moment) for moment in BULK_MOMENTS)],
)
def test_after_a_sigkill_the_rerun_loses_duplicates_and_repeats_nothing_settled(
    site: Site, store_url: str, vendor: str, purpose: str, nth: int
) -> None:
    with mock(vendor, rows_per_file=100, latency_s=0.04, max_parallel_files=None, abandoned_job_s=1) as served:
        site.connect(served)
        code = KillAfter(site, served.log, purpose, nth).wait()
        assert code == -signal.SIGKILL, "the run ended before it could be killed"
        committed = settled(store_url, served)
        before = set(requested_urls(served))
        served.log.clear()
        report = site.sync()
        again = requested_urls(served)
        expected = reachable(served)
    assert report["status"] == "complete"
    assert site.exported() == expected
    assert report["runs"][0]["new"] == len(expected)
    assert committed or (purpose, nth) not in LATE, "killed too early to show anything"
    assert not committed & set(again), "something was asked again although it had been settled"
    assert len(again) == len(set(again)), "the rerun asked for something twice"
    assert len(before & set(again)) <= IN_FLIGHT[vendor]


LATE = {("search", 60), ("file", 14), ("delete", 1)}  # by then batches have committed
# Epic: what 5 connections bring, at 40 ms each, while a batch waits for company (0.2 s) and is written, and 10 workers hold;
# Cerner: 2 files at a time, and the pieces of others that wait for the writer
IN_FLIGHT = {"epic": 5 * 10 + 10, "cerner": 2 + 8 + 8}
