"""What of an EHR's issue codes is shown."""

from __future__ import annotations

from connectors.fhir.issue_types import shown
from connectors.fhir.records import Issue, codes_of
from connectors.fhir.search.verdicts import named


def test_only_fhir_codes_and_vendor_numbers_are_shown() -> None:
    assert shown(["invalid", "59108", "4119", "MRN900123", "Smith"]) == ("invalid", "59108", "4119", "other")


def test_free_text_in_a_code_reaches_no_message() -> None:
    assert "MRN" not in named("refused", ["not-found", "MRN900123"])
    assert codes_of([Issue("error", "invalid", ("MRN900123",))]) == ("other", "invalid")
