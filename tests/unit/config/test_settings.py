from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError, ConfigNotFoundError, Problem
from config.fhir_server import masked_url
from config.near_words import nearest
from config.secret_refs import SecretRef
from config.settings import Settings, find_config, load_settings
from exports.formats.file_formats import FORMATS

SMALLEST = """
[connections.site]
vendor = "generic"
base_url = "https://ehr.example.org/fhir/"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "chartferry.toml"
    path.write_text(text)
    return path


VENDORS = ("epic", "cerner", "generic", "va")


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    return load_settings(write(folder, text), environ or {}, vendors=VENDORS)


def problems_in(folder: Path, text: str) -> dict[str, tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return {problem.path: (problem.found, problem.allowed) for problem in caught.value.problems}


def outcome(path: Path) -> Settings | tuple[Problem, ...]:
    try:
        return load_settings(path, {}, vendors=VENDORS)
    except ConfigError as exc:
        return exc.problems


def test_a_connection_needs_only_vendor_and_base_url(tmp_path: Path) -> None:
    settings = load(tmp_path, SMALLEST)
    site = settings.connections["site"]
    assert (site.name, site.tenant, site.auth, site.mode) == ("site", "default", "none", "auto")
    assert site.base_url == "https://ehr.example.org/fhir"
    assert settings.store_url == "embedded"
    assert settings.export.format == ("ndjson", "csv")


@pytest.mark.parametrize(
    ("keys", "auth"),
    [
        ('client_id = "a"\nkey = "env:K"', "smart"),
        ('client_id = "a"\nclient_secret = "env:K"', "secret"),
        ('bearer_token = "env:K"', "bearer"),
        ("", "none"),
        ('auth = "none"\nclient_id = "a"', "none"),
    ],
)
def test_the_login_is_inferred_from_the_keys_given(tmp_path: Path, keys: str, auth: str) -> None:
    assert load(tmp_path, SMALLEST + keys).connections["site"].auth == auth


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ('client_id = "a"', "connections.site.key"),
        ('key = "env:K"', "connections.site.client_id"),
        ('auth = "bearer"', "connections.site.bearer_token"),
        ('client_secret = "env:K"', "connections.site.client_id"),
        ('auth = "secret"\nclient_id = "a"', "connections.site.client_secret"),
        ('bearer_token = "env:B"\nkey_passphrase = "env:P"', "connections.site.key_passphrase"),
        ('client_id = "a"\nkey = "env:K"\nclient_secret = "env:S"', "connections.site.client_secret"),
    ],
)
def test_an_incomplete_login_is_reported_with_the_missing_key(tmp_path: Path, keys: str, path: str) -> None:
    assert list(problems_in(tmp_path, SMALLEST + keys)) == [path]


def test_a_number_may_name_the_key_and_a_passphrase_is_a_secret_by_reference(tmp_path: Path) -> None:
    login = 'client_id = "a"\nkey = "env:K"\nkey_passphrase = "env:P"\nkid = 5'
    site = load(tmp_path, SMALLEST + login).connections["site"]
    assert (site.kid, str(site.secrets["key_passphrase"])) == ("5", "env:P")
    assert list(problems_in(tmp_path, SMALLEST + login.replace("env:P", "open sesame"))) == [
        "connections.site.key_passphrase"
    ]


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    settings = load(
        tmp_path,
        '[store]\nurl = "embedded:pg"\n[export]\nout = "out"\n'
        + SMALLEST
        + 'client_id = "a"\nkey = "file:keys/a.json"\ncohort = "file:c.csv"\nca_bundle = "ca.pem"',
    )
    site = settings.connections["site"]
    assert settings.store_url == f"embedded:{tmp_path}/pg"
    assert settings.export.out == tmp_path / "out"
    assert site.key == SecretRef("file", f"{tmp_path}/keys/a.json")
    assert site.files == {"cohort": tmp_path / "c.csv", "ca_bundle": tmp_path / "ca.pem"}


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    problems = problems_in(
        tmp_path,
        """
        stor = 1
        [store]
        url = "mysql://user:hunter2@host/db"
        [tenants.mercy]
        [export]
        format = ["ndjson", "xlsx"]
        [connections.Big]
        vendor = "generic"
        base_url = "https://ehr.example.org"
        [connections.site]
        tenant = "mercyy"
        vendor = "epc"
        base_url = "ehr.example.org"
        types = ["observation"]
        schedule = "* *"
        cohort = "cohort.csv"
        """,
    )
    assert problems["stor"] == (
        "an unknown key",
        "did you mean store? one of: store, tenants, connections, receivers, export, audit, roles, encryption",
    )
    assert "hunter2" not in str(problems)
    assert problems["export.format.1"] == ("'xlsx'", f"one of: {', '.join(FORMATS)}")
    assert problems["connections.site.vendor"][1].endswith("did you mean epic?")
    assert problems["connections.site.tenant"][1].startswith("did you mean mercy?")
    assert set(problems) == {
        "stor",
        "store.url",
        "export.format.1",
        "connections.Big",
        "connections.site.tenant",
        "connections.site.vendor",
        "connections.site.base_url",
        "connections.site.types.0",
        "connections.site.schedule",
        "connections.site.cohort",
    }


@pytest.mark.parametrize(
    "url",
    [
        "https://h/x?token=hunter2",
        "https://h/x#hunter2",
        "https://me:hunter2@h/x",
        "https://hunter2@h/x",
        "https://me:hun/hunter2@h/x",
        "h/x?token=hunter2",
    ],
)
def test_a_base_url_with_more_than_an_address_is_refused_without_being_quoted(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SMALLEST.replace("https://ehr.example.org/fhir/", url))
    assert "hunter2" not in str(caught.value)
    assert [problem.path for problem in caught.value.problems] == ["connections.site.base_url"]


def test_a_mistyped_resource_type_is_reported_with_the_nearest_one(tmp_path: Path) -> None:
    found = problems_in(tmp_path, SMALLEST + 'types = ["Patient", "Patent"]')
    assert found["connections.site.types.1"] == (
        "'Patent'",
        "must be a resource type of FHIR R4; did you mean Patient?",
    )


@pytest.mark.parametrize("tail", ["/metadata", "/metadata/", "/.well-known/smart-configuration", "/.well-known"])
def test_a_base_url_of_a_document_below_the_base_is_refused_and_the_base_suggested(tmp_path: Path, tail: str) -> None:
    found = problems_in(
        tmp_path, SMALLEST.replace("https://ehr.example.org/fhir/", f"https://ehr.example.org/fhir/R4{tail}")
    )
    assert found["connections.site.base_url"][1].endswith('probably "https://ehr.example.org/fhir/R4"')


@pytest.mark.parametrize("key", ["key", "client_secret", "bearer_token"])
def test_a_secret_written_into_the_file_is_refused_and_never_quoted(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f'{SMALLEST}client_id = "a"\n{key} = "s3cr3t-in-the-clear"')
    assert f"connections.site.{key}" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_passwords_are_masked_in_reprs(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        '[store]\nurl = "postgresql://me:hunter2@host/db"\n' + SMALLEST + 'proxy = "http://me:hunter2@proxy:3128"',
    )
    assert settings.store_url == "postgresql://me:hunter2@host/db"
    assert settings.connections["site"].proxy == "http://me:hunter2@proxy:3128"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "host=db password=hunter2 user=me",
        "host=db password = 'hunter2 9'",
        "host=db password=x&hunter2 user=me",
        r"host=db password='it\\'s hunter2'",
        r"host=db password=x\\ hunter2",
        "Server=db;User Id=me;Password=x hunter2;",
        "jdbc:postgresql://db/x?user=me&password=hunter2",
        "mysql://me:hunt/er2@db/x",
        "postgres//me:hunter2@db/x",
        "postgresql:/me:hunter2@db/x",
        "me:hunter2@db",
    ],
)
def test_a_store_url_of_another_kind_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    found = problems_in(tmp_path, f'[store]\nurl = "{url}"')["store.url"]
    assert "hunt" not in str(found)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://me:hunter2@h/db", "postgresql://me:****@h/db"),
        ("postgresql://me:hun/ter@2@h/db", "postgresql://me:****@h/db"),
        ("postgresql://me@h/db?password=hunter2&sslmode=require", "postgresql://me@h/db?password=****&sslmode=require"),
        ("postgresql://me:hunter 2@h/db", "postgresql://me:****@h/db"),
        ("postgresql://me@h/db?password=x hunter2", "postgresql://me@h/db?password=****"),
        ("http://proxy:3128", "http://proxy:3128"),
    ],
)
def test_a_password_is_masked_anywhere_in_a_url(url: str, masked: str) -> None:
    assert masked_url(url) == masked


@pytest.mark.parametrize("out", ["", " ", "-"])
def test_an_export_needs_a_folder_or_a_url(out: str, tmp_path: Path) -> None:
    found = problems_in(tmp_path, f'[export]\nout = "{out}"\n')
    assert found == {"export.out": (repr(out), "a folder or a URL: an export is several files")}


def test_the_store_url_may_come_from_the_environment(tmp_path: Path) -> None:
    text = '[store]\nurl = "env:STORE"'
    assert load(tmp_path, text, {"STORE": "postgresql://h/db\n"}).store_url == "postgresql://h/db"
    assert load(tmp_path, text, {"STORE": "postgresql://h/db"}).store_url == "postgresql://h/db"
    assert problems_in(tmp_path, text)["store.url"][0] == "env:STORE, which is not set"


def test_unreadable_toml_is_reported_with_its_place(tmp_path: Path) -> None:
    assert "line 2" in problems_in(tmp_path, "[store]\nurl = ]\n")["(the file)"][0]


def test_the_file_is_looked_for_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flag", "environ", "here", "user/chartferry"):
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name, SMALLEST)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    environ = {"CHARTFERRY_CONFIG": str(tmp_path / "environ" / "chartferry.toml")}
    flag = tmp_path / "flag" / "chartferry.toml"
    assert find_config(flag, environ) == flag
    assert find_config(None, environ).parent.name == "environ"
    assert find_config(None, {}).parent.name == "here"
    (tmp_path / "here" / "chartferry.toml").unlink()
    assert find_config(None, {}).parent.name == "chartferry"
    (tmp_path / "user" / "chartferry" / "chartferry.toml").unlink()
    with pytest.raises(ConfigNotFoundError, match="chartferry init"):
        find_config(None, {})


def test_a_folder_in_place_of_the_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "chartferry.toml"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigNotFoundError, match=f"{folder} is not a file"):
        find_config(None, {})
    with pytest.raises(ConfigNotFoundError, match="that is not a file"):
        find_config(folder, {})


def test_a_value_that_may_be_a_secret_is_described_by_its_kind(tmp_path: Path) -> None:
    found, _ = problems_in(tmp_path, SMALLEST + "key = 5\n")["connections.site.key"]
    assert found == "a number, not shown because it may be a secret"


@pytest.mark.parametrize(
    "text",
    [
        '[[connections]]\nclient_secret = "hunter2"\n',
        '[[connections]]\nbase_url = "https://u:hunter2@h/fhir"\n',
        SMALLEST + 'group = ["https://u:hunter2@h/fhir"]\n',
        SMALLEST + 'cohort = { password = "hunter2" }\n',
        '[store]\nurl = { password = "hunter2" }\n',
    ],
)
def test_a_secret_within_a_list_or_a_table_is_not_quoted(tmp_path: Path, text: str) -> None:
    assert "hunter2" not in repr(problems_in(tmp_path, text))


def test_the_settings_know_which_values_the_file_sets(tmp_path: Path) -> None:
    written = load(tmp_path, SMALLEST).written
    assert "connections.site.vendor" in written
    assert "connections.site.mode" not in written


def test_a_bare_word_inside_a_key_is_near_enough() -> None:
    assert nearest("token", ["kid", "bearer_token"]) == "bearer_token"
    assert nearest("zzz", ["kid", "bearer_token"]) is None


@given(st.text(max_size=200))
def test_any_text_gives_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    assert outcome(path)


VALUES = st.recursive(
    st.one_of(
        st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=8), st.integers(0, 9), st.booleans()
    ),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
KEYS = [
    "vendor",
    "base_url",
    "key",
    "client_id",
    "types",
    "mode",
    "profile",
    "proxy",
    "schedule",
    "cohort",
    "auth",
    "x",
]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_values_of_any_kind_are_reported_and_never_crash(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, object]
) -> None:
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path = tmp_path_factory.getbasetemp() / "values.toml"
    path.write_text("\n".join(["[connections.site]", *lines]))
    found = outcome(path)
    assert isinstance(found, Settings) or all(problem.path.startswith("connections.site") for problem in found)


def test_mistakes_in_the_audit_rules_and_roles_are_reported(tmp_path: Path) -> None:
    text = '[audit]\nrequire_reason = true\nkeep_years = 7\n[roles]\nresearch = ["ana", "ben"]\n'
    settings = load(tmp_path, text + SMALLEST)
    assert (settings.audit.require_reason, settings.audit.keep_years) == (True, 7)
    assert settings.roles == {"research": ("ana", "ben")}
    assert (load(tmp_path, SMALLEST).audit.require_reason, load(tmp_path, SMALLEST).audit.keep_years) == (False, 6)
    wrong = '[audit]\nkeep_years = 0\nreason = true\n[roles]\nresearch = "ana"\n"a,b" = ["ben"]\n'
    assert set(problems_in(tmp_path, wrong + SMALLEST)) == {
        "audit.keep_years",
        "audit.reason",
        "roles.research",
        "roles.a,b",
    }


def test_a_receiver_has_the_login_settings_of_a_connection_and_mistakes_are_reported(tmp_path: Path) -> None:
    problems = problems_in(
        tmp_path,
        """
        [receivers.registry]
        base_url = "registry.example.org"
        submitter = "1234567893"
        client_id = "a"
        file_request_headers = { Authorization = "Bearer hunter2" }
        cohort = "file:x.csv"
        """,
    )
    assert set(problems) == {
        "receivers.registry.base_url",
        "receivers.registry.submitter",
        "receivers.registry.key",
        "receivers.registry.file_request_headers.Authorization",
        "receivers.registry.cohort",
    }
    assert "hunter2" not in str(problems)


def test_only_existing_roles_may_see_encrypted_values_and_masking_needs_keys(tmp_path: Path) -> None:
    text = '[encryption]\nkeys = { k1 = "env:KEY" }\nshown_to = ["care"]\n[roles]\ncare = ["ana"]\n'
    encryption = load(tmp_path, text + SMALLEST).encryption
    assert [encryption.masks(roles) for roles in (("care", "x"), ("x",), ())] == [False, True, True]
    assert load(tmp_path, SMALLEST).encryption.masks(()) is False
    assert problems_in(tmp_path, text.replace('["care"]', '["cure"]', 1) + SMALLEST) == {
        "encryption.shown_to": ("'cure'", "a role of [roles]: care")
    }
    assert set(problems_in(tmp_path, "[encryption]\nshown_to = []\n" + SMALLEST)) == {"encryption.shown_to"}


def test_additional_encrypted_paths_are_element_paths_and_need_keys(tmp_path: Path) -> None:
    text = '[encryption]\nkeys = {{ k1 = "env:KEY" }}\npaths = [{}]\n' + SMALLEST
    assert load(tmp_path, text.format('"Observation.note"')).encryption.paths == {"Observation.note"}
    assert load(tmp_path, SMALLEST).encryption.paths == frozenset()
    for wrong in ("Observation", "note", "Observation.value[x]", "Observation.contained", "Patient.meta.tag"):
        assert [path.partition(".paths")[0] for path in problems_in(tmp_path, text.format(f'"{wrong}"'))] == [
            "encryption"
        ]
    assert set(problems_in(tmp_path, '[encryption]\npaths = ["Observation.note"]\n' + SMALLEST)) == {"encryption.paths"}
