"""What survives the death of the whole service."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serve.locking import DataDirInUseError, DataDirLock, running_service
from tests.serve.conftest import finished

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
DOCUMENTS = 60


@contextmanager
def service(data_dir: Path) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    """Run `thresher serve` in a process of its own until it answers."""
    environment = {
        **os.environ,
        "DATA_DIR": str(data_dir),
        "LLM_PROVIDER": "extractive",
        "INGEST_BATCH_SIZE": "2",
    }
    command = [sys.executable, "-c", "from serve.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        while (left := running_service(data_dir)) is None or left.pid != process.pid:
            assert process.poll() is None
            time.sleep(0.05)
        with httpx.Client(base_url=left.url, timeout=60, trust_env=False) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def test_no_kill_loses_or_doubles_a_document(tmp_path: Path) -> None:
    """A service killed twice in the middle of a job finishes it after the restarts: every chunk is there, once."""
    texts = [f"Document number {number}. " + "It has a few words more. " * 60 for number in range(DOCUMENTS)]
    body = {
        "tenant_id": "acme",
        "documents": [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)],
    }
    with service(tmp_path) as (process, client):
        job = client.post("/ingest/", json=body).json()
        assert job["status"] == "pending"
        process.kill()
    for _ in range(2):
        with service(tmp_path) as (process, client):
            known = client.get(f"/ingest/{job['job_id']}").json()["documents_ok"]
            while (now := client.get(f"/ingest/{job['job_id']}").json())["documents_ok"] <= known:
                if now["status"] == "done":
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    with service(tmp_path) as (_, client):
        job = finished(client, client.get(f"/ingest/{job['job_id']}").json())
        assert (job["status"], job["documents_ok"], job["documents_failed"]) == ("done", DOCUMENTS, 0)
        counts = {}
        for number in range(DOCUMENTS):
            only = {"field": "document_id", "operator": "==", "value": f"d{number}"}
            asked = {"q": "number", "tenant_id": "acme", "k": 50, "filters": only}
            found = client.post("/query/", json=asked).json()["documents"]
            counts[number] = len(found)
            assert (
                "".join(chunk["text"] for chunk in sorted(found, key=lambda chunk: chunk["meta"]["start"]))
                == texts[number]
            )
        assert sum(counts.values()) == job["chunks_ok"]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """While a service has the data directory, another one stops with an error that says which and what to do."""
    with service(tmp_path) as (process, client):
        with pytest.raises(DataDirInUseError, match=rf"process {process.pid}.*DATA_DIR"):
            DataDirLock(tmp_path).acquire()
        command = [sys.executable, "-c", "from serve.cli import main; main()", "serve", "--port", "0"]
        environment = {**os.environ, "DATA_DIR": str(tmp_path)}
        second = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert "is in use by the service at" in second.stderr
        assert "Traceback" not in second.stderr
        assert client.get("/health").status_code == 200


def test_sigterm_ends_the_service_and_frees_the_directory(tmp_path: Path) -> None:
    """On SIGTERM the service goes, and its directory can be had again."""
    with service(tmp_path) as (process, _):
        process.terminate()
        process.wait(30)
    assert running_service(tmp_path) is None
    lock = DataDirLock(tmp_path)
    lock.acquire()
    lock.release()


def test_commands_talk_to_the_service_that_has_the_data(tmp_path: Path) -> None:
    """`ingest` and `ask` work while a service runs, and through it."""
    (tmp_path / "tower.md").write_text("# Tower\n\nThe Eiffel Tower is 330 metres tall.\n")

    def thresher(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from serve.cli import main; main()", *words]
        environment = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "LLM_PROVIDER": "extractive"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    with service(tmp_path / "data"):
        ingested = thresher("ingest", str(tmp_path / "tower.md"), "--tenant", "acme")
        assert ingested.returncode == 0, ingested.stderr
        assert "1 document: 1 indexed; 1 chunk " in ingested.stdout
        through = json.loads(
            thresher("ask", "How tall is the tower?", "-t", "acme", "-m", "crag", "--json").stdout
        )
    alone = json.loads(thresher("ask", "How tall is the tower?", "-t", "acme", "-m", "crag", "--json").stdout)
    assert "330" in through["answer"]
    assert through["answer"] == alone["answer"]
    assert through["citations"] == alone["citations"]
