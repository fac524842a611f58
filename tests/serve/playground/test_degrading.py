from collections.abc import Iterator

import pytest

from settings import Settings
from tests.ports import free_port
from tests.serve.conftest import RunningServer
from tests.serve.playground.conftest import Playground


@pytest.fixture(scope="module")
def degraded(
    tmp_path_factory: pytest.TempPathFactory, running_playground: Playground
) -> Iterator[Playground]:
    """The page of a service whose language model does not answer and one of whose modes has a fault."""
    folder = tmp_path_factory.mktemp("degraded")
    (folder / "faulty.yml").write_text("components: {}\nconnection: []\n")
    model = f"http://127.0.0.1:{free_port()}/v1"
    settings = Settings.load(
        data_dir=folder / "data", port=0, pipelines_dir=folder, llm_provider="openai", openai_base_url=model
    )
    with RunningServer(settings) as client:
        yield Playground(running_playground.driver, client, running_playground.stub)


def test_service_that_is_not_ready_says_what_is_in_the_way(degraded: Playground) -> None:
    """The page can be used and tells what /ready names, until it is well again."""
    degraded.open(str(degraded.client.base_url))
    degraded.until(lambda: degraded.find("#service").text.startswith("The service is not ready:"))
    told = degraded.texts("#service li")
    assert told == degraded.client.get("/ready").json()["problems"]
    assert len(told) >= 2


def test_faults_of_mode_files_are_named(degraded: Playground) -> None:
    """A mode's file with faults is named with its line, and the other modes can be chosen."""
    degraded.open(str(degraded.client.base_url))
    degraded.until(lambda: len(degraded.all("#mode option")) == 4)
    faults = degraded.texts("main .notice li")
    assert faults == degraded.client.get("/modes").json()["broken"]
    assert faults[0].startswith("faulty.yml:")
