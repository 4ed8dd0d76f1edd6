from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cli.command_line import call
from mocks.keys import make_key_pair

KEY = json.dumps(make_key_pair().private)


def write(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "chartferry.toml"
    path.write_text(text)
    return ["config", "check", "--config", str(path)]


def site(*lines: str, name: str = "site") -> str:
    head = f'[connections.{name}]\nvendor = "epic"\nbase_url = "https://ehr.example.org/fhir"\n'
    return head + "\n".join(lines) + "\n"


def problems(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    assert call([*write(tmp_path, text), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    return {each["path"]: (each["found"], each["allowed"]) for each in answer["problems"]}


def test_a_complete_configuration_has_no_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.json").write_text(KEY)
    (tmp_path / "key.json").chmod(0o600)
    text = site('client_id = "a"', 'key = "file:key.json"', "profile = { limits.max_concurrency = 2 }")
    assert call(write(tmp_path, text)) == 0
    assert capsys.readouterr().out.endswith("all is well, 1 connection\n")


def test_a_former_flat_profile_key_works_and_its_new_place_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.json").write_text(KEY)
    (tmp_path / "key.json").chmod(0o600)
    text = site('client_id = "a"', 'key = "file:key.json"', "profile = { max_concurrency = 2 }")
    assert call(write(tmp_path, text)) == 0
    output = " ".join("".join(capsys.readouterr()).split())
    assert "connections.site.profile.max_concurrency is now connections.site.profile.limits.max_concurrency" in output


def test_all_connections_secrets_files_and_overrides_are_checked_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_A_KEY", "hunter2")
    monkeypatch.delenv("MISSING", raising=False)
    found = problems(
        tmp_path,
        site('client_id = "a"', 'key = "file:none.json"', 'cohort = "file:none.csv"', name="a")
        + site(
            'client_id = "a"',
            'key = "env:MISSING"',
            "profile = { max_concurency = 2, search.page_size = 'many' }",
            name="b",
        )
        + site('client_id = "a"', 'key = "env:NOT_A_KEY"', "profile = { limits.max_concurrency = 0 }", name="c")
        + site("modus = 'bulk'", name="d"),
        capsys,
    )
    assert set(found) == {
        "connections.a.key",
        "connections.a.cohort",
        "connections.b.key",
        "connections.b.profile.max_concurency",
        "connections.b.profile.search.page_size",
        "connections.c.key",
        "connections.c.profile.limits.max_concurrency",
        "connections.d.modus",
    }
    assert "did you mean limits.max_concurrency?" in found["connections.b.profile.max_concurency"][1]
    assert found["connections.b.key"] == (
        "env:MISSING is not set",
        "export MISSING in the environment that runs chartferry",
    )
    assert "no such file" in found["connections.a.key"][0]
    assert "does not exist" in found["connections.a.cohort"][0]
    assert "hunter2" not in str(found)


def test_a_public_key_in_place_of_the_private_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.json").write_text(json.dumps(make_key_pair().jwks))
    found = problems(tmp_path, site('client_id = "a"', 'key = "file:key.json"'), capsys)
    assert "contains only public keys" in found["connections.site.key"][1]


def test_overrides_are_checked_even_if_their_connection_is_malformed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = site('types = "A,B"', 'profile = { limits.quiet_hours = "25:00-26:00", max_concurency = 3 }')
    text += '[connections.other]\nvendor = ["epic"]\nprofile = { search.page_size = "many" }\n'
    assert {*problems(tmp_path, text, capsys)} >= {
        "connections.site.types",
        "connections.site.profile.limits.quiet_hours",
        "connections.site.profile.max_concurency",
        "connections.other.vendor",
        "connections.other.profile.search.page_size",
    }


def test_public_small_and_locked_keys_are_problems_and_a_key_with_its_passphrase_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, small = (rsa.generate_private_key(65537, bits) for bits in (2048, 1024))
    whole = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, text in {
        "PUBLIC": whole,
        "SMALL": small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "LOCKED": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame")),
    }.items():
        monkeypatch.setenv(name, text.decode().replace("\n", r"\n"))
    monkeypatch.setenv("PASS", "sesame")
    named = {"a": "PUBLIC", "b": "SMALL", "c": "LOCKED"}
    keys = "".join(site('client_id = "a"', f'key = "env:{env}"', name=name) for name, env in named.items())
    opened = site('client_id = "a"', 'key = "env:LOCKED"', 'key_passphrase = "env:PASS"', name="d")
    found = problems(tmp_path, keys + opened, capsys)
    assert {path: problem[1].partition(":")[0] for path, problem in found.items()} == {
        "connections.a.key": "the connection's key is a public key, which cannot sign",
        "connections.b.key": "the connection's key is an RSA key of 1024 bits, but signing needs at least 2048 (RFC 7518)",
        "connections.c.key": "the connection's key is encrypted with a passphrase",
    }
    assert call(write(tmp_path, opened)) == 0


ORIGIN = 'must be an origin, which is scheme, host and port without a path, such as "https://ehr.example.org:8443"'


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("limits.max_concurrency = true", "a number, without quotes"),
        ("limits.max_concurrency = 'three'", "a whole number, without quotes"),
        ("limits.max_concurrency = 2.5", "a whole number, without quotes"),
        ("limits.max_concurrency = 0", "at least 1"),
        ("retry.base_s = 0", "more than 0"),
        ("retry.base_s = inf", "a number that is not infinite"),
        ("retry.base_s = [1]", "a number, without quotes"),
        ("http.cookies = 3", "true or false, without quotes"),
        ("links.rewrite_origins = 1", "a table, such as { key = value }"),
        ("links.rewrite_origins = { 'http://a' = 'b' }", ORIGIN),
        ("links.rewrite_origins = { 'http://a/fhir' = 'https://b' }", ORIGIN),
        ("references.paths = { 'En counter' = {} }", 'must be a resource type, such as "Observation"'),
    ],
)
def test_an_override_of_the_wrong_type_is_reported_in_toml_terms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, allowed: str
) -> None:
    found = problems(tmp_path, site('auth = "none"', f"profile = {{ {override} }}"), capsys)
    assert [problem[1] for problem in found.values()] == [allowed]


def test_a_key_that_cannot_sign_the_algorithm_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.json").write_text(KEY)
    found = problems(tmp_path, site('client_id = "a"', 'alg = "RS384"', 'key = "file:key.json"'), capsys)
    assert "cannot sign RS384" in found["connections.site.key"][1]


def test_unwise_settings_are_noted_but_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key.json").write_text(KEY)
    (tmp_path / "key.json").chmod(0o644)
    text = site('client_id = "a"', 'key = "file:key.json"').replace("https", "http")
    assert call(write(tmp_path, text)) == 0
    out = capsys.readouterr().out
    assert "unencrypted" in out
    assert "chmod 600" in out


def test_show_prints_every_value_with_its_source_and_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE", "postgresql://me:hunter2@db/charts")
    monkeypatch.setenv("TOKEN", "hunter2")
    text = '[store]\nurl = "env:STORE"\n' + site(
        'bearer_token = "env:TOKEN"', "profile = { limits.max_concurrency = 2 }"
    )
    assert call([*write(tmp_path, text), "--show", "--json"]) == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    values = {each["path"]: (each["value"], each["from"]) for each in json.loads(out)["values"]}
    assert values["connections.site.auth"] == ("bearer", "implied by the other keys")
    assert values["connections.site.mode"] == ("auto", "default")
    assert values["connections.site.vendor"] == ("epic", "file")
    assert values["connections.site.profile.limits.max_concurrency"] == ("2", "file")
    assert values["connections.site.profile.retry.max_tries"][1] == "profile of epic"
    assert call([*write(tmp_path, text), "--show"]) == 0
    assert "hunter2" not in capsys.readouterr().out


def test_show_shortens_long_values_for_people_and_not_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.json").write_text(KEY)
    identity = "x" * 1047
    words = [*write(tmp_path, site(f'client_id = "{identity}"', 'key = "file:key.json"')), "--show"]
    assert call(words) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert "…(1,047characters)" in shown
    assert shown.count("x") < 300
    assert call([*words, "--json"]) == 0
    assert identity in capsys.readouterr().out


def test_an_unknown_tenant_is_reported_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write(tmp_path, "[tenants.mercy]\n" + site())
    assert call([*words, "--tenant", "mercyy"]) == 2
    assert "did you mean mercy? there are: default, mercy" in " ".join(capsys.readouterr().err.split())
    assert call([*words, "--tenant", "mercy"]) == 0


def test_a_cohort_that_is_a_folder_is_reported_as_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder" in problems(tmp_path, site('cohort = "file:."'), capsys)["connections.site.cohort"][0]


@pytest.mark.parametrize(
    ("vendor", "keys", "noted"),
    [
        ("epic", "", "set cohort"),
        ("va", "", "set cohort"),
        ("epic", 'mode = "bulk"', "set group"),
        ("cerner", "", "set group"),
        ("allscripts", "", "set group"),
        ("generic", "", ""),
        ("generic", 'mode = "bulk"', ""),
        ("cerner", 'group = "g"', ""),
        ("epic", 'group = "g"', ""),
    ],
)
def test_a_connection_without_a_way_to_know_its_patients_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], vendor: str, keys: str, noted: str
) -> None:
    assert call(write(tmp_path, site(keys).replace("epic", vendor))) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert len(notes) == (1 if noted else 0)
    assert noted in "".join(notes)


@pytest.mark.parametrize("hours", ["25:00-26:00", "22:00-24:00", "07:00\u201319:00", "7-19", "all day"])
def test_malformed_quiet_hours_are_reported_with_the_right_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hours: str
) -> None:
    found = problems(tmp_path, site(f'profile = {{ limits.quiet_hours = "{hours}" }}'), capsys)
    assert "07:00-19:00" in found["connections.site.profile.limits.quiet_hours"][1]


IN_PROFILE = "write profile = { limits.quiet_hours = … }; "
BELOW = "below [connections.NAME], "


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        (site('quiet_hours = "7-9"'), "connections.site.quiet_hours", IN_PROFILE),
        (site("limits.max_concurrency = 3"), "connections.site.limits", "write profile = { limits = … }; "),
        (site('until = "2026"'), "connections.site.until", "write bulk = { until = … }; "),
        (site('profile.group = "g"'), "connections.site.profile.group", "write group = … beside profile, not in it; "),
        ('[store]\nquiet_hours = "7-9"\n' + site(), "store.quiet_hours", BELOW + IN_PROFILE),
        (
            "[export]\npage_size = 9\n" + site(),
            "export.page_size",
            f"{BELOW}write profile = {{ search.page_size = … }}; ",
        ),
        ("profile.limits.max_concurrency = 3\n" + site(), "profile", f"{BELOW}write profile = …; "),
        ('vendor = "epic"\n' + site(), "vendor", f"{BELOW}write vendor = …; "),
    ],
)
def test_a_key_in_the_wrong_table_is_reported_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, path: str, place: str
) -> None:
    assert problems(tmp_path, text, capsys)[path][1].startswith(place)


def test_a_text_where_the_profile_needs_a_list_is_reported_with_the_list_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = problems(tmp_path, site('profile = { references.follow = "Practitioner, Location" }'), capsys)
    assert found["connections.site.profile.references.follow"][1] == 'a list: ["Practitioner", "Location"]'


def test_a_password_in_a_file_readable_by_others_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write(tmp_path, '[store]\nurl = "postgresql://me:hunter2@db/charts"\n')
    (tmp_path / "chartferry.toml").chmod(0o644)
    assert call(words) == 0
    out = capsys.readouterr().out
    assert ("store.url holds a password" in out, "chmod 600" in out, "hunter2" in out) == (True, True, False)
    (tmp_path / "chartferry.toml").chmod(0o600)
    assert call(words) == 0
    assert "holds a password" not in capsys.readouterr().out


def test_an_unset_variable_of_one_connection_does_not_hide_problems_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    unset = site('client_id = "a"', 'key = "env:MISSING"', name="a")
    words = write(
        tmp_path, '[store]\nurl = "env:MISSING"\n' + unset + site('cohort = "file:none.csv"', name="b") + site(name="c")
    )
    assert call(words) == 2
    shown = capsys.readouterr()
    for path in ("store.url", "connections.a.key", "connections.b.cohort"):
        assert path in shown.err
    assert "connections.c: neither cohort nor group" in shown.out


@pytest.mark.parametrize(
    ("path", "found", "instead"),
    [
        ("Observation.notes", ": R4 has no Observation.notes", "note"),
        ("Observaton.note", ": R4 has no Observaton", "Observation"),
        ("Observation.value", ": R4 has no Observation.value", "one of valueQuantity, valueCodeableConcept, "),
        ("HumanName.family", ": R4 has no HumanName", "an element of R4"),
        ("DomainResource.extension", ": R4 has no DomainResource", ""),
        ("Patient.contact.gender", "", "an element within Patient.contact that says more: 'gender' stays plain"),
        ("Patient.deceasedBoolean", "", "an element within Patient that says more: 'deceasedBoolean' stays plain"),
    ],
)
def test_a_path_that_would_encrypt_nothing_is_a_problem(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    found: str,
    instead: str,
) -> None:
    monkeypatch.setenv("GOOD", "ab" * 21 + "a=")
    listed = problems(tmp_path, f'[encryption]\nkeys = {{ a = "env:GOOD" }}\npaths = ["{path}"]\n', capsys)
    assert listed["encryption.paths"][0] == f"'{path}'{found}"
    assert listed["encryption.paths"][1].startswith(instead)


def test_a_path_of_r4_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", "ab" * 21 + "a=")
    paths = '["Observation.valueString", "Observation.component.valueString", "Questionnaire.item.text"]'
    assert call(write(tmp_path, f'[encryption]\nkeys = {{ a = "env:GOOD" }}\npaths = {paths}\n')) == 0


def test_each_key_of_the_store_is_read_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = "ab" * 21 + "a="
    for name, value in {"GOOD": good, "SHORT": "YWJj", "TEXT": "no key!"}.items():
        monkeypatch.setenv(name, value)
    keys = '{ a = "env:GOOD", b = "env:SHORT", c = "env:TEXT", d = "env:NOT_SET", e = "env:GOOD" }'
    found = problems(tmp_path, f"[encryption]\nkeys = {keys}\n", capsys)
    assert {path: problem[0] for path, problem in found.items()} == {
        "encryption.current": "nothing",
        "encryption.keys.b": "env:SHORT, which is not a key",
        "encryption.keys.c": "env:TEXT, which is not a key",
        "encryption.keys.d": "env:NOT_SET is not set",
        "encryption.keys.e": "the same key as a",
    }
    assert "openssl rand -base64 32" in found["encryption.keys.b"][1]
    assert not [problem for problem in found.values() if good in " ".join(problem)]
    pasted = problems(tmp_path, f'[encryption]\nkeys = {{ a = "{good}" }}\ncurrent = "b"\n', capsys)
    assert good not in str(pasted)
    assert {"encryption.keys.a"} <= set(pasted)


def test_the_key_for_deidentified_exports_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[export]\nsafe_harbor_key = "env:SAFE"\n'
    monkeypatch.delenv("SAFE", raising=False)
    assert "not set" in problems(tmp_path, text, capsys)["export.safe_harbor_key"][0]
    monkeypatch.setenv("SAFE", "hunter2")
    found, allowed = problems(tmp_path, text, capsys)["export.safe_harbor_key"]
    assert ("7 bytes" in found, "at least 32" in allowed, "hunter2" in found) == (True, True, False)
    monkeypatch.setenv("SAFE", "0123456789abcdef" * 2)
    assert call(write(tmp_path, text)) == 0
