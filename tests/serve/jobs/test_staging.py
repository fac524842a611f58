"""StagedFiles: uploads wait in one file for each job."""

import hashlib
import io
import os
from pathlib import Path

import pytest

from serve.jobs.staging import ABANDONED_SECONDS, StagedFiles


def named(*contents: bytes) -> dict[str, io.BytesIO]:
    return {hashlib.sha256(content).hexdigest(): io.BytesIO(content) for content in contents}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    """Each file is found under its hash, empty ones and such of many megabytes too; others are not there."""
    contents = [b"", b"a", os.urandom(3_000_000), *(f"{n}".encode() for n in range(500))]
    staged = StagedFiles(tmp_path / "staged")
    files = named(*contents)
    for file in files.values():
        file.read(1)  # it is read from the beginning, wherever it stands
    staged.put("job", files)
    assert [staged.read("job", sha256(content)) for content in contents] == contents
    assert staged.read("job", "0" * 64) is None
    assert staged.read("other", sha256(b"a")) is None


def test_hash_is_found_at_entries_only(tmp_path: Path) -> None:
    """Bytes that look like a hash between two entries of the index are not taken for one."""
    staged = StagedFiles(tmp_path)
    inside = "00" * 16 + "11" * 16
    staged.put("job", {"22" * 32: io.BytesIO(b""), "00" * 8 + "11" * 24: io.BytesIO(b"x")})
    assert staged.read("job", inside) is None


def test_only_wanted_files_stay(tmp_path: Path) -> None:
    """What is not wanted any more is dropped, and with the last file the pack."""
    staged = StagedFiles(tmp_path)
    staged.put("job", named(b"a", b"b" * 100_000, b"c"))
    staged.keep("job", [sha256(b"c")])
    assert staged.read("job", sha256(b"c")) == b"c"
    assert staged.read("job", sha256(b"a")) is None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 100
    staged.keep("job", [])
    staged.keep("job", [sha256(b"c")])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    """When a file can't be read or written to its end, no part of it stays."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        StagedFiles(tmp_path).put("job", {"00" * 32: Broken()})
    assert list(tmp_path.iterdir()) == []


def test_old_packs_without_a_job_are_found(tmp_path: Path) -> None:
    """What a process left that ended while it staged is found when it is old; what jobs use is not."""
    staged = StagedFiles(tmp_path / "staged")
    assert staged.abandoned([]) == []
    for name in ("old", "used", "new"):
        staged.put(name, named(b"a"))
        if name != "new":
            long_ago = (tmp_path / "staged" / name).stat().st_mtime - ABANDONED_SECONDS - 1
            os.utime(tmp_path / "staged" / name, (long_ago, long_ago))
    assert staged.abandoned(["used"]) == ["old"]
