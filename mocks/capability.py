"""What a mock declares: CapabilityStatement and smart-configuration. Declares exactly what search and bulk do."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mocks.answers import json_answer
from mocks.ehr import Ehr
from mocks.manners.manner import SmartFacts
from mocks.search import as_asked, negotiate

_PARAM_TYPES = {"patient": "reference", "category": "token", "code": "token", "_id": "token", "_lastUpdated": "date"}
_BULK = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"


async def smart_configuration(request: Request) -> Response:
    """Answer .well-known/smart-configuration: JSON whatever the Accept header says. An open server has none."""
    ehr: Ehr = request.app.state.ehr
    if ehr.config.open:
        return ehr.manner.unknown_path()
    facts = SmartFacts(ehr.origin, ehr.base_url, ehr.token_url, tuple(ehr.types))
    return json_answer(ehr.manner.smart(facts), media_type="application/json")


async def metadata(request: Request) -> Response:
    """Answer the CapabilityStatement."""
    ehr: Ehr = request.app.state.ehr
    negotiate(request, ehr)
    return as_asked(request, ehr, orjson.dumps(statement(ehr)), "CapabilityStatement")


def statement(ehr: Ehr) -> dict[str, Any]:
    """Write the CapabilityStatement of this server with these data."""
    version = _version(ehr)
    rest: dict[str, Any] = {
        "mode": "server",
        "resource": [_resource(ehr, kind) for kind in sorted({*ehr.types, *_group(ehr)})],
    }
    if not ehr.config.open:
        rest["security"] = {
            "extension": [
                {
                    "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
                    "extension": [{"url": "token", "valueUri": ehr.token_url}],
                }
            ],
            "service": [{"coding": [{"code": "SMART-on-FHIR"}]}],
        }
    if "system" in ehr.bulk_levels:
        rest["operation"] = [{"name": "export", "definition": f"{_BULK}export{version}"}]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-01-01",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        **ehr.manner.capability,
        "rest": [rest],
    }


def _version(ehr: Ehr) -> str:
    return "" if ehr.config.bulk_version is None else f"|{ehr.config.bulk_version}.0.0"


def _group(ehr: Ehr) -> set[str]:
    return {"Group"} if "group" in ehr.bulk_levels else set()


def _resource(ehr: Ehr, kind: str) -> dict[str, Any]:
    version = _version(ehr)
    interactions = ["read"] if kind != "Group" or ehr.manner.group_read else []
    params: list[str] = []
    if ehr.searches and kind in ehr.types:
        interactions.append("search-type")
        params = _params(ehr, kind)
    declared: dict[str, Any] = {"type": kind, "interaction": [{"code": code} for code in interactions]}
    if params:
        declared["searchParam"] = [{"name": name, "type": _PARAM_TYPES.get(name, "string")} for name in params]
    operation = ehr.manner.export_operation
    if kind == "Group" and "group" in ehr.bulk_levels:
        declared["operation"] = [{"name": operation, "definition": f"{_BULK}group-export{version}"}]
    if kind == "Patient" and "patient" in ehr.bulk_levels:
        name = "patient-export" if operation == "group-export" else operation
        declared["operation"] = [{"name": name, "definition": f"{_BULK}patient-export{version}"}]
    return declared


def _params(ehr: Ehr, kind: str) -> list[str]:
    params = ["_id"]
    if kind == "Patient":
        params += ["identifier", "name", "family", "given", "birthdate"]
    if kind in ehr.dataset.patient_types:
        sample = ehr.dataset.of_type(kind)[:50]
        params += ["patient", *(name for name in ("category", "code") if any(name in row.body for row in sample))]
    honoured = ehr.manner.last_updated
    if ehr.manner.declares_last_updated and (honoured is None or kind in honoured):
        params.append("_lastUpdated")
    return params
