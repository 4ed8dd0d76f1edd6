"""The content of a bulk export: selects the resources by the kick-off's parameters, and splits them into the job's files."""

from __future__ import annotations

import itertools
import re
import secrets
import uuid
from collections.abc import Sequence
from urllib.parse import unquote

import orjson

from mocks.answers import Refused, issue, outcome
from mocks.dataset import Row, instant, row_of
from mocks.ehr import BulkFile, Ehr, Grant, Job
from mocks.manners.manner import Kickoff, fhir_refusal, read_query
from mocks.matching import matches, updated_fits
from mocks.oauth import may

_STU4 = 4
_OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"


def begin(ehr: Ehr, wanted: Kickoff, group: Row | None, grant: Grant | None, url: str) -> Job:
    """Make the job of a kick-off, with its files as of now."""
    patients = ehr.members(group) if group is not None else ehr.dataset.patient_ids
    named = [value.rpartition("/")[2] for value in wanted.params.get("patient", ())]
    if named:
        if not set(named) <= set(patients):
            raise Refused(fhir_refusal(400, "not-found", "A patient is unknown or not a member"), "unknown patient")
        patients = [patient for patient in patients if patient in set(named)]
    job_id = secrets.token_hex(16).upper() if ehr.manner.kickoff_window else str(uuid.uuid4())
    client = grant.client_id if grant else None
    now = ehr.now()
    job = Job(job_id, client, group.id if group else None, url, ehr.instant(), now, len(patients), [])
    scope_key = (wanted.level, tuple(patients) if named or group is not None else None)
    question = (ehr.dataset.version, hash(scope_key), hash(str(sorted(wanted.params.items()))))
    found = [(kind, _rows(ehr, kind, wanted, patients)) for kind in _export_types(ehr, wanted, grant)]
    organized_by = wanted.params.get("organizeOutputBy", (None,))[0]
    if organized_by is not None:
        job.organized_by = organized_by
        found = [("", _blocks(organized_by, [row for _, rows in found for row in rows]))]
    for kind, rows in found:
        step = ehr.config.rows_per_file
        for start in range(0, len(rows), step):
            job.files.append(
                BulkFile(secrets.token_hex(12), kind, rows[start : start + step], (*question, kind, start))
            )
    if organized_by is not None:
        _continue(job.files, organized_by)
    job.partial = ehr.config.partial_manifests and wanted.params.get("allowPartialManifests") == ("true",)
    if ehr.config.deleted_file and "_since" in wanted.params and ehr.dataset.deleted:
        job.deleted.append(BulkFile(secrets.token_hex(12), "Bundle", _tombstones(ehr), ("deleted", job_id)))
    if ehr.config.error_file:
        job.errors.append(BulkFile(secrets.token_hex(12), "OperationOutcome", [_error_row()], ("error", job_id)))
    ehr.jobs[job_id] = job
    ehr.files.update({one.id: (job, one) for one in (*job.files, *job.errors, *job.deleted)})
    ehr.kickoffs[client, job.group or ""] = now
    return job


def _error_row() -> Row:
    body = outcome(
        issue("warning", "suppressed", "59205: sub-resources were suppressed: the user is not authorized"), id="error-1"
    )
    return row_of(orjson.dumps(body))


def _export_types(ehr: Ehr, wanted: Kickoff, grant: Grant | None) -> list[str]:
    compartment = ehr.dataset.patient_types | {"Patient"}
    everything = (
        set(ehr.types)
        if wanted.level == "system" or ehr.manner.bulk_beyond_compartment
        else compartment & set(ehr.types)
    )
    offered = everything if ehr.manner.bulk_types is None else everything & ehr.manner.bulk_types
    if wanted.types is None:
        offered -= ehr.manner.bulk_only_if_named
    else:
        known = set(ehr.types) | (ehr.manner.bulk_types or frozenset())
        if not set(wanted.types) <= known and not wanted.lenient and not ehr.manner.drops_unknown_types:
            raise Refused(fhir_refusal(400, "invalid", "_type contains an unsupported resource type"), "unknown _type")
        offered = offered & set(wanted.types)
    allowed = {kind for kind in offered if may(ehr, grant, kind, "r")}
    if wanted.types is not None and allowed != offered:
        raise Refused(ehr.manner.forbidden(ehr.manner.scope_refusal_text), "scope")
    return sorted(allowed)


def _rows(ehr: Ehr, kind: str, wanted: Kickoff, patients: Sequence[str]) -> list[Row]:
    # Group: only those in the data; a group that the mock invents for the export is not data
    if kind == "Group" or wanted.level == "system" or kind not in ehr.dataset.patient_types | {"Patient"}:
        rows = ehr.dataset.of_type(kind)
    elif len(patients) == len(ehr.dataset.patient_ids):
        rows = [row for row in ehr.dataset.of_type(kind) if row.patient is not None]
    else:
        rows = [row for patient in patients for row in ehr.dataset.of_patient(kind, patient)]
    if ehr.config.unlisted:
        rows = [row for row in rows if f"{row.type}/{row.id}" not in ehr.config.unlisted]
    for value in wanted.params.get("_since", ()):
        moment = instant(value)
        if moment is None:
            raise Refused(fhir_refusal(400, "invalid", "_since is not an instant"), "bad _since")
        rows = [row for row in rows if updated_fits(row, f"gt{moment.isoformat()}")]
    for value in wanted.params.get("_until", ()):
        moment = instant(value)
        if moment is None:
            raise Refused(fhir_refusal(400, "invalid", "_until is not an instant"), "bad _until")
        rows = [row for row in rows if updated_fits(row, f"lt{moment.isoformat()}")]
    filters = [one for value in wanted.params.get("_typeFilter", ()) for one in _split(ehr, value)]
    queries = [read_query(unquote(one.partition("?")[2])) for one in filters if one.partition("?")[0] == kind]
    rows = [row for row in rows if not queries or any(matches(row, query, None) for query in queries)]
    elements = [one for value in wanted.params.get("_elements", ()) for one in value.split(",")]
    return [_subset(row, elements) for row in rows] if elements else rows


def _split(ehr: Ehr, value: str) -> list[str]:
    """Split a list of filters at its commas, except those after a backslash; not in STU4, which has no lists."""
    if ehr.config.bulk_version == _STU4:
        return [value]
    return [one.replace("\\,", ",") for one in re.split(r"(?<!\\),", value)]


def _subset(row: Row, elements: Sequence[str]) -> Row:
    wanted = {one.rpartition(".")[2] for one in elements if "." not in one or one.startswith(f"{row.type}.")}
    meta = {**row.body.get("meta", {}), "tag": [{"system": _OBSERVATION_VALUE, "code": "SUBSETTED"}]}
    kept = {name: value for name, value in row.body.items() if name in wanted | {"resourceType", "id"}}
    return row_of(orjson.dumps({**kept, "meta": meta}))


def _header(kind: str, identity: str) -> Row:
    parameter = {"name": "header", "valueReference": {"reference": f"{kind}/{identity}"}}
    return Row("Parameters", "", None, orjson.dumps({"resourceType": "Parameters", "parameter": [parameter]}), None)


def _blocks(kind: str, rows: Sequence[Row]) -> list[Row]:
    """Group rows into blocks, one per patient, each after its header (Bulk Data IG, organizeOutputBy)."""
    if kind != "Patient":
        raise Refused(fhir_refusal(400, "not-supported", "organizeOutputBy takes Patient only"), "organizeOutputBy")
    blocks: dict[str, list[Row]] = {}
    for row in rows:
        if row.patient is not None:
            blocks.setdefault(row.patient, []).append(row)
    return [line for patient, block in blocks.items() for line in (_header(kind, patient), *block)]


def _continue(files: Sequence[BulkFile], kind: str) -> None:
    """Link files that split a block: the second repeats the header, and the first names the second."""
    for before, after in itertools.pairwise(files):
        first = after.rows[0]
        if first.type != "Parameters" and first.patient is not None:
            after.rows.insert(0, _header(kind, first.patient))
            before.next_id = after.id


def _tombstones(ehr: Ehr) -> list[Row]:
    entries = [{"request": {"method": "DELETE", "url": f"{kind}/{id_}"}} for kind, id_ in sorted(ehr.dataset.deleted)]
    bundle = {"resourceType": "Bundle", "id": "deletions", "type": "transaction", "entry": entries}
    return [row_of(orjson.dumps(bundle))]
