"""Behind a real nginx, streams come as they are made, leaving stops the model, and the page works over plain HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from settings import Settings
from tests.nginx_server import nginx_before
from tests.serve.conftest import RunningServer, finished, log_lines, without_llm
from tests.serve.doors import DOORS, Door, heard
from tests.stub_llm import FOREVER, Behaviour, StubLLM


@pytest.fixture(scope="module")
def nginx(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """:returns: The URL of an nginx in front of a service."""
    running = RunningServer(
        Settings.load(data_dir=tmp_path_factory.mktemp("nginx"), port=0, **stub.settings())
    )
    with running as client:
        job = client.post(
            "/ingest/", json={"texts": ["The Eiffel Tower in Paris is 330 metres tall."]}
        ).json()
        assert finished(client, job)["status"] == "done"
        with nginx_before(running.url) as url:
            yield url


@pytest.mark.parametrize("door", [door for door in DOORS if door.streams], ids=lambda door: door.name)
def test_words_come_while_the_model_writes(nginx: str, stub: StubLLM, door: Door) -> None:
    """The first word arrives though the model hangs behind it, and who leaves then ends the model's call."""
    stub.behaviour = Behaviour(text="Tallness is 330 metres [1].", hang_after=1)
    aborted = stub.aborted
    with door.knock(nginx) as connection:
        heard(connection, b"Tallness")
        assert stub.running == 1
    assert stub.wait_until(lambda: stub.aborted == aborted + 1) < 1


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_leaving_through_nginx_stops_the_model(nginx: str, stub: StubLLM, door: Door) -> None:
    """nginx tells the service that the client has gone, and the model's call ends within a second."""
    stub.behaviour = Behaviour(delay=FOREVER)
    aborted, started = stub.aborted, stub.started
    with door.knock(nginx):
        stub.wait_until(lambda: stub.started > started)
    assert stub.wait_until(lambda: stub.aborted == aborted + 1) < 1


NAMED = "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"


@pytest.fixture(scope="module", params=["", NAMED], ids=["defaults", "named"])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A service that knows one name, by way of an nginx that tells it its own address, or the name it is called by."""
    settings = without_llm(tmp_path_factory.mktemp("proxied"), allowed_hosts="rag.example.com")
    running = RunningServer(settings)
    with running, nginx_before(running.url, request.param) as url, httpx.Client(base_url=url) as client:
        yield client


def page_of(host: str) -> dict[str, str]:
    """Give the headers that a browser sends with a page's script and with its questions over plain HTTP."""
    return {"Host": host, "Origin": f"http://{host}"}


@pytest.mark.parametrize("host", ["rag.example.com", "rag.example.com:8080", "other.example"])
def test_page_loads_by_any_name_over_plain_http(proxied: httpx.Client, host: str) -> None:
    """The page, its scripts and the probes are there whatever the proxy calls the service."""
    for path in ("/", "/docs", "/playground/app.js", "/playground/style.css", "/health"):
        assert proxied.get(path, headers=page_of(host)).status_code == 200, path
    # It may still be loading.
    assert proxied.get("/ready", headers=page_of(host)).status_code in (200, 503)


@pytest.mark.parametrize(("host", "status"), [("rag.example.com", 202), ("other.example", 403)])
def test_allowed_name_is_all_that_a_page_needs_over_plain_http(
    proxied: httpx.Client, host: str, status: int
) -> None:
    """With the proxy's name in ALLOWED_HOSTS its page can do everything; another one's is refused."""
    answer = proxied.post("/ingest/", json={"texts": ["A text."]}, headers=page_of(host))
    assert answer.status_code == status
    if status == 403:
        assert "ALLOWED_HOSTS" in answer.json()["detail"]


def test_service_without_keys_warns_once_of_a_proxy(tmp_path: Path) -> None:
    """Who puts a proxy before a service that asks for no key learns from the log that everybody may come in."""
    running = RunningServer(without_llm(tmp_path))
    with running as client, nginx_before(running.url, NAMED.partition(";")[2]) as url, log_lines() as lines:
        client.get("/modes")
        assert not [line for line in lines if "proxy" in line]
        for _ in range(2):
            assert httpx.get(f"{url}/modes").status_code == 200
        [warning] = [line for line in lines if "proxy" in line]
    assert "WARNING" in warning
    assert "thresher keys create" in warning
