"""Turns true answers into bad ones: what servers, gateways and object stores have been seen to do, and worse.

Each rewrite takes a whole answer and returns another; its name is the value of a fault's `rewrite`. `faults` chooses the
requests, and `gate` handles the socket. Resources are never parsed and serialised: numbers stay as written.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

_LINKS = re.compile(rb'"link":\[.*?\]')
_MANY = 100_000
_DEEP = 20_000


@dataclass(frozen=True)
class Answer:
    """One answer as the server made it, uncompressed; header names in lower case. `url` is the requested URL with its origin."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def with_headers(self, **headers: str) -> Answer:
        """Return the same answer with these headers; underscores mean hyphens."""
        return replace(self, headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})


Rewrite = Callable[[Answer], Answer]


def _body(change: Callable[[bytes], bytes]) -> Rewrite:
    return lambda answer: replace(answer, body=change(answer.body))


# -- files ------------------------------------------------------------------------------------------------------------


def _gzip_with(change: Callable[[bytes], bytes]) -> Rewrite:
    return lambda answer: replace(answer, body=change(gzip.compress(answer.body))).with_headers(content_encoding="gzip")


def _blank_lines(body: bytes) -> bytes:
    return b"\n" + body.replace(b"\n", b"\n \n\n")


def _without_last_line(body: bytes) -> bytes:
    lines = body.splitlines(keepends=True)
    return b"".join(lines[:-1])


# -- pages ------------------------------------------------------------------------------------------------------------


def _links(answer: Answer) -> list[dict[str, str]]:
    found = _LINKS.search(answer.body)
    return list(orjson.loads(b"{%s}" % found.group())["link"]) if found else []


def _with_links(answer: Answer, links: list[dict[str, str]]) -> Answer:
    text = b'"link":' + orjson.dumps(links)
    return replace(answer, body=_LINKS.sub(lambda _: text, answer.body, count=1))


def _next_changed(change: Callable[[str], str]) -> Rewrite:
    def rewrite(answer: Answer) -> Answer:
        links = [
            {**link, "url": change(link["url"])} if link.get("relation") == "next" else link for link in _links(answer)
        ]
        return _with_links(answer, links)

    return rewrite


def _next_is_self(answer: Answer) -> Answer:
    return _with_links(answer, [{"relation": "next", "url": answer.url}])


def _phantom_next(answer: Answer) -> Answer:
    """Add one page too many: the last page links to a next one, which is empty (HAPI #1300)."""
    if "phantom=1" in answer.url:
        return replace(answer, body=b'{"resourceType":"Bundle","type":"searchset","link":[]}')
    links = _links(answer)
    if any(link.get("relation") == "next" for link in links):
        return answer
    joint = "&" if "?" in answer.url else "?"
    return _with_links(answer, [*links, {"relation": "next", "url": f"{answer.url}{joint}phantom=1"}])


def _many_links(answer: Answer) -> Answer:
    return _with_links(answer, [*_links(answer), *({"relation": "related", "url": "urn:x"} for _ in range(_MANY))])


def _upper_host(url: str) -> str:
    scheme, rest = url.split("://", 1)
    host, slash, path = rest.partition("/")
    return f"{scheme.upper()}://{host.upper()}{slash}{path}"


def _first_resource(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    at = body.find(b'"resource":{"resourceType":')
    if at < 0:
        return body
    start = at + len(b'"resource":')
    return body[:start] + change(body[start:])


def _with_member(member: bytes) -> Rewrite:
    return _body(lambda body: _first_resource(body, lambda rest: b"{" + member + b"," + rest[1:]))


def _same_id_twice(body: bytes) -> bytes:
    """Repeat the page's first entry before it, with different content: an older state of the same resource."""
    entries = body.find(b'"entry":[')
    if entries < 0:
        return body
    entry = _first_object(body, entries + len(b'"entry":['))
    older = entry.replace(b'"resource":{', b'"resource":{"language":"xx",', 1)
    at = entries + len(b'"entry":[')
    return body[:at] + older + b"," + body[at:]


def _first_object(body: bytes, start: int) -> bytes:
    depth, quoted, escaped = 0, False, False
    for at in range(start, len(body)):
        char = body[at : at + 1]
        if quoted:
            quoted, escaped = (char != b'"' or escaped), (char == b"\\" and not escaped)
        elif char == b'"':
            quoted = True
        elif char in b"{[":
            depth += 1
        elif char in b"}]":
            depth -= 1
            if depth == 0:
                return body[start : at + 1]
    return body[start:]


# -- manifests, kick-offs, tokens, documents -----------------------------------------------------------------------------


def _document(change: Callable[[dict[str, Any]], Any]) -> Rewrite:
    def rewrite(answer: Answer) -> Answer:
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            return answer
        return replace(answer, body=orjson.dumps(change(document)))

    return rewrite


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Rewrite:
    changed = _document(change)
    return lambda answer: changed(answer) if b'"transactionTime"' in answer.body else answer


def _bare(manifest: dict[str, Any]) -> dict[str, Any]:
    output = [{"type": one["type"], "url": one["url"]} for one in manifest["output"]]
    return {"transactionTime": manifest["transactionTime"], "output": output}


def _counts(value: Any) -> Rewrite:
    return _manifest(lambda found: {**found, "output": [{**one, "count": value} for one in found["output"]]})


def _other_host(answer: Answer) -> Answer:
    """Give the status URL by another name of the same machine: another origin, as Epic's BulkRequest may be."""
    location = answer.headers.get("content-location", "")
    return answer.with_headers(content_location=location.replace("127.0.0.1", "localhost"))


def _relative_location(answer: Answer) -> Answer:
    location = answer.headers.get("content-location", "")
    return answer.with_headers(content_location="/" + location.split("/", 3)[-1])


def _expires_in(value: Any) -> Rewrite:
    return _document(lambda token: {**token, "expires_in": value} if "access_token" in token else token)


def _without(*names: str) -> Rewrite:
    return _document(lambda document: {k: v for k, v in document.items() if k not in names})


REWRITES: Mapping[str, Rewrite] = {
    # files of NDJSON
    "gzip-unsaid": _body(gzip.compress),
    "gzip-twice": _gzip_with(gzip.compress),
    "gzip-tail": _gzip_with(lambda body: body + b"\x00" * 64),
    "gzip-garbage-tail": _gzip_with(lambda body: body + b"<!-- proxy -->"),
    "gzip-cut": _gzip_with(lambda body: body[: len(body) // 2]),
    "bom": _body(lambda body: b"\xef\xbb\xbf" + body),
    "crlf": _body(lambda body: body.replace(b"\n", b"\r\n")),
    "blank-lines": _body(_blank_lines),
    "no-final-newline": _body(lambda body: body.rstrip(b"\n")),
    "cut-line": _body(lambda body: body[:-40]),
    "without-last-line": _body(_without_last_line),
    "wrong-type-line": _body(lambda body: body + b'{"resourceType":"Basic","id":"basic-1","code":{"text":"x"}}\n'),
    "not-json-line": _body(lambda body: body + b'{"resourceType":"Basic","id":\n'),
    # pages
    "xml": lambda answer: replace(answer, body=b'<?xml version="1.0"?><Bundle xmlns="http://hl7.org/fhir"/>').with_headers(
        content_type="application/fhir+xml"
    ),
    "empty-body": lambda answer: replace(answer, body=b""),
    "empty-object": lambda answer: replace(answer, body=b"{}"),
    "null": lambda answer: replace(answer, body=b"null"),
    "cut-json": _body(lambda body: body[: len(body) // 2]),
    "next-is-self": _next_is_self,
    "phantom-next": _phantom_next,
    "next-relative": _next_changed(lambda url: "/" + url.split("/", 3)[-1]),
    "next-upper-host": _next_changed(_upper_host),
    "next-foreign": _next_changed(lambda url: url.replace("127.0.0.1", "localhost")),
    "many-links": _many_links,
    "nan": _with_member(b'"valueDecimal":NaN'),
    "duplicate-keys": _with_member(b'"language":"xx","language":"xx"'),
    "deep": _with_member(b'"deep":' + b"[" * _DEEP + b"]" * _DEEP),
    "same-id-twice": _body(_same_id_twice),
    "type-text": lambda answer: answer.with_headers(content_type="text/plain; charset=iso-8859-1"),
    "type-html": lambda answer: answer.with_headers(content_type="text/html"),
    "type-missing": lambda answer: replace(answer, headers={k: v for k, v in answer.headers.items() if k != "content-type"}),
    # manifests, kick-offs, tokens, documents
    "bare-manifest": _manifest(_bare),
    "empty-output": _manifest(lambda found: {**found, "output": []}),
    "token-flag-string": _manifest(lambda found: {**found, "requiresAccessToken": "true"}),
    "token-flag-nonsense": _manifest(lambda found: {**found, "requiresAccessToken": {"value": "perhaps"}}),
    "count-negative": _counts(-7),
    "count-huge": _counts(10**9),
    "count-text": _counts("many"),
    "status-other-host": _other_host,
    "status-relative": _relative_location,
    "expires-0": _expires_in(0),
    "expires-negative": _expires_in(-3600),
    "expires-huge": _expires_in(10**15),
    "expires-text": _expires_in("soon"),
    "expires-missing": _without("expires_in"),
    "without-token-endpoint": _without("token_endpoint"),
}  # fmt: skip
