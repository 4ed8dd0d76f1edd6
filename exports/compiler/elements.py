"""What FHIR R4 says about elements: their types and whether they repeat.

Data of the ten resource types that the built-in views read, and of every datatype below them, taken from the R4 definitions (a
test compares it with `fhir.resources`). What is not listed here is unknown, and the compiler treats it as possibly repeated:
right, only slower. What the knowledge is used for is left to `typed_tree`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

NUMBER_TYPES = frozenset({"decimal", "integer", "integer64", "positiveInt", "unsignedInt"})
TEMPORAL_TYPES = frozenset({"date", "dateTime", "instant", "time"})
STRING_TYPES = frozenset(
    {"base64Binary", "canonical", "code", "id", "markdown", "oid", "string", "uri", "url", "uuid", "xhtml"}
)
PRIMITIVE_TYPES = NUMBER_TYPES | TEMPORAL_TYPES | STRING_TYPES | {"boolean"}


@dataclass(frozen=True)
class Element:
    """One element of a type: the types its value may have (more than one for a choice `x[x]`) and whether it repeats."""

    types: tuple[str, ...]
    many: bool
    choice: bool = False


def element(parent: str | None, name: str) -> Element | None:
    """The element `name` of the type `parent`; None where nothing is known about it."""
    known = _known_elements()
    if parent is None or parent not in known:
        return None
    found = known[parent].get(name)
    if found is None and parent not in PRIMITIVE_TYPES:
        found = (_OF_EVERY_RESOURCE if parent in RESOURCE_TYPES else _OF_EVERY_ELEMENT).get(name)
    return found


@cache
def _known_elements() -> dict[str, dict[str, Element]]:
    types: dict[str, dict[str, Element]] = {}
    for line in _DEFINITIONS.strip().splitlines():
        if not line.startswith(" "):
            elements = types.setdefault(line.rstrip(":"), {})
            continue
        for word in line.split():
            name, _, allowed = word.partition(":")
            bare = name.removesuffix("*").removesuffix("[x]")
            listed = elements[bare].types if bare in elements else ()  # a long choice is written on several lines
            types_here = (*listed, *allowed.split("|"))
            elements[bare] = Element(types_here, many=name.endswith("*"), choice=name.endswith("[x]"))
    return types


_OF_EVERY_ELEMENT = {"id": Element(("string",), many=False), "extension": Element(("Extension",), many=True)}
_OF_EVERY_RESOURCE = {
    "id": Element(("id",), many=False),
    "meta": Element(("Meta",), many=False),
    "implicitRules": Element(("uri",), many=False),
    "language": Element(("code",), many=False),
    "text": Element(("Narrative",), many=False),
    "contained": Element(("Resource",), many=True),
    "extension": Element(("Extension",), many=True),
    "modifierExtension": Element(("Extension",), many=True),
}
RESOURCE_TYPES = frozenset(
    {
        "AllergyIntolerance",
        "Condition",
        "DiagnosticReport",
        "DocumentReference",
        "Encounter",
        "Immunization",
        "MedicationRequest",
        "Observation",
        "Patient",
        "Procedure",
    }
)

# type, then its elements: name, `*` where it repeats, `[x]` where it is a choice, and the types it may have
_DEFINITIONS = """
Patient:
  active:boolean address*:Address birthDate:date communication*:PatientCommunication contact*:PatientContact
  deceased[x]:boolean|dateTime gender:code generalPractitioner*:Reference identifier*:Identifier
  link*:PatientLink managingOrganization:Reference maritalStatus:CodeableConcept
  multipleBirth[x]:boolean|integer name*:HumanName photo*:Attachment telecom*:ContactPoint
Encounter:
  account*:Reference appointment*:Reference basedOn*:Reference classHistory*:EncounterClassHistory class:Coding
  diagnosis*:EncounterDiagnosis episodeOfCare*:Reference hospitalization:EncounterHospitalization
  identifier*:Identifier length:Duration location*:EncounterLocation partOf:Reference
  participant*:EncounterParticipant period:Period priority:CodeableConcept reasonCode*:CodeableConcept
  reasonReference*:Reference serviceProvider:Reference serviceType:CodeableConcept status:code
  statusHistory*:EncounterStatusHistory subject:Reference type*:CodeableConcept
Condition:
  abatement[x]:Age|dateTime|Period|Range|string asserter:Reference bodySite*:CodeableConcept
  category*:CodeableConcept clinicalStatus:CodeableConcept code:CodeableConcept encounter:Reference
  evidence*:ConditionEvidence identifier*:Identifier note*:Annotation onset[x]:Age|dateTime|Period|Range|string
  recordedDate:dateTime recorder:Reference severity:CodeableConcept stage*:ConditionStage subject:Reference
  verificationStatus:CodeableConcept
Observation:
  basedOn*:Reference bodySite:CodeableConcept category*:CodeableConcept code:CodeableConcept
  component*:ObservationComponent dataAbsentReason:CodeableConcept derivedFrom*:Reference device:Reference
  effective[x]:dateTime|instant|Period|Timing encounter:Reference focus*:Reference hasMember*:Reference
  identifier*:Identifier interpretation*:CodeableConcept issued:instant method:CodeableConcept note*:Annotation
  partOf*:Reference performer*:Reference referenceRange*:ObservationReferenceRange specimen:Reference
  status:code subject:Reference
  value[x]:boolean|CodeableConcept|dateTime|integer|Period|Quantity|Range|Ratio|SampledData|string|time
MedicationRequest:
  authoredOn:dateTime basedOn*:Reference category*:CodeableConcept courseOfTherapyType:CodeableConcept
  detectedIssue*:Reference dispenseRequest:MedicationRequestDispenseRequest doNotPerform:boolean
  dosageInstruction*:Dosage encounter:Reference eventHistory*:Reference groupIdentifier:Identifier
  identifier*:Identifier instantiatesCanonical*:canonical instantiatesUri*:uri insurance*:Reference intent:code
  medication[x]:CodeableConcept|Reference note*:Annotation performer:Reference performerType:CodeableConcept
  priorPrescription:Reference priority:code reasonCode*:CodeableConcept reasonReference*:Reference
  recorder:Reference reported[x]:boolean|Reference requester:Reference status:code statusReason:CodeableConcept
  subject:Reference substitution:MedicationRequestSubstitution supportingInformation*:Reference
AllergyIntolerance:
  asserter:Reference category*:code clinicalStatus:CodeableConcept code:CodeableConcept criticality:code
  encounter:Reference identifier*:Identifier lastOccurrence:dateTime note*:Annotation
  onset[x]:Age|dateTime|Period|Range|string patient:Reference reaction*:AllergyIntoleranceReaction
  recordedDate:dateTime recorder:Reference type:code verificationStatus:CodeableConcept
Immunization:
  doseQuantity:Quantity education*:ImmunizationEducation encounter:Reference expirationDate:date
  fundingSource:CodeableConcept identifier*:Identifier isSubpotent:boolean location:Reference lotNumber:string
  manufacturer:Reference note*:Annotation occurrence[x]:dateTime|string patient:Reference
  performer*:ImmunizationPerformer primarySource:boolean programEligibility*:CodeableConcept
  protocolApplied*:ImmunizationProtocolApplied reaction*:ImmunizationReaction reasonCode*:CodeableConcept
  reasonReference*:Reference recorded:dateTime reportOrigin:CodeableConcept route:CodeableConcept
  site:CodeableConcept status:code statusReason:CodeableConcept subpotentReason*:CodeableConcept
  vaccineCode:CodeableConcept
Procedure:
  asserter:Reference basedOn*:Reference bodySite*:CodeableConcept category:CodeableConcept code:CodeableConcept
  complication*:CodeableConcept complicationDetail*:Reference encounter:Reference
  focalDevice*:ProcedureFocalDevice followUp*:CodeableConcept identifier*:Identifier
  instantiatesCanonical*:canonical instantiatesUri*:uri location:Reference note*:Annotation
  outcome:CodeableConcept partOf*:Reference performed[x]:Age|dateTime|Period|Range|string
  performer*:ProcedurePerformer reasonCode*:CodeableConcept reasonReference*:Reference recorder:Reference
  report*:Reference status:code statusReason:CodeableConcept subject:Reference usedCode*:CodeableConcept
  usedReference*:Reference
DiagnosticReport:
  basedOn*:Reference category*:CodeableConcept code:CodeableConcept conclusion:string
  conclusionCode*:CodeableConcept effective[x]:dateTime|Period encounter:Reference identifier*:Identifier
  imagingStudy*:Reference issued:instant media*:DiagnosticReportMedia performer*:Reference
  presentedForm*:Attachment result*:Reference resultsInterpreter*:Reference specimen*:Reference status:code
  subject:Reference
DocumentReference:
  authenticator:Reference author*:Reference category*:CodeableConcept content*:DocumentReferenceContent
  context:DocumentReferenceContext custodian:Reference date:instant description:string docStatus:code
  identifier*:Identifier masterIdentifier:Identifier relatesTo*:DocumentReferenceRelatesTo
  securityLabel*:CodeableConcept status:code subject:Reference type:CodeableConcept
Address:
  city:string country:string district:string line*:string period:Period postalCode:string state:string
  text:string type:code use:code
PatientCommunication:
  language:CodeableConcept preferred:boolean
PatientContact:
  address:Address gender:code name:HumanName organization:Reference period:Period relationship*:CodeableConcept
  telecom*:ContactPoint
Reference:
  display:string identifier:Identifier reference:string type:uri
Identifier:
  assigner:Reference period:Period system:uri type:CodeableConcept use:code value:string
PatientLink:
  other:Reference type:code
CodeableConcept:
  coding*:Coding text:string
HumanName:
  family:string given*:string period:Period prefix*:string suffix*:string text:string use:code
Attachment:
  contentType:code creation:dateTime data:base64Binary hash:base64Binary language:code size:unsignedInt title:string url:url
ContactPoint:
  period:Period rank:positiveInt system:code use:code value:string
EncounterClassHistory:
  class:Coding period:Period
Coding:
  code:code display:string system:uri userSelected:boolean version:string
EncounterDiagnosis:
  condition:Reference rank:positiveInt use:CodeableConcept
EncounterHospitalization:
  admitSource:CodeableConcept destination:Reference dietPreference*:CodeableConcept
  dischargeDisposition:CodeableConcept origin:Reference preAdmissionIdentifier:Identifier
  reAdmission:CodeableConcept specialArrangement*:CodeableConcept specialCourtesy*:CodeableConcept
Duration:
  code:code comparator:code system:uri unit:string value:decimal
EncounterLocation:
  location:Reference period:Period physicalType:CodeableConcept status:code
EncounterParticipant:
  individual:Reference period:Period type*:CodeableConcept
Period:
  end:dateTime start:dateTime
EncounterStatusHistory:
  period:Period status:code
Age:
  code:code comparator:code system:uri unit:string value:decimal
Range:
  high:Quantity low:Quantity
ConditionEvidence:
  code*:CodeableConcept detail*:Reference
Annotation:
  author[x]:Reference|string text:markdown time:dateTime
ConditionStage:
  assessment*:Reference summary:CodeableConcept type:CodeableConcept
ObservationComponent:
  code:CodeableConcept dataAbsentReason:CodeableConcept interpretation*:CodeableConcept
  referenceRange*:ObservationReferenceRange
  value[x]:boolean|CodeableConcept|dateTime|integer|Period|Quantity|Range|Ratio|SampledData|string|time
Timing:
  code:CodeableConcept event*:dateTime repeat:TimingRepeat
ObservationReferenceRange:
  age:Range appliesTo*:CodeableConcept high:Quantity low:Quantity text:string type:CodeableConcept
Quantity:
  code:code comparator:code system:uri unit:string value:decimal
Ratio:
  denominator:Quantity numerator:Quantity
SampledData:
  data:string dimensions:positiveInt factor:decimal lowerLimit:decimal origin:Quantity period:decimal
  upperLimit:decimal
MedicationRequestDispenseRequest:
  dispenseInterval:Duration expectedSupplyDuration:Duration
  initialFill:MedicationRequestDispenseRequestInitialFill numberOfRepeatsAllowed:unsignedInt performer:Reference
  quantity:Quantity validityPeriod:Period
Dosage:
  additionalInstruction*:CodeableConcept asNeeded[x]:boolean|CodeableConcept doseAndRate*:DosageDoseAndRate
  maxDosePerAdministration:Quantity maxDosePerLifetime:Quantity maxDosePerPeriod:Ratio method:CodeableConcept
  patientInstruction:string route:CodeableConcept sequence:integer site:CodeableConcept text:string
  timing:Timing
MedicationRequestSubstitution:
  allowed[x]:boolean|CodeableConcept reason:CodeableConcept
AllergyIntoleranceReaction:
  description:string exposureRoute:CodeableConcept manifestation*:CodeableConcept note*:Annotation
  onset:dateTime severity:code substance:CodeableConcept
ImmunizationEducation:
  documentType:string presentationDate:dateTime publicationDate:dateTime reference:uri
ImmunizationPerformer:
  actor:Reference function:CodeableConcept
ImmunizationProtocolApplied:
  authority:Reference doseNumber[x]:positiveInt|string series:string seriesDoses[x]:positiveInt|string
  targetDisease*:CodeableConcept
ImmunizationReaction:
  date:dateTime detail:Reference reported:boolean
ProcedureFocalDevice:
  action:CodeableConcept manipulated:Reference
ProcedurePerformer:
  actor:Reference function:CodeableConcept onBehalfOf:Reference
DiagnosticReportMedia:
  comment:string link:Reference
DocumentReferenceContent:
  attachment:Attachment format:Coding
DocumentReferenceContext:
  encounter*:Reference event*:CodeableConcept facilityType:CodeableConcept period:Period
  practiceSetting:CodeableConcept related*:Reference sourcePatientInfo:Reference
DocumentReferenceRelatesTo:
  code:code target:Reference
TimingRepeat:
  bounds[x]:Duration|Period|Range count:positiveInt countMax:positiveInt dayOfWeek*:code duration:decimal
  durationMax:decimal durationUnit:code frequency:positiveInt frequencyMax:positiveInt offset:unsignedInt
  period:decimal periodMax:decimal periodUnit:code timeOfDay*:time when*:code
MedicationRequestDispenseRequestInitialFill:
  duration:Duration quantity:Quantity
DosageDoseAndRate:
  dose[x]:Quantity|Range rate[x]:Quantity|Range|Ratio type:CodeableConcept
Extension:
  url:uri
  value[x]:Address|Age|Annotation|Attachment|CodeableConcept|Coding|ContactPoint|Duration|HumanName|Identifier
  value[x]:Period|Quantity|Range|Ratio|Reference|Timing|base64Binary|boolean|canonical|code|date|dateTime
  value[x]:decimal|id|instant|integer|markdown|oid|positiveInt|string|time|unsignedInt|uri|url|uuid
Meta:
  lastUpdated:instant profile*:canonical security*:Coding source:uri tag*:Coding versionId:id
Narrative:
  status:code div:xhtml
"""
