"""json_bytes owns how one synthetic resource becomes JSON: decimals keep the form they were written in.

FHIR counts the precision of a decimal as part of its value (R4 datatypes, decimal), so `36.60` must not become `36.6`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson


def _as_written(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def to_json_bytes(resource: Mapping[str, Any]) -> bytes:
    """Return the resource as one line of UTF-8 JSON without a newline; `Decimal("36.60")` is written `36.60`."""
    return orjson.dumps(resource, _as_written)
