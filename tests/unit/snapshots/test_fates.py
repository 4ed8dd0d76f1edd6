"""What is believed of missed rows: the decision table of docs/completeness-rules.md, line by line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.fates import GONE, Circumstance, Fate, Open, decided, told
from snapshots.witness import Said

MISSED = Circumstance(
    resource_type="Observation", way=1, everything=True, strict=True, of_unknown=False, said=None, asked=False, received=False,
    elsewhere=False, dead=False, before=None, way_again=False, member=False, chart_came=False, others_came=True, controlled=True,
    of_mass=False, rows=1,
)  # fmt: skip
READ = {"asked": True, "received": True}
NOT_THERE = {"asked": True, "said": Said.NOT_FOUND}
LOST_CONTROL = {"controlled": False}
OF_A_GROUP = {"resource_type": "Patient", "everything": False}


def fate(*, is_pull: bool = False, **changes: Any) -> Fate:
    return decided([MISSED._replace(**changes)], is_pull=is_pull)[0]


@pytest.mark.parametrize(
    ("changes", "believed"),
    [
        ({"way": None, "received": True}, Fate.ALIVE),
        (NOT_THERE, Fate.CONFIRMED),
        ({**NOT_THERE, "said": Said.GONE}, Fate.CONFIRMED),
        ({}, Fate.DOUBTED),
        ({**NOT_THERE, **LOST_CONTROL}, Fate.DOUBTED),
        ({"asked": True, "said": Said.UNANSWERED}, Fate.DOUBTED),
        ({"before": Open.DOUBTED}, Fate.SETTLED),
        ({"before": Open.NOT_FOUND}, Fate.SETTLED),
        ({"everything": False, "of_unknown": True}, Fate.DOUBTED),
        ({"everything": False, "of_unknown": True, "before": Open.DOUBTED}, Fate.DROPPED),
        ({"everything": False, "of_unknown": True, **NOT_THERE}, Fate.CONFIRMED),
        ({"before": Open.DOUBTED, "asked": True, "said": Said.UNANSWERED}, Fate.DOUBTED),
        ({"before": Open.DOUBTED, "asked": True}, Fate.DOUBTED),
        ({"said": Said.DELETED}, Fate.CONFIRMED),
        ({"resource_type": "Patient", "said": Said.MERGED}, Fate.CONFIRMED),
        ({"resource_type": "Patient", "said": Said.GONE}, Fate.CONFIRMED),
        ({"resource_type": "Patient", "said": Said.GONE, **LOST_CONTROL}, Fate.DOUBTED),
        ({"resource_type": "Patient", "said": Said.GONE, "others_came": False, **LOST_CONTROL}, Fate.DOUBTED),
        ({"resource_type": "Patient", "said": Said.GONE, "chart_came": True}, Fate.DOUBTED),
        ({**OF_A_GROUP, **NOT_THERE, "chart_came": True}, Fate.DOUBTED),
        ({**OF_A_GROUP, **NOT_THERE, "chart_came": True, "before": Open.DOUBTED}, Fate.ORPHANING),
        ({**OF_A_GROUP, **NOT_THERE, "others_came": False, "chart_came": True, "before": Open.DOUBTED}, Fate.DOUBTED),
        ({"resource_type": "Patient", "said": Said.MERGED, "chart_came": True, "before": Open.DOUBTED}, Fate.ORPHANING),
        ({"said": Said.DELETED, "of_mass": True}, Fate.DOUBTED),
        ({**NOT_THERE, "of_mass": True}, Fate.DOUBTED),
        ({"before": Open.DOUBTED, "of_mass": True}, Fate.DOUBTED),
        ({"received": True, "said": Said.DELETED}, Fate.CONTRARY),
        ({**READ, "elsewhere": True}, Fate.MOVED),
        ({**READ, "strict": False}, Fate.DROPPED),
        ({"strict": False}, Fate.DROPPED),
        (READ, Fate.CONTRADICTED),
        ({**READ, "way_again": True}, Fate.DROPPED),
        ({**READ, **OF_A_GROUP, "member": True}, Fate.CONTRADICTED),
        ({**READ, **OF_A_GROUP, "member": True, "way_again": True}, Fate.CONTRADICTED),
        ({"asked": True, "said": Said.WITHHELD}, Fate.WITHHELD),
        ({"before": Open.WITHHELD}, Fate.WITHHELD),
        ({**READ, **OF_A_GROUP}, Fate.LEFT),
        ({**NOT_THERE, **OF_A_GROUP}, Fate.CONFIRMED),
        ({**OF_A_GROUP, "said": Said.UNREADABLE}, Fate.DOUBTED),
        ({**OF_A_GROUP, "said": Said.UNREADABLE, "before": Open.DOUBTED}, Fate.LEFT_UNREAD),
        ({**OF_A_GROUP, **NOT_THERE, **LOST_CONTROL, "before": Open.DOUBTED}, Fate.LEFT_UNREAD),
        ({**OF_A_GROUP, **NOT_THERE, **LOST_CONTROL, "before": Open.DOUBTED, "member": True, "of_unknown": True},
            Fate.DOUBTED),
        ({**OF_A_GROUP, "before": Open.DOUBTED}, Fate.DOUBTED),
        ({"way": None, **NOT_THERE}, Fate.NOT_FOUND),
        ({"way": None, **NOT_THERE, "before": Open.NOT_FOUND}, Fate.CONFIRMED),
        ({"way": None, **NOT_THERE, "before": Open.NOT_FOUND, **LOST_CONTROL}, Fate.OPEN),
        ({"way": None, "asked": True, "said": Said.UNANSWERED}, Fate.OPEN),
        ({"way": None, "said": Said.UNREADABLE}, Fate.DOUBTED),
        ({"way": None, "dead": True, **NOT_THERE, "before": Open.OLD_TOMBSTONE}, Fate.STILL_DEAD),
        ({"way": None, "dead": True, **NOT_THERE, "before": Open.OLD_TOMBSTONE, **LOST_CONTROL}, Fate.OPEN),
        ({"way": None, "dead": True, **NOT_THERE, **LOST_CONTROL}, Fate.STILL_DEAD),
        ({"way": None, "dead": True, "before": Open.OLD_TOMBSTONE}, Fate.OPEN),
        ({"dead": True}, Fate.CONTRARY),
    ],
)  # fmt: skip
def test_the_ehrs_answers_and_the_number_of_misses_decide_a_rows_fate(changes: dict[str, Any], believed: Fate) -> None:
    assert fate(**changes) is believed


@pytest.mark.parametrize(
    ("asked_for", "believed"),
    [
        (NOT_THERE, Fate.SETTLED),
        (READ, Fate.DOUBTED),
        ({"asked": True, "said": Said.UNANSWERED}, Fate.DOUBTED),
        ({"asked": True, "said": Said.WITHHELD}, Fate.DOUBTED),
        ({**READ, "way": 2}, Fate.SETTLED),
    ],
)
def test_rows_missed_twice_and_not_requested_are_gone_only_if_the_requested_rows_of_their_way_are(
    asked_for: dict[str, Any], believed: Fate
) -> None:
    twice = MISSED._replace(before=Open.DOUBTED)
    assert decided([twice, MISSED._replace(**asked_for)], is_pull=False)[0] is believed


FLAGS = ("everything", "strict", "of_unknown", "asked", "received", "elsewhere", "dead", "way_again", "member", "chart_came",
    "others_came", "controlled", "of_mass")  # fmt: skip
ANY = st.builds(
    lambda flags, **rest: MISSED._replace(**dict(zip(FLAGS, flags, strict=True)), **rest),
    st.tuples(*[st.booleans() for _ in FLAGS]),
    resource_type=st.sampled_from(["Patient", "Observation"]),
    way=st.sampled_from([None, 1]),
    said=st.sampled_from([None, *Said]),
    before=st.sampled_from([None, *Open]),
)


@given(ANY, st.booleans())
def test_no_row_dies_that_arrived_or_belongs_to_a_mass_or_whose_chart_arrived(one: Circumstance, is_pull: bool) -> None:
    if decided([one], is_pull=is_pull)[0] in GONE:
        assert not any((one.received, one.of_mass, one.chart_came, one.dead))


@given(ANY)
def test_a_pull_deletes_only_what_the_ehr_itself_calls_deleted(one: Circumstance) -> None:
    if decided([one], is_pull=True)[0] in GONE:
        assert one.said in {Said.DELETED, Said.MERGED, Said.GONE}


@given(ANY, st.booleans())
def test_silence_or_a_refusal_alone_never_proves_that_a_row_is_gone(one: Circumstance, is_pull: bool) -> None:
    silent = one._replace(said=Said.UNANSWERED, asked=True)
    assert decided([silent, one._replace(said=Said.WITHHELD)], is_pull=is_pull)[0] not in GONE


def test_a_report_has_one_hole_or_note_per_type_and_fate_and_counts_all_its_rows() -> None:
    some = [MISSED._replace(rows=1_200), MISSED._replace(rows=34, way=2), MISSED._replace(rows=2, **READ, strict=False)]
    holes, notes = told(some, decided(some, is_pull=False))
    assert [(hole.fate, hole.resource_type, hole.reason.split(" ")[0]) for hole in holes] == [
        (Fate.DOUBTED, "Observation", "1,234")
    ]
    assert [note.split(" rows")[0] for note in notes] == ["Observation: 2"]
