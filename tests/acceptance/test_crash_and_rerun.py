"""The machine dies in the middle of the night; cron runs the same command again."""

from __future__ import annotations

import signal
import threading
from collections import Counter

import pytest

from mocks.request_log import RequestLog
from tests.acceptance.user_site import Site, mock, reachable

_WAIT_S = 60


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
        self._process.communicate(timeout=_WAIT_S)
        return self._process.returncode


CRAWL_MOMENTS = [("token", 1), ("search", 1), ("search", 12), ("search", 60)]
BULK_MOMENTS = [("kickoff", 1), ("status", 1), ("file", 1), ("file", 4), ("delete", 1)]


@pytest.mark.parametrize(
    ("vendor", "purpose", "nth"),
    [*(("epic", *moment) for moment in CRAWL_MOMENTS), *(("cerner", *moment) for moment in BULK_MOMENTS)],
)
def test_after_a_sigkill_the_rerun_loses_nothing_doubles_nothing_and_asks_only_what_was_in_flight(
    site: Site, vendor: str, purpose: str, nth: int
) -> None:
    with mock(vendor, rows_per_file=100, latency_s=0.004, max_parallel_files=None, abandoned_job_s=1) as served:
        site.connect(served)
        code = KillAfter(site, served.log, purpose, nth).wait()
        assert code == -signal.SIGKILL, "the run ended before it could be killed"
        first = Counter(entry.target for entry in list(served.log) if entry.purpose in {"search", "read", "file"})
        served.log.clear()
        report = site.sync()
        second = Counter(entry.target for entry in list(served.log) if entry.purpose in {"search", "read", "file"})
        expected = reachable(served)
    assert report["status"] == "complete"
    assert site.exported() == expected
    assert report["runs"][0]["new"] == len(expected)
    in_flight = 2 * 2 * (5 if vendor == "epic" else 2) + 40  # workers, and pieces that wait for the writer
    assert len(first & second) <= in_flight
