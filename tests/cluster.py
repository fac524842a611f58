"""The service as real processes that can be killed and started again: both shapes, with embeddings by hashing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[1]
START_SECONDS = 90


class Process:
    """
    A process that is started the same way each time.

    :param command: what to run.
    :param environment: its environment.
    :param log: where its output goes.
    :param answers: whether it can be used.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], log: Path, answers: Callable[[], bool]
    ) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._answers = answers
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        """Start it; unless told otherwise, wait until it can be used."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it can be used."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"it ended: {self._log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"it did not start: {self._log.read_text()[-2000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it with kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int | None:
        """End it with SIGTERM; its exit status, None if it never ran."""
        if self._process is None:
            return None
        self._process.terminate()
        return self._process.wait(60)

    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()


class Cluster:
    """
    One service, and with Redis two workers and a Chroma server.

    :param folder: where everything lies.
    :param redis: whether it is the shape with Redis.
    :param workers: how many workers there are then.
    :param lease: seconds after which a dead worker's jobs are taken over.
    :param settings: further settings, as environment variables.
    """

    def __init__(
        self, folder: Path, *, redis: bool, workers: int = 2, lease: float = 4.0, **settings: str
    ) -> None:
        self._folder = folder
        self._lease = ["--lease", str(lease)]
        self.environment = {
            **os.environ,
            "DATA_DIR": str(folder / "data"),
            "LLM_PROVIDER": "extractive",
            **settings,
        }
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.redis: RedisServer | None = None
        self.chroma: Process | None = None
        self.workers: list[Process] = []
        if redis:
            (folder / "redis").mkdir()
            self.redis = RedisServer(folder / "redis")
            self.chroma = self._chroma()
            self.environment["REDIS_URL"] = self.redis.url
            self.workers = [self._worker(number) for number in range(workers)]
        self.service = self._process(
            "service",
            ["tests.hashing_process", "serve", "--port", str(port)],
            lambda: self._is_ready(self.url),
        )

    @property
    def killable(self) -> list[Process]:
        """The processes of our own that work on jobs or take them in."""
        return [self.service, *self.workers]

    def start(self) -> None:
        """Start everything and wait until it can be used."""
        if self.redis is not None and self.chroma is not None:
            self.redis.start()
            self.chroma.start()
        for process in self.killable:
            process.start(wait=False)
        for process in self.killable:
            process.wait_ready()

    def stop(self) -> None:
        """Stop everything."""
        for process in self.killable:
            process.stop()
        if self.redis is not None and self.chroma is not None:
            self.chroma.stop()
            self.redis.stop()

    def client(self) -> httpx.Client:
        """A client of the service."""
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def _worker(self, number: int) -> Process:
        return self._process(
            f"worker-{number}", ["tests.hashing_process", "worker", *self._lease], lambda: True
        )

    def _chroma(self) -> Process:
        port = free_port()
        self.environment |= {"CHROMA_HOST": "127.0.0.1", "CHROMA_PORT": str(port)}
        command = [
            str(Path(sys.executable).with_name("chroma")),
            "run",
            "--path",
            str(self._folder / "chroma"),
        ]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        heartbeat = f"http://127.0.0.1:{port}/api/v2/heartbeat"
        return Process(command, self.environment, self._folder / "chroma.log", lambda: _answers(heartbeat))

    def _process(self, name: str, words: list[str], answers: Callable[[], bool]) -> Process:
        command = [sys.executable, "-m", *words]
        return Process(command, self.environment, self._folder / f"{name}.log", answers)

    @staticmethod
    def _is_ready(url: str) -> bool:
        return _answers(f"{url}/ready")


@contextmanager
def running_cluster(folder: Path, **options: Any) -> Iterator[Cluster]:
    """
    Run a cluster.

    :param folder: where everything lies.
    :param options: those of `Cluster`.
    :returns: the running cluster; it is stopped at the end.
    """
    cluster = Cluster(folder, **options)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
