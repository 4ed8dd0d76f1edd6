"""Which issue codes of an EHR are shown: those of FHIR, numbers, and those that vendors are known to send. Pure.

Servers write what they like into `details.coding.code`, an MRN too; what is not known is shown as "other". What codes mean is
read from the codes themselves, by `retry_table` and `fhir.grade`.
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
    """The codes as messages name them, each once, in order."""
    allowed = ISSUE_TYPES.union(known)
    return tuple(dict.fromkeys(code if code in allowed or _NUMBER.fullmatch(code) else OTHER for code in codes))
