from __future__ import annotations

import errno
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import resource
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exports.delivery.destination import LocalFolder
from exports.delivery.files import BLOCK_BYTES, AtomicFile, Compress, Encoder, destination_errors, output_folder
from exports.delivery.manifest import clear_former, listed_before, manifest_content, retire_manifest
from exports.delivery.outgoing import Outgoing, Parts, Tally
from exports.errors import DestinationError
from exports.formats.bundle import HEAD, TAIL, BundleEntries
from exports.formats.ndjson import Lines


def encoded(chunks: list[bytes], *, compress: Compress = "fast") -> bytes:
    stream = io.BytesIO()
    encoder = Encoder(stream, compress=compress)
    for chunk in chunks:
        encoder.write(chunk)
    encoder.finish()
    assert encoder.bytes == len(stream.getvalue())
    return stream.getvalue()


def cut(content: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(edge, len(content)) for edge in at), len(content)]
    return [content[start:end] for start, end in itertools.pairwise(edges)]


@example(bytes(range(251)), 9, [1, BLOCK_BYTES, BLOCK_BYTES + 1])
@given(st.binary(max_size=300), st.integers(1, 9), st.lists(st.integers(0, 3 * BLOCK_BYTES), max_size=6))
def test_equal_data_gives_equal_bytes_in_chunks_of_any_size(piece: bytes, times: int, at: list[int]) -> None:
    content = piece * (times * 1500)
    assert encoded(cut(content, at)) == encoded([content])
    assert gzip.decompress(encoded([content])) == content


class Full(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_full_disk_met_by_one_block_is_reported_with_the_next_one_or_at_the_end(blocks: int) -> None:
    encoder = Encoder(Full(), compress="no")

    def written() -> None:
        encoder.write(bytes(blocks * BLOCK_BYTES))
        encoder.finish()

    with pytest.raises(OSError, match="No space left on device"):
        written()
    encoder.abandon()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]


def test_a_file_with_a_block_that_was_not_written_is_never_finished() -> None:
    encoder = Encoder(Full(), compress="no")
    with pytest.raises(OSError, match="No space left"):
        encoder.write(bytes(3 * BLOCK_BYTES))
    with pytest.raises(OSError, match="No space left"):
        encoder.finish()
    encoder.abandon()


def test_the_gzip_header_holds_no_time_and_no_name() -> None:
    assert encoded([b"x"])[:8] == bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0])


def test_a_file_appears_whole_with_its_checksum(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "a.gz", compress="fast") as file:
        file.write(b"one\n")
        assert not (tmp_path / "a.gz").exists()
        delivered = file.commit(kind="ndjson", rows=1)
    content = (tmp_path / "a.gz").read_bytes()
    assert delivered.sha256 == hashlib.sha256(content).hexdigest()
    assert (delivered.bytes, delivered.uncompressed_bytes) == (len(content), 4)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gz"]


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail() -> None:
        with AtomicFile(tmp_path / "a", compress="no") as file:
            file.write(b"half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - whatever it is
        fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_full_part_is_followed_by_another_only_if_there_are_more_rows(tmp_path: Path) -> None:
    with (
        Outgoing(LocalFolder(tmp_path), tmp_path, part_size=3) as files,
        Parts(files, "Patient.ndjson", kind="ndjson", compress="no", open_=Lines) as parts,
    ):
        parts.add(b"{}\n", lambda: Tally(1))
        parts.add(b"", lambda: Tally(1))
        parts.close(Tally(1))
    assert [(file.path, file.rows) for file in files.in_order(["Patient.ndjson"])] == [("Patient.0001.ndjson", 1)]


def test_a_second_writer_of_a_file_is_refused(tmp_path: Path) -> None:
    with (
        AtomicFile(tmp_path / "a", compress="no"),
        pytest.raises(DestinationError, match="another process"),
        AtomicFile(tmp_path / "a", compress="no"),
    ):
        pass


def test_a_file_that_was_finished_between_open_and_lock_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, target = tmp_path / ".a.chartferry-part", tmp_path / "a"

    def lock_after_the_other_has_finished(descriptor: int, _: int) -> None:
        part.rename(target)
        target.write_bytes(b"finished")

    monkeypatch.setattr("exports.delivery.files.fcntl.flock", lock_after_the_other_has_finished)
    with pytest.raises(DestinationError, match="another process"), AtomicFile(target, compress="no"):
        pass
    assert target.read_bytes() == b"finished"


def test_a_second_export_into_a_folder_is_refused(tmp_path: Path) -> None:
    with output_folder(tmp_path), pytest.raises(DestinationError, match="another export"), output_folder(tmp_path):
        pass
    with output_folder(tmp_path):
        pass


def test_an_export_that_writes_nothing_removes_the_folders_that_it_made(tmp_path: Path) -> None:
    with pytest.raises(KeyError), output_folder(tmp_path / "new" / "set"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    with output_folder(tmp_path / "there" / "set") as folder:
        (folder / "file").touch()
    with output_folder(tmp_path / "there" / "other"):
        pass
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["set"]


def test_leftovers_of_a_killed_export_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.chartferry-part").write_bytes(b"left")
    (tmp_path / ".room.chartferry-part").mkdir()
    (tmp_path / ".room.chartferry-part" / "charts.duckdb").write_bytes(b"left")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".link.chartferry-part").symlink_to(tmp_path / "elsewhere")
    with output_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_part_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".a.chartferry-part").symlink_to(tmp_path / "victim")
    with pytest.raises(DestinationError), AtomicFile(tmp_path / "a", compress="no"):
        pass
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_instants_in_the_manifest_are_in_utc() -> None:
    snapshot: Any = SimpleNamespace(as_of=datetime(2024, 1, 2, tzinfo=UTC), shown=(), left_by=None, not_included=())
    content = manifest_content(version="1", snapshot=snapshot, request={}, files=[])
    assert json.loads(content)["as_of"] == "2024-01-02T00:00:00Z"


_RESOURCES = st.lists(
    st.dictionaries(st.text(max_size=3), st.text() | st.integers() | st.none(), min_size=1), max_size=5
)


@given(_RESOURCES, st.lists(st.integers(0, 200), max_size=5))
def test_entries_in_chunks_of_any_size_become_a_bundle_of_the_same_entries(resources: list[Any], at: list[int]) -> None:
    lines = b"".join(json.dumps(resource).encode() + b"\n" for resource in resources)
    entries = BundleEntries()
    content = HEAD + b"".join(entries.feed(chunk) for chunk in cut(lines, at)) + TAIL
    bundle = json.loads(content)
    assert bundle["entry"] == resources
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "collection")


def manifest_of(*names: Any) -> str:
    return json.dumps({"chartferry": "1", "files": [{"path": name} for name in names]})


@pytest.mark.parametrize(
    ("content", "listed"),
    [
        (
            manifest_of("Patient.ndjson.gz", "my_view.csv.gz", "Patient.0001.ndjson.gz"),
            {"Patient.ndjson.gz", "my_view.csv.gz", "Patient.0001.ndjson.gz"},
        ),
        (
            manifest_of(
                "../Patient.ndjson.gz",
                "/etc/passwd",
                "manifest.json",
                "a/b.csv.gz",
                ".x.csv.gz",
                "a.b.csv",
                7,
                None,
                "",
            ),
            set(),
        ),
        ('{"files": [{"path": "Patient.ndjson.gz"}]}', set()),
        ("no json", set()),
        ("[]", set()),
        ('{"chartferry": "1", "files": 7}', set()),
        ("[" * 100_000, set()),
    ],
)
def test_a_retired_manifest_lists_only_our_own_files(content: str, listed: set[str], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert listed_before(LocalFolder(tmp_path)) == listed
    retire_manifest(LocalFolder(tmp_path), listed)
    assert not (tmp_path / "manifest.json").exists()


def test_files_retired_by_a_killed_export_are_known_to_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest_of("Patient.ndjson.gz"))
    folder = LocalFolder(tmp_path)
    assert listed_before(folder) == {"Patient.ndjson.gz"}
    retire_manifest(folder, {"Patient.ndjson.gz", "placed.csv.gz"})
    (tmp_path / "Patient.ndjson.gz").write_text("")
    (tmp_path / "placed.csv.gz").write_text("")
    assert listed_before(folder) == {"Patient.ndjson.gz", "placed.csv.gz"}
    clear_former(folder, {"Patient.ndjson.gz", "placed.csv.gz", "gone.csv.gz"})
    assert not list(tmp_path.iterdir())


def test_sealed_files_appear_together_or_not_at_all(tmp_path: Path) -> None:
    with AtomicFile(tmp_path / "a", compress="no") as one, AtomicFile(tmp_path / "b", compress="no") as other:
        for file in (one, other):
            file.write(b"x")
            file.seal(kind="ndjson", rows=1)
        assert not (tmp_path / "a").exists()
        one.place()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@given(st.binary(max_size=300), st.integers(1, 9), st.lists(st.integers(0, 3 * BLOCK_BYTES), max_size=6))
def test_zstd_gives_equal_bytes_in_chunks_of_any_size(piece: bytes, times: int, at: list[int]) -> None:
    content = piece * (times * 1500)
    whole, cuts = encoded([content], compress="zstd"), encoded(cut(content, at), compress="zstd")
    assert whole == cuts
    assert pa.CompressedInputStream(pa.BufferReader(whole), "zstd").read() == content


@pytest.mark.parametrize("compress", ["no", "fast", "small"])
def test_a_file_that_only_partly_fits_on_the_disk_is_refused_and_leaves_nothing(
    tmp_path: Path, compress: Compress
) -> None:
    def write() -> None:
        with AtomicFile(tmp_path / "x", compress=compress) as file:
            file.write(random.Random(1).randbytes(80_000))
            file.commit(kind="ndjson", rows=1)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # a write takes what fits, as on a full disk
    try:
        with pytest.raises(DestinationError):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EEXIST, "name a folder"),
        (errno.ENOTDIR, "name a folder"),
        (errno.EROFS, "let this user write there"),
        (errno.ENOSPC, "free some space"),
        (errno.ENAMETOOLONG, "shorter name"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_the_next_step(number: int, advice: str) -> None:
    with pytest.raises(DestinationError, match=rf"cannot write /x/y: .*{advice}"), destination_errors(Path("/x/y")):
        raise OSError(number, os.strerror(number))
