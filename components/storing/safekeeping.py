"""Embedded Chroma stores an index by writing over its files: a process that is killed meanwhile leaves them unreadable.

So the files are copied before each write, and put back when the database is next opened, unless the write was finished.
What they lack then is in Chroma's log, which it replays.
"""

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Copying more takes longer than the write. That many bytes are an index of about 40,000 chunks.
_MOST_BYTES = 64 * 2**20
_FOLDER = "kept"
_UNFINISHED = ".tmp"


class IndexKeeper:
    """
    Keeps copies of the indexes that are being written.

    Usage example:
    ```python
    keeper = IndexKeeper(Path("data/chroma"))
    keeper.recover()  # before Chroma opens the database
    with keeper.keeping(str(collection.id)):
        collection.upsert(...)
    ```
    """

    def __init__(self, path: Path) -> None:
        """
        Remember where the database is.

        :param path: its directory.
        """
        self._path = path
        self._kept = path / _FOLDER
        self._folders: dict[str, str] = {}
        self._first_write = threading.Lock()

    def recover(self) -> None:
        """Put back the indexes whose last write was interrupted; call it while nobody has the database open."""
        self._kept.mkdir(exist_ok=True)
        # A new database has no tables yet; what is wrong with it otherwise is for Chroma to say.
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(sqlite3.connect(self._path / "chroma.sqlite3", timeout=1.0)) as database,
        ):
            found = database.execute("SELECT collection, id FROM segments WHERE scope = 'VECTOR'")
            self._folders = dict(found.fetchall())
            for copy in list(self._kept.iterdir()):
                folder = self._folders.get(copy.name)
                if folder is not None and _interrupted(database, copy.name, folder):
                    shutil.rmtree(self._path / folder, ignore_errors=True)
                    if any(copy.iterdir()):
                        _copy(copy, self._path / folder)
                shutil.rmtree(copy)

    @contextmanager
    def keeping(self, collection_id: str) -> Iterator[None]:
        """
        Keep a copy of a collection's index while it is written to, by nobody else.

        :param collection_id: the collection.
        """
        folder = self._folders.get(collection_id)
        if folder is not None:
            with self._copied(collection_id, self._path / folder):
                yield
            return
        # Nothing tells the name of a new collection's folder but that it was not there before.
        with self._first_write, self._copied(collection_id, None):
            before = {*os.listdir(self._path), *self._folders.values()}
            try:
                yield
            finally:
                made = [name for name in os.listdir(self._path) if name not in before]
                made = [name for name in made if (self._path / name).is_dir()]
                if len(made) == 1:
                    self._folders[collection_id] = made[0]

    @contextmanager
    def _copied(self, collection_id: str, folder: Path | None) -> Iterator[None]:
        copy = self._kept / collection_id
        if folder is not None and folder.is_dir():
            if sum(file.stat().st_size for file in os.scandir(folder)) > _MOST_BYTES:
                yield
                return
            _copy(folder, copy)
        else:
            copy.mkdir(exist_ok=True)
        try:
            yield
        finally:
            # Renamed first, so that half a copy never counts as one.
            unfinished = copy.with_name(copy.name + _UNFINISHED)
            copy.rename(unfinished)
            shutil.rmtree(unfinished)


def _copy(source: Path, target: Path) -> None:
    unfinished = target.with_name(target.name + _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for file in os.scandir(source):
        shutil.copyfile(file.path, unfinished / file.name)
    unfinished.rename(target)


def _interrupted(database: sqlite3.Connection, collection_id: str, folder: str) -> bool:
    """:returns: Whether Chroma has logged rows that it has not noted as stored in the index."""
    stored = database.execute("SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (folder,)).fetchone()
    logged = database.execute(
        "SELECT max(seq_id) FROM embeddings_queue WHERE topic LIKE ?", (f"%/{collection_id}",)
    ).fetchone()
    return _number(logged) > _number(stored)


def _number(row: Any) -> int:
    value = row[0] if row else None
    return int.from_bytes(value, "big") if isinstance(value, bytes) else int(value or 0)
