"""The language models on offer: who serves them, how many calls at once, which names a request may use."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from haystack.dataclasses import ChatMessage
from haystack.dataclasses.streaming_chunk import AsyncStreamingCallbackT, SyncStreamingCallbackT

from components.breaking import Breaker, CircuitOpenError
from components.budgets import charge_call
from components.fairness import current_share
from components.models.errors import (
    GenerationTimeoutError,
    ModelError,
    ModelUnavailableError,
    UnknownModelError,
)
from components.models.llama_request import DEFAULTS
from components.models.local_models import ExtractiveModel, LlamaModels
from components.models.ollama_models import DEFAULT_URL, OllamaModels
from components.models.openai_models import OpenAIModels
from components.models.repeating import AsyncListener, Listener
from components.models.slots import CallSlots, time_limit
from components.models.watching import CallWatcher, watched_call
from components.tracing import TracedCall, traced_call

PROVIDERS = ("embedded", "ollama", "openai", "extractive")
EXTRACTIVE = "extractive"


class Provider(Protocol):
    """Who serves models; see `ModelServer` and `LlamaModels`."""

    def ask(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: SyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """:returns: The model's reply."""

    async def ask_async(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: AsyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """:returns: The model's reply."""

    def check(self, model: str, deadline: float) -> None:
        """Raise unless the model can be asked."""

    async def check_async(self, model: str, deadline: float) -> None:
        """Raise unless the model can be asked."""

    def close(self) -> None:
        """Let go of what threads used."""

    async def close_async(self) -> None:
        """Let go of what this event loop used."""


class ChatModels:
    """
    The models that the service offers, all of one provider.

    At most `concurrency` calls run at once; `max_waiting` further ones wait in order, for at most `timeout` seconds,
    and then have `timeout` seconds for their reply.

    ### Usage example
    ```python
    from haystack.dataclasses import ChatMessage
    from components.models.chat_models import ChatModels

    models = ChatModels("openai", "qwen3", models=["qwen3-large"], url="http://127.0.0.1:8000/v1")
    print(models.describe())
    models.check()
    print(models.ask("qwen3-large", [ChatMessage.from_user("Hello")]).text)
    models.close()
    ```
    """

    def __init__(
        self,
        provider: str,
        model: str | None = None,
        *,
        models: Iterable[str] = (),
        url: str | None = None,
        api_key: str | None = None,
        weights: Mapping[str, str | Path] | None = None,
        timeout: float = 120.0,
        concurrency: int = 2,
        max_waiting: int = 200,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        why: str = "configured",
        breaker: Breaker | None = None,
    ) -> None:
        """
        Store the configuration; nothing is loaded or connected yet.

        :param provider: "embedded", "ollama", "openai" or "extractive".
        :param model: The model that is asked by default.
        :param models: The others that a request may name.
        :param url: The server's address; for "openai" ending in `/v1`.
        :param api_key: The server's key, if it wants one.
        :param weights: For "embedded": model name → GGUF file, of all models on offer.
        :param timeout: Seconds to wait for a free slot, and then for the reply.
        :param concurrency: Calls at once; for "embedded" also the sequences that the model generates at once.
        :param max_waiting: Calls that may wait for a free slot; one more is refused.
        :param n_ctx: Tokens of prompt and reply together: 4096 for "embedded", the server's choice for
            "ollama"; "openai" can't set it.
        :param n_threads: For "embedded": threads that compute.
        :param generation_kwargs: Options of every call by OpenAI's names; None takes a default out.
        :param why: Why this provider, for people.
        :param breaker: Opens when calls of a model server keep failing; None for a built-in model.
        :raises ValueError: If the provider is unknown or misses what it needs.
        """
        self.provider = provider
        self.timeout = timeout
        self.concurrency = concurrency
        self.why = why
        self.breaker = breaker
        self.generation_kwargs = {**DEFAULTS, **(generation_kwargs or {})}
        self.model = EXTRACTIVE if provider == "extractive" else model or ""
        self.models = tuple(dict.fromkeys([self.model, *(() if provider == "extractive" else models)]))
        self._provider = self._make(url, api_key, weights or {}, n_ctx, n_threads)
        self.slots = CallSlots(concurrency, max_waiting)
        self.watchers: list[CallWatcher] = []

    def _make(
        self,
        url: str | None,
        api_key: str | None,
        weights: Mapping[str, str | Path],
        n_ctx: int | None,
        n_threads: int | None,
    ) -> Provider:
        if self.provider != "extractive" and not self.model:
            raise ValueError(f"the provider {self.provider!r} needs the name of a model")
        server: dict[str, Any] = {
            "api_key": api_key,
            "timeout": self.timeout,
            "concurrency": self.concurrency,
        }
        match self.provider:
            case "ollama":
                return OllamaModels(url or DEFAULT_URL, n_ctx=n_ctx, **server)
            case "openai":
                if not url:
                    raise ValueError("the provider 'openai' needs the URL of a server")
                return OpenAIModels(url, **server)
            case "embedded":
                if missing := [name for name in self.models if name not in weights]:
                    raise ValueError(f"no model file is known for {', '.join(missing)}")
                limits = {"n_ctx": n_ctx or 4096, "n_threads": n_threads, "timeout": self.timeout}
                return LlamaModels(weights, n_parallel=self.concurrency, **limits)
            case "extractive":
                return ExtractiveModel()
        raise ValueError(f"unknown provider {self.provider!r}; there are {', '.join(PROVIDERS)}")

    def resolve(self, model: str | None) -> str:
        """
        The model to ask.

        :param model: The name in a request, if it has one.
        :returns: That name, or the default.
        :raises UnknownModelError: If the model isn't one of those on offer.
        """
        if not model:
            return self.model
        if model not in self.models:
            raise UnknownModelError(model, self.models)
        return model

    def ask(
        self,
        model: str | None,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        callback: SyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """
        Ask a model.

        :param model: Its name; None for the default.
        :param messages: The conversation, not empty.
        :param generation_kwargs: Options by OpenAI's names.
        :param callback: Called with each chunk of the reply.
        :returns: The reply, with `model`, `finish_reason`, `usage` and, if asked for, `logprobs` in its meta.
        :raises BudgetExceededError: If the run may ask no more.
        :raises ModelBusyError: If too many calls wait already.
        :raises ModelUnavailableError: If the server has kept failing and is not asked now, or does not answer.
        :raises ModelError: If there is no reply.
        """
        name, options = self.resolve(model), self._options(generation_kwargs)
        listener = Listener(callback) if callback else None
        self._check_breaker()
        with self.slots.held(self.timeout, name):
            charge_call()
            with (
                self._guarded(listener),
                watched_call(self.watchers, name, messages) as watched,
                self._traced(name, messages, options, callback) as call,
            ):
                heard = watched.heard_by(call.heard_by(listener.hear if listener else None))
                reply = self._provider.ask(name, messages, options, heard)
                return watched.answered(call.answered(reply))

    async def ask_async(
        self,
        model: str | None,
        messages: list[ChatMessage],
        generation_kwargs: dict[str, Any] | None = None,
        callback: AsyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """
        Ask a model. Cancelling this stops it.

        :param model: Its name; None for the default.
        :param messages: The conversation, not empty.
        :param generation_kwargs: Options by OpenAI's names.
        :param callback: A coroutine function called with each chunk of the reply.
        :returns: As `ask`.
        :raises BudgetExceededError: If the run may ask no more.
        :raises ModelBusyError: If too many calls wait already.
        :raises ModelError: If there is no reply.
        """
        name, options = self.resolve(model), self._options(generation_kwargs)
        late = f"{name} had no reply ready"
        listener = AsyncListener(callback) if callback else None
        self._check_breaker()
        async with self.slots.held_async(self.timeout, name):
            charge_call()
            with (
                self._guarded(listener),
                watched_call(self.watchers, name, messages) as watched,
                self._traced(name, messages, options, callback) as call,
            ):
                heard = watched.heard_by_async(call.heard_by_async(listener.hear if listener else None))
                async with time_limit(self.timeout, late):
                    reply = await self._provider.ask_async(name, messages, options, heard)
                    return watched.answered(call.answered(reply))

    def check(self, deadline: float = 2.0) -> None:
        """
        See whether the default model can be asked: its server answers and holds it, or its file is there.

        :param deadline: Seconds to wait.
        :raises ModelUnavailableError: If not.
        """
        self._provider.check(self.model, deadline)

    async def check_async(self, deadline: float = 2.0) -> None:
        """
        See `check`.

        :param deadline: Seconds to wait.
        :raises ModelUnavailableError: If not.
        """
        await self._provider.check_async(self.model, deadline)

    def describe(self) -> dict[str, Any]:
        """
        Say what is on offer, for people and `/ready`.

        :returns: `provider`, `model`, `models`, `why` and, for a server, `url`.
        """
        described = {
            "provider": self.provider,
            "model": self.model,
            "models": list(self.models),
            "why": self.why,
        }
        if address := getattr(self._provider, "address", None):
            described["url"] = address
        return described

    def warm_up(self, model: str | None = None) -> None:
        """
        Load a built-in model, which takes seconds.

        :param model: Its name; None for the default.
        :raises ModelLoadError: If it can't be loaded.
        """
        if isinstance(self._provider, LlamaModels):
            self._provider.generator(self.resolve(model)).warm_up()

    async def warm_up_async(self, model: str | None = None) -> None:
        """
        Load a built-in model without blocking the event loop.

        :param model: Its name; None for the default.
        :raises ModelLoadError: If it can't be loaded.
        """
        if isinstance(self._provider, LlamaModels):
            await self._provider.generator(self.resolve(model)).warm_up_async()

    def close(self) -> None:
        """Let go of the built-in models, and of the connections that threads used."""
        self._provider.close()

    async def close_async(self) -> None:
        """Do as `close`, and close the connections of this event loop; call it before the loop ends."""
        await self._provider.close_async()
        self._provider.close()

    def _check_breaker(self) -> None:
        # Before a slot is waited for, too: those that have one may hang until their timeout.
        if self.breaker is not None:
            with _circuit_errors():
                self.breaker.check(trial=False)

    @contextmanager
    def _guarded(self, listener: Listener | AsyncListener | None) -> Iterator[None]:
        if self.breaker is None:
            yield
            return

        def counts(error: BaseException) -> bool | None:
            return _is_the_servers(error, begun=listener is not None and listener.heard)

        with _circuit_errors(), self.breaker.guarding(counts, asker=current_share()[0]):
            yield

    def _traced(
        self, model: str, messages: list[ChatMessage], options: dict[str, Any], callback: Any
    ) -> AbstractContextManager[TracedCall]:
        return traced_call(self.provider, model, messages, options, callback is not None)

    def _options(self, generation_kwargs: dict[str, Any] | None) -> dict[str, Any]:
        options = {**self.generation_kwargs, **(generation_kwargs or {})}
        return {key: value for key, value in options.items() if value is not None}


@contextmanager
def _circuit_errors() -> Iterator[None]:
    try:
        yield
    except CircuitOpenError as error:
        told = "the language model's server kept failing; try again after the seconds in Retry-After"
        raise ModelUnavailableError(str(error), told=told, retry_after=error.retry_after) from error


def _is_the_servers(error: BaseException, begun: bool) -> bool | None:
    if isinstance(error, GenerationTimeoutError):
        # Of a reply that had begun, it may be the length.
        return not begun
    if not isinstance(error, ModelError):
        return False
    return None if error.doubtful else error.passing
