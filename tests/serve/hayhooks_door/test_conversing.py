"""What the OpenAI door gets of a wrapper's run_chat_completion and run_response."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from modes.failures import QueryTimeoutError
from serve.hayhooks_door.conversing import Conversation, Piece, Protocol
from serve.hayhooks_door.loading import load
from serve.hayhooks_door.streaming import WrapperError
from serve.hayhooks_door.wrappers import NativeWrapper
from tests.serve.hayhooks_door.conftest import SECRET, write

TALKER = f"""\
import asyncio
import threading
import time
from collections.abc import AsyncGenerator

from fastapi import HTTPException
from fastapi_openai_compat import ChatCompletion
from hayhooks import BasePipelineWrapper
from hayhooks.events import create_status_event
from haystack.dataclasses import ReasoningContent, StreamingChunk, ToolCallDelta
from starlette.datastructures import Headers


class PipelineWrapper(BasePipelineWrapper):
    closed = threading.Event()

    def setup(self) -> None:
        self.pipeline = None

    async def run_chat_completion_async(
        self, model: str, messages: list[dict], body: dict, headers: Headers | None = None
    ) -> str:
        match body["what"]:
            case "text":
                return f"{{model}}: {{messages[-1]['content']}}, {{headers['X-Who']}}"
            case "leak":
                raise RuntimeError("{SECRET}")
            case "refuse":
                raise HTTPException(402, "pay first")
            case "whole":
                choice = {{"index": 0, "message": {{"role": "assistant", "content": "made"}}}}
                return ChatCompletion(
                    id="x", object="chat.completion", created=1, model=model, choices=[choice]
                )
            case "slow":
                await asyncio.sleep(60)
            case "chunks":
                return self.chunks()
            case "broken":
                return self.broken()
            case "endless":
                return self.endless()

    async def chunks(self) -> AsyncGenerator:
        yield create_status_event("Thinking")
        yield StreamingChunk(content="", index=0, reasoning=ReasoningContent(reasoning_text="Hm."))
        call = ToolCallDelta(index=0, tool_name="look", arguments="{{}}")
        yield StreamingChunk(content="", index=0, tool_calls=[call])
        yield None
        yield StreamingChunk(content="One")
        yield " two"
        yield StreamingChunk(content="", finish_reason="length")

    async def broken(self) -> AsyncGenerator:
        yield "One"
        raise RuntimeError("{SECRET}")

    async def endless(self) -> AsyncGenerator:
        try:
            while True:
                yield "tick"
                await asyncio.sleep(0.01)
        finally:
            self.closed.set()

    def run_response(self, model: str, input_items: list[dict], body: dict):
        if body["what"] == "text":
            return input_items[0]["content"]
        return self.blocking()

    def blocking(self):
        try:
            yield "a"
            time.sleep(0.1)
            yield "b"
            time.sleep(0.1)
            yield "c"
        finally:
            self.closed.set()
"""


@pytest.fixture
def talker(tmp_path: Path) -> NativeWrapper:
    write(tmp_path, talker__pipeline_wrapper=TALKER)
    return load(tmp_path / "talker")


def talk(what: str, protocol: Protocol = "chat", timeout: float = 10, **body: Any) -> Conversation:
    """Make a conversation."""
    items = [{"role": "user", "content": "Hello"}]
    return Conversation(protocol, items, {"what": what, **body}, {"x-who": "me"}, timeout)


def streamed(wrapper: NativeWrapper, conversation: Conversation) -> list[Piece]:
    """Read a stream to its end."""

    async def read() -> list[Piece]:
        return [piece async for piece in wrapper.stream(conversation)]

    return asyncio.run(read())


def completed(wrapper: NativeWrapper, conversation: Conversation) -> Piece:
    """Ask without a stream."""
    return asyncio.run(wrapper.complete(conversation))


def closed(wrapper: NativeWrapper) -> Any:
    """The event that the wrapper sets when its generator is closed."""
    return wrapper._instance.closed  # type: ignore[attr-defined]


def test_a_wrapper_says_what_it_speaks(talker: NativeWrapper, tmp_path: Path) -> None:
    """The protocols are those whose method the wrapper has, blocking or not."""
    assert talker.protocols == ["chat", "responses"]
    code = "from hayhooks import BasePipelineWrapper\n\n\nclass PipelineWrapper(BasePipelineWrapper):\n"
    methods = "    def setup(self): ...\n    def run_response(self, model, input_items, body): return ''\n"
    write(tmp_path, other__pipeline_wrapper=code + methods)
    assert load(tmp_path / "other").protocols == ["responses"]


def test_a_text_is_one_piece(talker: NativeWrapper) -> None:
    """The method gets model, items, body and, if it asks, headers; its text is the reply, streamed or not."""
    wanted = Piece("text", "talker: Hello, me")
    assert completed(talker, talk("text")) == wanted
    assert streamed(talker, talk("text", stream=True)) == [wanted]
    assert completed(talker, talk("text", "responses")) == Piece("text", "Hello")


def test_each_thing_that_a_wrapper_streams_is_recognised(talker: NativeWrapper) -> None:
    """Events, reasoning, calls of tools and texts are told apart; what is nothing is left out."""
    event = {"type": "status", "data": {"description": "Thinking", "done": False, "hidden": False}}
    call = {"index": 0, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    assert streamed(talker, talk("chunks")) == [
        Piece("event", data=event),
        Piece("reasoning", "Hm."),
        Piece("tool_calls", data={"tool_calls": [call]}),
        Piece("text", "One"),
        Piece("text", " two"),
        Piece("text", finish_reason="length"),
    ]


def test_a_stream_is_joined_for_who_wants_none(talker: NativeWrapper) -> None:
    """Without a stream the texts are one, with the last reason to finish."""
    assert completed(talker, talk("chunks")) == Piece("text", "One two", finish_reason="length")
    assert completed(talker, talk("stream", "responses")) == Piece("text", "abc")


def test_an_answer_that_the_wrapper_made_is_kept(talker: NativeWrapper) -> None:
    """An object of an OpenAI library is handed on as it is."""
    whole = completed(talker, talk("whole"))
    assert whole.kind == "whole"
    assert whole.data is not None
    assert whole.data["choices"][0]["message"]["content"] == "made"


@pytest.mark.parametrize(
    ("what", "kind"),
    [("leak", WrapperError), ("broken", WrapperError), ("refuse", HTTPException)],
)
def test_only_a_wrappers_own_words_get_out(talker: NativeWrapper, what: str, kind: type[Exception]) -> None:
    """An HTTPException passes; everything else becomes an error that does not say what it was."""
    for ask in (completed, streamed):
        with pytest.raises(kind) as caught:
            ask(talker, talk(what))
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("what", ["slow", "endless"])
def test_an_answer_has_to_be_through_in_time(talker: NativeWrapper, what: str) -> None:
    """The deadline holds for the method and for its whole stream."""
    with pytest.raises(QueryTimeoutError):
        streamed(talker, talk(what, timeout=0.05))


@pytest.mark.parametrize(("what", "protocol"), [("endless", "chat"), ("stream", "responses")])
def test_leaving_closes_the_generator(talker: NativeWrapper, what: str, protocol: Protocol) -> None:
    """Who stops to read closes what the wrapper made, one that blocks as soon as it gives its next piece."""

    async def leave() -> None:
        async with asyncio.timeout(5), aclosing(talker.stream(talk(what, protocol))) as pieces:
            reading = asyncio.create_task(_all(pieces))
            await asyncio.sleep(0.05)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert await asyncio.to_thread(closed(talker).wait, 5)

    asyncio.run(leave())


async def _all(pieces: Any) -> None:
    async for _ in pieces:
        pass
