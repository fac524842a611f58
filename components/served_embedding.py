"""Embedders of a model server, Ollama's or an OpenAI-compatible one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import ollama
import openai
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.ollama import OllamaDocumentEmbedder, OllamaTextEmbedder

from components.bounded_reading import bound_reply
from components.breaking import AWAY_STATUSES, Breaker
from components.fairness import current_share
from components.models.ollama_models import DEFAULT_URL, OllamaModels
from components.models.openai_models import OpenAIModels
from components.models.servers import ModelServer
from components.retrying import two_attempts

EMBEDDED_FIELDS = ["title"]
_PAUSE_SECONDS = 0.2


class EmbeddingServer:
    """
    Where embeddings are made, if that is a server.

    Usage example:
    ```python
    server = EmbeddingServer("ollama", "nomic-embed-text", "http://localhost:11434")
    embedding = server.text_embedder().run(text="How tall is the tower?")["embedding"]
    ```
    """

    def __init__(
        self,
        provider: str,
        model: str,
        url: str | None = None,
        api_key: str | None = None,
        timeout: float = 30.0,
        breaker: Breaker | None = None,
    ) -> None:
        """
        Remember where it is; nothing is connected yet.

        :param provider: `ollama` or `openai`.
        :param model: the embedding model's name.
        :param url: the server's base URL; Ollama's own port when None.
        :param api_key: for an OpenAI-compatible server that wants one.
        :param timeout: seconds a call may take.
        :param breaker: opens when the server keeps failing.
        """
        self._provider = provider
        self._model = model
        self._url = url or DEFAULT_URL
        self._api_key = api_key
        self._timeout = timeout
        self._breaker = breaker or Breaker("the embedding model's server")

    def text_embedder(self) -> "BoundedEmbedder":
        """:returns: a Haystack text embedder."""
        if self._provider == "ollama":
            embedder = OllamaTextEmbedder(self._model, self._url, timeout=self._timeout)
        else:
            embedder = OpenAITextEmbedder(model=self._model, **self._openai_options())
        return BoundedEmbedder(embedder, self._timeout, self._breaker)

    def document_embedder(self) -> "BoundedEmbedder":
        """:returns: a Haystack document embedder, which embeds titles too and raises when the server fails."""
        options: dict[str, Any] = {"meta_fields_to_embed": EMBEDDED_FIELDS, "progress_bar": False}
        if self._provider == "ollama":
            embedder = OllamaDocumentEmbedder(self._model, self._url, timeout=self._timeout, **options)
        else:
            # Else documents without embeddings come back, as if nothing had happened.
            options["raise_on_failure"] = True
            embedder = OpenAIDocumentEmbedder(model=self._model, **options, **self._openai_options())
        return BoundedEmbedder(embedder, self._timeout, self._breaker)

    async def check_async(self, deadline: float = 2.0) -> None:
        """
        See whether the server answers.

        :param deadline: seconds to wait.
        :raises ModelUnavailableError: if not.
        """
        await self._server.answers_async(deadline)

    @property
    def address(self) -> str:
        """The URL without a password, fit for the log."""
        return self._server.address

    @property
    def _server(self) -> ModelServer:
        if self._provider == "ollama":
            return OllamaModels(self._url)
        return OpenAIModels(self._url, api_key=self._api_key)

    def _openai_options(self) -> dict[str, Any]:
        return {
            "api_key": Secret.from_token(self._api_key or "none"),
            "api_base_url": self._url,
            "timeout": self._timeout,
            # Whoever embeds repeats it; the client would wait for a minute when the server says so.
            "max_retries": 0,
            # Any option gives a client of httpx, whose reading can be bounded.
            "http_client_kwargs": {"follow_redirects": True},
        }


class BoundedEmbedder:
    """An embedder whose calls end in time, are made once more where a connection broke, and not while all fail."""

    def __init__(self, embedder: Any, timeout: float, breaker: Breaker) -> None:
        """
        Wrap an embedder.

        :param embedder: Haystack's, which asks a server.
        :param timeout: seconds a call may take.
        :param breaker: opens when the server keeps failing.
        """
        self._embedder = embedder
        self._timeout = timeout
        self._breaker = breaker

    def warm_up(self) -> None:
        """Make the client of threads."""
        self._embedder.warm_up()
        client = getattr(self._embedder, "client", None) or self._embedder._client
        client._client.event_hooks = {"response": [bound_reply]}

    async def close_async(self) -> None:
        """Close the connections of this event loop."""
        await self._embedder.close_async()

    def close(self) -> None:
        """Close the connections of threads."""
        self._embedder.close()

    def run(self, **inputs: Any) -> dict[str, Any]:
        """
        Embed.

        :param inputs: the embedder's.
        :returns: what it gives.
        :raises CircuitOpenError: if the server has kept failing.
        """
        self.warm_up()
        with self._guarded():
            for attempt in two_attempts(_broke, _PAUSE_SECONDS):
                with attempt:
                    return dict(self._embedder.run(**inputs))
        raise AssertionError("the last attempt gives an answer or raises")

    async def run_async(self, **inputs: Any) -> dict[str, Any]:
        """Embed; see `run`."""
        with self._guarded():
            async with asyncio.timeout(self._timeout):
                async for attempt in two_attempts(_broke, _PAUSE_SECONDS):
                    with attempt:
                        return dict(await self._embedder.run_async(**inputs))
        raise AssertionError("the last attempt gives an answer or raises")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._breaker.guarding(_is_the_servers, asker=current_share()[0]):
            yield


def _broke(error: Exception) -> bool:
    # A call that was late is not made again: the server may still be at it.
    if isinstance(error, openai.APITimeoutError):
        return False
    return isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | openai.APIConnectionError)


def _is_the_servers(error: BaseException) -> bool | None:
    if isinstance(error, ollama.ResponseError | openai.APIStatusError):
        if error.status_code in (429, *AWAY_STATUSES):
            return True
        # It may be due to a text that the model can't embed.
        return None if error.status_code >= 500 else False
    return isinstance(
        error, httpx.TransportError | openai.APIConnectionError | ConnectionError | TimeoutError
    )
