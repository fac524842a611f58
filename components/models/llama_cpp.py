"""The built-in language model: a GGUF file run by llama.cpp in this process."""

import asyncio
import inspect
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

from haystack import component
from haystack.dataclasses import (
    ChatMessage,
    ComponentInfo,
    StreamingCallbackT,
    StreamingChunk,
    select_streaming_callback,
)

from components.models.errors import GenerationTimeoutError, ModelRequestError
from components.models.llama_engine import (
    MAX_THREADS,
    Completion,
    EngineConfig,
    Generation,
    LlamaEngine,
    available_cores,
)
from components.models.llama_request import DEFAULTS, chat_request
from components.models.replies import plain_reply


@component
class LlamaCppChatGenerator:
    """
    Answers with a GGUF model that llama.cpp runs inside this process.

    The model is loaded once, by `warm_up` or the first call, and shared by all generators with the same file
    and limits. At most `n_parallel` replies are generated at once, in threads of their own; more calls wait
    their turn. Cancelling `run_async`, an exception in a streaming callback and `timeout` stop the model at
    its next token. Decoding is greedy unless `temperature` says otherwise. A `response_format` with a JSON
    schema constrains the decoding itself, number ranges included; a reply that `max_tokens` cuts off
    (`finish_reason` "length") is still not valid JSON.

    ### Usage example
    ```python
    from haystack.dataclasses import ChatMessage
    from components.models.llama_cpp import LlamaCppChatGenerator

    generator = LlamaCppChatGenerator("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
    generator.warm_up()
    reply = generator.run([ChatMessage.from_user("What is the capital of France?")])["replies"][0]
    print(reply.text, reply.meta["usage"])
    generator.close()
    ```
    """

    def __init__(
        self,
        model_path: str,
        model: str | None = None,
        n_ctx: int = 4096,
        n_parallel: int = 2,
        n_threads: int | None = None,
        timeout: float = 120.0,
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> None:
        """
        Store the configuration; nothing is loaded yet.

        :param model_path: The GGUF file.
        :param model: The name shown in replies; by default the file's name without its ending.
        :param n_ctx: Tokens of prompt and reply together, for each sequence.
        :param n_parallel: Sequences generated at once.
        :param n_threads: Threads that compute; by default the cores this process may use, at most 8.
        :param timeout: Seconds from a call to its reply, waiting for a free slot included.
        :param generation_kwargs: Options for each call, by OpenAI's names; a call's own come on top.
        :param streaming_callback: Called with each `StreamingChunk` unless a call brings its own.
        """
        self.model_path = model_path
        self.model = model or Path(model_path).stem
        self.n_ctx = n_ctx
        self.n_parallel = n_parallel
        self.n_threads = n_threads
        self.timeout = timeout
        self.generation_kwargs = generation_kwargs or {}
        self.streaming_callback = streaming_callback
        self._lock = threading.Lock()
        self._engine: LlamaEngine | None = None
        self._generations: set[Generation] = set()

    @property
    def busy(self) -> int:
        """How many sequences the model generates right now, for all who share it."""
        return self._engine.busy if self._engine else 0

    def warm_up(self) -> None:
        """
        Load the model into memory and generate a first token.

        :raises ModelLoadError: If the file is missing or llama.cpp can't read it.
        """
        self._open().load()

    async def warm_up_async(self) -> None:
        """
        Load the model without blocking the event loop.

        :raises ModelLoadError: If the file is missing or llama.cpp can't read it.
        """
        engine = self._open()
        if not engine.loaded:
            await asyncio.wrap_future(engine.load_soon())

    def close(self) -> None:
        """Stop this generator's replies and let go of the model; a later call loads it again."""
        with self._lock:
            generations, self._generations = self._generations, set()
            self._engine = None
        for generation in generations:
            generation.cancel()

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        *,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """
        Answer the messages.

        :param messages: The conversation; system, user and assistant messages of text. None: no reply.
        :param generation_kwargs: Options of this call, by OpenAI's names: `max_tokens`, `temperature`,
            `seed`, `stop`, `logprobs`, `top_logprobs`, `response_format`, ...; or llama.cpp's `grammar`.
        :param streaming_callback: Called with each `StreamingChunk`, in the caller's thread.
        :returns: `replies`: one message. Its meta holds `model`, `finish_reason`, `usage`, `cached_tokens`
            (prompt tokens not computed again) and, when asked for, `logprobs` in OpenAI's form.
        :raises InvalidGenerationError: If an option, message or schema isn't usable.
        :raises ContextLengthExceededError: If the prompt doesn't fit into `n_ctx`.
        :raises GenerationTimeoutError: If the reply isn't there after `timeout` seconds.
        :raises ModelLoadError: If the model can't be loaded.
        """
        if not messages:
            return {"replies": []}
        callback = select_streaming_callback(
            self.streaming_callback, streaming_callback, requires_async=False
        )
        inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        deadline = time.monotonic() + self.timeout
        chunks = _Chunks(self)
        generation = self._start(messages, generation_kwargs, inbox.put, stream=callback is not None)
        try:
            while (text := inbox.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                if callback:
                    callback(chunks.next(text))
            completion = _result(generation)
        except queue.Empty:
            raise self._too_late() from None
        finally:
            self._drop(generation)
        if callback:
            callback(chunks.last(completion))
        return {"replies": [self._reply(completion)]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        *,
        streaming_callback: StreamingCallbackT | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """
        Answer the messages without blocking the event loop. Cancelling it frees the model at its next token.

        :param messages: As for `run`.
        :param generation_kwargs: As for `run`.
        :param streaming_callback: Called with each `StreamingChunk` on the event loop; may be async.
        :returns: As `run`.
        :raises InvalidGenerationError: If an option, message or schema isn't usable.
        :raises ContextLengthExceededError: If the prompt doesn't fit into `n_ctx`.
        :raises GenerationTimeoutError: If the reply isn't there after `timeout` seconds.
        :raises ModelLoadError: If the model can't be loaded.
        """
        if not messages:
            return {"replies": []}
        callback = streaming_callback or self.streaming_callback
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[str | None] = asyncio.Queue()

        def post(text: str | None) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, text)

        chunks = _Chunks(self)
        generation = self._start(messages, generation_kwargs, post, stream=callback is not None)
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                while (text := await inbox.get()) is not None:
                    if callback:
                        await _invoke(callback, chunks.next(text))
            completion = _result(generation)
        except TimeoutError:
            if deadline.expired():
                raise self._too_late() from None
            raise
        finally:
            self._drop(generation)
        if callback:
            await _invoke(callback, chunks.last(completion))
        return {"replies": [self._reply(completion)]}

    def _open(self) -> LlamaEngine:
        with self._lock:
            if self._engine is None:
                threads = self.n_threads or min(available_cores(), MAX_THREADS)
                path = str(Path(self.model_path).expanduser().resolve())
                self._engine = LlamaEngine.shared(EngineConfig(path, self.n_ctx, self.n_parallel, threads))
            return self._engine

    def _start(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None,
        post: Callable[[str | None], None],
        stream: bool,
    ) -> Generation:
        payload = chat_request(messages, {**DEFAULTS, **self.generation_kwargs, **(generation_kwargs or {})})
        generation = self._open().generate(payload, post if stream else None)
        with self._lock:
            self._generations.add(generation)
        generation.done.add_done_callback(lambda _: _post_end(post))
        return generation

    def _drop(self, generation: Generation) -> None:
        generation.cancel()
        with self._lock:
            self._generations.discard(generation)

    def _too_late(self) -> GenerationTimeoutError:
        return GenerationTimeoutError(f"{self.model} had no reply ready after {self.timeout:g} s")

    def _reply(self, made: Completion) -> ChatMessage:
        reply = plain_reply(self.model, made.text, made.finish_reason, made.usage, made.logprobs)
        reply.meta["cached_tokens"] = made.usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return reply


class _Chunks:
    """Makes the chunks of one stream."""

    def __init__(self, generator: LlamaCppChatGenerator) -> None:
        self._model = generator.model
        self._info = ComponentInfo.from_component(generator)
        self._started = False

    def next(self, text: str) -> StreamingChunk:
        start, self._started = not self._started, True
        return StreamingChunk(text, {"model": self._model}, self._info, index=0, start=start)

    def last(self, completion: Completion) -> StreamingChunk:
        meta = {"model": self._model, "usage": completion.usage}
        reason: Any = completion.finish_reason
        return StreamingChunk("", meta, self._info, finish_reason=reason)


async def _invoke(callback: StreamingCallbackT, chunk: StreamingChunk) -> None:
    result = callback(chunk)
    if inspect.isawaitable(result):
        await result


def _post_end(post: Callable[[str | None], None]) -> None:
    # The event loop that waited may be closed by now; then nobody is left to tell.
    with suppress(RuntimeError):
        post(None)


def _result(generation: Generation) -> Completion:
    try:
        return generation.done.result()
    except CancelledError:
        raise ModelRequestError("the model was closed before it could answer") from None
