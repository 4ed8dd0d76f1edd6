"""CSV as Postgres writes it."""

from __future__ import annotations


def written(rows: list[list[str]]) -> bytes:
    """As Postgres writes CSV: quotes where they are needed, an empty string in quotes, a null as nothing."""

    def cell(text: str) -> str:
        needs_quotes = text == "" or any(sign in text for sign in ',"\n\r') or text.strip(" ") != text or text == "\\."
        return '"' + text.replace('"', '""') + '"' if needs_quotes else text

    return "".join(",".join(map(cell, row)) + "\n" for row in rows).encode()
