"""What to request from an export, and the forms in which servers of four versions want the request. Pure.

`bulk.start` sends it (Bulk Data IG, "Request") and handles a final refusal. What the files will prove follows from the request,
so it is written down here and kept with the job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal
from urllib.parse import quote

import orjson

from connectors.core.errors import PlanError
from connectors.fhir.capability import Capability
from connectors.fhir.profile import BulkLevel, VendorProfile
from connectors.fhir.ways import export_way, mark
from snapshots.export_job import BulkJob
from snapshots.witness import Way

PATHS: Mapping[BulkLevel, str] = {
    "system": "$export",
    "patient": "Patient/$export",
    "patient-list": "Patient/$export",
    "group": "Group/{group}/$export",
}
_STU3, _STU4 = 3, 4
_WRONG_METHOD = frozenset({405, 415})
_WRONG_REQUEST = frozenset({400, 422})
_ASYNC = "http://hl7.org/fhir/uv/bulkdata/CodeSystem/include-associated-data"

# parameters that may be left out if a server refuses them: the export then brings more, or another form, never less than
# requested (never `_type`, `patient` and includeAssociatedData: without them the export would not be the requested one)
DISPENSABLE: Mapping[str, tuple[str, Any]] = {
    "organizeOutputBy": ("organize_by", None),
    "allowPartialManifests": ("partial", False),
    "_elements": ("elements", ()),
    "_until": ("until", None),
    "_typeFilter": ("type_filters", ()),
    "_since": ("since", None),
}
_NAMES = (*DISPENSABLE, "_type", "patient", "includeAssociatedData", "_outputFormat")
_NAMED = {name: re.compile(rf"(?<![\w-]){re.escape(name)}(?!\w)", re.IGNORECASE) for name in _NAMES}


@dataclass(frozen=True, kw_only=True)
class ExportParameters:
    """What one export requests, whatever the form."""

    level: BulkLevel
    group: str | None = None
    patients: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    type_filters: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    organize_by: str | None = None
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form of a kick-off. `declared` is False for a form that was only tried after a refusal."""

    method: Literal["GET", "POST"] = "GET"
    repeated: bool = False
    comma: Literal["percent", "backslash"] = "percent"
    version: int = 2
    lenient: bool = False
    separate_status: bool = False
    declared: bool = True


@dataclass(frozen=True, kw_only=True)
class KickOff:
    """One kick-off request. Messages and reports show `template` instead of `url`."""

    method: str
    url: str
    template: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class KickOffRefusal:
    """A refusal: no job was started. `named` are the parameters that its text names."""

    status: int
    codes: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    too_soon: bool = False
    retry_after_s: float | None = None


def first_form(profile: VendorProfile, capability: Capability, parameters: ExportParameters) -> Form:
    """Return the profile's form, else the one of the guide's version that the server declares, else STU2's."""
    stu4 = capability.bulk_version is not None and capability.bulk_version >= _STU4
    method: Literal["GET", "POST"] = "POST" if parameters.patients or stu4 else "GET"
    return Form(
        method=method if profile.kickoff.method == "auto" or parameters.patients else profile.kickoff.method,
        repeated=stu4 if profile.kickoff.lists == "auto" else profile.kickoff.lists == "repeat",
        comma=profile.kickoff.type_filter_comma,
        version=capability.bulk_version or 2,
        lenient=profile.bulk.lenient,
        separate_status=profile.bulk.separate_status,
    )


def wants_partial(profile: VendorProfile, capability: Capability) -> bool:
    """Whether to request manifests before the export is done."""
    if profile.bulk.partial == "auto":
        return capability.bulk_version is not None and capability.bulk_version >= _STU3
    return profile.bulk.partial == "yes"


def with_company(types: tuple[str, ...], profile: VendorProfile) -> tuple[str, ...]:
    """Return the `_type` list, with a second type if the vendor refuses these types alone."""
    if not types or profile.bulk.companion is None or not set(types) <= set(profile.bulk.not_alone):
        return types
    return (*types, profile.bulk.companion)


def check(parameters: ExportParameters, profile: VendorProfile) -> None:
    """Refuse a request that would silently export less than intended.

    Raises:
        PlanError: filters of types that are not requested; more patients than one kick-off may name.
    """
    filtered = {one.partition("?")[0] for one in parameters.type_filters}
    if stray := sorted(filtered - set(parameters.types)):
        named = ", ".join(stray)
        raise PlanError(
            f"`bulk.type_filters` filter {named}, but the export does not name {'them' if len(stray) > 1 else 'it'}: "
            f"a filter needs its type in `types` or --types. Add {named} there."
        )
    if len(parameters.patients) > profile.bulk.patients_max:
        raise PlanError(
            f"{len(parameters.patients)} patients are too many to name in one kick-off (profile.bulk.patients_max = "
            f"{profile.bulk.patients_max}): make a Group of them at the EHR and set `group`, or use --mode crawl."
        )


def kick_off(base_url: str, parameters: ExportParameters, form: Form) -> KickOff:
    """The request in this form. Its template contains nothing of a patient, group or filter."""
    path = PATHS[parameters.level].format(group=quote(parameters.group or "", safe=""))
    shown = f"{form.method} /{PATHS[parameters.level]}"
    if parameters.since is not None:
        shown += f"?_since={parameters.since}"
    prefer = ["respond-async"]
    prefer += ["handling=lenient"] if form.lenient else []
    prefer += ["separate-export-status"] if form.separate_status else []
    headers = {"Prefer": ", ".join(prefer)}
    if form.method == "GET":
        query = _query(parameters, form)
        return KickOff(
            method="GET", url=f"{base_url}/{path}{f'?{query}' if query else ''}", template=shown, headers=headers
        )
    body = orjson.dumps({"resourceType": "Parameters", "parameter": list(_parameters(parameters, form))})
    headers["Content-Type"] = "application/fhir+json"
    return KickOff(method="POST", url=f"{base_url}/{path}", template=shown, headers=headers, body=body)


def _lists(parameters: ExportParameters, form: Form) -> list[tuple[str, list[str]]]:
    """Return the parameters that take lists, each with the values to send: one joined value, or all of them."""
    filters = [_filter(one, form) for one in parameters.type_filters]
    listed = (
        ("_type", list(parameters.types)),
        ("_typeFilter", filters),
        ("_elements", list(parameters.elements)),
        ("includeAssociatedData", list(parameters.include)),
    )
    return [(name, values if form.repeated else [",".join(values)]) for name, values in listed if values]


def _filter(text: str, form: Form) -> str:
    """One filter with its own commas guarded from servers that split lists at commas, all up to STU3 (vendor-facts 6.1)."""
    if form.version >= _STU4 and form.repeated:
        return text
    return text.replace(",", "\\," if form.comma == "backslash" else "%2C")


def _query(parameters: ExportParameters, form: Form) -> str:
    values = [(name, value) for name, listed in _lists(parameters, form) for value in listed]
    values += [
        ("_since", parameters.since or ""),
        ("_until", parameters.until or ""),
        ("organizeOutputBy", parameters.organize_by or ""),
    ]
    values += [("allowPartialManifests", "true" if parameters.partial else "")]
    return "&".join(f"{name}={_quoted(name, value)}" for name, value in values if value)


def _quoted(name: str, value: str) -> str:
    """A list's commas stay commas: Cerner's are documented so; a filter's own `%` and `?` are encoded once more."""
    return quote(value, safe=":," if name != "_typeFilter" else ",")


def _parameters(parameters: ExportParameters, form: Form) -> Any:
    for name, values in _lists(parameters, form):
        for value in values:
            if name == "includeAssociatedData":
                coded = {"valueCoding": {"system": _ASYNC, "code": value}}
                yield {"name": name, **(coded if form.version >= _STU4 else {"valueCode": value})}
            else:
                yield {"name": name, "valueString": value}
    for patient in parameters.patients:
        yield {"name": "patient", "valueReference": {"reference": f"Patient/{patient}"}}
    for name, instant in (("_since", parameters.since), ("_until", parameters.until)):
        if instant is not None:
            yield {"name": name, "valueInstant": instant}
    if parameters.organize_by is not None:
        yield {"name": "organizeOutputBy", "valueString": parameters.organize_by}
    if parameters.partial:
        yield {"name": "allowPartialManifests", "valueBoolean": True}


def refusal_from(status: int, body: bytes, profile: VendorProfile, *, codes: tuple[str, ...] = ()) -> KickOffRefusal:
    """Read a refusal: its text only for names of our parameters and the vendor's words of "too soon", never to be shown."""
    text = body.decode("utf-8", "replace")
    named = frozenset(name for name, pattern in _NAMED.items() if pattern.search(text))
    return KickOffRefusal(
        status=status,
        codes=codes,
        named=named,
        too_soon=any(words in text.lower() for words in profile.kickoff.too_soon),
    )


def next_try(
    parameters: ExportParameters, form: Form, refusal: KickOffRefusal, tried: Sequence[tuple[ExportParameters, Form]]
) -> tuple[ExportParameters, Form, str | None] | None:
    """What to request after a refusal, with a note if it is less; None if another request is of no use.

    A parameter that the refusal names and that can be spared is left out; else the list's form and the method are changed; then,
    where nothing was named, what can be spared is left out one by one. Every step is new, so that this ends.
    """
    steps: list[tuple[ExportParameters, Form, str | None]] = []
    other: Literal["GET", "POST"] = "POST" if form.method == "GET" else "GET"
    switched = replace(form, method=other, declared=False)
    may_switch = other == "POST" or not parameters.patients
    if refusal.status in _WRONG_METHOD and may_switch:
        steps.append((parameters, switched, None))
    if refusal.status in _WRONG_REQUEST:
        spared = [name for name in DISPENSABLE if _is_sent(parameters, name)]
        named = [name for name in spared if name in refusal.named]
        if named:
            steps.append((_without(parameters, named), form, _left_out(named)))
        about_lists = not refusal.named or refusal.named & {
            "_type",
            "_typeFilter",
            "_elements",
            "includeAssociatedData",
        }
        if about_lists and any(
            len(values) > 1
            for values in (parameters.types, parameters.type_filters, parameters.elements, parameters.include)
        ):
            steps.append((parameters, replace(form, repeated=not form.repeated, declared=False), None))
        if not refusal.named:
            if may_switch:
                steps.append((parameters, switched, None))
            steps += [(_without(parameters, [name]), form, _left_out([name])) for name in spared]
    return next((step for step in steps if (step[0], step[1]) not in tried), None)


def _is_sent(parameters: ExportParameters, name: str) -> bool:
    field, without = DISPENSABLE[name]
    return bool(getattr(parameters, field) != without)


def _without(parameters: ExportParameters, names: Sequence[str]) -> ExportParameters:
    changes: dict[str, Any] = dict(DISPENSABLE[name] for name in names)
    return replace(parameters, **changes)


def _left_out(names: Sequence[str]) -> str:
    return f"the server refuses {', '.join(names)}: exported without, which gives more than requested, never less"


def proofs(parameters: ExportParameters, form: Form) -> Mapping[str, Any]:
    """Return what the export's files will prove, as JSON to keep with the job; `Proofs` reads it back."""
    every = [f"elements {one}" for one in parameters.elements] + (
        [f"until {parameters.until}"] if parameters.until else []
    )
    filtered = {one.partition("?")[0] for one in parameters.type_filters}
    by_type = {t: [one for one in parameters.type_filters if one.partition("?")[0] == t] for t in filtered}
    return {
        "level": parameters.level,
        "beside": mark(parameters.group or "", *parameters.patients),
        "narrowed": {"*": mark(*every) if every else "", **{t: mark(*every, *some) for t, some in by_type.items()}},
        "incremental": parameters.since is not None,
        "since": parameters.since,
        "types": list(parameters.types),
        # a form that was only tried may be misread: of a repeated `_type` a server may take the last alone
        "all_types_understood": form.declared,
        "filtered": sorted({one.partition("?")[0] for one in parameters.type_filters}),
        "until": parameters.until,
        "organized": parameters.organize_by is not None,
        "partial": parameters.partial,
    }


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """What a job's files prove: by its original kick-off, whatever a resumed run would request now."""

    incremental: bool = False
    since: str | None = None
    types: Sequence[str] = ()
    all_types_understood: bool = True
    filtered: Sequence[str] = ()
    elements: bool = False
    until: str | None = None
    organized: bool = False
    partial: bool = False
    level: BulkLevel = "system"
    beside: str = ""
    narrowed: Mapping[str, str] = field(default_factory=dict)

    def ways(self, resource_type: str) -> tuple[Way, Way | None]:
        """The way by which the export lists a type, and the way by which it lists rows of no patient, if that is another one."""
        return export_way(self.level, self.narrowed.get(resource_type, self.narrowed.get("*", "")), self.beside)

    def lists_all(self, resource_type: str) -> bool:
        """Whether a whole file of this type shows what has vanished."""
        return not self.elements and not self.leaves_out(resource_type)

    def leaves_out(self, resource_type: str) -> bool:
        """Whether the export was requested with less than everything of this type."""
        return self.incremental or self.narrows(resource_type)

    def narrows(self, resource_type: str) -> bool:
        """Whether the request left out some rows of this type, apart from those that had not changed."""
        return self.until is not None or resource_type in self.filtered


def proofs_from(job: BulkJob) -> Proofs:
    """Read what `proofs` wrote; ignore keys of a newer version."""
    known = {one.name for one in fields(Proofs)}
    return Proofs(**{key: value for key, value in job.asked.items() if key in known} | {"elements": job.elements})
