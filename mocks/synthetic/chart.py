"""chart owns what every entry of one synthetic chart shares: ids, meta, the subject, the encounter, and its times of day.

`observations` and `clinical` write the entries.
"""

from __future__ import annotations

from datetime import timedelta
from html import escape

from mocks.synthetic.hospital import Hospital
from mocks.synthetic.person import Person, new_id, pick
from mocks.synthetic.visits import Visit
from mocks.synthetic.vocabulary import Json


class Chart:
    """One patient's chart: creates entries with id, meta and subject. Resources share sub-dicts: do not change them."""

    __slots__ = ("doctor", "hospital", "last_updated", "person", "site", "subject")

    def __init__(self, person: Person, hospital: Hospital, *, last_updated: bool = True) -> None:
        self.person = person
        self.hospital = hospital
        self.last_updated = last_updated
        self.subject: Json = {"reference": f"Patient/{person.id}"}
        self.site = int(person.rng.random() * len(hospital.organizations))
        self.doctor = pick(person.rng, hospital.practitioners)

    def entry(self, resource_type: str, meta: Json) -> Json:
        """Return a new resource with id and, unless switched off, meta."""
        if self.last_updated:
            return {"resourceType": resource_type, "id": new_id(self.person.rng), "meta": meta}
        return {"resourceType": resource_type, "id": new_id(self.person.rng)}

    def sitting(self, visit: Visit) -> Sitting:
        """Return the visit with an encounter id and times of day."""
        return Sitting(self, visit)


class Sitting:
    """One visit: what its entries refer to, and their times."""

    __slots__ = (
        "age",
        "chart",
        "date",
        "encounter",
        "encounter_id",
        "ends",
        "issued",
        "kind",
        "meta",
        "next_day",
        "starts",
    )

    def __init__(self, chart: Chart, visit: Visit) -> None:
        rng = chart.person.rng
        day = visit.day.isoformat()
        hour, minute = 8 + int(rng.random() * 8), int(rng.random() * 60)
        self.chart = chart
        self.kind = visit.kind
        self.date = day
        self.next_day = (visit.day + timedelta(days=1)).isoformat()
        self.age = chart.person.age_on(visit.day)
        self.starts = f"{day}T{hour:02d}:{minute:02d}:00-05:00"
        self.ends = f"{day}T{hour + 1:02d}:{minute:02d}:00-05:00"
        self.issued = f"{day}T{hour + 1:02d}:{minute:02d}:30.000-05:00"
        self.meta = {
            "versionId": "1",
            "lastUpdated": f"{day}T{hour + 7:02d}:{minute:02d}:{int(rng.random() * 60):02d}.{int(rng.random() * 1000):03d}Z",
        }
        self.encounter_id = new_id(rng)
        self.encounter: Json = {"reference": f"Encounter/{self.encounter_id}"}

    def entry(self, resource_type: str) -> Json:
        """Return a new resource of this visit with id and meta."""
        return self.chart.entry(resource_type, self.meta)

    def narrative(self, title: str, *lines: str) -> Json:
        """Return the `text` that servers generate for human readers (Millennium does so for all resources, vendor-facts 2.8)."""
        place = self.chart.hospital.locations[self.chart.site]["display"]
        seen = f"Seen on {self.date} by {self.chart.doctor['display']}, {place}"
        body = "".join(f"<p>{escape(line)}</p>" for line in (*lines, seen))
        return {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p><b>{escape(title)}</b></p>{body}</div>',
        }
