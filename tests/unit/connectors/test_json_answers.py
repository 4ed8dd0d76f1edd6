"""JSON that comes from outside is read with a byte order mark too, wherever it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.secret_refs import SecretRef
from config.settings import read_settings
from connectors.fhir.auth.assertion import load_signing_key
from connectors.fhir.auth.token_table import judge_token
from connectors.fhir.bulk.kick_off import Proofs
from connectors.fhir.bulk.manifest import looks_like_manifest, manifest_from
from connectors.fhir.json_answers import UnreadableJsonError, json_from, pieces_of
from connectors.fhir.records import deletions_from, page_from, record_from
from connectors.fhir.transport.call import Reply
from connectors.fhir.transport.fhir_base import FhirBase
from connectors.fhir.transport.retry_table import issue_codes
from connectors.fhir.vendors import PROFILES
from snapshots.witness import Deletion
from tests.user_site import key_pair

BASE = FhirBase("https://x")
BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_before_json_is_ignored() -> None:
    assert json_from(BOM + b'{"a":1}') == {"a": 1}
    with pytest.raises(UnreadableJsonError):
        json_from(BOM + BOM + b"{}")


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_json_in_utf_16_or_32_is_read_wherever_it_comes_from(coding: str) -> None:
    def packed(text: str) -> bytes:
        return text.encode(coding)

    assert json_from(packed('{"a":"\U0001f600é"}')) == {"a": "\U0001f600é"}
    manifest = packed('{"output":[{"type":"Patient","url":"u"}]}')
    assert [file.url for file in manifest_from(manifest, page=1, proofs=Proofs()).files()] == ["u"]
    patient = '{"resourceType":"Patient","id":"p1","n":1.0}'
    page = page_from(packed(f'{{"resourceType":"Bundle","entry":[{{"resource":{patient}}}]}}'), BASE, where="x")
    assert [record.body for record in page.records] == [patient.encode()]


@pytest.mark.parametrize("body", [b"\xff\xfe{", b"\0", b"{\0\0", b"\xff\xfe\0\xd8{\0"])
def test_bytes_that_only_look_like_another_encoding_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableJsonError):
        json_from(body)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"<html>Jane Doe</html>", b"{}{}", b"\xff", b"[" * 20_000])
def test_invalid_json_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(UnreadableJsonError) as caught:
        json_from(body)
    assert str(caught.value) == "not valid JSON"
    assert caught.value.__context__ is None


def test_a_resource_read_by_id_is_stored_without_the_byte_order_mark() -> None:
    body = b'{"resourceType":"Patient","id":"p1"}'
    assert record_from(BOM + body, BASE) == record_from(body, BASE)


def test_manifests_pages_deletions_and_outcomes_are_read_after_a_byte_order_mark() -> None:
    manifest = BOM + b'{"output":[{"type":"Patient","url":"u"}]}'
    assert [file.url for file in manifest_from(manifest, page=1, proofs=Proofs()).files()] == ["u"]
    assert looks_like_manifest(manifest)
    assert page_from(BOM + b'{"resourceType":"Bundle","total":3}', BASE, where="x").total == 3
    gone = BOM + b'{"entry":[{"request":{"method":"DELETE","url":"Goal/g"}}]}'
    assert deletions_from(gone) == ((Deletion("Goal", "g"),), 0)
    assert issue_codes(BOM + b'{"resourceType":"OperationOutcome","issue":[{"code":"exception"}]}') == ("exception",)


def test_a_token_answer_is_read_after_a_byte_order_mark() -> None:
    body = BOM + b'{"access_token":"t","token_type":"bearer"}'
    assert judge_token(Reply(200, {}, body, "u"), now=0.0).meaning == "granted"


def test_a_key_file_and_a_configuration_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = json.dumps(key_pair("generic").private)
    (tmp_path / "key.json").write_text(text, encoding="utf-8-sig")
    secret = SecretRef.parse("file:key.json", tmp_path).read({}).reveal()
    for material in (secret, "\ufeff" + text):
        assert load_signing_key(material, PROFILES["generic"], kid=None, alg=None).alg == "ES384"
    configuration = '[connections.ehr]\nvendor = "generic"\nbase_url = "https://ehr.example.org/r4"\n'
    (tmp_path / "chartferry.toml").write_text(configuration, encoding="utf-8-sig")
    settings, problems = read_settings(tmp_path / "chartferry.toml", {})
    assert (list(settings.connections), problems) == (["ehr"], [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
).map(lambda value: {"v": value})


@given(st.lists(VALUES, max_size=5), st.booleans())
def test_consecutive_json_values_are_read_on_one_line_or_many(values: list[dict], indented: bool) -> None:
    text = b"\n".join(orjson.dumps(v, option=orjson.OPT_INDENT_2 if indented else None) for v in values)
    found = list(pieces_of(BOM + text))
    assert [piece.value for piece in found] == values
    assert [text.split(b"\n")[piece.start][:1] for piece in found] == [b"{"] * len(values)


@given(st.binary(max_size=300))
def test_no_byte_is_lost_between_pieces(body: bytes) -> None:
    kept = b"".join(piece.raw for piece in pieces_of(body))
    assert b"".join(kept.split()) == b"".join(body.replace(BOM, b"").split()) or BOM in body
