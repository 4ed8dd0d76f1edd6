"""Whether a tenant's store is encrypted, and whether the configured keys are its own: checked before anything is read or written.

Each tenant has one random secret, encrypted with each key that was ever current. A store becomes encrypted while it is empty, or
by `encrypting`; until that is complete, nothing else opens the store, so that nobody reads or writes one in which some values are
plain. `sealed_values` uses the keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace

from snapshots.errors import MissingRightsError, SealedValueError, StoreKeyError, store_border
from snapshots.sealed_values import KEY_BYTES, Keyring, Place, Sealer
from snapshots.sql import load
from snapshots.tenancy import OWN_RIGHTS, TenantSession

_SQL = load("sealing_keys")
_PLACE = Place("secret", "", "")
_NO_SECRET = bytes(KEY_BYTES)


async def sealer_for(session: TenantSession, keyring: Keyring | None, *, encrypts: bool = False) -> Sealer | None:
    """Return what seals and opens the tenant's values; None: the store is plain, and no keys are configured.

    A store without any run becomes encrypted by this. The session is the owner's or the tenant's. `encrypts`: opens a store with
    plain charts for the work that encrypts it, or continues to.

    Raises:
        StoreKeyError: the store is encrypted and the keys are missing or wrong; or it has plain charts and keys are given.
        MissingRightsError: this login may not record that the store is encrypted.
    """
    kept = await _fitting(session, keyring, encrypts=encrypts)
    if keyring is None:
        return None
    if not kept:
        return await _begun(session, keyring)
    secret = _secret(session.tenant, keyring, kept)
    return Sealer(session.tenant, await _known(session, keyring, kept, secret), secret)


async def require_fitting(session: TenantSession, keyring: Keyring | None) -> bool:
    """Return whether the store is encrypted, and write nothing; raise StoreKeyError if `sealer_for` would."""
    kept = await _fitting(session, keyring)
    if kept and keyring is not None:
        _secret(session.tenant, keyring, kept)
    elif keyring is not None:
        with store_border("checking whether the store has charts"):
            async with session.transaction():
                await _require_no_charts(session)
    return bool(kept)


async def _fitting(session: TenantSession, keyring: Keyring | None, *, encrypts: bool = False) -> dict[str, bytes]:
    """Return the store's secrets, unless there are no keys for them, or some of its rows are plain yet."""
    with store_border("checking whether the store is encrypted"):
        async with session.transaction():
            kept = await kept_secrets(session)
            row = await (await session.conn.execute(_SQL["being_encrypted"])).fetchone() if kept else (False,)
    if kept and keyring is None:
        raise StoreKeyError(
            f"the store of tenant {session.tenant} is encrypted, and no keys are configured: set them in [encryption] keys. "
            f"It was encrypted with {_listed(kept)}."
        )
    if keyring is not None and (row is None or row[0]):
        _require_all(session, keyring, kept, encrypts=encrypts)
    return kept


def _require_all(session: TenantSession, keyring: Keyring, kept: Mapping[str, bytes], *, encrypts: bool) -> None:
    """Let only `encrypting` open a store with plain rows, and with all its keys: what none decrypts would count as plain."""
    if not encrypts:
        raise StoreKeyError(
            f"the store of tenant {session.tenant} is being encrypted, and still has plain rows: run `chartferry keys "
            "rotate-store` until it has finished. Nothing was read or written."
        )
    if missing := kept.keys() - keyring.keys.keys():
        raise StoreKeyError(
            f"the store of tenant {session.tenant} is being encrypted, and its encryption started with key "
            f"{_listed(missing)}: add that key to [encryption] keys."
        )


async def require_same(session: TenantSession) -> None:
    """Raise StoreKeyError if the store has become encrypted since it was opened, or encrypts more, or has other keys.

    Ask it in the transaction that begins a run: `shut_out` lets only one of the two be first.
    """
    kept = await kept_secrets(session)
    _require_keys(session, kept)
    if session.sealer is not None and session.sealer.current not in kept:
        raise StoreKeyError(
            f"the store of tenant {session.tenant} has been encrypted with another key meanwhile: it knows {_listed(kept)}, not "
            f"{session.sealer.current} any more. Name its key as `current` in [encryption], and run the command again. Nothing "
            "was written."
        )
    if session.sealer is not None and await _paths(session) - session.sealer.paths:
        raise StoreKeyError(
            f"another command has added encrypted paths to the store of tenant {session.tenant}: run this one again. "
            "Nothing was written."
        )


async def sealer_of_moment(session: TenantSession) -> Sealer | None:
    """Return the session's sealer with all paths that the store knows at the moment of the transaction; None: it is plain.

    Others may have added some since the store was opened: then a view must not compute with what they have encrypted.

    Raises:
        StoreKeyError: the store has become an encrypted one since it was opened.
    """
    if session.sealer is None:
        _require_keys(session, await kept_secrets(session))
        return None
    return session.sealer.knowing(await _paths(session))


def _require_keys(session: TenantSession, kept: Mapping[str, bytes]) -> None:
    if session.sealer is None and kept:
        raise StoreKeyError(
            f"the store of tenant {session.tenant} has been encrypted meanwhile: set the keys in [encryption] keys, and run "
            "the command again. Nothing was read or written."
        )


async def kept_secrets(session: TenantSession) -> dict[str, bytes]:
    """Return the store's secret, as each key that was ever current has encrypted it; none: the store is plain."""
    return {key: bytes(secret) async for key, secret in await session.conn.execute(_SQL["secrets"])}


def _secret(tenant: str, keyring: Keyring, kept: dict[str, bytes]) -> bytes:
    """Open the secret with every key that the store knows: one that is missing or wrong is an error, whatever the others are."""
    known = [name for name in keyring.keys if name in kept]
    if known and (missing := kept.keys() - keyring.keys.keys()):
        raise StoreKeyError(
            f"the store of tenant {tenant} has values that key {_listed(missing)} encrypted, and [encryption] keys has "
            f"{_listed(keyring.keys)}: add it. `chartferry keys rotate-store` ends the need for older keys. Nothing was read or "
            "written."
        )
    if not known:
        raise StoreKeyError(
            f"the store of tenant {tenant} is encrypted with other keys: it knows {_listed(kept)}, and [encryption] keys has "
            f"{_listed(keyring.keys)}. Add the key that it was written with."
        )
    found = b""
    for name in known:
        try:
            found = _of_key(tenant, keyring, name).unseal_whole(kept[name], _PLACE)
        except SealedValueError:
            raise StoreKeyError(
                f"key {name} is not the one that the store of tenant {tenant} was encrypted with: set the right one in "
                "[encryption] keys. Nothing was read or written."
            ) from None
    return found


async def _begun(session: TenantSession, keyring: Keyring) -> Sealer:
    """Make an empty store an encrypted one."""
    owner = replace(session, roles=OWN_RIGHTS)
    with store_border("encrypting the store"):
        async with owner.transaction():
            await _require_owner(owner)
            await owner.conn.execute(_SQL["shut_out"])
            kept = await kept_secrets(owner)  # another process may have been first
            if not kept:
                await _require_no_charts(owner)
                await keep_secret(owner, keyring)
                kept = await kept_secrets(owner)
    secret = _secret(session.tenant, keyring, kept)
    return Sealer(session.tenant, await _known(session, keyring, kept, secret), secret)


async def _require_no_charts(session: TenantSession) -> None:
    row = await (await session.conn.execute(_SQL["has_runs"])).fetchone()
    if row is None or row[0]:
        raise StoreKeyError(
            f"keys are configured, but the store of tenant {session.tenant} already has charts in plain text: `chartferry "
            "keys rotate-store` encrypts them; or remove [encryption]. Nothing was read or written."
        )


async def keep_secret(owner: TenantSession, keyring: Keyring) -> None:
    """Give the store a secret: from then on it is an encrypted one. In a transaction of the owner's."""
    await _keep(owner, keyring, secrets.token_bytes(KEY_BYTES))


async def _known(session: TenantSession, keyring: Keyring, kept: dict[str, bytes], secret: bytes) -> Keyring:
    """Note a new current key, and paths that are new; return the keyring with all paths that the store knows."""
    with store_border("reading what is encrypted in the store"):
        async with session.transaction():
            paths = await _paths(session)
    if keyring.current not in kept or not keyring.paths <= paths:
        owner = replace(session, roles=OWN_RIGHTS)
        with store_border("noting a new key or encrypted path"):
            async with owner.transaction():
                await _require_owner(owner)
                await owner.conn.execute(_SQL["shut_out"])
                paths = await _paths(owner)
                if keyring.current not in kept:
                    await _keep(owner, keyring, secret)
                await owner.conn.execute(_SQL["keep_paths"], {"paths": sorted(paths | keyring.paths)})
    return replace(keyring, paths=paths | keyring.paths)


async def _paths(session: TenantSession) -> frozenset[str]:
    return frozenset([path async for (path,) in await session.conn.execute(_SQL["paths"])])


async def _keep(owner: TenantSession, keyring: Keyring, secret: bytes) -> None:
    sealed = _of_key(owner.tenant, keyring, keyring.current).seal_whole(secret, _PLACE)
    await owner.conn.execute(_SQL["keep"], {"key": keyring.current, "secret": sealed})


async def _require_owner(session: TenantSession) -> None:
    row = await (await session.conn.execute(_SQL["may_keep"])).fetchone()
    if row is None or not row[0]:
        raise MissingRightsError(
            f"a new key or path in [encryption] must be noted, for the store of tenant {session.tenant}, by the role that owns "
            "its tables: run any command that opens the store as that role once, such as `chartferry runs`."
        )


def _of_key(tenant: str, keyring: Keyring, name: str) -> Sealer:
    return Sealer(tenant, Keyring(current=name, keys={name: keyring.keys[name]}), _NO_SECRET)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
