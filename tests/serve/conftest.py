import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve import server
from serve.access import Role
from serve.access.key_file import KeyFile
from serve.access.keys import new_key
from serve.app import create_app
from settings import Settings


class RunningServer:
    """The application under uvicorn in a thread, on a free port."""

    def __init__(self, settings: Settings) -> None:
        self.bound = server.bind(settings)
        self.url = server.url_of(self.bound)
        self._server = server.Server(server.config_of(create_app(settings), settings))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self.bound]})

    def __enter__(self) -> httpx.Client:
        self._thread.start()
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self.client

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the application runs in."""
        return self._server.servers[0].get_loop()

    def stop(self, delay: float = 0.0) -> None:
        """Begin to stop, as on SIGTERM, with `SHUTDOWN_DELAY`."""
        self._server.delay = delay
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


CANARY = "zqxcanary"
"""Stands in all that the tenant `globex` holds, and in nothing that anybody else may see."""


@dataclass(frozen=True)
class KeyedServer:
    """A service that asks for keys, with documents of two tenants."""

    client: httpx.Client
    """Shows no key by itself."""
    secrets: dict[str, str]
    """`acme` and `globex` may ask and ingest for themselves, `both` for both, `reader`, `writer` and `admin` have one
    role each for acme, `operator` may do everything for everyone."""
    keys: KeyFile
    jobs: dict[str, str]
    """The job that brought each tenant's documents."""

    def shown(self, who: str) -> dict[str, str]:
        """The headers with somebody's key."""
        return {"Authorization": f"Bearer {self.secrets[who]}"}


def make_keys(file: KeyFile) -> dict[str, str]:
    """The keys of `KeyedServer`."""
    acme, globex, everyday = ["acme"], ["globex"], [Role.QUERY, Role.INGEST]
    kinds: dict[str, tuple[list[str], list[Role]]] = {
        "acme": (acme, everyday),
        "globex": (globex, everyday),
        "both": (acme + globex, everyday),
        "reader": (acme, [Role.QUERY]),
        "writer": (acme, [Role.INGEST]),
        "admin": (acme, [Role.ADMIN]),
        "operator": (["*"], list(Role)),
    }
    secrets = {}
    for name, (tenants, roles) in kinds.items():
        secrets[name], kept = new_key(tenants, roles, name)
        file.add(kept)
    return secrets


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedServer]:
    settings = without_llm(tmp_path_factory.mktemp("keyed"), max_body_bytes=3_000_000, trace_store=True)
    keys = KeyFile(settings.keys_file)
    secrets = make_keys(keys)
    with RunningServer(settings) as running:
        jobs: dict[str, str] = {}
        service = KeyedServer(running, secrets, keys, jobs)
        for tenant, tower in (("acme", "Eiffel Tower"), ("globex", f"Tower of {CANARY}")):
            text = f"The {tower} in Paris is 330 metres tall."
            document = {"id": "tower", "text": text, "title": tower, "meta": {"place": tower}}
            headers = service.shown(tenant)
            job = running.post("/ingest/", json={"documents": [document]}, headers=headers).json()
            running.headers.update(headers)
            assert finished(running, job)["status"] == "done"
            del running.headers["Authorization"]
            jobs[tenant] = job["job_id"]
        yield service
