"""Finds out where to log in: smart-configuration or, if that fails, the CapabilityStatement (vendor-facts 5.1).

Tolerant by experience: servers' lists are misspelt, empty or wrong (Epic names no system scopes, Veradigm no private_key_jwt), so
they only lead to notes and never prevent a login. A profile's `login.token_url` wins over everything found. `token_source` logs
in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.fhir.errors import DiscoveryError, RequestError, TransientFetchError, UnsafeLinkError
from connectors.fhir.json_answers import UnreadableJsonError, json_from, objects_in
from connectors.fhir.transport.call import Call
from connectors.fhir.transport.client import EhrClient
from connectors.fhir.transport.fhir_base import FhirBase

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_OK = 200


@dataclass(frozen=True)
class Discovery:
    """What the server says about logging in. `token_url` None: no login is configured. Lists as sent, possibly empty or wrong."""

    token_url: str | None
    capabilities: frozenset[str] = frozenset()
    auth_methods: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


async def discover(client: EhrClient) -> Discovery:
    """Ask the server where to log in (SMART App Launch, "Using well-known"; FHIR's oauth-uris extension where that fails).

    Raises:
        DiscoveryError: no answer says where to log in, or the address is not safe; the message names the setting to use.
        TransientFetchError: the server is down.
    """
    profile = client.profile
    smart, smart_error, smart_answer = await _document(client, "/.well-known/smart-configuration", "application/json")
    stated = profile.login.token_url or _text(smart.get("token_endpoint"))
    metadata_error: RequestError | None = None
    metadata_answer = ""
    if stated is None:
        metadata, metadata_error, metadata_answer = await _document(client, "/metadata", profile.http.accept)
        stated = _oauth_token_uri(metadata)
    if stated is None:
        down = next((error for error in (metadata_error, smart_error) if isinstance(error, TransientFetchError)), None)
        if down is not None and down.status is None:
            raise down
        if down is not None:
            raise TransientFetchError(
                f"where to log in is not known: .well-known/smart-configuration {smart_answer}, /metadata {metadata_answer}; set "
                f"profile.login.token_url to log in without them, or run again later. {down}",
                status=down.status,
                codes=down.codes,
            )
        answers = f"the first {smart_answer}, the second {metadata_answer}"
        if smart_answer == metadata_answer:
            answers = f"both {smart_answer}"
        raise DiscoveryError(
            f"neither .well-known/smart-configuration nor metadata says where to log in: {answers}; check base_url, or set "
            'profile.login.token_url, or auth = "none" if this server is open'
        )
    return Discovery(
        token_url=_token_url(stated, client.base),
        capabilities=frozenset(_texts(smart.get("capabilities"))),
        auth_methods=_texts(
            smart.get("token_endpoint_auth_methods_supported")
            or smart.get("token_endpoint_auth_methods")  # so misspelt by Veradigm (vendor-facts 3.1)
        ),
        raw=smart,
    )


async def _document(client: EhrClient, path: str, accept: str) -> tuple[dict[str, Any], RequestError | None, str]:
    """The document, or the error that came instead, and in words what the server did."""
    call = Call("GET", client.base.url + path, f"GET {path}", "discovery", accept, auth=False)
    try:
        body = (await client.send(call)).body
    except RequestError as error:
        unreadable = ", but no JSON" if error.status == _OK else ""
        answer = "gave no answer" if error.status is None else f"answered {error.status}{unreadable}"
        return {}, error, answer
    try:
        document = json_from(body)
    except UnreadableJsonError:
        document = None
    if not isinstance(document, dict):
        return {}, None, "answered 200, but without a JSON object"
    return document, None, "answered 200, without a token endpoint"


def _token_url(stated: str, base: FhirBase) -> str:
    try:
        return base.safe(stated)
    except UnsafeLinkError as error:
        raise DiscoveryError(
            f"the discovered token endpoint is not safe to use: {error}; set profile.login.token_url"
        ) from error


def _oauth_token_uri(metadata: Mapping[str, Any]) -> str | None:
    for rest in objects_in(metadata.get("rest")):
        security = rest.get("security")
        for extension in objects_in(security.get("extension")) if isinstance(security, dict) else ():
            if extension.get("url") == _OAUTH_URIS:
                for part in objects_in(extension.get("extension")):
                    if part.get("url") == "token":
                        return _text(part.get("valueUri"))
    return None


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
