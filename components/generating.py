"""The chat generator of the modes: the model is chosen by request, the provider by configuration."""

import inspect
import time
from typing import Any

from haystack import component, default_to_dict
from haystack.dataclasses import ChatMessage, StreamingCallbackT, StreamingChunk, select_streaming_callback

from components.budgets import charge_tokens
from components.events import emit, wants_tokens
from components.models.chat_models import ChatModels


@component
class ModelChatGenerator:
    """
    Asks the language model that the service is configured for, or another one of those it offers.

    One instance serves all requests: clients, the built-in model and the limit on concurrent calls belong to
    `chat_models`, which all generators share. Whoever listens (`components.events.listen`) hears of each
    call, and of each token from the generator with `emit_tokens`; only then, or for a `streaming_callback`,
    is the reply streamed.

    ### Usage example
    ```python
    from haystack.dataclasses import ChatMessage
    from components.models.chat_models import ChatModels
    from components.generating import ModelChatGenerator

    models = ChatModels("ollama", "llama3.2:3b", url="http://127.0.0.1:11434")
    generator = ModelChatGenerator(models, generation_kwargs={"max_tokens": 100})
    reply = generator.run([ChatMessage.from_user("What is the capital of France?")])["replies"][0]
    print(reply.text, reply.meta["usage"])
    models.close()
    ```
    """

    def __init__(
        self,
        chat_models: ChatModels | None = None,
        model: str | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        emit_tokens: bool = False,
    ) -> None:
        """
        Store the configuration.

        :param chat_models: The models on offer. In a mode's YAML it is left away: the registry sets it.
        :param model: The model to ask unless a call names one; by default that of `chat_models`.
        :param generation_kwargs: Options by OpenAI's names; a call's own come on top, None takes one out.
        :param emit_tokens: Whether this generator's tokens are told to the listener of the run.
        """
        self.chat_models = chat_models
        self.model = model
        self.generation_kwargs = generation_kwargs or {}
        self.emit_tokens = emit_tokens

    def to_dict(self) -> dict[str, Any]:
        """
        Serialise the configuration, without the shared `chat_models`.

        :returns: The dictionary that `from_dict` takes.
        """
        return default_to_dict(
            self, model=self.model, generation_kwargs=self.generation_kwargs, emit_tokens=self.emit_tokens
        )

    def warm_up(self) -> None:
        """Load the default model where it is built in."""
        self._models().warm_up(self.model)

    async def warm_up_async(self) -> None:
        """Load the default model where it is built in, without blocking the event loop."""
        await self._models().warm_up_async(self.model)

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
        model: str | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """
        Ask a model.

        :param messages: The conversation; when empty, no model is asked.
        :param generation_kwargs: Options of this call by OpenAI's names: `model`, `max_tokens`,
            `temperature`, `seed`, `stop`, `logprobs`, `top_logprobs`, `response_format`, ...
        :param streaming_callback: Called with each `StreamingChunk`.
        :param model: The model to ask; comes before the one in `generation_kwargs`.
        :returns: `replies`: one message, whose meta holds `model`, `finish_reason`, `usage` and, when asked
            for and supported, `logprobs` in OpenAI's form; or none for no messages.
        :raises UnknownModelError: If the model isn't one of those on offer.
        :raises BudgetExceededError: If the run may ask no more.
        :raises ModelError: If the model can't be asked or gives no reply.
        """
        if not messages:
            return {"replies": []}
        callback = select_streaming_callback(None, streaming_callback, requires_async=False)
        emitting = self.emit_tokens and wants_tokens()

        def on_chunk(chunk: StreamingChunk) -> None:
            if emitting and chunk.content:
                emit("token", text=chunk.content)
            if callback:
                callback(chunk)

        name, options = self._call(model, generation_kwargs)
        started = time.perf_counter()
        reply = self._models().ask(name, messages, options, on_chunk if emitting or callback else None)
        _tell(reply, started)
        return {"replies": [reply]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        streaming_callback: StreamingCallbackT | None = None,
        model: str | None = None,
    ) -> dict[str, list[ChatMessage]]:
        """
        Ask a model without blocking the event loop. Cancelling it stops the model.

        :param messages: As for `run`.
        :param generation_kwargs: As for `run`.
        :param streaming_callback: Called with each `StreamingChunk` on the event loop; may be async.
        :param model: As for `run`.
        :returns: As `run`.
        :raises UnknownModelError: If the model isn't one of those on offer.
        :raises BudgetExceededError: If the run may ask no more.
        :raises ModelError: If the model can't be asked or gives no reply.
        """
        if not messages:
            return {"replies": []}
        emitting = self.emit_tokens and wants_tokens()

        async def on_chunk(chunk: StreamingChunk) -> None:
            if emitting and chunk.content:
                emit("token", text=chunk.content)
            if streaming_callback:
                waiting = streaming_callback(chunk)
                if inspect.isawaitable(waiting):
                    await waiting

        name, options = self._call(model, generation_kwargs)
        callback = on_chunk if emitting or streaming_callback else None
        started = time.perf_counter()
        reply = await self._models().ask_async(name, messages, options, callback)
        _tell(reply, started)
        return {"replies": [reply]}

    def _models(self) -> ChatModels:
        if self.chat_models is None:
            raise ValueError("ModelChatGenerator needs chat_models; outside a registry, pass them yourself")
        return self.chat_models

    def _call(self, model: str | None, kwargs: dict[str, Any] | None) -> tuple[str | None, dict[str, Any]]:
        options = {**self.generation_kwargs, **(kwargs or {})}
        asked = options.pop("model", None)
        return model or asked or self.model, options


def _tell(reply: ChatMessage, started: float) -> None:
    seconds = time.perf_counter() - started
    meta = reply.meta
    usage = meta.get("usage") or {}
    charge_tokens(usage.get("total_tokens") or 0)
    emit(
        "llm_call",
        model=meta.get("model"),
        usage=usage,
        finish_reason=meta.get("finish_reason"),
        seconds=seconds,
    )
