"""Files that are encrypted while they are written, and their recipients."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
from pathlib import Path

import pyrage
import pytest

from exports.delivery.destination import LocalFolder
from exports.delivery.encryption import Recipients, recipients_of
from exports.delivery.files import AtomicFile, Encoder
from exports.delivery.outgoing import Outgoing
from exports.errors import DestinationError, PlanError

SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC4pENFkgPCJ8FGZ5bHGmyHPfsRiQEOiWdJqCJ8mTSZ6"


def made() -> tuple[pyrage.x25519.Identity, Recipients]:
    identity = pyrage.x25519.Identity.generate()
    return identity, recipients_of([str(identity.to_public())])


def test_only_a_recipient_can_decrypt_a_file_and_its_checksum_is_of_the_encrypted_bytes(tmp_path: Path) -> None:
    identity, recipients = made()
    content = b"Quill\n" * 300_000
    with AtomicFile(tmp_path / "a.gz.age", compress="fast", recipients=recipients) as file:
        file.write(content)
        delivered = file.commit(kind="ndjson", rows=300_000)
    lies = (tmp_path / "a.gz.age").read_bytes()
    assert lies.startswith(b"age-encryption.org/v1\n")
    assert gzip.decompress(pyrage.decrypt(lies, [identity])) == content
    assert (delivered.bytes, delivered.uncompressed_bytes) == (len(lies), len(content))
    assert delivered.sha256 == hashlib.sha256(lies).hexdigest()
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(lies, [pyrage.x25519.Identity.generate()])


def test_each_of_several_recipients_can_decrypt_a_file() -> None:
    identities = [pyrage.x25519.Identity.generate() for _ in range(2)]
    stream = io.BytesIO()
    encoder = Encoder(stream, compress="no", recipients=recipients_of([str(one.to_public()) for one in identities]))
    encoder.finish()
    assert [pyrage.decrypt(stream.getvalue(), [one]) for one in identities] == [b"", b""]


def test_a_failed_file_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with AtomicFile(tmp_path / "a.age", compress="no", recipients=made()[1]) as file:
            file.write(b"half" * 100_000)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - whatever it is
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 3 << 20])
def test_a_full_disk_is_reported_as_a_full_disk(tmp_path: Path, size: int) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    encoder = Encoder(Full(), compress="no", recipients=made()[1])

    def written() -> None:
        encoder.write(b"x" * size)
        encoder.finish()

    with pytest.raises(OSError, match="No space left on device"):
        written()
    encoder.abandon()


def test_column_descriptions_stay_unencrypted(tmp_path: Path) -> None:
    with Outgoing(LocalFolder(tmp_path), tmp_path, recipients=made()[1]) as files:
        assert files.describe("datapackage.json", "schema", b"{}\n").path == "datapackage.json"
        part = files.begin("Patient.ndjson.gz", "fast")
        files.add("Patient.ndjson.gz", part, part.seal(kind="ndjson", rows=0))
        files.place(frozenset(), b"{}")
    assert {path.name for path in tmp_path.iterdir()} == {"datapackage.json", "Patient.ndjson.gz.age", "manifest.json"}


def test_a_foreign_file_with_the_name_of_an_encrypted_one_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson.gz.age").write_bytes(b"precious")
    with (
        Outgoing(LocalFolder(tmp_path), tmp_path, recipients=made()[1]) as files,
        pytest.raises(DestinationError, match=r"Patient\.ndjson\.gz\.age .* was not written by an export"),
    ):
        files.begin("Patient.ndjson.gz", "fast")


def test_an_ssh_key_is_reported_without_its_comment_and_duplicate_keys_count_once() -> None:
    own = str(made()[0].to_public())
    assert recipients_of([f"{SSH} zebulon@quill.org", own, SSH, own]).public_keys == (SSH, own)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("age1zebulon", "recipient 2 is not a public key that age knows; allowed: age1…"),
        ("ssh-ed25519 zebulon", "recipient 2 is not a public key"),
        ("", "recipient 2 is not a public key"),
        ("AGE-SECRET-KEY-1QUILL", "recipient 2 is an identity, which decrypts"),
    ],
)
def test_an_invalid_public_key_is_refused_without_being_quoted(word: str, why: str) -> None:
    with pytest.raises(PlanError, match=why) as caught:
        recipients_of([str(made()[0].to_public()), word])
    assert "zebulon" not in str(caught.value)
    assert not word or word not in str(caught.value)
