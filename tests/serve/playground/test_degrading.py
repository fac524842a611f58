from collections.abc import Iterator

import pytest

from settings import Settings
from tests.ports import free_port
from tests.serve.conftest import RunningServer, without_llm
from tests.serve.playground.conftest import DOCUMENTS, Playground


@pytest.fixture(scope="module")
def degraded(
    tmp_path_factory: pytest.TempPathFactory, running_playground: Playground
) -> Iterator[Playground]:
    """The page of a service whose language model does not answer and two of whose modes have faults."""
    folder = tmp_path_factory.mktemp("degraded")
    for name in ("faulty.yml", "wrong.yml"):
        (folder / name).write_text("components: {}\nconnection: []\n")
    model = f"http://127.0.0.1:{free_port()}/v1"
    settings = Settings.load(
        data_dir=folder / "data", port=0, pipelines_dir=folder, llm_provider="openai", openai_base_url=model
    )
    with RunningServer(settings) as client:
        yield Playground(running_playground.driver, client, running_playground.stub)


@pytest.fixture(scope="module")
def without_model(
    tmp_path_factory: pytest.TempPathFactory, running_playground: Playground
) -> Iterator[Playground]:
    """The page of a service that has no language model, and a mode's file with a fault."""
    folder = tmp_path_factory.mktemp("without-model")
    (folder / "faulty.yml").write_text("- no mapping\n")
    with RunningServer(without_llm(folder, pipelines_dir=folder)) as client:
        yield Playground(running_playground.driver, client, running_playground.stub)


def told_faults(page: Playground) -> list[str]:
    """Unfold what is in the way."""
    page.find("#service summary").click()
    return page.texts("#service li")


def test_service_that_is_not_ready_says_what_is_in_the_way(degraded: Playground) -> None:
    """The page tells each fault that /ready names once, folded, so that the question stays in sight."""
    degraded.open(str(degraded.client.base_url))
    faults = degraded.client.get("/ready").json()["problems"]
    degraded.until(lambda: degraded.texts("#service") == [f"Questions may fail: {len(faults)} faults"])
    degraded.until(lambda: len(degraded.all("#mode option")) == 4)
    assert degraded.find("#question").rect["y"] < 450
    assert told_faults(degraded) == faults
    text = degraded.find("body").text
    assert [text.count(fault) for fault in faults] == [1] * len(faults)


def test_faults_of_files_do_not_sound_as_if_nothing_worked(without_model: Playground) -> None:
    """Where only a mode's file has a fault, the page names it, and says that the service is ready for others."""
    without_model.load()
    [fault] = without_model.client.get("/modes").json()["broken"]
    assert fault.startswith("faulty.yml:")
    assert without_model.texts("#service") == [f"Ready, but not everything works: {fault}"]


def test_answer_without_a_model_names_none(without_model: Playground) -> None:
    """Sentences of the documents were given to no model, and cost no call and no tokens."""
    without_model.ingest("acme", DOCUMENTS)
    without_model.ask()
    without_model.answered()
    assert without_model.texts(".verdict") == ["given to the answer"] * 3
    panel = without_model.find(".panel").text
    assert "No model was asked." in panel
    assert "model calls" not in panel
