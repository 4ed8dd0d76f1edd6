"""visits owns when and why a synthetic patient sees a doctor: a life of check-ups, follow-ups and acute illness."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Literal, NamedTuple

from mocks.synthetic.person import DAYS_A_YEAR, PRESENT, Person

Kind = Literal["wellness", "follow-up", "acute", "emergency"]

_CHILD_CHECKUPS = (0.1, 1, 2, 4, 6, 9, 12, 15)
_FOLLOW_UP_DAYS = 182  # twice a year with a chronic illness
_FOLLOWED_YEARS = 4  # earlier follow-ups were on paper
_ACUTE_A_YEAR = 0.25


class Visit(NamedTuple):
    """One planned encounter."""

    day: date
    kind: Kind


def _checkup_ages(until: float) -> Iterator[float]:
    yield from (age for age in _CHILD_CHECKUPS if age < until)
    age = 18.0
    while age < until:
        yield age
        age += 4 if age < 40 else 3 if age < 60 else 2


def plan_life(person: Person) -> list[Visit]:
    """Return every visit of a life in order of date; at least one."""
    rng, span = person.rng, person.age_on(person.ends)
    visits = [Visit(_day(person, age + rng.random() * 0.08), "wellness") for age in _checkup_ages(span)]
    onset = min((age for _, age in person.chronic.values()), default=span)
    day = max(_day(person, onset), person.ends - timedelta(days=int(_FOLLOWED_YEARS * DAYS_A_YEAR)))
    while day < person.ends:
        visits.append(Visit(day, "follow-up"))
        day += timedelta(days=_FOLLOW_UP_DAYS - 10 + int(rng.random() * 20))
    visits += [
        Visit(_day(person, rng.random() * span), "emergency" if rng.random() < 0.15 else "acute")
        for _ in range(1 + int(span * _ACUTE_A_YEAR * (0.5 + rng.random())))
    ]
    visits.append(Visit(_day(person, span * (0.9 + 0.1 * rng.random())), "acute"))
    return sorted(visit if visit.day <= person.ends else visit._replace(day=person.ends) for visit in visits)


def plan_dense(person: Person, number: int, years: int = 30) -> Iterator[Visit]:
    """Yield `number` visits of a very ill patient, spread evenly over the last years; then daily ones at the end."""
    begins = PRESENT - timedelta(days=int(years * DAYS_A_YEAR))
    step = years * DAYS_A_YEAR / number
    kinds: tuple[Kind, ...] = ("wellness", "follow-up", "acute", "follow-up", "emergency", "follow-up")
    index = 0
    while True:
        yield Visit(min(begins + timedelta(days=int(index * step)), person.ends), kinds[index % len(kinds)])
        index += 1


def _day(person: Person, age: float) -> date:
    return person.born + timedelta(days=int(age * DAYS_A_YEAR))
