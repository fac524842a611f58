"""schemathesis over the whole OpenAPI document of a service that runs in a process of its own."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from serve.access.callers import EVERY_ROLE
from serve.access.key_file import KeyFile
from serve.access.keys import new_key
from tests.cluster import ROOT, Cluster, running_cluster
from tests.stub_llm import running_stub

CONFIG = Path(__file__).with_name("schemathesis.toml")
TENANT = "demo"
_CASES = re.compile(r"([\d,]+) generated")


@dataclass
class Fuzzed:
    """What schemathesis has found."""

    passed: bool
    cases: int
    report: str
    log: str
    """What the service wrote meanwhile."""

    @property
    def unforeseen(self) -> list[str]:
        """Lines of the log about errors that nobody foresaw."""
        return [line for line in self.log.splitlines() if " ERROR " in line or line.startswith("Traceback")]


@dataclass
class FuzzedService:
    """A service that asks for keys, and a key that allows everything."""

    cluster: Cluster
    key: str


@contextmanager
def fuzzed_service(folder: Path) -> Iterator[FuzzedService]:
    """
    Run a service with keys, a model that answers at once, and a document.

    :param folder: where everything lies.
    :returns: the running service.
    """
    secret, key = new_key(["*"], EVERY_ROLE)
    keys = folder / "keys.json"
    KeyFile(keys).add(key)
    with running_stub() as stub:
        environment = {name.upper(): value for name, value in stub.settings().items()}
        options = {"AUTH": "on", "API_KEYS_FILE": str(keys), **environment}
        with running_cluster(folder, redis=False, **options) as cluster, cluster.client() as client:
            client.headers["Authorization"] = f"Bearer {secret}"
            _fill(client)
            yield FuzzedService(cluster, secret)


def fuzz(service: FuzzedService, *options: str) -> Fuzzed:
    """
    Send what schemathesis makes of the OpenAPI document.

    :param service: the service.
    :param options: further options of `schemathesis run`, such as `--max-examples`.
    :returns: what was found.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    command += [f"{service.cluster.url}/openapi.json", "--no-color", *options]
    command += ["--header", f"Authorization: Bearer {service.key}"]
    with tempfile.TemporaryDirectory(prefix="thresher-fuzz-") as folder:
        # It leaves files where it runs.
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    counted = _CASES.search(done.stdout)
    cases = int(counted[1].replace(",", "")) if counted else 0
    return Fuzzed(done.returncode == 0, cases, done.stdout + done.stderr, service.cluster.service.log())


def _fill(client: httpx.Client) -> None:
    documents = [{"id": "tower", "text": "The Eiffel Tower in Paris is 330 metres tall."}]
    job = client.post("/ingest/", json={"tenant_id": TENANT, "documents": documents}).json()
    while client.get(f"/ingest/{job['job_id']}").json()["status"] in ("pending", "running"):
        time.sleep(0.05)
