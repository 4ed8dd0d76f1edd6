"""Turns reads out of the audit into lines: FHIR R4 AuditEvents as IHE BALP shapes them, or plain JSON for a log collector. Pure.

BALP (Basic Audit Log Patterns 1.1, "Privacy Disclosure at Source"): one AuditEvent per patient, type DICOM 110106
"Export", action R, subtype `disclose`, agents for the source, the recipient and who vouches for them, one entity for the
patient.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from exports.audit_port import PatientRead, ReadEvent

AUDIT_FORMATS = ("fhir", "json")
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_DELETES = frozenset({"prune", "erase"})
_SUBTYPES = {**dict.fromkeys(("export", "pull", "backup"), "disclose"), **dict.fromkeys(_DELETES, "destroy")}


def instant(moment: datetime) -> str:
    """Return a moment as FHIR writes it: UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_as_json(event: ReadEvent) -> dict[str, Any]:
    """Return a read as a JSON object, without its patients."""
    return {
        "event": event.id,
        "at": instant(event.at),
        "began": instant(event.began),
        "actor": event.actor,
        "account": event.account,
        "login": event.login,
        "roles": list(event.roles),
        "origin": event.origin,
        "reason": event.reason,
        "action": str(event.action),
        "connections": list(event.connections),
        "types": list(event.types),
        "runs": list(event.runs),
        "everyone": event.everyone,
        "erased": None if event.erased is None else dict(event.erased),
        "broke_glass": event.broke_glass,
    }


def audit_line(read: PatientRead, tenant: str, format_: str) -> bytes:
    """Return one line: of `AUDIT_FORMATS`, "fhir" or "json"."""
    if format_ == "fhir":
        return _line(audit_event(read, tenant))
    whose = {"tenant": tenant, "connection": read.connection, "patient": read.patient}
    return _line({**read_as_json(read.event), **whose})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def audit_event(read: PatientRead, tenant: str) -> dict[str, Any]:
    """Return the FHIR R4 AuditEvent of one patient of a read."""
    event = read.event
    by = "DELETE" if event.action in _DELETES else "READ"
    return {
        "resourceType": "AuditEvent",
        "type": _coding(_DICOM, "110106", "Export"),
        "subtype": [
            _coding(_LIFECYCLE, _SUBTYPES.get(event.action, "access")),
            {"system": "urn:chartferry:action", "code": str(event.action)},
        ],
        "action": "D" if by == "DELETE" else "R",
        "period": {"start": instant(event.began), "end": instant(event.at)},
        "recorded": instant(event.at),
        "outcome": "0",
        **_purposes(event),
        "agent": _agents(event),
        "source": {"observer": {"display": f"chartferry, tenant {tenant}"}, "type": [_SERVER]},
        "entity": [*_patient(read), _what(event)],
    }


def _purposes(event: ReadEvent) -> dict[str, Any]:
    broke = (
        [{"coding": [_coding(_REASON, "BTG", "break the glass")], "text": event.broke_glass}]
        if event.broke_glass
        else []
    )
    purposes = [{"text": event.reason}] if event.reason and event.reason != event.broke_glass else []
    return {"purposeOfEvent": broke + purposes} if broke + purposes else {}


_SERVER = {"system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4"}  # application server


def _agents(event: ReadEvent) -> list[dict[str, Any]]:
    """The store that gave, who got it, and the account that ran the command."""
    network = {"network": {"address": event.origin, "type": "1"}} if event.origin else {}  # 1: a machine's name
    store = {"type": {"coding": [_coding(_DICOM, "110153", "Source Role ID")]}, "who": {"display": event.login}}
    recipient = {
        "type": {"coding": [_coding(_DICOM, "110152", "Destination Role ID")]},
        **({"role": [{"text": role} for role in event.roles]} if event.roles else {}),
        "who": {"display": event.actor},
        "requestor": True,
    }
    account = {"type": {"coding": [_coding(_PARTICIPATION, "IRCP")]}, "who": {"display": event.account}}
    return [{**store, "requestor": False}, {**recipient, **network}, {**account, "requestor": False}]


def _patient(read: PatientRead) -> list[dict[str, Any]]:
    if read.patient is None:
        return []
    return [
        {
            "what": {"reference": f"Patient/{read.patient}", "display": f"of connection {read.connection}"},
            "type": _coding(_ENTITY, "1", "Person"),
            "role": _coding(_ROLE, "1", "Patient"),
        }
    ]


def _what(event: ReadEvent) -> dict[str, Any]:
    """What was read, as far as it is not the patient."""
    purposes = {
        "event": str(event.id),
        "connections": ",".join(event.connections),
        "types": ",".join(event.types),
        "runs": ",".join(map(str, event.runs)),
        "everyone": "true" if event.everyone else "",
        "erased": ",".join(f"{table} {count}" for table, count in (event.erased or {}).items()),
    }
    return {
        "type": _coding(_ENTITY, "2", "System Object"),
        "role": _coding(_ROLE, "4", "Domain Resource"),
        "detail": [{"type": name, "valueString": value} for name, value in purposes.items() if value],
    }


def _coding(system: str, code: str, display: str | None = None) -> dict[str, str]:
    return {"system": system, "code": code, **({"display": display} if display else {})}
