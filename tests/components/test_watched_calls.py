"""What is told of a model call, whatever became of it."""

import asyncio
from collections.abc import Iterator

import pytest
from haystack.dataclasses import ChatMessage, StreamingChunk

from components.fairness import set_share
from components.models.chat_models import ChatModels
from components.models.errors import ModelError
from components.models.watching import FinishedCall
from tests.stub_llm import Behaviour, StubLLM, running_stub

PROMPT = [ChatMessage.from_user("How tall is the Eiffel Tower? " * 10)]
PROMPT_TOKENS = 75


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with running_stub() as running:
        yield running


def ended(stub: StubLLM, leave_after: int | None = None) -> FinishedCall:
    """Make a call on an account, leave it after some chunks, and give what its watchers are told."""
    told: list[FinishedCall] = []

    async def ask() -> None:
        models = ChatModels("openai", "stub", url=f"{stub.url}/v1", timeout=10)
        models.watchers.append(told.append)
        heard, enough = 0, asyncio.Event()

        async def hear(chunk: StreamingChunk) -> None:
            nonlocal heard
            heard += bool(chunk.content)
            if heard == leave_after:
                enough.set()

        set_share("alice", "acme")
        call = asyncio.create_task(models.ask_async(None, PROMPT, callback=hear))
        if leave_after is not None:
            await enough.wait()
            call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await models.close_async()

    asyncio.run(ask())
    assert [call.share for call in told] == [("alice", "acme")]
    return told[0]


def test_a_reply_costs_what_its_server_counted(stub: StubLLM) -> None:
    """Of a whole reply the tokens of prompt and reply are what the server says."""
    stub.behaviour = Behaviour()
    call = ended(stub)
    assert call.spent == call.usage["prompt_tokens"] + call.usage["completion_tokens"] > 0


def test_a_call_that_was_left_costs_its_prompt_and_what_was_written(stub: StubLLM) -> None:
    """Nobody tells the tokens of a reply without an end, so they are estimated."""
    stub.behaviour = Behaviour(hang_after=3)
    call = ended(stub, leave_after=3)
    assert isinstance(call.error, asyncio.CancelledError)
    assert call.spent >= PROMPT_TOKENS + 3


def test_a_call_that_broke_off_costs_something_and_one_refused_does_not(stub: StubLLM) -> None:
    """A reply that ended too soon was paid for; a server that gave none spent nothing."""
    stub.behaviour = Behaviour(break_after=3)
    assert ended(stub).spent >= PROMPT_TOKENS
    stub.behaviour = Behaviour(status=400)
    call = ended(stub)
    assert isinstance(call.error, ModelError)
    assert call.spent == 0
