"""What of an EHR's issue codes is shown."""

from __future__ import annotations

from connectors.fhir.issue_types import shown
from connectors.fhir.records import Issue, codes_of
from connectors.fhir.search.verdicts import named


def test_codes_of_fhir_and_numbers_of_vendors_are_shown_and_any_other_is_not() -> None:
    assert shown(["invalid", "59108", "4119", "MRN900123", "Smith"]) == ("invalid", "59108", "4119", "other")


def test_what_a_server_writes_into_a_code_reaches_no_message() -> None:
    assert "MRN" not in named("refused", ["not-found", "MRN900123"])
    assert codes_of([Issue("error", "invalid", ("MRN900123",))]) == ("other", "invalid")
