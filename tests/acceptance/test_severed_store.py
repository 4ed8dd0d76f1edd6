"""The connections to Postgres break between two statements of a command, at one place after another; the command is run again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.severed_postgres import Relay, severable
from tests.user_site import Done, Site, mock, reachable

EVERY = int(os.environ.get("CHARTFERRY_TEST_EVERY", "40"))  # statement; 1: all of them, which takes minutes
KEY = "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U="
# a cursor whose connection is gone cannot be closed at the server
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <function ServerCursorMixin")
_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)


@pytest.fixture
def relay(site: Site, store_url: str) -> Iterator[Relay]:
    with severable(store_url) as found:
        site.use_store(found.url)
        yield found


def severed(relay: Relay, store_url: str, command: Callable[[], Done]) -> tuple[Done, set[int]]:
    """Run the command until nothing cuts it any more, each time some statements later; return its end, and the codes before.

    It ends with nothing cut, so whatever came then is there for good.
    """
    codes: set[int] = set()
    pause = threading.Event()  # never set
    allowed = 1
    while True:
        relay.allow(allowed)
        done = command()
        if not relay.was_cut:
            relay.allow(1 << 30)
            return done, codes
        codes.add(done.code)
        with psycopg.connect(store_url, autocommit=True) as conn:
            while conn.execute(_OTHERS).fetchone() != (0,):
                pause.wait(0.002)  # the server has not noticed yet that its clients are gone
        allowed += EVERY


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_a_sync_cut_between_any_statements_is_resumed_until_the_store_is_what_the_ehr_has(
    site: Site, relay: Relay, store_url: str, key: str | None
) -> None:
    with mock("cerner", patients=2, rows_per_file=100, max_parallel_files=None, abandoned_job_s=1) as served:
        site.connect(served)
        site.encrypt(key)
        done, codes = severed(relay, store_url, lambda: site.run("sync"))
        assert (done.code, codes - {0}) == (0, {5})
        assert site.exported("--format", "ndjson") == reachable(served)
        assert site.sync()["runs"][0]["new"] == 0
        assert site.run("audit", "verify").code == 0


def test_charts_whose_encryption_is_cut_between_any_statements_are_encrypted_in_the_end(
    site: Site, relay: Relay, store_url: str
) -> None:
    with mock("epic", patients=2) as served:
        name = site.connect(served)
        relay.allow(1 << 30)
        site.sync()
        site.encrypt(KEY)
        done, codes = severed(relay, store_url, lambda: site.run("keys", "rotate-store"))
        assert (done.code in {0, 4}, codes - {0, 4}) == (True, {5})
        assert site.run("keys", "rotate-store").code == 4
        assert site.exported("--format", "ndjson") == reachable(served)
        assert site.run("prove", name).code == 0


def test_an_erasure_cut_between_any_statements_erases_all_of_a_patient_once_and_the_audit_says_so(
    site: Site, relay: Relay, store_url: str
) -> None:
    with mock("generic", patients=3) as served:
        name = site.connect(served)
        relay.allow(1 << 30)
        site.sync()
        who = served.patient_ids[0]
        done, codes = severed(relay, store_url, lambda: site.run("erase", name, who, "--yes"))
        assert (done.code in {0, 4}, codes - {0, 3, 4}) == (True, {5})  # 3: erased, and what comes after that was cut
        assert site.run("erase", name, who, "--yes").code == 4
        assert not [one for one in site.exported() if who in one[1]]
        erasures = [
            one for one in site.run("audit", "--patient", who, "--json").json["reads"] if one["action"] == "erase"
        ]
        assert len([one for one in erasures if one["erased"]]) == 1
        assert site.run("audit", "verify").code == 0


def test_pruning_cut_between_any_statements_leaves_what_is_live_as_it_was(
    site: Site, relay: Relay, store_url: str
) -> None:
    with mock("generic", patients=2) as served:
        site.connect(served)
        relay.allow(1 << 30)
        site.sync()
        for row in served.dataset.of_type("Observation")[:20]:
            served.dataset.replace(row.raw.replace(b'"final"', b'"amended"'))
        site.sync()
        with psycopg.connect(store_url) as conn:
            conn.execute("UPDATE tenant_default.run SET finished_at = finished_at - interval '3 years'")
        pruning = ("prune", "--history", "2y", "--runs", "1y", "--quarantine", "90d")
        done, codes = severed(relay, store_url, lambda: site.run(*pruning))
        assert (done.code in {0, 4}, codes - {0, 4}) == (True, {5})
        assert site.exported() == reachable(served)
        assert site.sync()["runs"][0]["new"] == 0
