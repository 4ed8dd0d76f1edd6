"""Text of a fixed shape in a model of the configuration: refused with a rule in words, since no one reads patterns. Pure."""

from __future__ import annotations

import re

from pydantic import AfterValidator


def shaped(pattern: str, rule: str) -> AfterValidator:
    """Return the check that the whole text has this shape; ValueError says the rule ("must be …")."""
    shape = re.compile(pattern, re.ASCII)

    def checked(value: str) -> str:
        if shape.fullmatch(value) is None:
            raise ValueError(rule)
        return value

    return AfterValidator(checked)
