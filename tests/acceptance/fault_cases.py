"""Every case of the fault matrix, in the order of the rooms where faults happen; docs/faults.md has them by number."""

from __future__ import annotations

from tests.acceptance import (
    fault_cases_bulk,
    fault_cases_crawl,
    fault_cases_documents,
    fault_cases_records,
    fault_cases_unlisted,
    fault_cases_wire,
)
from tests.acceptance.faulted import Case

CASES: tuple[Case, ...] = (
    *fault_cases_wire.CASES,
    *fault_cases_crawl.CASES,
    *fault_cases_records.CASES,
    *fault_cases_documents.CASES,
    *fault_cases_bulk.CASES,
    *fault_cases_unlisted.CASES,
)
