"""Resources of a chart as lines of JSON, with what they refer to."""

from __future__ import annotations

import json
from typing import Any


def resource(kind: str, identity: str, **rest: Any) -> bytes:
    return json.dumps({"resourceType": kind, "id": identity, **rest}).encode()


def to(*targets: str) -> Any:
    found = [{"reference": target} for target in targets]
    return found if len(found) > 1 else found[0]
