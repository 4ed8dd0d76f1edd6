"""A server with a patient export whose manifest and files change from night to night."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.small_server import Small, lines, row, statement

PATIENTS = (row("Patient", "p1"), row("Patient", "p2"))


CONDITIONS = (row("Condition", "c1", "p1"), row("Condition", "c2", "p2"))


class Export:
    """A patient export whose manifest and files a test changes from night to night."""

    def __init__(self, small: Small) -> None:
        self.small = small
        self.files: dict[str, bytes] = {"Patient": lines(*PATIENTS), "Condition": lines(*CONDITIONS)}
        self.more: dict[str, Any] = {}
        self.mark = b""
        small.answer = self.answer

    def listed(self, *names: str) -> list[dict[str, str]]:
        return [{"type": name, "url": f"{self.small.base}/files/{name}"} for name in names]

    def manifest(self) -> dict[str, Any]:
        own = {"transactionTime": "2026-11-27T00:00:00Z", "request": "x", "requiresAccessToken": False}
        return {**own, "output": self.listed("Patient", "Condition"), **self.more}

    def answer(self, path: str, query: dict[str, str]) -> Any:
        if path == "/metadata":
            return statement("Patient", "Condition", "Practitioner", export=True)
        if path.endswith("$export"):
            return 202, None, {"Content-Location": f"{self.small.base}/status"}
        if path == "/status":
            kept = {name: value for name, value in self.manifest().items() if value != "left out"}
            return self.mark + json.dumps(kept).encode()
        if path.startswith("/files/"):
            return self.files[path.removeprefix("/files/")]
        listed = [json.loads(line) for name in ("Patient", "Condition") for line in self.files[name].splitlines()]
        return next((one for one in listed if path == f"/{one['resourceType']}/{one['id']}"), None)
