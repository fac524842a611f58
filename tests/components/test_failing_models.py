"""What becomes of a model's server that is slow, breaks off or talks nonsense, whichever protocol it speaks."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from haystack.dataclasses import ChatMessage, StreamingChunk

from components import bounded_reading
from components.breaking import Breaker, BreakerState
from components.fairness import set_share
from components.models import repeating
from components.models.chat_models import ChatModels
from components.models.errors import (
    GenerationTimeoutError,
    ModelBusyError,
    ModelError,
    ModelRequestError,
    ModelUnavailableError,
)
from tests.fault_proxy import running_proxy
from tests.stub_llm import FOREVER, TEXT, Behaviour, StubLLM

QUESTION = [ChatMessage.from_user("How tall is the tower?")]
GARBAGE = (
    b"<html>Bad gateway</html>",
    b"",
    b"{}",
    b"[1]",
    b'{"choices": []}\n',
    b"data: {broken\n\n",
    b"data: null\n\n",
    b"data: [DONE]\n\n",
    b'data: {"choices": [{"index": 0, "delta": {"content": "The tower"}}]}\n\n',
    b'{"message": {"role": "assistant", "content": "The tower"}, "done": false}\n',
    bytes(range(256)),
)
Ask = Callable[..., Any]


@pytest.fixture(params=["openai", "ollama"])
def server(request: pytest.FixtureRequest, stub: StubLLM) -> dict[str, Any]:
    """:returns: The first arguments of `ChatModels` for the stub."""
    stub.started = stub.finished = stub.aborted = stub.peak = 0
    stub.behaviour = Behaviour()
    url = f"{stub.url}/v1" if request.param == "openai" else stub.url
    return {"provider": request.param, "model": "stub", "url": url}


@asynccontextmanager
async def opened(server: dict[str, Any], **options: Any) -> AsyncIterator[ChatModels]:
    models = ChatModels(**server, **options)
    try:
        yield models
    finally:
        await models.close_async()


async def ignore(chunk: StreamingChunk) -> None:
    pass


def outcome(server: dict[str, Any], streamed: bool, **options: Any) -> ChatMessage | ModelError:
    """Ask once and give the reply, or what was raised."""

    async def ask() -> ChatMessage | ModelError:
        async with opened(server, **options) as models:
            try:
                return await models.ask_async(None, QUESTION, callback=ignore if streamed else None)
            except ModelError as error:
                return error

    return asyncio.run(ask())


@pytest.mark.parametrize("streamed", [False, True])
def test_nonsense_is_no_reply(server: dict[str, Any], stub: StubLLM, streamed: bool) -> None:
    """Whatever a server says that is no reply, or not the whole of one, is an error that names the server."""
    for raw in GARBAGE:
        stub.behaviour = Behaviour(raw=raw)
        error = outcome(server, streamed)
        assert isinstance(error, ModelRequestError), raw
        assert f"at {server['url']}" in str(error)
        assert "\n" not in str(error)


def test_callers_are_told_what_to_do_and_no_address(server: dict[str, Any], stub: StubLLM) -> None:
    """A model that is not there, and a server that does not answer, are told in plain words without the address."""
    stub.behaviour = Behaviour(status=404)
    missing = outcome(server, streamed=True)
    silent = outcome({**server, "url": "http://127.0.0.1:9/v1"}, streamed=True)
    for error, told in ((missing, "does not hold the model 'stub': pull it"), (silent, "does not answer")):
        assert isinstance(error, ModelUnavailableError)
        assert told in error.told
        assert "127.0.0.1" in str(error)
        assert "127.0.0.1" not in error.told


@pytest.mark.parametrize("streamed", [False, True])
def test_a_fault_that_may_pass_is_asked_about_once_more(
    server: dict[str, Any], stub: StubLLM, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy or restarting server gets a second chance, a request that it refuses does not."""
    monkeypatch.setattr(repeating, "RETRY_SECONDS", 0.01)
    for status, calls in ((503, 2), (429, 2), (400, 1)):
        before = stub.started
        stub.behaviour = lambda _, status=status, before=before: Behaviour(
            status=status if stub.started == before + 1 else 200
        )
        reply = outcome(server, streamed)
        assert stub.started - before == calls
        if calls == 1:
            assert isinstance(reply, ModelRequestError)
        else:
            assert isinstance(reply, ChatMessage)
            assert reply.text == TEXT


def test_a_reply_that_has_been_heard_is_not_begun_again(server: dict[str, Any], stub: StubLLM) -> None:
    """A stream that breaks off is an error: another reply would follow on the beginning of the first one."""
    stub.behaviour = Behaviour(break_after=3)
    assert isinstance(outcome(server, streamed=True), ModelRequestError)
    assert stub.started == 1


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("hanging", [Behaviour(delay=FOREVER), Behaviour(hang_after=3)])
def test_a_late_reply_is_not_asked_for_again(
    server: dict[str, Any], stub: StubLLM, streamed: bool, hanging: Behaviour
) -> None:
    """A model that hangs is left after the timeout, and not asked once more behind the caller's back."""
    stub.behaviour = hanging
    assert isinstance(outcome(server, streamed, timeout=0.2), GenerationTimeoutError)
    stub.wait_until(lambda: stub.aborted == 1)
    assert stub.started == 1


@pytest.mark.parametrize("hanging", [Behaviour(delay=FOREVER), Behaviour(hang_after=3)])
def test_a_thread_does_not_ask_again_for_a_late_reply_either(
    server: dict[str, Any], stub: StubLLM, hanging: Behaviour
) -> None:
    """Without an event loop it is the same."""
    stub.behaviour = hanging
    models = ChatModels(**server, timeout=0.2)
    for callback in (None, lambda chunk: None):
        with pytest.raises(GenerationTimeoutError):
            models.ask(None, QUESTION, callback=callback)
    models.close()
    stub.wait_until(lambda: stub.aborted == 2)
    assert stub.started == 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancelled_call_ends_at_the_server(server: dict[str, Any], stub: StubLLM, streamed: bool) -> None:
    """Cancelling closes the connection at once, and nothing is asked again."""
    stub.behaviour = Behaviour(pause=FOREVER)

    async def ask_and_leave() -> float:
        async with opened(server) as models:
            call = asyncio.create_task(
                models.ask_async(None, QUESTION, callback=ignore if streamed else None)
            )
            await asyncio.to_thread(stub.wait_until, lambda: stub.started == 1)
            call.cancel()
            took = await asyncio.to_thread(stub.wait_until, lambda: stub.aborted == 1)
            assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], asyncio.CancelledError)
            return took

    assert asyncio.run(ask_and_leave()) < 1
    assert stub.started == 1


def test_a_fault_of_the_listener_is_its_own(server: dict[str, Any]) -> None:
    """What a callback raises is not taken for the server's fault."""

    async def failing(chunk: StreamingChunk) -> None:
        raise KeyError("the caller's")

    async def ask() -> None:
        async with opened(server) as models:
            await models.ask_async(None, QUESTION, callback=failing)

    with pytest.raises(KeyError, match="the caller's"):
        asyncio.run(ask())


def test_an_absent_server_is_unavailable(server: dict[str, Any]) -> None:
    """Where nothing listens the model is unavailable, which is another thing than a reply that broke off."""
    absent = {**server, "url": "http://127.0.0.1:9"}
    assert isinstance(outcome(absent, streamed=False), ModelUnavailableError)


def test_the_queue_has_an_end(server: dict[str, Any], stub: StubLLM) -> None:
    """As many calls as there are slots run, as many wait as may, and the rest is refused at once."""
    stub.behaviour = Behaviour(delay=0.3)

    async def ask_often() -> list[Any]:
        async with opened(server, concurrency=2, max_waiting=3) as models:
            calls = [models.ask_async(None, QUESTION) for _ in range(8)]
            return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(ask_often())
    assert [type(each) for each in outcomes] == [ChatMessage] * 5 + [ModelBusyError] * 3
    assert (stub.started, stub.peak) == (5, 2)


def test_who_leaves_the_queue_makes_room(server: dict[str, Any], stub: StubLLM) -> None:
    """Cancelled while it waits, a call gives its place to another one, and the slots are not used up by it."""
    stub.behaviour = Behaviour(delay=FOREVER)

    async def ask() -> str | None:
        async with opened(server, concurrency=1, max_waiting=1) as models:
            for _ in range(20):
                calls = [asyncio.create_task(models.ask_async(None, QUESTION)) for _ in range(2)]
                await asyncio.sleep(0.01)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
            stub.behaviour = Behaviour()
            return (await models.ask_async(None, QUESTION)).text

    assert asyncio.run(ask()) == TEXT


@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_without_end_is_read_no_further(
    server: dict[str, Any], stub: StubLLM, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is longer than any reply is an error, for coroutines and threads, and is not asked for again."""
    monkeypatch.setattr(bounded_reading, "MAX_REPLY_BYTES", 100_000)
    stub.behaviour = Behaviour(raw=b" " * 5_000_000)
    error = outcome(server, streamed)
    models = ChatModels(**server)
    with pytest.raises(ModelRequestError) as raised:
        models.ask(None, QUESTION, callback=(lambda chunk: None) if streamed else None)
    models.close()
    for each in (error, raised.value):
        assert isinstance(each, ModelRequestError)
        assert "more than 100000 bytes" in str(each)
        assert "more than any reply has" in each.told
    assert stub.started == 2


def test_a_thread_does_not_wait_for_a_reply_that_drips(server: dict[str, Any], stub: StubLLM) -> None:
    """The time holds for the whole reply, though each byte of it comes in time."""
    with running_proxy(stub.url) as proxy:
        proxy.drip(0.005)
        models = ChatModels(**{**server, "url": proxy.url(server["url"])}, timeout=0.3)
        begin = time.monotonic()
        for callback in (None, lambda chunk: None):
            with pytest.raises(GenerationTimeoutError):
                models.ask(None, QUESTION, callback=callback)
        assert time.monotonic() - begin < 8
        models.close()


@pytest.mark.parametrize(("seconds", "calls"), [("1", 2), ("7", 1)])
def test_a_busy_server_is_asked_again_when_it_says_and_not_after_long(
    server: dict[str, Any], stub: StubLLM, seconds: str, calls: int
) -> None:
    """A pause that is short is waited for; of a long one the caller is told, who may have something better to do."""
    stub.behaviour = lambda _: Behaviour(status=429 if stub.started == 1 else 200, retry_after=seconds)
    begin = time.monotonic()
    reply = outcome(server, streamed=False)
    took = time.monotonic() - begin
    assert stub.started == calls
    if calls == 2:
        assert isinstance(reply, ChatMessage)
        assert took >= 1
    else:
        assert isinstance(reply, ModelBusyError)
        assert reply.retry_after == 7


@pytest.mark.parametrize("fault", [Behaviour(status=503), Behaviour(delay=FOREVER)], ids=["503", "hangs"])
def test_a_server_that_keeps_failing_is_left_alone_and_taken_back(
    server: dict[str, Any], stub: StubLLM, fault: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some failures callers are refused at once, without a call; when the server is well again, one finds out."""
    monkeypatch.setattr(repeating, "RETRY_SECONDS", 0.01)
    stub.behaviour = fault

    async def scenario() -> None:
        breaker = Breaker("the model's server", failures=2, seconds=0.5)
        async with opened(server, timeout=0.2, breaker=breaker) as models:
            for _ in range(2):
                with pytest.raises(ModelError):
                    await models.ask_async(None, QUESTION)
            before = stub.started
            begin = time.monotonic()
            with pytest.raises(ModelUnavailableError) as raised:
                await models.ask_async(None, QUESTION)
            assert time.monotonic() - begin < 0.1
            assert stub.started == before
            assert raised.value.retry_after == 1
            assert "kept failing" in raised.value.told
            stub.behaviour = Behaviour()
            await asyncio.sleep(0.5)
            assert breaker.state == "half-open"
            assert (await models.ask_async(None, QUESTION)).text == TEXT
            assert breaker.state == "closed"

    asyncio.run(scenario())


def test_a_request_that_is_refused_opens_no_breaker(server: dict[str, Any], stub: StubLLM) -> None:
    """What is wrong with a caller's request is no sign that the server fails."""
    stub.behaviour = Behaviour(status=400)
    breaker = Breaker("the model's server", failures=1)
    outcome(server, False, breaker=breaker)
    assert breaker.state == "closed"


def state_after(
    server: dict[str, Any], *askers: str, streamed: bool = False, timeout: float = 120.0
) -> BreakerState:
    """Let some ask in turn, and give the state of a breaker of three failures."""
    breaker = Breaker("the model's server", failures=3)

    async def ask() -> None:
        async with opened(server, timeout=timeout, breaker=breaker) as models:
            for asker in askers:
                set_share(key=asker)
                with pytest.raises(ModelError):
                    await models.ask_async(None, QUESTION, callback=ignore if streamed else None)

    asyncio.run(ask())
    return breaker.state


def test_nobody_takes_the_model_from_the_others(
    server: dict[str, Any], stub: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server's own fault may be due to one caller's question; when several callers meet it, it is the server's."""
    monkeypatch.setattr(repeating, "RETRY_SECONDS", 0.0)
    stub.behaviour = Behaviour(status=500)
    assert state_after(server, *["mallory"] * 6) == "closed"
    assert state_after(server, "mallory", "mallory", "bob") == "open"
    stub.behaviour = Behaviour(status=502)
    assert state_after(server, *["mallory"] * 3) == "open"


def test_a_reply_that_is_only_too_long_opens_no_breaker(server: dict[str, Any], stub: StubLLM) -> None:
    """Who has heard the beginning of a reply knows that the server works; who has heard nothing does not."""
    stub.behaviour = Behaviour(hang_after=3)
    assert state_after(server, *["bob"] * 3, streamed=True, timeout=0.1) == "closed"
    stub.behaviour = Behaviour(hang_after=0)
    assert state_after(server, *["bob"] * 3, streamed=True, timeout=0.1) == "open"


def test_who_leaves_early_opens_no_breaker(server: dict[str, Any], stub: StubLLM) -> None:
    """A caller's own deadline says nothing of the server."""
    stub.behaviour = Behaviour(delay=FOREVER)
    breaker = Breaker("the model's server", failures=1)

    async def ask() -> None:
        async with opened(server, breaker=breaker) as models:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await models.ask_async(None, QUESTION)

    asyncio.run(ask())
    assert breaker.state == "closed"


def test_a_server_that_has_no_time_for_the_list_of_its_models_is_there(
    server: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 to the question which models there are is an answer, and any other error is none."""
    for status, there in ((429, True), (500, False)):
        models = ChatModels(**server)
        transport = httpx.MockTransport(lambda _, status=status: httpx.Response(status))
        monkeypatch.setattr(
            "components.models.servers.AiohttpTransport", lambda transport=transport, **_: transport
        )
        if there:
            asyncio.run(models.check_async())
        else:
            with pytest.raises(ModelUnavailableError):
                asyncio.run(models.check_async())
