"""Decides what is believed of rows that a run missed, or heard of: the table of docs/completeness-rules.md. Pure.

`judgement` finds the circumstances in the store, and does what is decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from config.how_many import how_many
from snapshots.witness import Said

PATIENT = "Patient"

# A way that has lost half of its rows shows a broken EHR, a token that sees less or a changed filter more often than deletions:
# another full listing must confirm it. Below MASS rows, half is easily reached by chance.
MASS = 20


def is_mass(gone: int, there: int) -> bool:
    """Whether too many of a way's rows vanished at once for one listing to prove it."""
    return gone >= MASS and gone * 2 >= there


class Open(StrEnum):
    """The open question about a row after a run (`evidence.state`)."""

    DOUBTED = "doubted"  # missed, and nobody says for certain that it is gone
    NOT_FOUND = "not-found"  # read once, and not there
    CONTRADICTED = "contradicted"  # missed, and there
    WITHHELD = "withheld"  # this client may not see it
    OLD_TOMBSTONE = "old-tombstone"  # made before evidence was kept


class Fate(StrEnum):
    """What is believed of a row when the run ends (`absence.fate`)."""

    ALIVE = "alive"  # it came, and no listing missed it
    MOVED = "moved"  # it came, as another patient's or in another category
    LEFT = "left"  # a Patient who is there, and no longer in the selection
    LEFT_UNREAD = "left-unread"  # the same, as far as anybody can know
    ORPHANING = "orphaning"  # a Patient who is gone or merged, as two runs have read, and whose chart still comes
    DROPPED = "dropped"  # a way no longer lists it, which says nothing of the row
    CONTRADICTED = "contradicted"  # missed by a listing, and there: the listing was not whole
    CONTRARY = "contrary"  # the run received it, and the EHR also reported it gone
    WITHHELD = "withheld"
    DOUBTED = "doubted"
    NOT_FOUND = "not-found"  # not there when it was read: another run must find the same
    CONFIRMED = "confirmed"  # gone: the EHR said so
    SETTLED = "settled"  # gone: two runs' listings lacked it
    STILL_DEAD = "still-dead"  # a tombstone, rightly
    OPEN = "open"  # nothing was learned


GONE = frozenset({Fate.CONFIRMED, Fate.SETTLED})
_NOT_THERE = frozenset({Said.NOT_FOUND, Said.GONE})
_SAID_TO_BE_GONE = frozenset({Said.GONE, Said.DELETED, Said.MERGED})
_UNSURE = frozenset({Open.DOUBTED, Open.NOT_FOUND})


class Circumstance(NamedTuple):
    """What a run knows of a group of rows of one type that one way missed, alike in everything that decides their fate."""

    resource_type: str
    way: int | None  # that missed them; None: they were only heard of, or looked for
    everything: bool  # the way lists everything of the type, of every patient
    strict: bool  # it lists unchanged rows again
    # it lists members of a Group, and nobody knows who they are tonight; or the EHR knew nothing at all
    of_unknown: bool
    said: Said | None  # what the EHR answered about them
    asked: bool  # for them, by their ids
    received: bool  # they came after all
    elsewhere: bool  # they are another patient's, or of another category, than the way lists
    dead: bool  # they are tombstones
    before: Open | None  # what an earlier run left open
    way_again: bool  # this way had contradicted them before
    member: bool  # of the Group that is exported, as the Group itself says; or named by the export
    chart_came: bool  # something of these Patients' charts
    others_came: bool  # other Patients than these
    controlled: bool  # a row of the type could be read: else a 404 or a 410 says nothing
    of_mass: bool  # they are too many to be believed at once
    rows: int


def decided(circumstances: Sequence[Circumstance], *, is_pull: bool) -> list[Fate]:
    """Decide the fate of the rows of each circumstance; a pull never settles that anything is gone because it was not listed.

    What a second listing missed and this run did not ask for is gone only if what it did ask for of that way and type was. Of a
    mass nothing is believed yet.
    """
    fates = [_fate(one, is_pull=is_pull) for one in circumstances]
    pairs = list(zip(circumstances, fates, strict=True))
    unproved = {(one.resource_type, one.way) for one, fate in pairs if one.asked and _speaks_against(one, fate)}
    return [
        Fate.DOUBTED
        if (fate in GONE and one.of_mass)
        or (fate is Fate.SETTLED and not one.asked and (one.resource_type, one.way) in unproved)
        else fate
        for one, fate in pairs
    ]


def _speaks_against(one: Circumstance, fate: Fate) -> bool:
    """Whether the rows that were read show that rows missed by their way need not be gone."""
    return (
        one.said in {Said.WITHHELD, Said.UNANSWERED}
        or (one.said is None and fate is Fate.DOUBTED)
        or fate in {Fate.CONTRADICTED, Fate.DROPPED, Fate.CONTRARY}
    )


def _fate(one: Circumstance, *, is_pull: bool) -> Fate:
    if one.received:
        return _of_what_came(one)
    if one.dead:
        return _of_a_tombstone(one)
    unasked = not one.asked and one.said in {None, Said.UNREADABLE}
    if one.said is Said.WITHHELD or (unasked and one.before is Open.WITHHELD):
        return Fate.WITHHELD
    if one.chart_came:
        sure = (one.said in _NOT_THERE and one.others_came) or one.said is Said.MERGED
        return Fate.ORPHANING if sure and one.before in _UNSURE and not is_pull else Fate.DOUBTED
    gone_beside_others = one.said is Said.GONE and one.resource_type == PATIENT and one.controlled
    if one.said in {Said.DELETED, Said.MERGED} or (gone_beside_others and one.way is not None):
        return Fate.CONFIRMED
    decide = _of_what_no_way_missed if one.way is None else _of_what_a_way_missed
    return decide(one, is_pull=is_pull)


def _of_what_came(one: Circumstance) -> Fate:
    if one.said in _SAID_TO_BE_GONE:
        return Fate.CONTRARY
    if one.way is None:
        return Fate.ALIVE
    if one.elsewhere:
        return Fate.MOVED
    # left out by the Group's export: a hole as long as that lasts, since nothing new of the chart can come
    if one.member:
        return Fate.CONTRADICTED
    if one.resource_type == PATIENT and not one.everything and one.asked:
        return Fate.LEFT
    return Fate.DROPPED if not one.strict or one.way_again else Fate.CONTRADICTED


def _of_a_tombstone(one: Circumstance) -> Fate:
    is_old = one.before is Open.OLD_TOMBSTONE
    if one.said is Said.MERGED or (one.said in _NOT_THERE and (one.controlled or not is_old)):
        return Fate.STILL_DEAD
    return Fate.OPEN if is_old else Fate.CONTRARY


def _of_what_no_way_missed(one: Circumstance, *, is_pull: bool) -> Fate:
    """Decide about rows that no listing could show, or that were only heard of: two runs must find that they are not there."""
    if one.said is Said.UNREADABLE:
        # it came from an export that is older than what is stored, and no read can tell which of the two holds
        return Fate.DOUBTED
    if not one.controlled or one.said not in _NOT_THERE:
        return Fate.OPEN
    return Fate.CONFIRMED if one.before in _UNSURE and not is_pull else Fate.NOT_FOUND


def _of_what_a_way_missed(one: Circumstance, *, is_pull: bool) -> Fate:
    not_there = one.said in _NOT_THERE
    if is_pull:
        return Fate.DOUBTED
    if not_there and one.controlled:
        return Fate.CONFIRMED
    if one.asked and (one.said is Said.UNANSWERED or (one.said is None and one.controlled)):
        return Fate.DOUBTED  # that it could not be read is not that it is not there, whatever the listings say
    if not one.strict and not one.asked:
        return Fate.DROPPED  # what a chart no longer mentions need not be gone, however often an export leaves it out
    if one.before not in _UNSURE:
        return Fate.DOUBTED
    if one.of_unknown:
        return Fate.DOUBTED if one.member else Fate.DROPPED  # its patient may have left the Group; who is named has not
    if one.resource_type != PATIENT or one.everything:  # to leave a selection is no listing's word
        return Fate.SETTLED
    # whom two runs no longer listed, and nobody can read, has left as far as anybody can know
    return Fate.LEFT_UNREAD if not_there or one.said is Said.UNREADABLE else Fate.DOUBTED


class Hole(NamedTuple):
    """Rows of one type that are not believed to be gone, nor known to be there."""

    fate: Fate
    resource_type: str
    reason: str

    @property
    def key(self) -> str:
        """Its unit's key."""
        return f"doubt:{self.fate}:{self.resource_type}"


_HOLES = {
    Fate.DOUBTED: "{rows} stored, but not listed, and no answer says for certain that any is gone: kept until another "
    "full listing confirms it; sync again",
    Fate.CONTRARY: "{rows} sent and reported as deleted in the same run: kept; sync again",
    Fate.NOT_FOUND: "{rows} not found when requested, and no listing can show such rows: kept until a second run finds the same; "
    "sync again",
    Fate.CONTRADICTED: "{rows} stored and not listed, but found when requested: the listing is not complete; sync "
    "again",
}
_NOTES = {
    Fate.WITHHELD: "{type}: {rows} listed before, and now withheld from this client (HTTP 403): kept",
    Fate.LEFT: "{type}: {number} no longer in this selection, but still at the EHR: their charts stay as they are",
    Fate.LEFT_UNREAD: "{type}: {number} no longer listed for this selection, and no answer shows whether they still exist: their "
    "charts stay as they are",
    Fate.ORPHANING: "{type}: {rows} not found when requested, or merged into another, and in doubt since an earlier run, while "
    "rows of the same charts still come: kept, and requested again",
    Fate.DROPPED: "{type}: {rows} no longer listed by the search or export that listed such rows before, but nothing says "
    "that any is gone: read from time to time from now on",
}


def told(circumstances: Sequence[Circumstance], fates: Sequence[Fate]) -> tuple[list[Hole], list[str]]:
    """Return the report's holes and notes for these fates."""
    rows: Counter[tuple[Fate, str]] = Counter()
    for one, fate in zip(circumstances, fates, strict=True):
        rows[fate, one.resource_type] += one.rows
    met = sorted((fate, resource_type, number) for (fate, resource_type), number in rows.items())
    holes = [
        Hole(fate, resource_type, _HOLES[fate].format(rows=how_many(number, "row")))
        for fate, resource_type, number in met
        if fate in _HOLES
    ]
    notes = [
        _NOTES[fate].format(type=resource_type, rows=how_many(number, "row"), number=f"{number:,}")
        for fate, resource_type, number in met
        if fate in _NOTES
    ]
    return holes, notes
