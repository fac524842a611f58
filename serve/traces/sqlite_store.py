"""Runs in a SQLite file."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serve.traces.errors import TraceStoreError
from serve.traces.records import KeptRun
from serve.traces.store import RUNS_OF_A_REQUEST

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
        """Keep runs; what has outlived its time goes."""
        now = time.time()
        rows = [(run.tenant_id, run.request_id, now + self._ttl, run.model_dump_json()) for run in runs]
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE expires_at <= ?", (now,))
            db.executemany(
                "INSERT INTO runs (tenant_id, request_id, expires_at, run) VALUES (?, ?, ?, ?)", rows
            )
            db.executemany(
                "DELETE FROM runs WHERE tenant_id = :tenant AND seq <="
                " (SELECT seq FROM runs WHERE tenant_id = :tenant ORDER BY seq DESC LIMIT 1 OFFSET :kept)",
                [{"tenant": tenant_id, "kept": self._max_runs} for tenant_id in {row[0] for row in rows}],
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

    def forget(self, tenant_id: str) -> None:
        """Forget all runs of a tenant; nothing of them stays in the file."""
        with self._transaction() as db:
            db.execute("DELETE FROM runs WHERE tenant_id = ?", (tenant_id,))
        with self._open() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

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

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
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
