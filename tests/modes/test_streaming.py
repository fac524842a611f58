"""Streams of the built-in modes: tokens come while the model writes them, and leaving stops it."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from components.events import emit
from modes.recording import StreamEvent
from modes.results import QueryResult
from registry import ModeRegistry
from tests.modes.conftest import run, stream
from tests.stub_llm import Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"


async def until_token(registry: ModeRegistry, mode: str) -> tuple[str, list[StreamEvent]]:
    events = registry[mode].stream(QUESTION, tenant_id="acme")
    seen = []
    try:
        async for event in events:
            seen.append(event)
            if event.kind == "token":
                return event.data.text, seen  # type: ignore[union-attr]
    finally:
        await events.aclose()
    return "", seen


@pytest.mark.parametrize("mode", ["standard", "crag"])
def test_a_token_is_told_as_soon_as_the_model_gives_it(
    registry: ModeRegistry, stub: StubLLM, mode: str
) -> None:
    """The first word comes through while the model hangs at the second; leaving then ends the model's call."""
    stub.behaviour = Behaviour(hang_after=1)
    aborted = stub.aborted
    text, seen = run(registry, asyncio.wait_for(until_token(registry, mode), 10))
    assert text == "The "
    assert seen[0].kind == "retrieval"
    assert stub.wait_until(lambda: stub.aborted == aborted + 1) < 1


@pytest.mark.parametrize("mode", ["structured", "crag_structured"])
def test_a_structured_answer_streams_its_text(registry: ModeRegistry, stub: StubLLM, mode: str) -> None:
    """The tokens are the answer's text alone, without the JSON around it, and the result is the same as a run's."""

    events = stream(registry, mode, QUESTION)
    result = events[-1].data
    assert isinstance(result, QueryResult)
    assert "".join(event.data.text for event in events if event.kind == "token") == result.answer  # type: ignore[union-attr]
    plain = registry[mode].run(QUESTION, tenant_id="acme")
    assert (plain.answer, plain.data, plain.citations) == (result.answer, result.data, result.citations)


def test_a_mended_reply_is_not_told_twice(registry: ModeRegistry, stub: StubLLM) -> None:
    """Tokens are those of the first reply; the result holds the one that matches the schema."""
    good = {"answer": "330 metres", "citations": [1], "cannot_answer": False, "reasoning": "It says so."}

    def behave(body: dict) -> Behaviour:
        repairing = "can't be used" in body["messages"][-1]["content"]
        return Behaviour(data=json.dumps(good if repairing else {"answer": "wrong", "citations": "none"}))

    stub.behaviour = behave
    events = stream(registry, "structured", QUESTION)
    assert [event.data.text for event in events if event.kind == "token"] == ["wrong"]  # type: ignore[union-attr]
    assert events[-1].data.answer == "330 metres"  # type: ignore[union-attr]


class Unwilling:
    """A pipeline that takes its time to stop, and breaks then."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.may_stop = asyncio.Event()

    async def run_async(self, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            emit("token", text="The ")
            await asyncio.Event().wait()
        finally:
            self.stopping.set()
            await self.may_stop.wait()
            raise RuntimeError("broken while it stopped")
        return {}


@pytest.fixture
def unwilling(registry: ModeRegistry, monkeypatch: pytest.MonkeyPatch) -> Unwilling:
    pipeline = Unwilling()
    monkeypatch.setattr(registry["standard"], "pipeline", pipeline)
    return pipeline


async def begun(registry: ModeRegistry, faults: list[dict[str, Any]]) -> AsyncGenerator[StreamEvent, None]:
    """Give a stream that has told something; collect what the loop is told of that nobody handled."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    events = registry["standard"].stream(QUESTION, tenant_id="acme")
    assert (await anext(events)).kind == "token"
    return events


def test_a_run_that_breaks_while_it_stops_troubles_nobody(
    registry: ModeRegistry, unwilling: Unwilling
) -> None:
    """Leaving a stream raises nothing, and no fault of the run is told as one that nobody has seen."""
    faults: list[dict[str, Any]] = []

    async def leave() -> None:
        events = await begun(registry, faults)
        unwilling.may_stop.set()
        await events.aclose()

    run(registry, leave())
    gc.collect()
    assert faults == []


def test_who_leaves_a_stream_can_be_cancelled(registry: ModeRegistry, unwilling: Unwilling) -> None:
    """A cancellation that comes while the run stops is not lost, and the run's fault is not told afterwards."""
    faults: list[dict[str, Any]] = []

    async def leave() -> bool:
        events = await begun(registry, faults)
        leaving = asyncio.create_task(events.aclose())
        await unwilling.stopping.wait()
        leaving.cancel()
        await asyncio.wait({leaving})
        unwilling.may_stop.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return leaving.cancelled()

    assert run(registry, leave())
    gc.collect()
    assert faults == []
