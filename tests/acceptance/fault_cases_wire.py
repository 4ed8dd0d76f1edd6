"""Faults of the way there: gateways, limits, logins, clocks (docs/faults.md). Data; `test_fault_matrix` runs it."""

from __future__ import annotations

from tests.acceptance.faulted import FAILED, PARTIAL, Case, Night, charts_only, rule

WAF = {"wrong_content": True}
HTML = {"status": 503, "body": "html"}


def asked_little(night: Night) -> None:
    """A refusal that will not change is not hammered."""
    assert len(night.served.log) < 150


def logged_in_again(night: Night) -> None:
    assert night.requests("token") > 1


CASES = (
    Case(
        number="F1",
        what="a-firewalls-page-with-200-now-and-then",
        vendor="va",
        rules=(rule("search", action=WAF, every=7), rule("read", action=WAF, nth=1)),
    ),
    Case(
        number="F1",
        what="a-firewalls-page-with-200-for-good",
        vendor="va",
        rules=(rule("search", "/Procedure", action=WAF),),
        code=PARTIAL,
        holes=frozenset({"Procedure"}),
        says="web page",
    ),
    Case(
        number="F2",
        what="html-404-of-a-type-never-seen-is-a-note",
        vendor="epic",
        rules=(rule("search", "/Procedure", action={"status": 404, "body": "html"}),),
        unserved=frozenset({"Procedure"}),
        says="Procedure: not served here: HTTP 404",
    ),
    Case(
        number="F2",
        what="html-404-of-a-type-seen-before-is-a-hole",
        vendor="epic",
        good_night_before=True,
        rules=(rule("search", "/Procedure", action={"status": 404, "body": "html"}),),
        code=PARTIAL,
        holes=frozenset({"Procedure"}),
        says="HTTP 404",
    ),
    Case(number="F2", what="html-503", vendor="epic", rules=(rule("search", action=HTML, every=6),)),
    Case(
        number="F3",
        what="random-500s-and-503s",
        vendor="epic",
        rules=(
            rule("search", action={"status": 500, "body": "operation-outcome"}, probability=0.1),
            rule("search", action=HTML, probability=0.1),
            rule("read", action={"status": 502}, probability=0.2),
        ),
    ),
    Case(
        number="F5",
        what="429-without-retry-after",
        rules=(rule("search", action={"status": 429}, every=4), rule("read", action={"status": 429}, nth=2)),
        words=("--mode", "crawl"),
    ),
    *(
        Case(
            number="F6",
            what=f"retry-after-{what}",
            vendor="cerner",
            words=("--mode", "crawl"),
            settings={"group": None, "cohort": "file:cohort.csv"},
            expected=charts_only,
            rules=(
                rule("search", action={"status": 429, "headers": {"Retry-After": value}}, every=5),
                rule("token", action={"status": 503, "headers": {"Retry-After": value}}, nth=1),
            ),
        )
        for what, value in (
            ("of-five-hours", "18000"),
            ("as-a-date", "Wed, 21 Oct 2099 07:28:00 GMT"),
            ("of-garbage", "in a moment; 1/2"),
            ("negative", "-99999999999999999999"),
        )
    ),
    Case(
        number="F9",
        what="400-at-the-first-login",
        vendor="epic",
        rules=(rule("token", action={"status": 400}, last=2),),
        shown=logged_in_again,
    ),
    Case(
        number="F9",
        what="400-at-a-later-login",
        vendor="epic",
        rules=(
            rule("search", action={"forget_tokens": True}, nth=9),
            rule("token", action={"status": 400}, first=2, last=2),
        ),
        shown=logged_in_again,
    ),
    Case(
        number="F10",
        what="the-token-expires-between-pages",
        vendor="epic",
        mock={"page_size": 10},
        rules=tuple(rule("search", "sessionID", action={"forget_tokens": True}, nth=nth) for nth in (2, 20, 40)),
        shown=logged_in_again,
    ),
    Case(
        number="F10",
        what="the-token-expires-between-files",
        vendor="cerner",
        mock={"rows_per_file": 40},
        rules=(rule("file", action={"forget_tokens": True}, every=5),),
        shown=logged_in_again,
    ),
    Case(
        number="F10",
        what="the-token-expires-while-a-job-is-polled",
        vendor="cerner",
        mock={"polls": 4},
        rules=(rule("status", action={"forget_tokens": True}, every=2),),
        shown=logged_in_again,
    ),
    Case(
        number="F18",
        what="xml-with-200",
        vendor="epic",
        rules=(rule("search", "/Procedure", action={"rewrite": "xml"}, nth=2),),
        code=PARTIAL,
        holes=frozenset({"Procedure"}),
        says="XML",
    ),
    Case(
        number="F19",
        what="406-with-nothing",
        rules=(rule("search", "/Procedure", action={"status": 406}),),
        words=("--mode", "crawl"),
        code=PARTIAL,
        holes=frozenset({"Procedure"}),
        says="406",
        shown=asked_little,
    ),
    Case(
        number="F39",
        what="504-at-the-gateway",
        vendor="va",
        rules=(rule("search", action={"status": 504, "body": "html"}, every=5),),
    ),
    Case(
        number="F39",
        what="no-answer-at-all",
        vendor="va",
        profile={"http.read_timeout_s": 0.3},
        rules=(
            rule("search", action={"stall": True}, every=11),
            rule("search", action={"stall_after_bytes": 90}, nth=6),
        ),
    ),
    Case(
        number="F44",
        what="403-of-a-type-whose-scope-was-granted",
        vendor="epic",
        rules=(rule("search", "/Condition", action={"status": 403}),),
        code=PARTIAL,
        holes=frozenset({"Condition"}),
        says="restricted|403",
        shown=asked_little,
    ),
    Case(
        number="F48",
        what="the-smart-configuration-is-a-web-page-and-the-site-says-where",
        vendor="allscripts",
        profile={"login.token_url": "its own"},
        rules=(rule("discovery", "smart-configuration", action={"status": 200, "body": "html"}),),
    ),
    Case(
        number="F48",
        what="nothing-says-where-to-log-in",
        rules=(
            rule("discovery", "smart-configuration", action={"rewrite": "without-token-endpoint"}),
            rule("discovery", "metadata", action={"status": 404, "body": "html"}),
        ),
        code=FAILED,
        says="token_url",
    ),
    Case(number="F48", what="misspelt-and-with-a-foreign-issuer", vendor="allscripts"),
    Case(number="F50", what="the-servers-clock-is-400-s-ahead", vendor="epic", mock={"clock_skew_s": 400}),
    Case(number="F50", what="the-servers-clock-is-two-hours-behind", vendor="cerner", mock={"clock_skew_s": -7200}),
)
