"""The TLS settings of one connection: what is trusted, what is offered, who we are.

TLS 1.2 with forward secrecy and authenticated ciphers, or TLS 1.3. `SSL_CERT_FILE` and its kin count only where Python itself
reads the system's store; a `ca_bundle` of the connection replaces every other trust.
"""

from __future__ import annotations

import ssl
from typing import Literal

import certifi

from connectors.core.errors import PlanError
from connectors.fhir.transport.call import Endpoint

# TLS 1.2 suites of RFC 9325 section 4.2 that have forward secrecy and AEAD; TLS 1.3's own list is safe as it is
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

Distrust = Literal["certificate", "certificate-dates", "certificate-name"]
# OpenSSL, X509_STORE_CTX_get_error: NOT_YET_VALID, HAS_EXPIRED; HOSTNAME_MISMATCH, EMAIL_MISMATCH, IP_ADDRESS_MISMATCH
_DATES, _NAMES = frozenset({9, 10}), frozenset({62, 63, 64})


def distrust_of(error: ssl.SSLCertVerificationError) -> Distrust:
    """Why a certificate was refused: its dates, the name that it is for, or else whoever signed it."""
    if error.verify_code in _DATES:
        return "certificate-dates"
    return "certificate-name" if error.verify_code in _NAMES else "certificate"


def tls_context(connection: Endpoint) -> ssl.SSLContext:
    """The context to connect with; raises PlanError naming the settings whose files cannot be used."""
    try:
        return _context(connection)
    except (OSError, ssl.SSLError) as error:
        named = ("ca_bundle", "client_cert", "client_cert_key")
        files = ", ".join(f"{key} = {path}" for key in named if (path := getattr(connection, key)) is not None)
        raise PlanError(f"cannot set up TLS: {error}; check that these are readable PEM files: {files}") from error


def _context(connection: Endpoint) -> ssl.SSLContext:
    if connection.ca_bundle is not None:
        context = ssl.create_default_context(cafile=str(connection.ca_bundle))
    else:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())  # slim containers have no system store
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    if connection.client_cert is not None:
        key = connection.client_cert_key
        context.load_cert_chain(str(connection.client_cert), None if key is None else str(key))
    return context
