"""Faults of bulk exports: kick-off, polling, manifest, files, deletion (docs/faults.md). Data; `test_fault_matrix` runs it."""

from __future__ import annotations

from tests.acceptance.faulted import FAILED, PARTIAL, Case, Night, rule

BAD_GATEWAY = {"status": 502, "body": "html"}
MANY_FILES = {"rows_per_file": 20}
EPIC_BULK = ("--mode", "bulk")
EPIC = {"group": "its own", "cohort": None}


def files_again(night: Night) -> None:
    assert night.report["runs"][0]["retries"] > 0


def one_kickoff(night: Night) -> None:
    assert night.requests("kickoff") == 1


def no_token_at_the_object_store(night: Night) -> None:
    hops = [entry for entry in night.served.log if entry.purpose == "object"]
    assert hops
    assert not any(entry.had_authorization for entry in hops)


def one_type_parameter(night: Night) -> None:
    targets = [entry.target for entry in night.served.log if entry.purpose == "kickoff"]
    assert [target.count("_type=") for target in targets] == [1]
    assert "," in targets[0].partition("_type=")[2]


def nobody_of_nothing(night: Night) -> None:
    assert sum(run["deleted"] for run in night.report["runs"]) == 0


def many_requests(night: Night) -> None:
    assert night.requests("file") > 600


def deletions_tried(night: Night) -> None:
    assert night.requests("delete") >= 1


CASES = (
    Case(
        number="F4",
        what="502-now-and-then-among-many-files",
        vendor="cerner",
        mock=MANY_FILES,
        rules=(rule("file", action=BAD_GATEWAY, every=4), rule("object", action=BAD_GATEWAY, every=5)),
        shown=files_again,
    ),
    Case(
        number="F4",
        what="one-file-that-never-comes",
        vendor="cerner",
        charts=3,
        profile={"retry.max_tries": 3},
        rules=(rule("object", action=BAD_GATEWAY, first=4, last=15),),
        code=PARTIAL,
        holes=None,
        says="502",
        shown=files_again,
    ),
    Case(
        number="F7",
        what="another-job-of-this-client-is-running",
        vendor="cerner",
        rules=(
            rule("kickoff", action={"status": 429, "body": "operation-outcome", "issue_code": "throttled"}, last=3),
        ),
    ),
    Case(
        number="F20",
        what="the-object-store-refuses-a-token",
        vendor="cerner",
        mock=MANY_FILES,
        shown=no_token_at_the_object_store,
    ),
    Case(
        number="F21",
        what="a-signed-link-has-expired",
        vendor="cerner",
        mock=MANY_FILES,
        rules=(rule("object", action={"status": 403}, every=6),),
        shown=no_token_at_the_object_store,
    ),
    Case(
        number="F22",
        what="the-connection-breaks-in-a-file",
        vendor="cerner",
        mock=MANY_FILES,
        rules=(rule("object", action={"cut_after_bytes": 700}, every=4),),
        shown=files_again,
    ),
    Case(
        number="F22",
        what="a-file-ends-in-a-line-and-its-length-is-right",
        vendor="cerner",
        mock=MANY_FILES,
        rules=tuple(rule("object", action={"rewrite": "cut-line"}, nth=nth) for nth in (2, 12, 30)),
        shown=files_again,
    ),
    Case(
        number="F22",
        what="a-file-misses-a-line-that-the-manifest-counts",
        rules=(rule("file", action={"rewrite": "without-last-line"}, nth=2),),
        shown=files_again,
    ),
    Case(
        number="F22",
        what="a-file-is-always-cut",
        rules=(rule("file", action={"rewrite": "cut-line"}, first=2, last=9),),
        profile={"retry.max_tries": 3, "limits.file_concurrency": 1},
        code=PARTIAL,
        holes=None,
        says="middle of line|cut",
    ),
    *(
        Case(number=number, what=rewrite, vendor="cerner", rules=(rule("object", action={"rewrite": rewrite}),))
        for number, rewrite in (
            ("F23", "gzip-unsaid"),
            ("F23", "gzip-twice"),
            ("F23", "gzip-tail"),
            ("F24", "bom"),
            ("F24", "crlf"),
            ("F24", "blank-lines"),
            ("F24", "no-final-newline"),
        )
    ),
    Case(
        number="F23",
        what="gzip-cut-in-half",
        vendor="cerner",
        rules=(rule("object", action={"rewrite": "gzip-cut"}, nth=3),),
    ),
    Case(
        number="F25",
        what="the-token-flag-is-a-string",
        rules=(rule("status", action={"rewrite": "token-flag-string"}),),
    ),
    Case(
        number="F25",
        what="the-token-flag-is-nonsense",
        rules=(rule("status", action={"rewrite": "token-flag-nonsense"}),),
    ),
    Case(number="F26", what="a-manifest-of-the-barest", rules=(rule("status", action={"rewrite": "bare-manifest"}),)),
    Case(
        number="F26",
        what="a-manifest-without-any-file",
        good_night_before=True,
        rules=(rule("status", action={"rewrite": "empty-output"}),),
        code=4,
        shown=nobody_of_nothing,
    ),
    Case(
        number="F27",
        what="an-error-file-beside-good-data",
        vendor="epic",
        settings=EPIC,
        words=EPIC_BULK,
        mock={"error_file": True},
        says="error file has 1 issue,",
    ),
    Case(number="F28", what="the-status-url-lies-elsewhere", vendor="epic", settings=EPIC, words=EPIC_BULK),
    Case(
        number="F28",
        what="the-status-url-is-another-origin-that-nobody-allowed",
        rules=(rule("kickoff", action={"rewrite": "status-other-host"}),),
        code=FAILED,
        says="file_hosts.*--mode crawl",
        advice=("--mode", "crawl"),
    ),
    Case(
        number="F28", what="the-status-url-is-relative", rules=(rule("kickoff", action={"rewrite": "status-relative"}),)
    ),
    *(
        Case(
            number="F29",
            what=f"delete-answers-{status}",
            vendor="cerner",
            rules=(rule("delete", action={"status": status}),),
            shown=deletions_tried,
        )
        for status in (204, 404, 500)
    ),
    Case(
        number="F30",
        what="very-many-tiny-files-with-429-and-5xx",
        vendor="cerner",
        charts=3,
        mock={"rows_per_file": 1},
        profile={"limits.file_concurrency": 8},
        rules=(
            rule("file", action={"status": 429}, probability=0.05),
            rule("object", action={"status": 500}, probability=0.01),
        ),
        shown=many_requests,
    ),
    Case(number="F41", what="a-repeated-type-parameter-is-refused", vendor="cerner", shown=one_type_parameter),
    Case(
        number="F43",
        what="the-client-goes-while-the-job-runs",
        vendor="cerner",
        profile={"retry.max_tries": 2},
        rules=(rule("status", action={"status": 503, "body": "html"}),),
        code=FAILED,
        says="kept",
        shown=one_kickoff,
    ),
)
