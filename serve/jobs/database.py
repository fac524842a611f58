"""JobDatabase: the SQLite file of the jobs and their documents, with one thread to write and one to read."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hayhooks.durable.store import ExecutionStoreError

T = TypeVar("T")

SCHEMA_VERSION = 2
BUSY_TIMEOUT_SECONDS = 5.0
# Documents are longer than rows usually are. Five thousand of 1 KB are in within 17 ms, and in 25 ms with 4 KB pages.
PAGE_BYTES = 16_384
# SQLite would copy its log into the file within the commit that finds it long: 50 to 100 ms for who waits for that one.
# It is done beside the writer instead; only a log that writers never let alone is copied in their line.
LONG_WAL_BYTES = 16_000_000
# A log that is copied begins anew in the same file, which is cut to this: below what counts as long.
MAX_IDLE_WAL_BYTES = 8_000_000
LONGEST_WAL_BYTES = 256_000_000

# `control` is the truth about an execution; the other columns repeat it so that an index can find it. Partial
# indexes end with the column of their condition: without it SQLite visits the table for each row it counts.
SCHEMA = """
CREATE TABLE IF NOT EXISTS deployments (
    name TEXT PRIMARY KEY,
    nonterminal INTEGER NOT NULL DEFAULT 0,
    turn INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS executions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    deployment TEXT NOT NULL,
    revision TEXT NOT NULL,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    lease_until INTEGER,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    chunks_expire_at INTEGER,
    turn INTEGER NOT NULL DEFAULT 0,
    digest TEXT NOT NULL,
    control TEXT NOT NULL,
    UNIQUE (deployment, digest)
) STRICT;
CREATE INDEX IF NOT EXISTS executions_queued ON executions (deployment, revision, owner, seq, status)
    WHERE status = 'queued';
CREATE INDEX IF NOT EXISTS executions_running ON executions (deployment, owner, lease_until, status)
    WHERE status = 'running';
CREATE INDEX IF NOT EXISTS executions_turn ON executions (deployment, owner, turn) WHERE turn > 0;
CREATE INDEX IF NOT EXISTS executions_open ON executions (deployment, revision, expires_at)
    WHERE expires_at IS NULL;
CREATE INDEX IF NOT EXISTS executions_unended ON executions (deployment, owner, expires_at)
    WHERE expires_at IS NULL;
CREATE INDEX IF NOT EXISTS executions_created ON executions (deployment, owner, created_at, run_id);
CREATE INDEX IF NOT EXISTS executions_expiry ON executions (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS executions_chunk_expiry ON executions (chunks_expire_at)
    WHERE chunks_expire_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS payloads (
    run_id TEXT NOT NULL REFERENCES executions (run_id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_id, kind)
) STRICT;

CREATE TABLE IF NOT EXISTS progress (
    run_id TEXT NOT NULL REFERENCES executions (run_id) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_id, sequence)
) STRICT;

CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES executions (run_id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    data BLOB NOT NULL,
    terminal INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS chunks_by_run ON chunks (run_id, id);

CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    tenant_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    staged INTEGER NOT NULL,
    job TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant_id, seq);
CREATE INDEX IF NOT EXISTS jobs_unfinished ON jobs (created_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS jobs_unfinished_of ON jobs (tenant_id, created_at) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished_at, staged) WHERE finished_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS sources (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    sha256 TEXT,
    source TEXT NOT NULL,
    PRIMARY KEY (job, position)
) STRICT;

CREATE TABLE IF NOT EXISTS outcomes (
    job INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    status TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (job, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS deletions (
    tenant_id TEXT NOT NULL,
    document_id TEXT NOT NULL,
    deleted_at REAL NOT NULL,
    PRIMARY KEY (tenant_id, document_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    last REAL NOT NULL
) STRICT;
"""


class JobDatabase:
    """
    One SQLite file, opened durably: what `write` returned from survives a crash and a power cut.

    Usage example:
    ```python
    database = JobDatabase(Path("data/jobs.sqlite3"))
    await database.open()
    turns = await database.read(lambda connection: connection.execute("SELECT * FROM deployments").fetchall())
    await database.close()
    ```
    """

    def __init__(self, path: Path) -> None:
        """
        :param path: the file, on a local disk; made when it is not there.
        """
        self.path = path
        self._writer = _Lane(path, "jobs-writer")
        self._reader = _Lane(path, "jobs-reader")
        self._copier = _Lane(path, "jobs-copier")
        self._wal = path.with_name(f"{path.name}-wal")
        self._copying: Future[None] | None = None

    async def open(self) -> None:
        """
        Make the file and its tables where they are missing.

        :raises ExecutionStoreError: when the file can't be opened or was made by a newer version.
        """
        await asyncio.wrap_future(self._writer.submit(_create_schema, begin=None))

    async def write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run a function in a writing transaction, which is on the disk when this returns.

        :param function: is given the connection, on the writing thread; an exception rolls back.
        :returns: what the function returned.
        :raises ExecutionStoreError: when SQLite fails.
        """
        result = await asyncio.wrap_future(self._writer.submit(function, begin="BEGIN IMMEDIATE"))
        self._shorten_log()
        return result

    async def read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run a function on one snapshot of the file.

        :param function: is given the connection, on the reading thread.
        :returns: what the function returned.
        :raises ExecutionStoreError: when SQLite fails.
        """
        return await asyncio.wrap_future(self._reader.submit(function, begin="BEGIN"))

    def _shorten_log(self) -> None:
        if self._copying is not None and not self._copying.done():
            return
        try:
            size = self._wal.stat().st_size
        except OSError:  # it is not there yet
            return
        if size > LONG_WAL_BYTES:
            lane = self._copier if size < LONGEST_WAL_BYTES else self._writer
            # What it can't copy, the next write tries again.
            self._copying = lane.submit(_copy_log, begin=None)

    async def close(self) -> None:
        """Finish what was handed in and close the file."""
        await asyncio.to_thread(self._copier.close)
        await asyncio.to_thread(self._reader.close)
        await asyncio.to_thread(self._writer.close)


class _Lane:
    """One thread with one connection of its own: SQLite serialises writers anyway, and no lock is shared."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    def submit(self, function: Callable[[sqlite3.Connection], T], *, begin: str | None) -> "Future[T]":
        try:
            return self._executor.submit(self._run, function, begin)
        except RuntimeError as error:  # the executor's word for "shut down"
            raise ExecutionStoreError("the job database is closed") from error

    def close(self) -> None:
        # The connection belongs to the lane's thread, and so does closing it.
        with suppress(RuntimeError):  # closed before
            self._executor.submit(self._disconnect)
        self._executor.shutdown()

    def _run(self, function: Callable[[sqlite3.Connection], T], begin: str | None) -> T:
        try:
            connection = self._connect()
            if begin is None:
                return function(connection)
            connection.execute(begin)
            try:
                result = function(connection)
                connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself, as it does on a full disk.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise ExecutionStoreError(f"job database {self._path.name}: {error}") from error
        return result

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
            try:
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute(f"PRAGMA journal_size_limit = {MAX_IDLE_WAL_BYTES}")
            except sqlite3.Error:  # no database, or one that can't be written
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _copy_log(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _create_schema(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise ExecutionStoreError(
            f"the job database has schema {version}, and this version knows up to {SCHEMA_VERSION}"
        )
    connection.executescript(SCHEMA)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
