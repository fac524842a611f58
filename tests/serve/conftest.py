import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from serve import server
from serve.app import create_app
from settings import Settings


class RunningServer:
    """The application under uvicorn in a thread, on a free port."""

    def __init__(self, settings: Settings) -> None:
        self.bound = server.bind(settings)
        self.url = server.url_of(self.bound)
        config = uvicorn.Config(create_app(settings), log_config=None, access_log=False, lifespan="on")
        self._server = server.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.bound]})

    def __enter__(self) -> httpx.Client:
        self._thread.start()
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self.client

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the application runs in."""
        return self._server.servers[0].get_loop()

    def stop(self) -> None:
        """Begin to stop, as on SIGTERM."""
        self._server.should_exit = True

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()
        self._thread.join()
        self.bound.close()


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """What the log's handler writes meanwhile."""
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    lines: list[str] = []
    stream, handler.stream = handler.stream, type("Lines", (), {"write": lines.append, "flush": lambda: None})
    try:
        yield lines
    finally:
        handler.stream = stream


def told_in(lines: list[str]) -> list[dict[str, Any]]:
    """The lines that `log_lines` gave, each of which must be one JSON object."""
    return [json.loads(line) for line in "".join(lines).split("\n") if line]


def without_llm(folder: Path, **more: object) -> Settings:
    """Settings of a server on a free port that answers in milliseconds."""
    return Settings.load(data_dir=folder / "data", port=0, llm_provider="extractive", **more)


def finished(client: httpx.Client, job: dict) -> dict:
    """Poll a job to its end."""
    while job["status"] in ("pending", "running"):
        time.sleep(0.02)
        job = client.get(f"/ingest/{job['job_id']}").json()
    return job


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    limits = {"max_body_bytes": 3_000_000, "max_upload_bytes": 2_500_000, "max_file_bytes": 1_000_000}
    with RunningServer(without_llm(tmp_path_factory.mktemp("server"), **limits)) as running:
        documents = [
            {"id": "tower", "text": "The Eiffel Tower in Paris is 330 metres tall.", "title": "Eiffel Tower"},
            {"id": "lake", "text": "Lake Constance is 63 km long.", "meta": {"kind": "lake"}},
        ]
        job = running.post("/ingest/", json={"tenant_id": "acme", "documents": documents}).json()
        assert finished(running, job)["status"] == "done"
        yield running
