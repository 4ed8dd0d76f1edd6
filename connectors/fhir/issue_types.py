"""Decides which issue codes of an EHR may be shown: FHIR's, numbers, and codes that vendors are known to send. Pure.

Servers write anything into `details.coding.code`, even an MRN; an unknown code is shown as "other". `retry_table` and
`records.grade` interpret the codes themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

OTHER = "other"
# http://hl7.org/fhir/issue-type, R4 and what R5 added
ISSUE_TYPES = frozenset(
    ["invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden",
     "suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long",
     "code-invalid", "extension", "too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store",
     "exception", "timeout", "incomplete", "throttled", "informational", "success", "limited-filter"]
)  # fmt: skip
_NUMBER = re.compile(r"\d{3,6}")  # Epic's: 4119, 59108 (vendor-facts 1.7)


def shown(codes: Iterable[str], known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the codes as messages show them, each once, in order."""
    allowed = ISSUE_TYPES.union(known)
    return tuple(dict.fromkeys(code if code in allowed or _NUMBER.fullmatch(code) else OTHER for code in codes))
