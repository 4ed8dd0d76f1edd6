"""`chartferry keys rotate-store`: encrypts the store with the current key. The store's owner runs it."""

from __future__ import annotations

import typer

from cli.choosing import choose_tenant
from cli.configuration import settings_of
from cli.exit_codes import ExitCode
from cli.in_store import in_store
from cli.invocation import invocation_of
from cli.render import emit_json, print_line, print_table

EXAMPLES = ("chartferry keys rotate-store", "chartferry keys rotate-store --tenant mercy")


def rotate_store(context: typer.Context) -> int:
    """Encrypt a plain store, or what older keys have encrypted, with the current key.

    Afterwards you can throw away older keys. Back up a plain store first: no other command opens it until all is encrypted.

    No sync can run meanwhile. If it is stopped, run it again: it continues.

    Exit codes: 0 encrypted, 3 some rows are damaged, 4 nothing to encrypt, 5 failed, 6 a run is in progress.
    """
    invocation = invocation_of(context)
    settings = settings_of(invocation)
    tenant = choose_tenant(settings, invocation.tenant)
    rotated = in_store(invocation, settings, tenant, lambda store: store.rotate(), encrypts=True)
    has_done = bool(rotated.rows) or rotated.was_plain
    code = ExitCode.PARTIAL if rotated.damaged else ExitCode.COMPLETE if has_done else ExitCode.NOTHING
    if invocation.json:
        status = {ExitCode.PARTIAL: "partial", ExitCode.COMPLETE: "complete", ExitCode.NOTHING: "nothing"}[code]
        emit_json({"status": status, "rows": dict(rotated.rows), "damaged": rotated.damaged})
        return code
    if rotated.rows:
        print_table(("encrypted", "rows#"), [(table, str(count)) for table, count in rotated.rows.items()])
    current = settings.encryption.current_key
    if rotated.damaged:
        print_line(
            f"{rotated.damaged} rows are damaged, and stay as they are: keep the older keys, or restore the rows from a backup"
        )
    elif rotated.was_plain:
        print_line(
            f"the store was plain; everything is encrypted with key {current} now. Old plain text stays in the server's files "
            "until "
            "VACUUM FULL, and in backups: see docs/encryption.md, Encrypting a plain store"
        )
    else:
        print_line(
            f"everything is encrypted with key {current}: you can remove the other keys from [encryption]; keep them for "
            "earlier backups"
        )
    return code
