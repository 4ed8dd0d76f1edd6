"""Faults that nobody has reported yet, and that servers and proxies are able to (docs/faults.md, G1 and on). Data."""

from __future__ import annotations

from typing import Any

from mocks.serving import Served
from tests.acceptance import raw_front
from tests.acceptance.faulted import COMPLETE, PARTIAL, Case, Night, rule
from tests.acceptance.raw_front import sometimes

CRAWL = ("--mode", "crawl")
PROCEDURE = frozenset({"Procedure"})


def has_more(resource: Any) -> bool:
    """Whether the rewrite's own member came with it."""
    return "deep" in resource or resource.get("language") == "xx"


def is_ours(resource: Any) -> bool:
    return resource["resourceType"] == "Basic"


def holds_it_indeed(served: Served) -> None:
    """What a file brought of another type turns out to be the EHR's: nothing will ever list it, and it stays."""
    served.dataset.replace({"resourceType": "Basic", "id": "basic-1", "code": {"text": "x"}})


def few_logins(night: Night) -> None:
    """A token that says nothing of its life is not asked for before each request."""
    assert night.requests("token") <= 10


def asked_little(night: Night) -> None:
    assert len(night.served.log) < 200


def page(what: str, rewrite: str, **rest: Any) -> Case:
    """Every page of one type so."""
    number = rest.pop("number")
    return Case(
        number=number,
        what=what,
        words=CRAWL,
        rules=(rule("search", "/Procedure", action={"rewrite": rewrite}),),
        **rest,
    )


CASES = (
    page("a-bundle-with-a-hundred-thousand-links", "many-links", number="G1"),
    Case(
        number="G2",
        what="a-next-link-in-capital-letters",
        words=CRAWL,
        profile={"search.page_size": 20},
        rules=(rule("search", action={"rewrite": "next-upper-host"}),),
    ),
    Case(
        number="G2",
        what="a-relative-next-link",
        words=CRAWL,
        profile={"search.page_size": 20},
        rules=(rule("search", action={"rewrite": "next-relative"}),),
    ),
    Case(
        number="G2",
        what="a-next-link-to-another-name-of-the-host",
        words=CRAWL,
        profile={"search.page_size": 20},
        rules=(rule("search", "/Observation", action={"rewrite": "next-foreign"}),),
        code=PARTIAL,
        holes=frozenset({"Observation"}),
        says="another origin",
    ),
    page("json-labelled-as-text", "type-text", number="G3"),
    page("json-without-a-label", "type-missing", number="G3"),
    Case(
        number="G3",
        what="json-labelled-as-html-now-and-then",
        words=CRAWL,
        rules=(rule("search", action={"rewrite": "type-html"}, every=4),),
    ),
    Case(number="G4", what="chunks-in-crooked-sizes", wording=raw_front.chunks, words=CRAWL),
    Case(
        number="G4", what="chunks-without-the-last-one", wording=sometimes(raw_front.chunks_without_end, 7), words=CRAWL
    ),
    Case(
        number="G4",
        what="chunks-and-then-silence",
        wording=sometimes(raw_front.chunks_for_ever, 9),
        words=CRAWL,
        profile={"http.read_timeout_s": 0.5},
    ),
    Case(number="G5", what="http-1-0-bodies-until-the-connection-closes", wording=raw_front.until_closed, words=CRAWL),
    Case(
        number="G6",
        what="200-with-nothing-now-and-then",
        words=CRAWL,
        rules=(rule("search", action={"rewrite": "empty-body"}, every=9),),
    ),
    page("200-with-nothing-for-good", "empty-body", number="G6", code=PARTIAL, holes=PROCEDURE),
    page("an-empty-object", "empty-object", number="G6", code=PARTIAL, holes=PROCEDURE),
    page("null", "null", number="G6", code=PARTIAL, holes=PROCEDURE),
    page("json-that-breaks-off", "cut-json", number="G6", code=PARTIAL, holes=PROCEDURE),
    page("nan-for-a-number", "nan", number="G7", code=PARTIAL, holes=PROCEDURE),
    page("a-key-twice-in-a-resource", "duplicate-keys", number="G7", tolerates=has_more),
    page("twenty-thousand-levels-deep", "deep", number="G7", code=PARTIAL, holes=PROCEDURE),
    Case(
        number="G8",
        what="a-byte-at-a-time",
        wording=sometimes(raw_front.trickle, 12),
        words=CRAWL,
        profile={"http.read_timeout_s": 0.5},
    ),
    *(
        Case(number="G9", what=rewrite, vendor="cerner", rules=(rule("object", action={"rewrite": rewrite}, every=3),))
        for rewrite in ("gzip-garbage-tail",)
    ),
    *(
        Case(
            number="G10",
            what=f"a-{rewrite}",
            rules=(rule("status", action={"rewrite": rewrite}),),
            code=code,
            holes=holes,
        )
        for rewrite, code, holes in (
            ("count-negative", COMPLETE, frozenset()),
            ("count-text", COMPLETE, frozenset()),
            ("count-huge", PARTIAL, None),
        )
    ),
    page("one-id-twice-on-a-page", "same-id-twice", number="G11"),
    Case(
        number="G12",
        what="a-redirect-to-itself",
        words=CRAWL,
        rules=(rule("search", "/Procedure", action={"status": 302, "headers": {"Location": "?again"}}),),
        code=PARTIAL,
        holes=PROCEDURE,
        shown=asked_little,
    ),
    *(
        Case(
            number="G13",
            what=f"a-token-that-{rewrite.replace('-', '-in-')}",
            vendor="epic",
            rules=(rule("token", action={"rewrite": rewrite}),),
            shown=few_logins,
        )
        for rewrite in ("expires-missing", "expires-text", "expires-huge")
    ),
    *(
        Case(
            number="G13",
            what=f"a-token-that-{rewrite.replace('-', '-in-')}",
            vendor="epic",
            rules=(rule("token", action={"rewrite": rewrite}),),
        )
        for rewrite in ("expires-0", "expires-negative")
    ),
    Case(number="G14", what="interim-answers-that-nobody-asked-for", wording=raw_front.interim, words=CRAWL),
    Case(
        number="G15", what="a-length-of-more-than-comes", wording=sometimes(raw_front.longer_than_it_is, 6), words=CRAWL
    ),
    Case(
        number="G15",
        what="a-length-of-less-than-comes",
        wording=sometimes(raw_front.shorter_than_it_is, 9),
        words=CRAWL,
    ),
    Case(number="G15", what="two-lengths-that-differ", wording=sometimes(raw_front.two_lengths, 6), words=CRAWL),
    Case(number="G16", what="headers-without-end", wording=sometimes(raw_front.flood, 7), words=CRAWL),
    Case(number="G16", what="a-status-line-without-reason", wording=raw_front.no_reason, words=CRAWL),
    Case(
        number="G17",
        what="another-protocol-on-the-port-now-and-then",
        wording=sometimes(raw_front.nothing_at_all, 6),
        words=CRAWL,
    ),
    Case(
        number="G18",
        what="a-line-of-another-type-in-a-file",
        rules=(rule("file", action={"rewrite": "wrong-type-line"}, nth=2),),
        tolerates=is_ours,
        ends=holds_it_indeed,
    ),
    Case(
        number="G18",
        what="a-line-that-is-not-json-before-the-end",
        rules=(rule("file", action={"rewrite": "not-json-line"}, nth=2),),
        code=PARTIAL,
        holes=None,
    ),
    Case(
        number="G19",
        what="a-capability-statement-that-breaks-off",
        words=CRAWL,
        vendor="epic",
        rules=(rule("discovery", "metadata", action={"rewrite": "cut-json"}),),
    ),
    Case(
        number="G19",
        what="a-capability-statement-of-nothing",
        vendor="epic",
        rules=(rule("discovery", "metadata", action={"rewrite": "null"}),),
    ),
)
