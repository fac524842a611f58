from collections.abc import Iterator

import pytest
from haystack import Document

from registry import ModeRegistry
from settings import Settings
from tests.stub_llm import Behaviour, StubLLM, running_stub

TOWER = "The Eiffel Tower in Paris is 330 metres tall."
LAKE = "Lake Constance is 63 km long. It borders Germany, Switzerland and Austria."


@pytest.fixture(scope="module")
def running() -> Iterator[StubLLM]:
    with running_stub() as stub:
        yield stub


@pytest.fixture
def stub(running: StubLLM) -> StubLLM:
    """The model server, well again and with no memory of earlier tests."""
    running.behaviour = Behaviour()
    running.requests.clear()
    return running


@pytest.fixture(scope="module")
def registry(running: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModeRegistry]:
    """The built-in modes on the stub, with two documents of the tenant acme."""
    folder = tmp_path_factory.mktemp("modes")
    with ModeRegistry(Settings.load(data_dir=folder, **running.settings())) as made:
        texts = {"tower": TOWER, "lake": LAKE}
        documents = [Document(content=text, meta={"document_id": name}) for name, text in texts.items()]
        made.indexing["ingest"].run("acme", documents)
        yield made
