"""The TLS settings of one connection: what is trusted, what is offered, who we are.

TLS 1.2 with forward secrecy and authenticated ciphers, or TLS 1.3. `SSL_CERT_FILE` and its kin count only where Python itself
reads the system's store; a `ca_bundle` of the connection replaces every other trust.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

import certifi

from connectors.core.errors import PlanError
from connectors.fhir.transport.call import Endpoint

# TLS 1.2 suites of RFC 9325 section 4.2 that have forward secrecy and AEAD; TLS 1.3's own list is safe as it is
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

Distrust = Literal["certificate", "certificate-dates", "certificate-name"]
# OpenSSL, X509_STORE_CTX_get_error: NOT_YET_VALID, HAS_EXPIRED; HOSTNAME_MISMATCH, EMAIL_MISMATCH, IP_ADDRESS_MISMATCH
_DATES, _NAMES = frozenset({9, 10}), frozenset({62, 63, 64})

# OpenSSL's names for the alerts of RFC 8446 6.2 that are about the client's certificate
_OF_OUR_CERTIFICATE = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
)


def distrust_of(error: ssl.SSLCertVerificationError) -> Distrust:
    """Why a certificate was refused: its dates, the name that it is for, or else whoever signed it."""
    if error.verify_code in _DATES:
        return "certificate-dates"
    return "certificate-name" if error.verify_code in _NAMES else "certificate"


def refuses_us(error: BaseException | None) -> bool:
    """Whether a server told us by an alert that it wants a client certificate, or another one than ours."""
    return isinstance(error, ssl.SSLError) and error.reason in _OF_OUR_CERTIFICATE


def tls_context(connection: Endpoint) -> ssl.SSLContext:
    """The context to connect with; raises PlanError naming the setting whose file cannot be used. Asks for no passphrase."""
    context = _trusting(connection.ca_bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    if connection.client_cert is not None:
        _identify(context, connection.client_cert, connection.client_cert_key)
    return context


def _trusting(ca_bundle: Path | None) -> ssl.SSLContext:
    if ca_bundle is None:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())  # slim containers have no system store
        return context
    try:
        context = ssl.create_default_context(cafile=str(ca_bundle))
    except (OSError, ssl.SSLError) as error:
        raise PlanError(
            f"cannot set up TLS: ca_bundle = {ca_bundle} cannot be read as PEM certificates ({_why(error)}); a DER file becomes "
            "PEM with `openssl x509 -inform der -in CA.der -out CA.pem`"
        ) from error
    # an intermediate authority, or the server's own certificate, may stand there; Python 3.13 sets this by itself
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _identify(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    named = f"client_cert = {certificate}" + ("" if key is None else f", client_cert_key = {key}")
    prompts: list[str] = []

    def no_passphrase() -> str:  # without this function OpenSSL would ask for it on the terminal, and wait
        prompts.append("asked")
        return ""

    try:
        context.load_cert_chain(str(certificate), None if key is None else str(key), no_passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        if prompts:
            raise PlanError(
                f"cannot set up TLS: the key is encrypted with a passphrase ({named}); decrypt it with "
                "`openssl pkey -in KEY.pem -out DECRYPTED.pem`, readable by this user alone, and name that file"
            ) from error
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise PlanError(
                f"cannot set up TLS: the key does not belong to the certificate ({named}); name the key that the certificate was "
                "made for"
            ) from error
        raise PlanError(
            f"cannot set up TLS: {named} cannot be read ({_why(error)}); client_cert is a PEM certificate, and client_cert_key "
            "its PEM private key, unless the key is in the same file; a .p12 or .pfx file becomes both with "
            "`openssl pkcs12 -in CLIENT.p12 -nodes -out CLIENT.pem`"
        ) from error


def _why(error: Exception) -> str:
    """OpenSSL's name for it, or the system's words; never the file's content."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "OpenSSL finds no PEM of this kind in it"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
