"""A Redis server for tests: its own process on a unix socket or a free port, durable, in a folder of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

START_SECONDS = 30


class RedisServer:
    """
    A `redis-server` process that a test may kill and start again.

    :param folder: where its data lies.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, with what it has on the disk, and wait until it answers."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(["redis-server", *words], stdout=output, stderr=output)
        deadline = time.monotonic() + START_SECONDS
        while b"+PONG" not in self._ask(b"PING"):
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an operator does; its data stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def kill(self) -> None:
        """End it with kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self._process = None

    def flush(self) -> None:
        """Delete everything in it."""
        assert b"+OK" in self._ask(b"FLUSHALL")

    def _ask(self, command: bytes) -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(command + b"\r\n")
                return connection.recv(100)
        except OSError:
            return b""


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """
    Run a Redis server; skip the test where there is none, but fail it on CI.

    :returns: the running server.
    """
    if shutil.which("redis-server") is None:
        missing = "no redis-server on the PATH: install it (Debian, Ubuntu: apt install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="thresher-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
