"""What the store has of a resource's documents, as views read it: an extension that the store adds to the resource.

The extension STORED_DOCUMENT contains others: `status` and `contentType` (valueCode), and `text` (valueString), if the document's
text could be read. NDJSON does not have it. `attachments` keeps the documents, and says how each text is encrypted.
"""

from __future__ import annotations

import json

from psycopg import sql

from snapshots.sealed_values import Sealer, pointer_of
from snapshots.sql import load

STORED_DOCUMENT = "https://chartferry.example/fhir/StructureDefinition/stored-document"
# the place of a text that is encrypted; a resource's values have JSON pointers, each with a slash
TABLE, TEXT = "attachment", "text"
# where the text is in the types that have documents
TEXT_PATHS = frozenset(f"{name}.extension.extension.valueString" for name in ("DocumentReference", "DiagnosticReport"))
PLAIN_BODY = sql.SQL("r.body")
_SQL = load("stored_documents")
ONCE, ONCE_BY_KEY = sql.SQL(_SQL["once"]), sql.SQL(_SQL["once_by_key"])


def with_document(later: sql.Composable | None) -> sql.Composable:
    """Return the body of a row `r` of `resource` with the extension, if the row has a document attached.

    `later`: an array of the runs that are left out; None: none is. Of several documents, the first with a text is given,
    otherwise the first.
    """
    uses = sql.SQL(_SQL["uses"]) if later is None else sql.SQL(_SQL["uses_ended"]).format(open=later)
    return sql.SQL(_SQL["with_document"]).format(url=sql.Literal(STORED_DOCUMENT), uses=uses)


def of_changed(changed: sql.Composable, since: sql.Composable) -> sql.Composable:
    """Return the condition that a row `r` has `changed`, or what is stored of its documents has, in the runs of an array."""
    return sql.SQL(_SQL["of_changed"]).format(changed=changed, since=since)


def opened(token: bytes, resource_type: str, sealer: Sealer) -> bytes:
    """Return an encrypted value that a view of a resource type shows, as JSON: of a resource, or the text of its document.

    Raises:
        SealedValueError: it was altered, or is of another type or tenant.
    """
    if pointer_of(token) != TEXT:
        return sealer.unseal(token, resource_type)[0]
    text, _ = sealer.unseal(token, TABLE)
    return json.dumps(text.decode(), ensure_ascii=False).encode()
