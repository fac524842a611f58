"""Server processes of a measurement: started on a free port, stopped at its end."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.clock import PATH
from benchmarks.raw_http import RawClient

_START_SECONDS = 90.0


@dataclass
class RunningServer:
    """A server process and a client for it."""

    client: RawClient
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        """:returns: The port it listens on."""
        return self.client.port

    async def cpu_seconds(self) -> float:
        """:returns: The processor time that it has used."""
        return float((await self.client.send("GET", PATH))[1])

    @property
    def rss_mb(self) -> float:
        """:returns: The most memory that it has held, in megabytes; 0 where the system does not tell."""
        return self._status("VmHWM") / 1024

    @property
    def rss_now_mb(self) -> float:
        """:returns: The memory that it holds, in megabytes; 0 where the system does not tell."""
        return self._status("VmRSS") / 1024

    @property
    def threads(self) -> int:
        """:returns: How many threads it has; 0 where the system does not tell."""
        return int(self._status("Threads"))

    @property
    def open_files(self) -> int:
        """:returns: How many files and connections it holds open; 0 where the system does not tell."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        return len(list(folder.iterdir())) if folder.is_dir() else 0

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.is_file():
            return 0.0
        return float(status.read_text().split(f"{name}:", 1)[1].split(maxsplit=1)[0])

    async def post(self, path: str, data: object) -> Any:
        """
        Post JSON.

        :param path: where to.
        :param data: what.
        :returns: the answer.
        :raises RuntimeError: if the server doesn't accept it.
        """
        return self._read(path, *await self.client.send("POST", path, orjson.dumps(data)))

    async def get(self, path: str) -> Any:
        """
        Get JSON.

        :param path: from where.
        :returns: the answer.
        :raises RuntimeError: if there is none.
        """
        return self._read(path, *await self.client.send("GET", path))

    def _read(self, path: str, status: int, body: bytes) -> Any:
        if status >= 400:
            raise RuntimeError(f"{path} answered {status}: {body[:500]!r}")
        return orjson.loads(body)


@asynccontextmanager
async def running(
    module: str, *arguments: str, log: Path, ready: str = "/health"
) -> AsyncIterator[RunningServer]:
    """
    Run a server module of this package.

    :param module: its name in `benchmarks`.
    :param arguments: its arguments; `--fd` is added.
    :param log: where its output goes.
    :param ready: a path that answers 200 when it can be used.
    :returns: the server.
    :raises RuntimeError: if it does not come up; tells the end of its log.
    """
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    command = [sys.executable, "-m", f"benchmarks.{module}", "--fd", str(bound.fileno()), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            pass_fds=[bound.fileno()],
            cwd=Path(__file__).parents[1],
        )
    client = RawClient(bound.getsockname()[1])
    bound.close()
    try:
        await _until_ready(client, process, ready, log)
        yield RunningServer(client, process)
    finally:
        client.close()
        process.terminate()
        await asyncio.to_thread(process.wait, 30)


async def _until_ready(client: RawClient, process: subprocess.Popen[bytes], path: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            status, _ = await asyncio.wait_for(client.send("GET", path), 5)
        except (OSError, EOFError, TimeoutError):
            status = 0
        if status == 200:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")
