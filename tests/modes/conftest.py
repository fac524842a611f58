import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from haystack import Document

from modes.recording import StreamEvent
from registry import ModeRegistry
from settings import Settings
from tests.stub_llm import Behaviour, StubLLM, running_stub

T = TypeVar("T")

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
    with ModeRegistry(Settings.load(data_dir=folder, breaker_failures=1_000, **running.settings())) as made:
        texts = {"tower": TOWER, "lake": LAKE}
        documents = [Document(content=text, meta={"document_id": name}) for name, text in texts.items()]
        made.indexing["ingest"].run("acme", documents)
        yield made


def run(registry: ModeRegistry, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own, and close the connections that the models opened in it."""

    async def and_close() -> T:
        try:
            return await coroutine
        finally:
            await registry.resources.close_async()

    return asyncio.run(and_close())


def stream(registry: ModeRegistry, mode: str, *question: Any) -> list[StreamEvent]:
    """Collect the events of a mode's stream for the tenant acme."""

    async def collect() -> list[StreamEvent]:
        return [event async for event in registry[mode].stream(*question, tenant_id="acme")]

    return run(registry, collect())
