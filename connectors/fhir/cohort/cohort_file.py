"""Reads a list of patients: ids or MRNs, one per line, or the first column of a CSV. Pure. `finder` looks them up."""

from __future__ import annotations

import csv
from collections.abc import Mapping

_HEADINGS = frozenset({"id", "patient", "patient_id", "patientid", "fhir_id", "mrn", "identifier", "icn"})


def parse_cohort(text: str) -> Mapping[str, int]:
    """The first column of a CSV or plain list, each value with the line where it occurs first, from 1.

    Blank lines, `#` comments and a heading are skipped, repeats dropped. A quoted field ends in its line.
    """
    values: dict[str, int] = {}
    headed = False
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = next(csv.reader([line]), [])
        value = row[0].strip().removeprefix("Patient/") if row else ""
        first, headed = not headed, True
        if not value or (first and value.lower() in _HEADINGS):
            continue
        values.setdefault(value, number)
    return values
