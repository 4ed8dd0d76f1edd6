"""The first and the last value that would be written like this one (FHIRPath 3, boundaries), and dates that are moved."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from exports.compiler import compile_view

NUMBERS = [
    ("1.0", "", "0.95", "1.05"),
    ("1", "", "0.5", "1.5"),
    ("1.00", "", "0.995", "1.005"),
    ("-1.587", "", "-1.5875", "-1.5865"),
    ("1.587", "2", "1.58", "1.59"),
    ("1.587", "0", "1", "2"),
    ("1.587", "-1", None, None),
    ("1.587", "32", None, None),
    ("0.034", "1", "0", "0.1"),
    ("12345678901234.123456", "", "12345678901234.1234555", "12345678901234.1234565"),
    ("123456789012345678901234.5678", "2", "123456789012345678901234.56", "123456789012345678901234.57"),
]
MOMENTS = [
    ("birthDate", "2014", "", "2014-01-01", "2014-12-31"),
    ("birthDate", "2014", "6", "2014-01", "2014-12"),
    ("birthDate", "1970-06", "", "1970-06-01", "1970-06-30"),
    ("birthDate", "2020-02", "", "2020-02-01", "2020-02-29"),
    ("birthDate", "2014-05", "4", "2014", "2014"),
    ("birthDate", "2014", "17", None, None),
    ("deceasedDateTime", "2010-10-10", "", "2010-10-10T00:00:00.000+14:00", "2010-10-10T23:59:59.999-12:00"),
    ("deceasedDateTime", "2010-10", "", "2010-10-01T00:00:00.000+14:00", "2010-10-31T23:59:59.999-12:00"),
    ("deceasedDateTime", "2010-10-10T08:30Z", "", "2010-10-10T08:30:00.000Z", "2010-10-10T08:30:59.999Z"),
    (
        "deceasedDateTime",
        "2010-10-10T08:30:05.5+01:00",
        "",
        "2010-10-10T08:30:05.500+01:00",
        "2010-10-10T08:30:05.599+01:00",
    ),
    ("deceasedDateTime", "2010-10-10", "10", "2010-10-10T00+14:00", "2010-10-10T23-12:00"),
    ("deceasedDateTime", "2010-10-10", "8", "2010-10-10", "2010-10-10"),
    ("deceasedDateTime", "2010-10-10", "9", None, None),
    ("time", "12:34:00", "", "12:34:00.000", "12:34:00.999"),
    ("time", "10:30", "", "10:30:00.000", "10:30:59.999"),
    ("time", "10:30", "4", "10:30", "10:30"),
]
MOVED = [
    ("2020-01-31", "+ 1 month", "2020-02-29"),
    ("2020-02-29", "- 1 year", "2019-02-28"),
    ("2020-12-31", "+ 1 day", "2021-01-01"),
    ("2020-01-01", "+ 2 weeks", "2020-01-15"),
    ("2020-01-01", "+ 30 hours", "2020-01-02"),
    ("2020", "+ 30 months", "2022"),
    ("2020-03", "- 45 days", "2020-02"),
    ("2020-03-01T23:30:00+02:00", "+ 45 minutes", "2020-03-02T00:15:00+02:00"),
    ("2020-03-01T23:30:00.250Z", "+ 1 'h'", "2020-03-02T00:30:00.250Z"),
    ("2020-03-01T23:30:00Z", "+ 1500 milliseconds", "2020-03-01T23:30:01.500Z"),
    ("2020-03-01T23:30Z", "- 1 month", "2020-02-01T23:30Z"),
    ("9999-12-31", "+ 1 day", None),
    # of what is finer than the clock is written, only whole parts count
    ("2020-03-01T23:30Z", "- 30 seconds", "2020-03-01T23:30Z"),
    ("2020-03-01T23:30Z", "- 90 seconds", "2020-03-01T23:29Z"),
    ("2020-03-01T23:30Z", "+ 0.5 seconds", "2020-03-01T23:30Z"),
    ("2020-03-01T23:30Z", "+ 1500000 milliseconds", "2020-03-01T23:55Z"),
    # a fraction that does not change keeps all its digits
    ("2020-03-01T23:59:59.9999999Z", "+ 1 second", "2020-03-02T00:00:00.9999999Z"),
    ("2020-03-01T23:30:00.1234567+05:30", "+ 1 year", "2021-03-01T23:30:00.1234567+05:30"),
    ("2020-03-01T23:30:00.1234Z", "+ 1500 milliseconds", "2020-03-01T23:30:01.6234Z"),
]


def cell(postgres: psycopg.Connection[Any], path: str, content: str) -> Any:
    body = '{"resourceType": "Patient", "id": "p", ' + content + "}"
    source = sql.SQL("(SELECT 'site' AS connection, 'p' AS id, {}::jsonb AS body)").format(body)
    view = {"resource": "Patient", "select": [{"column": [{"name": "v", "path": path, "type": "string"}]}]}
    return postgres.execute(compile_view(view, source).query).fetchall()[0][0]


@pytest.mark.parametrize(("value", "precision", "low", "high"), NUMBERS)
def test_the_boundaries_of_a_decimal_follow_its_written_digits(
    value: str, precision: str, low: str | None, high: str | None, postgres: psycopg.Connection[Any]
) -> None:
    for which, wanted in (("low", low), ("high", high)):
        path = f"extension.first().value.ofType(decimal).{which}Boundary({precision})"
        found = cell(postgres, path, f'"extension": [{{"valueDecimal": {value}}}]')
        assert (found is None or Decimal(found)) == (wanted is None or Decimal(wanted)), which


@pytest.mark.parametrize(("element", "value", "precision", "low", "high"), MOMENTS)
def test_the_boundaries_of_a_date_or_time_fill_in_what_is_missing(
    element: str, value: str, precision: str, low: str | None, high: str | None, postgres: psycopg.Connection[Any]
) -> None:
    path = {"birthDate": "birthDate", "deceasedDateTime": "deceased.ofType(dateTime)"}.get(
        element, "extension.first().value.ofType(time)"
    )
    content = json.dumps({element: value})[1:-1] if element != "time" else f'"extension": [{{"valueTime": "{value}"}}]'
    for which, wanted in (("low", low), ("high", high)):
        assert cell(postgres, f"{path}.{which}Boundary({precision})", content) == wanted, which


def test_an_invalid_date_or_several_have_no_boundary(postgres: psycopg.Connection[Any]) -> None:
    assert cell(postgres, "birthDate.lowBoundary()", '"gender": "male"') is None
    for content in ('"birthDate": "2020-02-30"', '"birthDate": ["2020", "2021"]', '"birthDate": true'):
        with pytest.raises(psycopg.DataError, match="chartferry: column v"):
            cell(postgres, "birthDate.lowBoundary()", content)


@pytest.mark.parametrize(("value", "by", "wanted"), MOVED)
def test_the_boundaries_of_an_instant_respect_its_precision(
    value: str, by: str, wanted: str | None, postgres: psycopg.Connection[Any]
) -> None:
    assert cell(postgres, f"deceased.ofType(dateTime) {by}", json.dumps({"deceasedDateTime": value})[1:-1]) == wanted
