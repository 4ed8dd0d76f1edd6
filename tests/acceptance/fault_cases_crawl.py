"""Faults of searches and reads: pages, sessions, filters, records (docs/faults.md). Data; `test_fault_matrix` runs it."""

from __future__ import annotations

from mocks.serving import Served
from tests.acceptance.faulted import PARTIAL, Case, Night, charts_only, rule

CRAWL = ("--mode", "crawl")
OO = "operation-outcome"


def fatal(code: str, status: int = 400) -> dict[str, object]:
    """The answer of a server that gives up, with its code."""
    return {"status": status, "body": OO, "issue_code": code}


def nothing_was_tombstoned(night: Night) -> None:
    assert sum(run["deleted"] for run in night.report["runs"]) == 0


def without_meta(resource: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in resource.items() if name != "meta"}


def with_long_ids(served: Served) -> None:
    """Two charts more, with ids as Epic gives them: longer than FHIR's 64, full of dots and hyphens."""
    who = "eLong." + "x-Y.9" * 30
    served.dataset.replace({"resourceType": "Patient", "id": who, "name": [{"family": "Long"}]})
    served.dataset.replace(
        {"resourceType": "Immunization", "id": "f." + "-.a" * 70, "status": "completed", "vaccineCode": {"text": "x"},
         "patient": {"reference": f"Patient/{who}"}}
    )  # fmt: skip


def with_future_dates(served: Served) -> None:
    """Timestamps as they are mixed in one chart: 2099, a date only, no milliseconds, an offset."""
    stamps = "2099-12-31T23:59:59.999Z", "2024-04-05", "2024-04-05T23:47:10Z", "2024-04-05T23:47:10.123456+05:30"
    for row, updated in zip(served.dataset.of_type("Procedure"), stamps, strict=False):
        served.dataset.replace({**row.body, "meta": {"versionId": "1", "lastUpdated": updated}})


def asked_from_the_past(night: Night) -> None:
    """The second run of an incremental connection asks from this year, not from 2099."""
    assert not any("2099" in entry.target for entry in night.served.log)


def delete_one_observation(served: Served) -> None:
    served.dataset.delete("Observation", served.dataset.of_type("Observation")[0].id)


CASES = (
    Case(
        number="F11",
        what="an-epic-session-expires-4113",
        vendor="epic",
        mock={"page_size": 20},
        rules=(rule("search", "sessionID", action=fatal("4113"), nth=2),),
    ),
    *(
        Case(
            number="F11",
            what=f"a-next-link-answers-{status}",
            words=CRAWL,
            mock={"page_size": 20},
            profile={"search.page_size": 20},
            rules=(rule("search", "Observation.*_offset", action=fatal("processing", status), nth=2),),
        )
        for status in (404, 410)
    ),
    Case(
        number="F11",
        what="sessions-too-short-for-any-page",
        vendor="epic",
        mock={"page_size": 10},
        rules=(rule("search", "Observation.sessionID", action=fatal("4113")),),
        code=PARTIAL,
        holes=frozenset({"Observation"}),
        says="session",
    ),
    Case(
        number="F12", what="an-empty-page-with-a-next-link", vendor="epic", mock={"page_size": 5, "empty_pages": True}
    ),
    Case(
        number="F13",
        what="outcomes-among-the-entries",
        vendor="epic",
        mock={"outcome_codes": {"Immunization": "4119"}},
        says="4119",
    ),
    Case(
        number="F14",
        what="duplicates-across-pages",
        vendor="cerner",
        words=CRAWL,
        settings={"group": None, "cohort": "file:cohort.csv"},
        expected=charts_only,
    ),
    Case(
        number="F15",
        what="a-next-link-that-repeats",
        words=CRAWL,
        rules=(rule("search", "/Procedure", action={"rewrite": "next-is-self"}),),
        code=PARTIAL,
        holes=frozenset({"Procedure"}),
        says="loop",
    ),
    Case(
        number="F15",
        what="a-phantom-last-page",
        words=CRAWL,
        rules=(rule("search", action={"rewrite": "phantom-next"}),),
    ),
    Case(number="F34", what="ids-longer-than-64-with-dots", vendor="epic", holds=with_long_ids),
    Case(number="F35", what="no-meta-at-all", vendor="epic", mock={"strip_meta": True}, shows=without_meta),
    Case(
        number="F36",
        what="dates-of-the-future-and-of-mixed-precision",
        vendor="va",
        holds=with_future_dates,
        profile={"changes.incremental": True},
        good_night_before=True,
        shown=asked_from_the_past,
    ),
    Case(
        number="F40",
        what="the-next-page-fails-after-good-ones",
        vendor="epic",
        good_night_before=True,
        mock={"page_size": 20},
        prepare=delete_one_observation,
        rules=(rule("search", "Observation.sessionID", action={"status": 500}),),
        profile={"retry.max_tries": 2},
        code=PARTIAL,
        holes=frozenset({"Observation"}),
        says="500",
        shown=nothing_was_tombstoned,
    ),
)
