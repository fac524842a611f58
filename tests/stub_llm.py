"""A language model's server for tests: OpenAI's and Ollama's protocol, as slow and as broken as a test wants it."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

TEXT = "The Eiffel Tower in Paris is 330 metres tall [1]."
DATA = json.dumps(
    {"answer": "330 metres", "citations": [1], "cannot_answer": False, "reasoning": "Passage 1 says so."}
)
FOREVER = float("inf")


@dataclass(frozen=True)
class Behaviour:
    """How the stub answers a call."""

    text: str = TEXT
    """The reply, sent word by word."""
    data: str = DATA
    """The reply to a call that asks for JSON."""
    delay: float = 0.0
    """Seconds before anything is sent; `FOREVER` hangs."""
    pause: float = 0.0
    """Seconds before each word."""
    hang_after: int | None = None
    """Words after which nothing more is sent."""
    break_after: int | None = None
    """Words after which the connection is cut; a reply that is not streamed is cut in half."""
    raw: bytes | None = None
    """Sent instead of what the protocol wants."""
    status: int = 200
    """Another status than 200 carries an error."""
    retry_after: str = ""
    """The header `Retry-After` of an error."""


class StubLLM:
    """
    The server, with its one model, `stub`; `running_stub` runs it.

    A test sets `behaviour`, or a function from a call's body to its behaviour. A call counts as `started` when it has
    come, and then as `finished`, or as `aborted` when the client went away before the reply's end.
    """

    def __init__(self) -> None:
        self.behaviour: Behaviour | Callable[[dict[str, Any]], Behaviour] = Behaviour()
        self.requests: list[dict[str, Any]] = []
        """The bodies of the calls, in the order in which they came."""
        self.headers: list[dict[str, str]] = []
        """Their headers, by names in lower case."""
        self.started = self.finished = self.aborted = self.peak = 0
        self.url = ""

    @property
    def running(self) -> int:
        """How many calls are under way; `peak` is the most that ever were."""
        return self.started - self.finished - self.aborted

    def settings(self, provider: str = "openai") -> dict[str, str]:
        """:returns: The settings of a service that asks this model by a protocol, "openai" or "ollama"."""
        url = {"openai_base_url": f"{self.url}/v1"} if provider == "openai" else {"ollama_url": self.url}
        return {"llm_provider": provider, "default_model": "stub", **url}

    def wait_until(self, condition: Callable[[], bool], seconds: float = 10.0) -> float:
        """
        Wait for the counters.

        :param condition: What is to become true, such as `lambda: stub.aborted == 1`.
        :param seconds: How long at most.
        :returns: The seconds that it took.
        """
        begin = time.monotonic()
        while not condition():
            took = time.monotonic() - begin
            assert took < seconds, (
                f"after {took:.1f} s: {self.started} calls, {self.finished} finished, {self.aborted} aborted"
            )
            time.sleep(0.005)
        return time.monotonic() - begin

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Serve on a free port of loopback until `stop` is set."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) and await self._exchange(*request, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()

    async def _exchange(
        self,
        path: str,
        body: dict[str, Any],
        headers: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """:returns: Whether the connection can be used again."""
        names = {"/v1/models": {"data": [{"id": "stub"}]}, "/api/tags": {"models": [{"name": "stub:latest"}]}}
        if path not in ("/v1/chat/completions", "/api/chat"):
            await _send(writer, json.dumps(names.get(path, {})).encode(), 200 if path in names else 404)
            return True
        self.started += 1
        self.peak = max(self.peak, self.running)
        self.requests.append(body)
        self.headers.append(headers)
        behaviour = self.behaviour(body) if callable(self.behaviour) else self.behaviour
        reply = asyncio.create_task(_reply(_Protocol(path, body), behaviour, writer))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({reply, gone}, return_when=asyncio.FIRST_COMPLETED)
            whole = reply.done() and reply.exception() is None
            self.finished += whole
            self.aborted += not whole
            return whole and reply.result()
        finally:
            for task in (reply, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await task


class _Protocol:
    """What OpenAI and Ollama write differently."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        self.openai = path.startswith("/v1")
        self.streams = bool(body.get("stream", not self.openai))
        self.wants_json = bool(body.get("format") or body.get("response_format"))
        self.logprobs = bool(body.get("logprobs"))
        self.usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def pieces(self, words: list[str]) -> Iterator[bytes]:
        """The words as the pieces of a stream."""
        for word in words:
            yield self._piece(word, None)

    def end(self, words: list[str]) -> bytes:
        """The end of a stream."""
        last = self._piece("", words)
        if not self.openai:
            return last
        counted = {"id": "stub", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
        usage = _line({**counted, "choices": [], "usage": _usage(words)}) if self.usage else b""
        return last + usage + b"data: [DONE]\n\n"

    def whole(self, words: list[str]) -> bytes:
        """The reply that is not streamed."""
        message = {"role": "assistant", "content": "".join(words)}
        logprobs = [_logprob(word) for word in words] if self.logprobs else None
        if not self.openai:
            return json.dumps(_ollama(message, words) | ({"logprobs": logprobs} if logprobs else {})).encode()
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        choice["logprobs"] = {"content": logprobs} if logprobs else None
        head = {"id": "stub", "object": "chat.completion", "created": 0, "model": "stub"}
        return json.dumps({**head, "choices": [choice], "usage": _usage(words)}).encode()

    def error(self, status: int) -> bytes:
        """The body of a status that is no success."""
        message = f"the stub answers {status}"
        return json.dumps({"error": {"message": message} if self.openai else message}).encode()

    def _piece(self, text: str, ended: list[str] | None) -> bytes:
        if not self.openai:
            return json.dumps(_ollama({"role": "assistant", "content": text}, ended)).encode() + b"\n"
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None if ended is None else "stop"}
        head = {"id": "stub", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
        return _line({**head, "choices": [choice]})


async def _reply(protocol: _Protocol, behaviour: Behaviour, writer: asyncio.StreamWriter) -> bool:
    """:returns: Whether the connection can be used again."""
    await asyncio.sleep(behaviour.delay)
    words = re.findall(r"\S+\s*", behaviour.data if protocol.wants_json else behaviour.text)
    if behaviour.status != 200:
        header = f"retry-after: {behaviour.retry_after}\r\n" if behaviour.retry_after else ""
        await _send(writer, protocol.error(behaviour.status), behaviour.status, header=header)
    elif behaviour.raw is not None:
        await _send(writer, behaviour.raw)
    elif protocol.streams:
        return await _stream(protocol, behaviour, words, writer)
    else:
        await asyncio.sleep(behaviour.pause * len(words) if behaviour.pause else 0)
        await asyncio.sleep(0 if behaviour.hang_after is None else FOREVER)
        await _send(writer, protocol.whole(words), cut=behaviour.break_after is not None)
    return behaviour.break_after is None


async def _stream(
    protocol: _Protocol, behaviour: Behaviour, words: list[str], writer: asyncio.StreamWriter
) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    async for piece in _paced(protocol, behaviour, words):
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
    if behaviour.break_after is not None:
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _paced(protocol: _Protocol, behaviour: Behaviour, words: list[str]) -> AsyncIterator[bytes]:
    for number, piece in enumerate(protocol.pieces(words)):
        if number == behaviour.break_after:
            return
        await asyncio.sleep(FOREVER if number == behaviour.hang_after else behaviour.pause)
        yield piece
    yield protocol.end(words)


async def _send(
    writer: asyncio.StreamWriter, body: bytes, status: int = 200, cut: bool = False, header: str = ""
) -> None:
    head = f"HTTP/1.1 {status} Stub\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{header}\r\n"
    writer.write(head.encode() + (body[: len(body) // 2] if cut else body))
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any], dict[str, str]] | None:
    """Read a request, or None where the connection has ended."""
    if not (line := await reader.readline()):
        return None
    headers: dict[str, str] = {}
    while (header := await reader.readline()).strip():
        name, _, value = header.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return line.split()[1].decode(), json.loads(body) if body else {}, headers


def _line(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _ollama(message: dict[str, str], ended: list[str] | None) -> dict[str, Any]:
    head = {"model": "stub", "created_at": "2026-01-01T00:00:00Z", "message": message}
    if ended is None:
        return {**head, "done": False}
    return {**head, "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": len(ended)}


def _usage(words: list[str]) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}


def _logprob(word: str) -> dict[str, Any]:
    return {"token": word, "logprob": -0.01, "top_logprobs": [{"token": word, "logprob": -0.01}]}


@contextmanager
def running_stub() -> Iterator[StubLLM]:
    """
    Run a stub in a thread.

    :returns: The stub.
    """
    stub, ready, stop = StubLLM(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: _run(loop, stub.serve(ready, stop)), name="stub-llm")
    thread.start()
    ready.wait()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, main: Any) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main)
