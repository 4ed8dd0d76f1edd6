"""What people write into a configuration by mistake, each answered by what is wrong at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.connections import group_problem
from config.crontab_fields import schedule_problem
from config.errors import ConfigError
from config.settings import load_settings

SITE = '[connections.site]\nvendor = "generic"\nbase_url = "https://ehr.example.org/fhir"\n'


def found_in(folder: Path, text: str | bytes) -> dict[str, tuple[str, str]]:
    path = folder / "chartferry.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    return {one.path: (one.found, one.allowed) for one in caught.value.problems}


@pytest.mark.parametrize(
    ("keys", "path", "answer"),
    [
        ('types = "Patient,Condition"', "connections.site.types", 'a list: ["Patient", "Condition"]'),
        ('types = "Patient"', "connections.site.types", 'a list: ["Patient"]'),
        ('types = ["Patient,Condition"]', "connections.site.types.0", '["Patient", "Condition"]'),
        ('scopes = "system/*.read openid"', "connections.site.scopes", '["system/*.read", "openid"]'),
        ('bulk = { elements = "id,name" }', "connections.site.bulk.elements", '["id", "name"]'),
        ('schedule = "61 2 * * *"', "connections.site.schedule", "the minute is 0 to 59"),
        ('group = "Group/x"', "connections.site.group", 'the id alone: "x"'),
        ('group = "a b"', "connections.site.group", "without blanks"),
        ("group = 17", "connections.site.group", "text, in quotes"),
        ("group = ['x']", "connections.site.group", "text, in quotes"),
        ("group = 2020-01-31", "connections.site.group", "text, in quotes"),
        ('cohort = ["p1", "p2"]', "connections.site.cohort", 'must be "file:PATH"'),
        ("cohort = 5", "connections.site.cohort", 'must be "file:PATH"'),
        ("ca_bundle = 5", "connections.site.ca_bundle", "text, in quotes"),
        ("types = 5", "connections.site.types", "a list, such as [ value, value ]"),
        ("types = []", "connections.site.types", "must name at least one type"),
        ('proxy = "http://["', "connections.site.proxy", "must be a complete URL"),
        ('proxy = "http://127.0.0.1:99999"', "connections.site.proxy", "must be a complete URL"),
        ('proxy = "http://proxy:port"', "connections.site.proxy", "must be a complete URL"),
        ('proxy = "http://proxy:0"', "connections.site.proxy", "must be a complete URL"),
        ('proxy = "http://proxy:80 80"', "connections.site.proxy", "must be a complete URL"),
        ('proxy = "http://pro xy:80"', "connections.site.proxy", "must be a complete URL"),
        ("bulk = 'fast'", "connections.site.bulk", "a table, such as { key = value }"),
        ('auth = "none"\nclient_id = "env:EHR_CLIENT"', "connections.site.client_id", "the value itself"),
        ('cohort_system = "file:system.txt"', "connections.site.cohort_system", "the value itself"),
        (
            'auth = "none"\nkey = """-----BEGIN PRIVATE KEY-----\nMII"""',
            "connections.site.key",
            "kept outside this file",
        ),
        ('kid = "\u201cabc\u201d"', "connections.site.kid", "straight quotes"),
        ('kid = "abc\u200b"', "connections.site.kid", "type it again"),
        ('cohort = "file:lists\\new.csv"', "connections.site.cohort", "folders with /"),
        ('types = ["Patient\u200b"]', "connections.site.types.0", "type it again"),
    ],
)
def test_a_wrong_value_is_reported_once_with_the_likely_correction(
    tmp_path: Path, keys: str, path: str, answer: str
) -> None:
    found = found_in(tmp_path, SITE + keys)
    assert list(found) == [path]
    assert answer in found[path][1]


@pytest.mark.parametrize(
    ("line", "path", "allowed"),
    [
        (
            "vendor = 'generic'",
            "connections.vendor",
            "this key below a table that names the connection: [connections.NAME]",
        ),
        ("mode = {}", "connections.mode.vendor", "required"),
        ("sites = 1", "connections.sites", "a table: [connections.sites]; a key stands below [connections.NAME]"),
    ],
)
def test_a_key_directly_in_connections_is_answered_with_the_table_that_it_belongs_to(
    tmp_path: Path, line: str, path: str, allowed: str
) -> None:
    assert found_in(tmp_path, f"[connections]\n{line}\n")[path][1] == allowed


@pytest.mark.parametrize("key", ["client_id", "kid", "cohort_system", "ca_bundle", "client_cert", "cohort"])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_refused_where_it_stands(tmp_path: Path, key: str, value: str) -> None:
    found = found_in(tmp_path, f'{SITE}{key} = "{"file:" if key == "cohort" else ""}{value}"')
    assert "leave it out if there is none" in found[f"connections.site.{key}"][1]


@pytest.mark.parametrize(
    ("line", "where", "answer"),
    [
        ("vendor = \u201cgeneric\u201d", "line 1", "typographic quote"),
        ("vendor = `generic`", "line 1", "a backtick"),
        ("[connections.site]\nvendor = generic  # ours", "line 2", "a value without quotes"),
        ("[connections.site]\nbase_url = https://ehr.example.org/fhir", "line 2", "a value without quotes"),
        ("[connections.site]\ncohort = ~/cohort.csv", "line 2", "a value without quotes"),
        ("[connections.site]\nvendor: 'generic'", "line 2", "a colon after a key"),
        ("connections:\n", "line 1", "a colon after a key"),
        ("[connections.site]\ncookies = True", "line 2", "True or False with a capital"),
        ("[connections.site]\nmode = 'bulk',", "line 2", "a comma after a value"),
        ("[connections.site]\nmode = 'bulk", "line 2", "text that no quote ends in its line"),
        ('{\n  "connections": {}\n}', "line 1", "a { where a line begins, as in JSON"),
        ("[connections.mercy epic]\n", "line 1", "a table's name with a blank in it"),
        ("[connections.site]\nprofile = {\n  search.page_size = 5,\n}", "line 2", "goes on in the next line"),
        ("[connections.site]\nkind = 'a'\ngroup =\n", "line 3", "a key without a value"),
        (
            "[connections.site]\ntypes = ['Patient',\nmode = 'bulk'\n",
            "line 2",
            "a list over several lines that is not closed",
        ),
        ("[connections.site]\ntypes = [\n  Patient,\n  'Group',\n]", "line 2", "or has a value without quotes"),
        ("[connections.site]\ntypes = [Patient]", "line 2", "a value without quotes in a list"),
        ("[connections.site]\ntypes = ['Group', Patient]", "line 2", "a value without quotes in a list"),
        ("[connections.site]\nmode = 'bulk';", "line 2", "a semicolon after a value"),
        ("[a]\nx = [\n  { 'a' = 1 },\n]\ny = {\n", "line 5", "goes on in the next line"),
        ('[a]\nx = """\n\'y: 1\n"""\nmode = bulk', "line 5", "a value without quotes"),
        ("vendor = \u2018generic\u2019", "line 1", "typographic quote"),
        ("[connections.site]\nvendor\u00a0= 'generic'", "line 2", "which is invisible"),
        ("[connections.site]\n\u200bvendor = 'generic'", "line 2", "which is invisible"),
        ("[connections.site]\nx = 'a' \u2013", "line 2", "typographic dash"),
        ('[connections.site]\nkey = "file:C:\\keys\\epic.pem"', "line 2", "a backslash in double quotes"),
        ('[connections.site]\ncohort = "file:lists\\"\n', "line 2", "a backslash in double quotes"),
        ("[store]\n\n[ store ]", "line 3", "the table [store] a second time, after line 1"),
        (
            "[connections.a]\nmode = 'bulk'\n[x]\nmode = 1\nmode = 2",
            "line 5",
            "the key mode a second time, after line 4",
        ),
    ],
)
def test_invalid_toml_is_reported_with_its_line_and_the_likely_mistake(
    tmp_path: Path, line: str, where: str, answer: str
) -> None:
    found = found_in(tmp_path, line)
    assert list(found) == [where]
    assert answer in found[where][0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_is_reported_as_utf_16(tmp_path: Path, encoding: str) -> None:
    assert "UTF-16" in found_in(tmp_path, SITE.encode(encoding))["(the file)"][0]


def test_a_file_in_latin_1_is_reported_with_the_offending_line(tmp_path: Path) -> None:
    assert "Windows-1252" in found_in(tmp_path, (SITE + 'tenant = "k\u00f6ln"').encode("latin-1"))["line 4"][1]


@pytest.mark.parametrize("marks", ["\ufeff", "\ufeff\ufeff"])
def test_a_byte_order_mark_before_a_line_is_ignored(tmp_path: Path, marks: str) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(marks + "[export]\n" + marks + SITE, encoding="utf-8")
    assert list(load_settings(path, {}).connections) == ["site"]


def test_typographic_signs_in_comments_and_labels_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(
        f"# \u201cours\u201d \\x\n[tenants.mercy]\nlabel = \"\u201cMercy\u201d\"\n{SITE}ca_bundle = 'certs/a#\u2013.pem'\n",
        encoding="utf-8",
    )
    assert list(load_settings(path, {}).connections) == ["site"]


@pytest.mark.parametrize(
    "tail",
    ["/Patient", "/Patient/", "/Patient/123", "/Group/x/$export", "/$export", "/Patient/$export", "/metadata",
     "/Patient/1/_history/2", "/Patient?_count=1", "/Observation/$lastn"],
)  # fmt: skip
def test_a_base_url_with_too_long_a_path_is_refused_and_the_right_base_suggested(tmp_path: Path, tail: str) -> None:
    found = found_in(tmp_path, SITE.replace("/fhir", f"/fhir/R4{tail}"))["connections.site.base_url"]
    assert found[1].endswith('probably "https://ehr.example.org/fhir/R4"')
    assert "123" not in found[0]


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("https://ehr..example.org/fhir", "a complete URL"),
        ("https://ehr.example.org/fhir r4", "a complete URL"),
        ("https://ehr.example.org:99999/fhir", "a port from 1 to 65535"),
        ("https://ehr.example.org:x/fhir", "a port from 1 to 65535"),
    ],
)
def test_a_base_url_that_cannot_be_requested_is_refused(tmp_path: Path, url: str, answer: str) -> None:
    found = found_in(tmp_path, SITE.replace("https://ehr.example.org/fhir", url))["connections.site.base_url"]
    assert answer in found[1]


@pytest.mark.parametrize(
    "host", ["ehr", "EHR.example.org.", "10.0.0.7:8443", "[::1]:8080", "krankenhaus-süd.example", "a_b.lan"]
)
def test_hosts_of_every_kind_are_accepted(tmp_path: Path, host: str) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(SITE.replace("ehr.example.org", host))
    assert host in load_settings(path, {}).connections["site"].base_url


@pytest.mark.parametrize("tail", ["/oauth2/token", "/token", "/connect/authorize", "/OAuth2"])
def test_a_login_address_given_as_base_url_is_reported_as_such(tmp_path: Path, tail: str) -> None:
    found = found_in(tmp_path, SITE.replace("/fhir", tail))["connections.site.base_url"]
    assert "looks like a login URL" in found[1]


@pytest.mark.parametrize("base", ["/fhir", "/r4/ec2458f2-1e24-41c8-b71b", "/List2", "/fhir/tokens", "/tenant/Basics"])
def test_base_urls_of_real_servers_are_accepted(tmp_path: Path, base: str) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text(SITE.replace("/fhir", base))
    assert load_settings(path, {}).connections["site"].base_url.endswith(base)


@pytest.mark.parametrize(
    "text",
    ["15 2 * * *", "*/5 0-23/2 1,15 jan-MAR mon", "0 0 31 12 7", "0 0 * * 1-5", "0 0 * * SUN", "1,2,3 * * * *"],
)
def test_schedules_that_cron_accepts_are_accepted(text: str) -> None:
    assert schedule_problem(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("61 2 * * *", "the minute is 0 to 59"),
        ("0 24 * * *", "the hour is 0 to 23"),
        ("0 0 0 * *", "the day of the month is 1 to 31"),
        ("0 0 * 13 *", "the month is 1 to 12"),
        ("0 0 * * 8", "the day of the week is 0 to 7"),
        ("0 0 * foo *", "the month is 1 to 12"),
        ("5-1 0 * * *", "a range must go upwards"),
        ("*/0 0 * * *", "step must be 1"),
        ("*-5 0 * * *", "a range"),
        ("1,,2 0 * * *", "a range"),
        ("0 2 * *", "found 4"),
        ("@daily", "found 1"),
    ],
)
def test_schedules_that_cron_rejects_are_refused_with_the_wrong_field(text: str, answer: str) -> None:
    assert answer in str(schedule_problem(text))


@pytest.mark.parametrize(
    ("text", "identity"),
    [("Group/x", "x"), ("https://h/fhir/Group/x", "x"), ("Group/x/$export", "x"), (" x ", "x"), ("Group/x/", "x")],
)
def test_a_group_is_named_by_its_id_alone(text: str, identity: str) -> None:
    assert group_problem(text) == f'must be the id alone: "{identity}"'
    assert group_problem(identity) is None
    assert "must be the id of a Group" in str(group_problem(""))


def test_urls_in_the_file_that_contain_a_password_are_found(tmp_path: Path) -> None:
    path = tmp_path / "chartferry.toml"
    path.write_text('[store]\nurl = "postgresql://h/db?password=x"\n' + SITE + 'proxy = "http://u:p@h:1"')
    assert load_settings(path, {}).passwords == ("store.url", "connections.site.proxy")
    path.write_text('[store]\nurl = "env:S"\n' + SITE)
    assert load_settings(path, {"S": "postgresql://u:p@h/db"}).passwords == ()
