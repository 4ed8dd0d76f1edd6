"""The audit as lines: AuditEvents that R4 accepts, one patient each, and flat JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from exports.formats.audit_lines import audit_line
from snapshots.audit_event import Action, PatientRead, ReadEvent

MOMENT = datetime(2026, 1, 31, 12, 30, 15, 123456, tzinfo=UTC)
EVENT = ReadEvent(
    id=7, began=MOMENT, at=MOMENT, login="chartferry", actor="ana", account="svc", roles=("research",), origin="ward-7",
    reason="ticket 4711", action=Action.EXPORT, connections=("mercy",), types=("Observation", "Patient"), runs=(41,),
    everyone=False,
)  # fmt: skip
READ = PatientRead(EVENT, "mercy", "p1")


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("bare", [True, False])
def test_every_read_becomes_an_audit_event_that_r4_accepts(action: Action, bare: bool) -> None:
    event = EVENT._replace(action=action)
    if bare:
        event = event._replace(roles=(), origin="", reason=None, connections=(), types=(), runs=())
    line = audit_line(PatientRead(event, None, None) if bare else READ._replace(event=event), "mercy", "fhir")
    AuditEvent.model_validate_json(line)


def test_an_audit_event_names_who_got_whose_data_and_who_vouches_for_them() -> None:
    line = json.loads(audit_line(READ, "north", "fhir"))
    assert (line["action"], line["recorded"]) == ("R", "2026-01-31T12:30:15.123456Z")
    assert [agent["who"]["display"] for agent in line["agent"]] == ["chartferry", "ana", "svc"]
    assert [agent["requestor"] for agent in line["agent"]] == [False, True, False]
    assert line["purposeOfEvent"] == [{"text": "ticket 4711"}]
    patients = [one for one in line["entity"] if one["role"]["code"] == "1"]
    assert [one["what"]["reference"] for one in patients] == ["Patient/p1"]


def test_a_json_line_is_flat_and_has_everything() -> None:
    line = json.loads(audit_line(READ, "north", "json"))
    assert line == {
        "event": 7, "at": "2026-01-31T12:30:15.123456Z", "began": "2026-01-31T12:30:15.123456Z", "actor": "ana", "account": "svc",
        "login": "chartferry", "roles": ["research"], "origin": "ward-7", "reason": "ticket 4711", "action": "export",
        "connections": ["mercy"], "types": ["Observation", "Patient"], "runs": [41], "everyone": False, "erased": None,
        "broke_glass": None, "tenant": "north", "connection": "mercy", "patient": "p1",
    }  # fmt: skip


@pytest.mark.parametrize(("reason", "texts"), [("ward 3", ["ward 3"]), ("ticket 4711", ["ward 3", "ticket 4711"])])
def test_lifting_a_mask_is_recorded_with_the_purpose_break_the_glass(reason: str, texts: list[str]) -> None:
    line = audit_line(READ._replace(event=EVENT._replace(broke_glass="ward 3", reason=reason)), "north", "fhir")
    AuditEvent.model_validate_json(line)
    purposes = json.loads(line)["purposeOfEvent"]
    assert ([one["text"] for one in purposes], purposes[0]["coding"][0]["code"]) == (texts, "BTG")
