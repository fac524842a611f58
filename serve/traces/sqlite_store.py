"""Runs in a SQLite file."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from serve.traces.errors import TraceStoreError
from serve.traces.records import KeptRun
from serve.traces.store import FULL_TENANTS, MARK_SECONDS, RUNS_OF_A_REQUEST

FILE_NAME = "traces.sqlite3"
_BUSY_SECONDS = 2.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    expires_at REAL NOT NULL,
    run TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_of_tenant ON runs (tenant_id, seq);
CREATE INDEX IF NOT EXISTS runs_of_request ON runs (request_id, tenant_id, seq);
CREATE INDEX IF NOT EXISTS runs_expiry ON runs (expires_at);
CREATE TABLE IF NOT EXISTS forgotten (tenant_id TEXT PRIMARY KEY, at REAL NOT NULL) STRICT;
"""


class SqliteTraceStore:
    """
    A `TraceStore` for one process.

    Usage example:
    ```python
    store = SqliteTraceStore(Path("data"), ttl=3600, max_runs=1000)
    store.put([run])
    [run] = store.find(run.request_id, lambda tenant_id: tenant_id == "acme")
    ```
    """

    def __init__(self, data_dir: Path, ttl: int, max_runs: int) -> None:
        """
        Remember where; the file is opened when it is first used.

        :param data_dir: the directory; made when it is not there.
        :param ttl: seconds for which a run is kept.
        :param max_runs: runs kept of one tenant.
        """
        self._path = data_dir / FILE_NAME
        self._ttl = ttl
        self._max_runs = max_runs
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def put(self, runs: Sequence[KeptRun]) -> None:
        """Keep runs that began since their tenant was last forgotten; what has outlived its time goes."""
        now = time.time()
        rows = [
            {
                "tenant": run.tenant_id,
                "request": run.request_id,
                "expires": now + self._ttl,
                "run": run.model_dump_json(),
                "began": run.started_at.timestamp(),
            }
            for run in runs
        ]
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE expires_at <= ?", (now,))
            db.executemany(
                "INSERT INTO runs (tenant_id, request_id, expires_at, run) SELECT :tenant, :request, :expires, :run"
                " WHERE NOT EXISTS (SELECT 1 FROM forgotten WHERE tenant_id = :tenant AND at >= :began)",
                rows,
            )
            db.executemany(
                "DELETE FROM runs WHERE tenant_id = :tenant AND seq <="
                " (SELECT seq FROM runs WHERE tenant_id = :tenant ORDER BY seq DESC LIMIT 1 OFFSET :kept)",
                [
                    {"tenant": tenant_id, "kept": self._max_runs}
                    for tenant_id in {run.tenant_id for run in runs}
                ],
            )
            db.execute(
                "DELETE FROM runs WHERE seq IN"
                " (SELECT seq FROM runs ORDER BY expires_at DESC, seq DESC LIMIT -1 OFFSET ?)",
                (self._max_runs * FULL_TENANTS,),
            )

    def find(self, request_id: str, may_read: Callable[[str], bool]) -> list[KeptRun]:
        """Give the runs of a request, in order; see `TraceStore`."""
        with self._transaction() as db:
            asked = db.execute("SELECT DISTINCT tenant_id FROM runs WHERE request_id = ?", (request_id,))
            tenants = [tenant_id for (tenant_id,) in asked if may_read(tenant_id)]
            found = db.execute(
                "SELECT run FROM runs WHERE request_id = ? AND expires_at > ?"
                " AND tenant_id IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?",
                (request_id, time.time(), json.dumps(tenants), RUNS_OF_A_REQUEST),
            ).fetchall()
        return [KeptRun.model_validate_json(run) for (run,) in found]

    def forget(self, tenant_id: str) -> int:
        """Forget all runs of a tenant; nothing of them stays in the file. See `TraceStore`."""
        now = time.time()
        with self._transaction() as db:
            db.execute("DELETE FROM forgotten WHERE at < ?", (now - MARK_SECONDS,))
            db.execute("INSERT OR REPLACE INTO forgotten (tenant_id, at) VALUES (?, ?)", (tenant_id, now))
            forgotten = db.execute("DELETE FROM runs WHERE tenant_id = ?", (tenant_id,)).rowcount
        with self._open() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return forgotten

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db, db:
            yield db

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
        except (sqlite3.Error, OSError, ValueError) as error:
            raise TraceStoreError(f"{self._path.name}: {error}") from error

    def _keep_private(self) -> None:
        # The files that SQLite makes beside it are as private as it is.
        self._path.touch(mode=0o600)
        for file in (self._path, *(self._path.with_name(FILE_NAME + end) for end in ("-wal", "-shm"))):
            with suppress(FileNotFoundError, PermissionError):
                file.chmod(0o600)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_private()
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:  # no database, or one that can't be written
            connection.close()
            raise
        return connection
