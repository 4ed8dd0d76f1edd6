"""Which network addresses a server's links may lead to: public ones, and the hosts that the configuration itself names.

Links come from outside; a hostile or broken one must not make this machine ask its own loopback, its cloud's metadata service
or its neighbours. Names are judged by the addresses that the connection is then made to, at the moment of connecting, so that a
name that changes its address between look and use (DNS rebinding) gains nothing. Through a proxy the proxy resolves names:
only addresses written out and names of this machine can be refused there. `links` and `sender` decide which origins see
the token.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from connectors.fhir.errors import UnsafeLinkError

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291 2.5.5.1, deprecated; holds :: and ::1 too
_V4 = (1 << 32) - 1
_THIS_MACHINE = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is public on the Internet; IPv4 within IPv6 (mapped, NAT64, 6to4, Teredo) is judged as IPv4."""
    if isinstance(address, IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.scope_id is not None or address in _COMPATIBLE:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & _V4)
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None


def written_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host name spells out, also as inet_aton reads it (2130706433, 0x7f.1, 0177.0.0.1); None for a name."""
    bare = host.strip("[]").rstrip(".")
    try:
        return ip_address(bare)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(bare)) if bare and bare.isascii() and " " not in bare else None
    except OSError:
        return None


class AddressGuard:
    """Allows the hosts that the configuration names (`trusted`: URLs, origins or bare hosts), and otherwise public addresses."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted = frozenset(map(_host_of, trusted)) - {""}

    def trusts(self, host: str) -> bool:
        """Whether the configuration names this host."""
        return host.lower().strip("[]").rstrip(".") in self._trusted

    def check_host(self, host: str) -> None:
        """Raise UnsafeLinkError for a host that spells out an address that is not public, or names this machine."""
        if self.trusts(host):
            return
        address, name = written_address(host), host.lower().rstrip(".")
        if name in _THIS_MACHINE or name.endswith(".localhost") or (address is not None and not is_public(address)):
            raise UnsafeLinkError(_REFUSED)

    def keep_public(self, host: str, addresses: Iterable[ResolveResult]) -> list[ResolveResult]:
        """Of the addresses that a name has, those that may be connected to; raises UnsafeLinkError when none may."""
        found = list(addresses)
        if self.trusts(host):
            return found
        kept = [each for each in found if is_public(ip_address(each["host"]))]
        if found and not kept:
            raise UnsafeLinkError(_REFUSED)
        return kept


_REFUSED = (
    "the link leads to an address that is not public (loopback, private, link-local or similar); it was not followed. If that "
    "host belongs to this EHR, put its name into profile.links.private_hosts"
)


def _host_of(text: str) -> str:
    try:
        host = urlsplit(text if "//" in text else f"//{text}").hostname
    except ValueError:
        host = None
    return (host or "").rstrip(".")


class GuardedResolver(AbstractResolver):
    """The system's name resolution, without the forbidden addresses."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name that may be connected to; raises UnsafeLinkError, or OSError as the system does."""
        try:
            found = await self._system.resolve(host, port, family)
        except UnicodeError:  # a label too long or empty: no name at all
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
        return self._guard.keep_public(host, found)

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
        await self._system.close()
