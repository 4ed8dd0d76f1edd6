"""Every fault of the catalogue, on a real socket, in a whole sync: what it costs that night, and that the next one heals it.

The cases are data: `fault_cases_wire`, `fault_cases_crawl`, `fault_cases_bulk`, and `fault_cases_unlisted` for what nobody has
reported yet. docs/faults.md tells it to a reader.
"""

from __future__ import annotations

import pytest

from tests.acceptance import (
    fault_cases_bulk,
    fault_cases_crawl,
    fault_cases_records,
    fault_cases_unlisted,
    fault_cases_wire,
)
from tests.acceptance.faulted import Case, faulted
from tests.acceptance.user_site import Site

CASES: tuple[Case, ...] = (
    *fault_cases_wire.CASES,
    *fault_cases_crawl.CASES,
    *fault_cases_bulk.CASES,
    *fault_cases_records.CASES,
    *fault_cases_unlisted.CASES,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_fault_costs_what_it_must_and_the_next_run_heals_it(case: Case, site: Site, store_url: str) -> None:
    with faulted(case, site, store_url) as night:
        if case.good_night_before:
            assert night.sync().code == 0
        night.strike()
        first = night.sync()
        night.judge_faulted(first)
        struck = night.served.faults.hits
        assert struck or not case.rules, "the fault did not strike"
        night.end()
        night.judge_healed(night.sync())
