"""StagedFiles: what was uploaded, under its hash in a folder for each job, until the job needs it no more."""

import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

COPY_BYTES = 1024 * 1024
# Longer than any request takes to stage its files and then its row.
ABANDONED_SECONDS = 3_600.0


class StagedFiles:
    """
    Contents of files on a local disk, there for good when `put` returns.

    Usage example:
    ```python
    staged = StagedFiles(Path("data/staged"))
    staged.put("job-1", {sha256: file})
    content = staged.read("job-1", sha256)
    ```
    """

    def __init__(self, root: Path) -> None:
        """
        :param root: the directory; made when it is first needed.
        """
        self._root = root

    def put(self, folder: str, files: Mapping[str, BinaryIO]) -> None:
        """
        :param folder: the name of the folder.
        :param files: contents by SHA-256.
        :raises OSError: when the disk fails or is full.
        """
        path = self._root / folder
        path.mkdir(parents=True, exist_ok=True)
        for sha256, file in files.items():
            # Two requests may bring the same at once; each writes its own, and either may stay.
            part = path / f".{sha256}.{os.urandom(4).hex()}"
            file.seek(0)
            with part.open("wb") as target:
                shutil.copyfileobj(file, target, COPY_BYTES)
                target.flush()
                os.fsync(target.fileno())
            part.replace(path / sha256)
        _sync_folder(path)
        _sync_folder(self._root)

    def read(self, folder: str, sha256: str) -> bytes | None:
        """
        :param folder: the name of the folder.
        :param sha256: which file.
        :returns: its content, or None when it is gone.
        :raises OSError: when the disk fails.
        """
        try:
            return (self._root / folder / sha256).read_bytes()
        except FileNotFoundError:
            return None

    def keep(self, folder: str, wanted: Collection[str]) -> None:
        """
        Remove the files of a folder that are no longer wanted, and the folder with the last one.

        :param folder: the name of the folder.
        :param wanted: the SHA-256 of those to keep.
        :raises OSError: when the disk fails.
        """
        path = self._root / folder
        if not wanted:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir():
            for file in path.iterdir():
                if file.name not in wanted:
                    file.unlink(missing_ok=True)

    def abandoned(self, known: Collection[str]) -> list[str]:
        """
        :param known: the folders that jobs use.
        :returns: old folders beside those, left by a process that ended while it staged.
        """
        if not self._root.is_dir():
            return []
        latest = time.time() - ABANDONED_SECONDS
        return [
            path.name
            for path in self._root.iterdir()
            if path.name not in known and path.stat().st_mtime < latest
        ]


def _sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk; without it a power cut may take a file whose content is there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
