"""What counts as a mention of a patient who is to be erased."""

from __future__ import annotations

import re
from urllib.parse import quote

from hypothesis import assume, example, given
from hypothesis import strategies as st

from snapshots.erasure import trace_of

IDS = st.from_regex(r"[A-Za-z0-9.-]*[A-Za-z0-9]", fullmatch=True)  # a full stop at the end may be that of a sentence
BEFORE = st.sampled_from(
    ["", " ", "/", "?", "&", "&amp;", '"', "=", "https://ehr/fhir/", "Observation?subject:", "see "]
)
MENTIONS = st.sampled_from(
    [
        *(
            "Patient/",
            "patient=",
            "Patient=",
            "patient=Patient/",
            "patient=0,",
            "patient=Patient/0,a~b,https://ehr/Patient/c,",
        ),
        *("Patient?_id=", "Patient?name=x&amp;_id=0,"),
    ]
)
AFTER = st.sampled_from(["", " ", "/_history/2", "&code=x", '"', ".", ". Then", ",13", "#x", "|1"])


@given(IDS, IDS, BEFORE, MENTIONS, AFTER, st.booleans())
@example("12", "123", "?", "patient=", "", False)
@example("12", "012", "?", "patient=", "", False)
@example("12", "1.2", "?", "patient=", "", False)
@example("12", "12.x", "?", "patient=", "", True)
@example("12", "12", "?", "Patient?name=x&amp;_id=0,", "", True)
@example("12", "12", "https://ehr/fhir/", "Patient/", "/_history/2", True)
def test_a_mention_in_a_url_is_found_of_this_patient_and_of_nobody_whose_id_is_longer_or_shorter(
    patient: str, mentioned: str, before: str, mention: str, after: str, encoded: bool
) -> None:
    # whom the text names beside; R4 allows no "~" in an id, so that "a~b" names "a" too
    assume(patient == mentioned or patient not in {"0", "1", "13", "a", "c"})
    text = f"{before}{mention}{mentioned}{after}"
    found = re.search(trace_of(patient), quote(text, safe="") if encoded else text)
    assert (found is not None) == (patient == mentioned)


@given(IDS, st.sampled_from(["patient=0&code=x,", "patient=0 or x,", "Group?_id=", "Patient/?x='&_id="]), st.booleans())
def test_an_id_in_another_parameter_mentions_nobody(patient: str, before: str, encoded: bool) -> None:
    text = f"?{before}of-{patient}"
    assert re.search(trace_of(f"of-{patient}"), quote(text, safe="") if encoded else text) is None


@given(IDS, st.sampled_from(["outpatient=", "inpatient=", "patients/", "myPatient/", "xPatient%2F", "patient-"]))
def test_a_word_that_only_ends_or_begins_as_patient_mentions_nobody(patient: str, word: str) -> None:
    assert re.search(trace_of(patient), f"see {word}{patient} there") is None
