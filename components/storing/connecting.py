"""The client of Chroma, embedded in the process or on a server, with the bounds that Chroma itself lacks."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chromadb
import httpx
from chromadb.api import ClientAPI, ServerAPI
from chromadb.api.client import Client
from chromadb.auth import UserIdentity
from chromadb.config import Settings as ChromaSettings
from chromadb.config import System
from chromadb.telemetry.product import ProductTelemetryClient

from components.breaking import Breaker
from components.storing.guarding import guard
from components.storing.safekeeping import IndexKeeper

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]

_DATABASE = "chroma.sqlite3"
_RELEASE_SECONDS = 5.0
# Chroma's cache of open indexes has this many parts, each of which holds at least one.
_CACHE_PARTS = 64
_FILES_PER_INDEX = 5
# For sockets, SQLite, models and what else the process opens.
_OTHER_FILES = 256


class ChromaConnection:
    """Makes the client when it is first wanted, and closes it."""

    def __init__(
        self,
        path: Path | None,
        host: str | None,
        port: int,
        timeout: float,
        open_indexes: int,
        breaker: Breaker | None = None,
    ) -> None:
        """
        Remember where Chroma is.

        :param path: directory of the embedded database; None, without a host, keeps all in memory.
        :param host: host of a Chroma server, instead of `path`.
        :param port: port of that server.
        :param timeout: seconds a call to a server may take.
        :param open_indexes: collections whose index the embedded database keeps open.
        :param breaker: opens when a server keeps failing.
        """
        self.embedded = host is None
        self.keeper: IndexKeeper | None = None
        self._path = path
        self._host = host
        self._port = port
        self._timeout = timeout
        self._open_indexes = open_indexes
        self._breaker = breaker or Breaker("Chroma")
        self._lock = threading.Lock()
        self._client: ClientAPI | None = None

    def client(self) -> ClientAPI:
        """
        Give the client.

        :returns: the one client.
        """
        with self._lock:
            if self._client is None:
                self._client = self._connect_server() if self._host else self._open_embedded()
            return self._client

    def close(self) -> None:
        """Close the client if there is one."""
        with self._lock:
            if self._client is not None:
                for session in _sessions(self._client) if self._host else []:
                    session.close()
                self._client.close()
                self._client = None
                if self._path is not None and str(self._path) not in Client._identifier_to_system:
                    wait_until_released(self._path / _DATABASE)

    def _connect_server(self) -> ClientAPI:
        settings = ChromaSettings(anonymized_telemetry=False)
        settings.chroma_api_impl = "chromadb.api.fastapi.FastAPI"
        settings.chroma_server_host, settings.chroma_server_http_port = str(self._host), self._port
        return _ServerClient(settings, lambda session: guard(session, self._timeout, self._breaker))

    def _open_embedded(self) -> ClientAPI:
        settings = ChromaSettings(anonymized_telemetry=False)
        if self._path is None:
            return chromadb.EphemeralClient(settings)
        self._path.mkdir(parents=True, exist_ok=True)
        settings.persist_directory, settings.is_persistent = str(self._path), True
        with _making:
            system = Client._identifier_to_system.get(settings.persist_directory)
            if system is None:
                # Only while the database is closed: a second SQLite in the process would break the locks of Chroma's.
                wait_until_released(self._path / _DATABASE)
                keep_write_ahead_log(self._path / _DATABASE)
                _keepers[settings.persist_directory] = IndexKeeper(self._path)
                _keepers[settings.persist_directory].recover()
                system = self._system(settings)
            self.keeper = _keepers.get(settings.persist_directory)
            return Client.from_system(system)

    def _system(self, settings: ChromaSettings) -> System:
        # As `PersistentClient` does it, which sizes its cache by the file limit and lets nobody say otherwise.
        system = System(settings)
        system.instance(ProductTelemetryClient)
        api: Any = system.instance(ServerAPI)
        api.hnsw_cache_size = cache_size(self._open_indexes)
        system.start()
        return system


class _ServerClient(Client):
    """
    A client whose sessions are bounded before they first ask the server.

    That is when the client is made, so that a server which hangs would hold the thread that makes it for ever.
    """

    def __init__(self, settings: ChromaSettings, bound: Callable[[httpx.Client], None]) -> None:
        self._bound = bound
        super().__init__(settings=settings)

    def get_user_identity(self) -> UserIdentity:
        server: Any = self._server
        self._bound(server._session)
        return super().get_user_identity()

    def _validate_tenant_database(self, tenant: str, database: str) -> None:
        server: Any = self._admin_client
        self._bound(server._server._session)
        super()._validate_tenant_database(tenant, database)


_making = threading.Lock()
# Clients of one directory share a system, and so they share its keeper.
_keepers: dict[str, IndexKeeper] = {}


def cache_size(open_indexes: int) -> int:
    """
    Say how large Chroma's cache of open indexes is to be, and raise the limit of open files where it must be.

    :param open_indexes: how many are wanted.
    :returns: the number, a multiple of the cache's parts, and no more than the process may open files for.
    """
    wanted = max(1, -(-open_indexes // _CACHE_PARTS)) * _CACHE_PARTS
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted * _FILES_PER_INDEX + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        if raised > soft:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
                soft = raised
        affordable = max(0, soft - _OTHER_FILES) // _FILES_PER_INDEX
        wanted = max(1, min(wanted, affordable) // _CACHE_PARTS) * _CACHE_PARTS
    return wanted


def wait_until_released(database: Path) -> None:
    """
    Wait until nothing in this process has the database open, for a few seconds at most.

    Chroma closes its files shortly after its client is closed. POSIX locks are the process's, so that a second SQLite
    does not see those of Chroma's, cuts the shared memory they guard, and ends the process by SIGBUS.

    :param database: Chroma's database, which may not be there.
    """
    deadline = time.monotonic() + _RELEASE_SECONDS
    while _is_open_here(database) and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_open_here(database: Path) -> bool:
    descriptors = Path("/dev/fd")
    if not descriptors.is_dir():  # Windows, where a lock belongs to its handle.
        return False
    for name in os.listdir(descriptors):
        # The descriptor that lists them is gone by now.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), database.stat()):
                return True
    return False


def keep_write_ahead_log(database: Path) -> None:
    """
    Have SQLite keep a write-ahead log, which the file remembers.

    Chroma leaves it at the rollback journal, which waits for the disk several times in each write while Chroma holds
    the interpreter: small writes take up to twice as long. A log is as safe against crashes.

    :param database: Chroma's database; made when it is not there.
    """
    # What is wrong with the file is for Chroma to say; a busy one stays as it is.
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(database, timeout=1.0)) as connection,
    ):
        connection.execute("PRAGMA journal_mode = WAL")


def _sessions(client: Any) -> list[httpx.Client]:
    # Private to Chroma, which does not close them; the admin client inside has a system of its own.
    return [client._server._session, client._admin_client._server._session]
