"""What of a value of one FHIR datatype may leave, by 45 CFR 164.514(b)(2). Pure; whatever is not recognised is Dropped.

A code may leave only if its system is a public one that this module lists, and if it has that system's form: a local code may be
a record number. Texts, displays, identifiers, attachments and narratives have no rule here, so they never leave. `dates` has the
rule for dates. Letters in brackets are the items of the regulation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from exports.elements.table import is_resource
from exports.safe_harbor.allow_list import allowed_codes
from exports.safe_harbor.dates import birth_date, date_of, is_of_whole_months
from exports.safe_harbor.release import Dropped, Release


def _words(text: str) -> list[str]:
    return text.split()


OLDEST_AGE = 89  # (C): ages over 89, and what indicates such an age, are one category, "90 or older"
# (B): the first three digits of ZIP codes whose areas together have 20,000 people or fewer, by the Census of 2000; HHS, "Guidance
# Regarding Methods for De-identification of Protected Health Information" (2012), lists these 17
SMALL_ZIP3 = frozenset(_words("036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893"))
STATES = frozenset(
    _words(
        """AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA RI
        SC SD TN TX UT VT VA WA WV WI WY AS GU MP PR VI"""
    )
)
_LANGUAGES = "urn:ietf:bcp:47"
# public code systems, each with the form of its codes; `allow_list` has the codes of HL7's own
PUBLIC_SYSTEMS = {
    system: re.compile(form)
    for form, *systems in (
        (r"[0-9]{1,7}-[0-9]", "http://loinc.org"),
        (r"[0-9]{6,18}", "http://snomed.info/sct"),
        (r"[0-9]{1,8}", "http://www.nlm.nih.gov/research/umls/rxnorm"),
        (r"[0-9EV][0-9]{2,3}(?:\.[0-9]{1,2})?", "http://hl7.org/fhir/sid/icd-9-cm"),
        (
            r"[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?",
            "http://hl7.org/fhir/sid/icd-10",
            "http://hl7.org/fhir/sid/icd-10-cm",
        ),
        (r"[0-9A-HJ-NP-Z]{7}", "http://www.cms.gov/Medicare/Coding/ICD10"),
        (r"[0-9]{4}[0-9A-Z]", "http://www.ama-assn.org/go/cpt"),
        (r"[A-Z][0-9]{4}", "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"),
        (r"[0-9]{1,3}", "http://hl7.org/fhir/sid/cvx"),
        (r"[0-9]{10,11}|[0-9]{4,5}-[0-9]{3,4}-[0-9]{1,2}", "http://hl7.org/fhir/sid/ndc"),
        (r"[a-z]{2,3}(?:-[A-Z]{2})?", _LANGUAGES),
    )
    for system in systems
}
# the systems whose codes say what a value is; "unknown" of a null flavour does not, and neither does a language
TELLING_SYSTEMS = PUBLIC_SYSTEMS.keys() - {_LANGUAGES}
# the codes of the elements that `allowed.txt` lists, of R4's required bindings
CODES = frozenset(
    _words(
        """accepted active allergy amended appended arrived asap available biologic cancelled claim complete completed corrected
        declined directive draft entered-in-error environment error female filler-order final finished food high in-progress
        inactive instance instance-order intended intolerance kind low male medication mild moderate not-done not-started
        not-taken on-hold onleave option order original-order other partial plan planned preauthorization predetermination
        preliminary preparation proposal proposed queued reflex-order registered rejected reserved revoked routine scheduled
        severe stat stopped suspended triaged unable-to-assess unavailable unknown unsatisfactory urgent
        Appointment CommunicationRequest DeviceRequest MedicationRequest NutritionOrder ServiceRequest Task VisionPrescription"""
    )
)
# UCUM, without its braces, in which anything may stand: units, with prefixes and exponents, between dots and slashes
_UNIT_PART = (
    r"(?:(?:da|[kcdmunpfhMG])?(?:m\[Hg\]|m\[H2O\]|mol|osm|eq|kat|cal|Cel|Pa|Hz|bar|deg|\[iU\]|\[IU\]|[mgsLlJKNUWV])"
    r"|\[(?:degF|lb_av|oz_av|in_i|ft_i|pH|CFU|drp|arb'U|GPL'U|MPL'U|ppm|ppb|ppth)\]|%|10[*^]|mo|wk|min|[hda1])(?:[+-]?[0-9]{1,2})?"
)
_UNIT = re.compile(rf"/?{_UNIT_PART}(?:[./]{_UNIT_PART}){{0,4}}")
# of the armed forces abroad (APO, FPO): the Census counts nobody there, so they are no areas of more than 20,000 people
MILITARY_ZIP3 = frozenset(_words("090 091 092 093 094 095 096 097 098 340 962 963 964 965 966"))
_ZIP = re.compile(r"([0-9]{3})[0-9]{2}(?:-?[0-9]{4})?")
_MOST = 10**7  # a larger number may be a day, a telephone number or one of somebody's numbers
_MOST_BARE = 10**4  # without a unit a shorter one may be, too: 5550123, the ZIP code 02139, a record number
_REFERENCE = re.compile(r"([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?")
# UCUM is read from the left: a slash divides by the one unit behind it
_FACTOR = re.compile(r"([./]?)([^./]+)")
_NO_DIMENSION = re.compile(r"(?:10[*^]|1|%)(?:[+-]?[0-9]{1,2})?")
_TIME = re.compile(r"(?:a|mo|wk|d|h|min)(?:[+-]?[0-9]{1,2})?")
_OF_A_YEAR = {"a": Decimal(1), "mo": Decimal(12), "wk": Decimal("52.18"), "d": Decimal("365.25"), "h": Decimal("8766")}
_PLAIN_TIMES = _OF_A_YEAR.keys() | {"min"}  # of minutes a number that may leave is less than 20 years


def code(value: Any, release: Release) -> str:
    """Return a code that R4 defines."""
    if not isinstance(value, str) or value not in CODES:
        raise Dropped
    return value


def boolean(value: Any, release: Release) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise Dropped
    return value


def whole(value: Any, release: Release) -> int:
    """Return a whole number of up to 4 digits."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= _MOST_BARE:
        raise Dropped
    return value


def number(value: Any, release: Release) -> int | Decimal:
    """Return a number of up to 7 digits before the point, as it is written."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not -_MOST < value < _MOST:
        raise Dropped
    return value


def coding(value: Any, release: Release) -> dict[str, Any]:
    """Return system and code of a public code system, if the code has its form."""
    fields = _fields(value)
    system, word = fields.get("system"), fields.get("code")
    if not isinstance(system, str) or not isinstance(word, str):
        raise Dropped
    form = PUBLIC_SYSTEMS.get(system)
    if word not in allowed_codes().get(system, ()) and (form is None or not form.fullmatch(word)):
        raise Dropped
    return {"system": system, "code": word}


def concept(value: Any, release: Release) -> dict[str, Any]:
    """Return the public codings."""
    return {"coding": _each(_fields(value).get("coding"), coding, release)}


def quantity(given: Any, release: Release) -> dict[str, Any]:
    """Return value, comparator and UCUM code; no time that may be an age over 89 (C)."""
    fields = _fields(given)
    value = number(fields.get("value"), release)
    found: dict[str, Any] = {"value": value}
    comparator = fields.get("comparator")
    if comparator in ("<", "<=", ">=", ">"):  # in a tuple: it may be a list or an object, which no set takes
        found["comparator"] = comparator
    unit = fields.get("code")
    is_bare = True
    if fields.get("system") == "http://unitsofmeasure.org" and isinstance(unit, str) and _UNIT.fullmatch(unit):
        found |= {"system": fields["system"], "code": unit}
        is_bare = _is_of_no_dimension(unit)
        most = _OF_A_YEAR.get(unit)
        if most is not None and (value > OLDEST_AGE * most or comparator in (">=", ">")):
            raise Dropped
    if is_bare and not -_MOST_BARE < value < _MOST_BARE:
        raise Dropped
    return found


def _is_of_no_dimension(unit: str) -> bool:
    """Whether a UCUM unit says no more of a number than none does: `1`, `10*3`, `%`.

    Raises:
        Dropped: it is a multiple of a time (`10*.a`), whose number may be an age in disguise.
    """
    above, below = set[str](), set[str]()  # the fraction's line, without what has no dimension
    for sign, part in _FACTOR.findall(unit):
        if not _NO_DIMENSION.fullmatch(part):
            (below if sign == "/" else above).add(part)
    if above and not below and all(map(_TIME.fullmatch, above)) and unit not in _PLAIN_TIMES:
        raise Dropped
    return not above and not below


def age(value: Any, release: Release) -> dict[str, Any]:
    """Return an age in a unit by which it is known to be 89 or less."""
    found = quantity(value, release)
    if found.get("code") not in _OF_A_YEAR:
        raise Dropped
    return found


def years_old(found: dict[str, Any]) -> Decimal:
    """Return an age that may leave, in years."""
    return Decimal(found["value"]) / _OF_A_YEAR[found["code"]]


def money(value: Any, release: Release) -> dict[str, Any]:
    """Return an amount in a currency."""
    fields = _fields(value)
    found: dict[str, Any] = {"value": number(fields.get("value"), release)}
    currency = fields.get("currency")
    if isinstance(currency, str) and re.fullmatch(r"[A-Z]{3}", currency):
        found["currency"] = currency
    return found


def period(value: Any, release: Release) -> dict[str, Any]:
    """Return the dates at which it begins and ends, as they may leave; of whole months, where dates are shifted, their years.

    Bills from month to month would tell by their lengths, of which February has its own, how far they were moved.
    """
    fields = _fields(value)
    found = _some(fields, {"start": date_of, "end": date_of}, release)
    if release.days is not None and is_of_whole_months(fields.get("start"), fields.get("end")):
        return {name: given[:4] for name, given in found.items()}
    return found


def years_of_period(value: Any, release: Release) -> dict[str, Any]:
    """Return the years of the dates at which it begins and ends, also of dates that are shifted.

    Of a period that begins on the first of January, as everybody's does, a shifted day would tell by how many days it was moved.
    """
    return {name: given[:4] for name, given in period(value, release).items()}


def range_(value: Any, release: Release) -> dict[str, Any]:
    """Return both quantities."""
    return _some(_fields(value), {"low": quantity, "high": quantity}, release)


def age_range(value: Any, release: Release) -> dict[str, Any]:
    """Return both ages."""
    return _some(_fields(value), {"low": age, "high": age}, release)


def ratio(value: Any, release: Release) -> dict[str, Any]:
    """Return both quantities."""
    return _some(_fields(value), {"numerator": quantity, "denominator": quantity}, release)


def reference(value: Any, release: Release) -> dict[str, Any]:
    """Return a relative reference to another resource, by its keyed id; no display, no identifier, no URL of a server."""
    text = _fields(value).get("reference")
    found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if found is None or not is_resource(found[1]):
        raise Dropped
    return {"reference": f"{found[1]}/{release.keyed(found[1], found[2])}"}


def address(value: Any, release: Release) -> dict[str, Any]:
    """(B): the state, and of a ZIP code the first three digits, or 000 where too few people live."""
    fields = _fields(value)
    country, state, zip_code = (fields.get(name) for name in ("country", "state", "postalCode"))
    if country not in (None, "US", "USA"):
        raise Dropped
    found: dict[str, Any] = {}
    if isinstance(state, str) and state in STATES:
        found["state"] = state
    digits = _ZIP.fullmatch(zip_code) if isinstance(zip_code, str) else None
    here = country is not None or state is None or "state" in found  # Bavaria's codes have five digits, too
    if digits is not None and here:
        found["postalCode"] = "000" if digits[1] in SMALL_ZIP3 | MILITARY_ZIP3 else digits[1]
    return _not_empty(found)


def dosage(value: Any, release: Release) -> dict[str, Any]:
    """Return site, route and method, its number, and whether it is taken as needed."""
    return _some(
        _fields(value),
        {"sequence": whole, "asNeededBoolean": boolean, "site": concept, "route": concept, "method": concept},
        release,
    )


# by FHIR type; a type that is missing here never leaves
RULES: dict[str, Callable[[Any, Release], Any]] = {
    "boolean": boolean,
    "code": code,
    "integer": whole,
    "positiveInt": whole,
    "unsignedInt": whole,
    "decimal": number,
    "date": date_of,
    "dateTime": date_of,
    "Coding": coding,
    "CodeableConcept": concept,
    "Quantity": quantity,
    "Duration": quantity,
    "Count": quantity,
    "Age": age,
    "Money": money,
    "Period": period,
    "Range": range_,
    "Ratio": ratio,
    "Reference": reference,
    "Address": address,
    "Dosage": dosage,
}
# where an element's meaning asks for more than its type does
BY_PATH: dict[str, Callable[[Any, Release], Any]] = {
    "Patient.birthDate": birth_date,
    "Coverage.period": years_of_period,
    "AllergyIntolerance.onsetRange": age_range,
    "Condition.onsetRange": age_range,
    "Condition.abatementRange": age_range,
    "Procedure.performedRange": age_range,
}


def _fields(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Dropped
    return value


def _each(values: Any, rule: Callable[[Any, Release], Any], release: Release) -> list[Any]:
    """Return what the rule allows of a list, if anything."""
    found = []
    for one in values if isinstance(values, list) else ():
        try:
            found.append(rule(one, release))
        except Dropped:
            continue
    if not found:
        raise Dropped
    return found


def _some(fields: dict[str, Any], rules: dict[str, Callable[[Any, Release], Any]], release: Release) -> dict[str, Any]:
    """Return what the rules allow of an object, if anything."""
    found = {}
    for name, rule in rules.items():
        try:
            found[name] = rule(fields.get(name), release)
        except Dropped:
            continue
    return _not_empty(found)


def _not_empty(found: dict[str, Any]) -> dict[str, Any]:
    if not found:
        raise Dropped
    return found
