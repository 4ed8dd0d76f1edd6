from __future__ import annotations

import pytest

from mocks.manners import MANNERS


@pytest.mark.parametrize("vendor", sorted(MANNERS))
def test_every_request_has_a_purpose_in_the_clients_terms(vendor: str) -> None:
    layout = MANNERS[vendor].layout
    classify = layout.classifier("/bulk-bucket/")
    base = layout.base
    job = layout.status.format(job="j1").partition("?")[0]
    assert classify("POST", layout.token)[0] == "token"
    assert classify("GET", f"{base}/metadata")[0] == "discovery"
    assert classify("GET", f"{base}/.well-known/smart-configuration")[0] == "discovery"
    assert classify("GET", f"{base}/Observation") == ("search", "Observation", "/Observation")
    assert classify("POST", f"{base}/Observation/_search")[0] == "search"
    assert classify("GET", f"{base}/Patient/p-1") == ("read", "Patient", "/Patient/{id}")
    assert classify("GET", f"{base}/Group/g-1/$export") == ("kickoff", "Group", "/Group/{id}/$export")
    assert classify("GET", f"{base}/Patient/$export") == ("kickoff", "Patient", "/Patient/$export")
    assert classify("GET", job)[0] == "status"
    assert classify("DELETE", job)[0] == "delete"
    assert classify("GET", layout.file.format(job="j1", file="f1"))[0] == "file"
    assert classify("GET", "/bulk-bucket/k")[0] == "object"
    assert classify("GET", "/elsewhere")[0] == "other"
