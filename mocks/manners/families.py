"""Plain R4 servers of well-known families, as MockConfig.family names them: what differs from the generic manner.

They are not EHRs of a vendor, but many a "generic FHIR server" is one of them. Search and bulk follow the fields here.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from types import MappingProxyType

from mocks.answers import Refused
from mocks.manners.generic import GENERIC
from mocks.manners.manner import Links, Manner, PageAt, SearchQuery, fhir_refusal
from mocks.request_log import Layout

_TOKEN_PADDING = 3_600  # bytes before base64: links of more than 4 kB (Azure fhir-server #1567, #2250; vendor-facts 7)


def _continuation(start: int) -> str:
    """Return a continuation token: opaque, long, and with characters that a careless client encodes again."""
    raw = json.dumps({"start": start, "pad": "x" * _TOKEN_PADDING}).encode()
    return base64.b64encode(raw).decode().replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def _start_by_token(query: SearchQuery, size: int) -> int:
    token = query.one("ct")
    if token is None:
        return 0
    try:
        return int(json.loads(base64.b64decode(token, validate=True))["start"])
    except (ValueError, KeyError, binascii.Error) as exc:
        text = "The provided continuation token is not valid."
        raise Refused(fhir_refusal(400, "invalid", text), "bad continuation token") from exc


def _links_by_token(page: PageAt) -> Links:
    bare = page.self_url("ct")
    links = [("self", page.self_url())]
    if page.more:
        joint = "&" if "?" in bare else "?"
        links.insert(0, ("next", f"{bare}{joint}ct={_continuation(page.start + page.size)}"))
    return links


# pages of the server, not of a type: {base}?_getpages=…; 410 when they are gone; an export's files are Binary resources,
# which a client gets raw only if it asks for NDJSON; a finished job cannot be deleted (HAPI 404: SF, vendor-facts 6.5)
HAPI = dataclasses.replace(
    GENERIC,
    layout=Layout(
        base="/fhir",
        token="/oauth2/token",  # noqa: S106 (a path)
        status="/fhir/$export-poll-status?_jobId={job}",
        file="/fhir/Binary/{file}",
    ),
    paging="server",
    total="none",  # stated only when it is cheap
    deletes_finished=False,
    wraps_files=True,
    progress=lambda polled, polls, patients: (
        "Build in progress - Status set to IN_PROGRESS at 2026-01-01T00:00:00.000+00:00"
    ),
    capability={
        "software": {"name": "HAPI FHIR Server", "version": "8.0.0"},
        "format": ["application/fhir+xml", "xml", "application/fhir+json", "json"],
    },
)

# no path below the host; continuation tokens; an export's files are in another host's store, and need no token
AZURE = dataclasses.replace(
    GENERIC,
    layout=Layout(
        base="",
        token="/oauth2/token",  # noqa: S106 (a path)
        status="/_operations/export/{job}",
        file="/no-files/{file}",
    ),
    total="none",
    start_of=_start_by_token,
    links=_links_by_token,
    files_in_store=True,
    bulk_counts=True,
    retry_after=False,
    capability={"publisher": "Microsoft", "software": {"name": "Azure Healthcare APIs"}, "format": ["json"]},
)

# no search at all; the base contains the server's settings; it exports patients and groups, and its metadata list them
BULK_DATA_SERVER = dataclasses.replace(
    GENERIC,
    layout=Layout(
        base="/eyJlcnIiOiIiLCJwYWdlIjoxMDAwLCJkdXIiOjAsInRsdCI6MTUsIm0iOjEsInN0dSI6NH0/fhir",
        token="/auth/token",  # noqa: S106 (a path)
        status="/eyJlcnIiOiIiLCJwYWdlIjoxMDAwLCJkdXIiOjAsInRsdCI6MTUsIm0iOjEsInN0dSI6NH0/fhir/bulkstatus/{job}",
        file="/eyJpZCI6IjEyMyJ9/fhir/bulkfiles/{file}.ndjson",
    ),
    searches=False,
    group_id="BMCHealthNet",
    bulk_levels=("system", "patient", "group"),
    capability={
        "name": "SMART Sample Bulk Data Server",
        "publisher": "Not provided",
        "software": {"name": "SMART Sample Bulk Data Server", "version": "2.1.1"},
        "instantiates": ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"],
        "format": ["json"],
    },
)

FAMILIES: Mapping[str, Manner] = MappingProxyType(
    {"plain": GENERIC, "hapi": HAPI, "azure": AZURE, "bulk-data-server": BULK_DATA_SERVER}
)
