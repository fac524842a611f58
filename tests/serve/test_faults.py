"""What breaks behind the service: told at once and plainly, and over as soon as it is mended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from serve import readiness
from tests.fault_proxy import FaultProxy, running_proxy
from tests.redis_server import redis_server
from tests.serve.conftest import RunningServer, finished, log_lines, without_llm

TEXT = "The Eiffel Tower in Paris is 330 metres tall."
QUESTION = {"q": "How tall is the Eiffel Tower?"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(readiness, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 0.4)


@pytest.fixture
def chroma(chroma_server: int) -> Iterator[FaultProxy]:
    with running_proxy(f"http://127.0.0.1:{chroma_server}") as proxy:
        yield proxy


@contextmanager
def served(folder: Path, chroma: FaultProxy, **more: object) -> Iterator[httpx.Client]:
    """A service on a Chroma server, ready."""
    prefix = f"{folder.name[-20:].strip('_')}_"
    where = {"chroma_host": "127.0.0.1", "chroma_port": chroma.port, "chroma_timeout": 1.0}
    with RunningServer(without_llm(folder, collection_prefix=prefix, **where, **more)) as client:
        until(client, lambda state: state["status"] == "ok")
        yield client


def until(client: httpx.Client, wanted: Callable[[dict], bool]) -> float:
    """Poll readiness, and give the seconds that it took."""
    begin = time.monotonic()
    while not wanted(client.get("/ready").json()):
        assert time.monotonic() - begin < 20, client.get("/ready").text
        time.sleep(0.01)
    return time.monotonic() - begin


@pytest.mark.server
def test_chroma_away_and_back(tmp_path: Path, chroma: FaultProxy) -> None:
    """Readiness names it, questions are refused at once and without its address, and all is well again by itself."""
    with served(tmp_path, chroma) as client:
        finished(client, client.post("/ingest/", json={"texts": [TEXT]}).json())
        for fault in (chroma.hang, chroma.refuse):
            fault()
            with log_lines() as lines:
                assert until(client, lambda state: state["chroma"] != "ok") < 5
                ready = client.get("/ready")
                begin = time.monotonic()
                refused = client.post("/query/", json=QUESTION)
                assert time.monotonic() - begin < 0.5
                assert client.get("/health").status_code == 200
            assert ready.status_code == refused.status_code == 503
            assert ready.json()["problems"] == ["chroma: Chroma does not answer"]
            assert refused.json()["type"] == "urn:thresher:problem:document-store-unavailable"
            assert int(refused.headers["retry-after"]) >= 1
            assert str(chroma.port) not in ready.text + refused.text
            assert "Traceback" not in "".join(lines)
            chroma.mend()
            assert until(client, lambda state: state["status"] == "ok") < 10
            assert client.post("/query/", json=QUESTION).status_code == 200
            assert client.get("/ready").json()["breakers"] == {"chroma": "closed"}
        for _ in range(3):
            # The connections that were kept are gone, as after a restart. It is asked once more.
            chroma.reset()
            chroma.mend()
            assert client.post("/query/", json=QUESTION).status_code == 200


@pytest.mark.server
def test_a_frozen_redis_is_told_and_left_alone(tmp_path: Path, chroma: FaultProxy) -> None:
    """Readiness names the jobs, posts are refused at once when the breaker has opened, and taken again afterwards."""
    with redis_server() as redis, running_proxy(redis.url) as proxy:
        url = proxy.url(redis.url)
        with served(tmp_path, chroma, redis_url=url, breaker_failures=1, breaker_seconds=30) as client:
            state = client.get("/ready").json()
            assert (state["workers"], state["status"]) == (0, "ok")
            assert "no worker runs" in state["warnings"][0]
            proxy.refuse()
            assert until(client, lambda state: state["breakers"]["redis"] == "open") < 5
            begin = time.monotonic()
            refused = client.post("/ingest/", json={"texts": ["a"]})
            assert time.monotonic() - begin < 0.5
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 5
            assert refused.json()["type"] == "urn:thresher:problem:job-store-unavailable"
            assert str(proxy.port) not in refused.text + client.get("/ready").text
            proxy.mend()
            until(client, lambda state: state["breakers"]["redis"] == "closed")
            assert client.post("/ingest/", json={"texts": ["a"]}).status_code == 202


def test_a_damaged_file_of_jobs_stops_no_question(tmp_path: Path) -> None:
    """The service starts, says in one line what is wrong, is not ready, takes no jobs, and answers."""
    with RunningServer(without_llm(tmp_path)) as client:
        finished(client, client.post("/ingest/", json={"texts": [TEXT]}).json())
    for file in (tmp_path / "data").glob("jobs.sqlite3*"):
        file.write_bytes(b"no database" * 1_000)
    with RunningServer(without_llm(tmp_path)) as client:
        assert until(client, lambda state: state["jobs"] != "ok") < 5
        assert client.get("/ready").status_code == 503
        assert client.get("/ready").json()["jobs"] == (
            "the jobs' file can't be read or written; the log says why"
        )
        refused = client.post("/ingest/", json={"texts": ["a"]})
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:thresher:problem:job-store-unavailable"
        assert client.post("/query/", json=QUESTION).status_code == 200


def test_a_service_told_to_stop_is_unready_at_once_and_ends_what_it_has_begun(tmp_path: Path) -> None:
    """Until the delay is over it listens and answers; readiness is a 503 from the first moment."""
    running = RunningServer(without_llm(tmp_path))
    with running as client:
        until(client, lambda state: state["status"] == "ok")
        running.stop(delay=1.0)
        until(client, lambda state: state["status"] == "stopping")
        with httpx.Client(base_url=running.url, trust_env=False) as newcomer:
            ready = newcomer.get("/ready")
            assert (ready.status_code, ready.json()["problems"]) == (503, ["the service stops"])
            assert newcomer.get("/modes").status_code == 200
