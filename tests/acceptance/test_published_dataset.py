"""A registry follows what a hospital publishes every night after its sync."""

from __future__ import annotations

import pytest

from tests.acceptance.small_server import small_server
from tests.integration.exports.datasets import static
from tests.integration.exports.follower import Follower
from tests.user_site import Site, mock, source


def test_a_follower_equals_the_ehr_each_morning(site: Site) -> None:
    dataset = site.folder / "dataset"
    with mock("generic", patients=3) as served, static(dataset) as url:
        site.connect(served)
        follower = Follower(url)
        outputs: list[str] = []
        for night in range(3):
            if night:
                first, second, *_ = served.dataset.of_type("Condition")
                served.dataset.delete("Condition", first.id)
                served.dataset.replace(second.raw.replace(b'"resourceType"', b'"language":"en","resourceType"', 1))
            site.sync()
            outputs.append(site.run("export", "--publish", "dataset", "--json").json["published"])
            follower.poll()
            ehrs = set(source(served, ["Condition"]))
            assert {key for key in follower.copy if key[0] == "Condition"} == ehrs
            assert night == 0 or follower.copy["Condition", second.id]["language"] == "en"
        assert outputs == ["snapshot", "increment", "increment"]
        assert follower.copy.keys() == site.exported().keys()
        for where in ("dataset", url):
            done = site.run("verify", where)
            assert (done.code, done.stderr) == (0, ""), done.stderr
            assert "the dataset can be followed" in done.stdout
        assert site.run("export", "--publish", "dataset").stdout.count("nothing has changed") == 1
    assert site.run("verify", "dataset/manifest.json").stdout == site.run("verify", "dataset").stdout
    damaged = next(dataset.glob("Patient-*"))
    damaged.write_bytes(damaged.read_bytes()[1:])
    done = site.run("verify", "dataset", "--json")
    assert done.code == 3
    assert any("line 1: not JSON" in problem for problem in done.json["problems"])


@pytest.mark.parametrize("words", [("--out", "x"), ("--format", "csv"), ("--as-of", "1"), ("--strict",)])
def test_options_that_a_dataset_cannot_have_are_refused(site: Site, words: tuple[str, ...]) -> None:
    done = site.run("export", "--publish", "dataset", *words)
    assert done.code == 2
    assert words[0] in done.stderr
    assert not (site.folder / "dataset").exists()


def test_verifying_an_empty_place_says_that_there_is_nothing(site: Site) -> None:
    assert "no manifest" in site.run("verify", "nowhere").stderr
    for url in ("http://127.0.0.1:99999/manifest.json", "http://[::1", "https://h/a b/manifest.json"):
        refused = site.run("verify", url)
        assert (refused.code, "check its host and its port" in " ".join(refused.stderr.split())) == (2, True)
    (site.folder / "file").write_text("")
    assert "cannot read file/manifest.json: Not a directory" in site.run("verify", "file").stderr
    with static(site.folder / "empty") as url:
        done = site.run("verify", url)
    assert (done.code, "no manifest" in done.stderr) == (5, True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "no manifest at"),
        ((500, b"", {}), "answers 500"),
        (
            (200, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03 no gzip", {"Content-Encoding": "gzip"}),
            "cannot be read (error)",
        ),
        ((200, b"{}", {}), "manifest.json"),
    ],
)
def test_messages_show_only_the_path_of_a_url(site: Site, answer: object, message: str) -> None:
    with small_server() as small:
        small.answer = lambda path, _: answer
        where = f"{small.base.replace('://', '://ana:hunter2@')}/manifest.json?sig=hunter2"
        for words in (("verify", where), ("verify", where.replace("ana:hunter2@", ""))):
            done = site.run(*words)
            assert (done.code, "hunter2" in done.stdout + done.stderr) == (5, False), done.stderr
    assert message in done.stderr
