"""Where resources refer to what no search by patient lists: one table, from R4's definitions, with what is known of vendors.

Pure data, and the choice from it. The profile says which types are followed (`references.follow`), a site may add paths
(`references.paths`). `reference_resolver` reads references, `references` fetches what they lead to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from connectors.fhir.capability import Capability
from connectors.fhir.profile import VendorProfile
from snapshots.referred import ReferencePath

_WHO = ("Practitioner", "PractitionerRole", "Organization")
_ACTOR = (*_WHO, "Device")

# source type -> element (without `.reference`) -> types that R4 allows there and of which there is no search by patient.
# Observation: members of panels, which Epic's searches and exports leave out; smart-fetch reads them recursively [R] CE, SF.
# EpisodeOfCare: Epic wants a site's own type code in a search, so ids come from encounters [R] SF. Medication: 9 of 9
# MedicationRequests captured from Epic have a medicationReference [R] TM. All three: vendor-facts 1.6. The rest: R4 itself.
PATHS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "AllergyIntolerance": {"recorder": _WHO, "asserter": _WHO},
        "Appointment": {"participant.actor": (*_ACTOR, "Location")},
        "CarePlan": {"author": _ACTOR, "contributor": _ACTOR, "activity.detail.performer": _ACTOR},
        "CareTeam": {"participant.member": _WHO, "participant.onBehalfOf": _WHO, "managingOrganization": _WHO},
        "Claim": {"provider": _WHO, "insurer": _WHO, "facility": ("Location",), "careTeam.provider": _WHO},
        "Condition": {"recorder": _WHO, "asserter": _WHO},
        "Coverage": {"payor": _WHO, "policyHolder": _WHO},
        "Device": {"owner": _WHO, "location": ("Location",), "parent": ("Device",)},
        "DiagnosticReport": {"result": ("Observation",), "performer": _WHO, "resultsInterpreter": _WHO},
        "DocumentReference": {"author": _ACTOR, "authenticator": _WHO, "custodian": _WHO},
        "Encounter": {
            "episodeOfCare": ("EpisodeOfCare",),
            "participant.individual": _WHO,
            "serviceProvider": _WHO,
            "location.location": ("Location",),
            "hospitalization.origin": ("Location", "Organization"),
            "hospitalization.destination": ("Location", "Organization"),
        },
        "EpisodeOfCare": {"managingOrganization": _WHO, "careManager": _WHO},
        "ExplanationOfBenefit": {
            "provider": _WHO,
            "insurer": _WHO,
            "facility": ("Location",),
            "careTeam.provider": _WHO,
        },
        "Goal": {"expressedBy": _WHO},
        "ImagingStudy": {"referrer": _WHO, "interpreter": _WHO, "location": ("Location",)},
        "Immunization": {
            "performer.actor": _WHO,
            "location": ("Location",),
            "manufacturer": _WHO,
            "reaction.detail": ("Observation",),
        },
        "Location": {"managingOrganization": _WHO, "partOf": ("Location",)},
        "Medication": {"manufacturer": _WHO, "ingredient.itemReference": ("Medication",)},
        "MedicationAdministration": {
            "medicationReference": ("Medication",),
            "performer.actor": _ACTOR,
            "device": ("Device",),
        },
        "MedicationDispense": {
            "medicationReference": ("Medication",),
            "performer.actor": _ACTOR,
            "location": ("Location",),
            "destination": ("Location",),
        },
        "MedicationRequest": {
            "medicationReference": ("Medication",),
            "requester": _ACTOR,
            "performer": _ACTOR,
            "recorder": _WHO,
            "dispenseRequest.performer": _WHO,
        },
        "MedicationStatement": {"medicationReference": ("Medication",), "informationSource": _WHO},
        "Observation": {
            "hasMember": ("Observation",),
            "derivedFrom": ("Observation",),
            "performer": _WHO,
            "device": ("Device",),
        },
        "Organization": {"partOf": ("Organization",)},
        "Patient": {"generalPractitioner": _WHO, "managingOrganization": _WHO},
        "Practitioner": {"qualification.issuer": _WHO},
        "PractitionerRole": {"practitioner": _WHO, "organization": _WHO, "location": ("Location",)},
        "Procedure": {
            "performer.actor": _ACTOR,
            "performer.onBehalfOf": _WHO,
            "recorder": _WHO,
            "asserter": _WHO,
            "location": ("Location",),
            "focalDevice.manipulated": ("Device",),
            "usedReference": ("Device", "Medication"),
        },
        "Provenance": {"agent.who": _ACTOR, "agent.onBehalfOf": _ACTOR, "location": ("Location",)},
        "ServiceRequest": {"requester": _ACTOR, "performer": _ACTOR, "locationReference": ("Location",)},
    }
)  # fmt: skip


def followed_types(
    requested: Sequence[str], profile: VendorProfile, capability: Capability, readable: Callable[[str], bool]
) -> tuple[str, ...]:
    """The types to follow references to: the profile's that the user wants, the server declares and the token may read."""
    declared = capability.search_params
    return tuple(
        one
        for one in profile.references.follow
        if (not requested or one in requested) and (not declared or one in declared) and readable(one)
    )


def paths_to(types: Sequence[str], profile: VendorProfile) -> list[ReferencePath]:
    """Every path that can lead to one of these types, the site's own included."""
    found = []
    for source in sorted({*PATHS, *profile.references.paths}):
        elements = {**PATHS.get(source, {}), **profile.references.paths.get(source, {})}
        for element, targets in elements.items():
            if wanted := tuple(target for target in targets if target in types):
                found.append(ReferencePath(source, f"$.{element}.reference", wanted))
    return found
