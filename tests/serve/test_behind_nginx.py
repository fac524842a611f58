"""Behind a real nginx with its defaults, streams come as they are made, and leaving stops the model."""

from collections.abc import Iterator

import pytest

from settings import Settings
from tests.nginx_server import nginx_before
from tests.serve.conftest import RunningServer, finished
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
