"""How identifiers, social security numbers and names are normalised before they are compared."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.patient_terms import TermError, identifier_term, name_term, ssn_term, terms_of

PATIENT = orjson.dumps({
    "identifier": [
        {"system": "urn:oid:1.2.3", "value": " A12 "},
        {"value": "bare"},
        {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "987-65-4320"},
        {"type": {"coding": [{"code": "SS"}]}, "system": "urn:other", "value": "111 22 3333"},
        {"system": "urn:oid:2.16.840.1.113883.4.1", "value": "unknown"},
    ],
    "name": [
        {"family": "O'Neill-Núñez", "given": ["Anna Maria", "Zoë"]},
        {"use": "old", "family": "Straße"},
        {"text": "only a text"},
    ],
    "birthDate": "1950-02-03",
})  # fmt: skip


@pytest.mark.parametrize(
    "term",
    [
        identifier_term("urn:oid:1.2.3", "A12"),
        identifier_term("", "bare"),
        identifier_term("urn:oid:2.16.840.1.113883.4.1", "unknown"),
        ssn_term("987654320"),
        ssn_term("111-22-3333"),
        name_term("ONEILL NUNEZ", None, "1950-02-03"),
        name_term("oneill-nunez", "annamaria", "1950-02-03"),
        name_term("O\u2019Neill Nun\u0303ez", "ZOE", "1950-02-03"),
        name_term("STRASSE", None, "1950-02-03"),
    ],
)
def test_a_patient_has_the_same_search_terms_however_they_are_written(term: object):
    assert term in terms_of(PATIENT)


@pytest.mark.parametrize(
    "term",
    [
        identifier_term("urn:oid:1.2.3", "a12"),  # letters of an identifier are the EHR's
        identifier_term("", "A12"),
        name_term("O'Neill", None, "1950-02-03"),  # a part
        name_term("O'Neill-Núñez", None, "1950-02-04"),
        name_term("Straße", "Zoë", "1950-02-03"),  # of another name
    ],
)
def test_a_patient_has_no_search_term_that_is_merely_similar(term: object):
    assert term not in terms_of(PATIENT)


@pytest.mark.parametrize("birth_date", ["1950", "1950-02", "03/02/1950", ""])
def test_a_name_needs_a_whole_birth_date(birth_date: str):
    with pytest.raises(TermError, match="YYYY-MM-DD"):
        name_term("Zappa", None, birth_date)


@pytest.mark.parametrize("value", ["", "12345678", "1234567890", "abcdefghi", "١٢٣٤٥٦٧٨٩"])
def test_a_social_security_number_has_nine_digits(value: str):
    with pytest.raises(TermError, match="9 digits"):
        ssn_term(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9), lambda one: st.lists(one, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "family", "given", "identifier", "type", "coding", "value"]), one), max_leaves=12,
)  # fmt: skip


@given(JSON, JSON, JSON)
def test_a_malformed_patient_has_the_search_terms_that_can_be_read(
    name: object, identifier: object, birth_date: object
):
    sound = {"identifier": [{"system": "s", "value": "v"}, identifier], "name": name, "birthDate": birth_date}
    assert identifier_term("s", "v") in terms_of(orjson.dumps(sound))
