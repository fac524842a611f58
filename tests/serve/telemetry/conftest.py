from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.ports import free_port
from tests.serve.conftest import RunningServer, finished, without_llm
from tests.serve.test_health import wait_until_ready
from tests.stub_llm import StubLLM, running_stub

CANARY = "zqxcanary"
"""Stands in the document of the tenant `acme`, and in its title, id and metadata."""


@dataclass(frozen=True)
class Watched:
    """A service with a model server, whose log and figures are looked at."""

    client: httpx.Client
    stub: StubLLM
    metrics_url: str

    def figures(self) -> str:
        """What Prometheus reads."""
        answer = httpx.get(self.metrics_url, trust_env=False, timeout=60)
        assert answer.status_code == 200
        return answer.text

    def values(self, samples: Iterable[str]) -> dict[str, float]:
        """Some of the figures, by their names with labels; 0 for one that is not there."""
        told = dict(line.rsplit(" ", 1) for line in self.figures().splitlines())
        return {sample: float(told.get(sample, "0")) for sample in samples}


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    port = free_port()
    more = {"breaker_failures": 10_000, "llm_concurrency": 8, "metrics_port": port, "metrics_tenants": True}
    with running_stub() as stub:
        settings = without_llm(tmp_path_factory.mktemp("watched"), **more)
        with RunningServer(settings.model_copy(update=stub.settings())) as client:
            wait_until_ready(client)
            text = f"The tower of {CANARY} is 330 metres tall."
            document = {"id": f"{CANARY}.txt", "text": text, "title": CANARY, "meta": {"place": CANARY}}
            job = client.post("/ingest/", json={"tenant_id": "acme", "documents": [document]}).json()
            assert finished(client, job)["status"] == "done"
            yield Watched(client, stub, f"http://127.0.0.1:{port}/metrics")
