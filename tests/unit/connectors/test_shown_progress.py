"""What is shown of a server's X-Progress."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.bulk.shown_progress import shown_progress


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("45%", "45 %"),
        ("66.7% complete", "66.7 %"),
        ("33.333333%", "33.33 %"),
        ("Searched 3 of 20 patients", "3 of 20"),
        ("in-progress", "in progress"),
        ("IN_PROGRESS", "in progress"),
        ("Queued...", "queued"),
        ("[/bold] John Smith MRN 12345", "in progress"),
        ("John Smith, born 12/05/1961", "in progress"),
        ("MRN-45% of 7", "in progress"),
        ("999%", "in progress"),
        ("20 of 3", "in progress"),
        ("\x1b[31m45 %", "in progress"),
        ("", "in progress"),
        (None, "in progress"),
    ],
)
def test_only_counts_and_known_states_are_shown(header: str | None, shown: str) -> None:
    assert shown_progress(header) == shown


@given(st.text())
def test_nothing_else_of_a_header_is_ever_shown(header: str) -> None:
    shown = shown_progress(header)
    assert len(shown) <= 22
    assert shown.isprintable()
