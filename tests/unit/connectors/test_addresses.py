"""Which addresses links may lead to, in every way of writing them."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.fhir.errors import UnsafeLinkError
from connectors.fhir.transport.addresses import AddressGuard, is_public, written_address

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:53aa:64c:0:0:f5ff:fffe",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "100::1",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
OTHER_WRITINGS = [
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "017700000001",
    "[::1]",
    "[::ffff:7f00:1]",
    "127.0.0.1.",
    "0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "ehr.localhost",
    "ip6-localhost",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_non_public_addresses_are_refused(address):
    assert not is_public(ip_address(address))
    with pytest.raises(UnsafeLinkError, match=r"not public .* profile\.links\.private_hosts"):
        AddressGuard(["https://ehr.example/fhir"]).check_host(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    assert is_public(ip_address(address))
    AddressGuard([]).check_host(address)


@pytest.mark.parametrize("host", OTHER_WRITINGS)
def test_every_spelling_of_the_local_machine_is_recognised(host):
    with pytest.raises(UnsafeLinkError):
        AddressGuard(["https://ehr.example/fhir"]).check_host(host)


@pytest.mark.parametrize(
    "host", ["ehr.example", "bucket.s3.amazonaws.com", "1.example", "localhost.example", "0x7f.example"]
)
def test_host_names_are_checked_when_connecting(host):
    AddressGuard([]).check_host(host)
    assert written_address(host) is None


@given(st.integers(0, 2**32 - 1))
def test_no_way_of_writing_an_ipv4_address_changes_the_verdict(number):
    address = IPv4Address(number)
    a, rest = number >> 24, number & 0xFFFFFF
    for text in (
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{rest}",
        f"0x{a:x}.{rest}",
        f"{address}.",
    ):
        assert written_address(text) == address
    mapped = ip_address(f"::ffff:{address}")
    assert is_public(mapped) == is_public(address) == is_public(ip_address((0x64FF9B << 96) + number))


@pytest.mark.parametrize(
    ("trusted", "host"),
    [
        ("http://127.0.0.1:8080/fhir", "127.0.0.1"),
        ("http://[::1]:8080/fhir", "::1"),
        ("https://EHR.hospital.lan/fhir", "ehr.hospital.lan"),
        ("files.hospital.lan", "files.hospital.lan."),
        ("10.0.0.7:8443", "10.0.0.7"),
    ],
)
def test_configured_hosts_are_allowed_at_any_address(trusted, host):
    guard = AddressGuard([trusted])
    guard.check_host(host)
    assert guard.keep_public(host, [{"host": "10.0.0.1"}])
    with pytest.raises(UnsafeLinkError):
        guard.check_host("127.0.0.2")


def test_only_the_public_addresses_of_a_name_are_connected_to():
    guard = AddressGuard([])
    found = [{"host": "127.0.0.1"}, {"host": "8.8.8.8"}, {"host": "fe80::1"}]
    assert guard.keep_public("rebound.example", found) == [{"host": "8.8.8.8"}]
    with pytest.raises(UnsafeLinkError):
        guard.keep_public("rebound.example", [{"host": "169.254.169.254"}])
    assert guard.keep_public("nowhere.example", []) == []
