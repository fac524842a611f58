"""Models served by Ollama, through Haystack's Ollama integration."""

from typing import Any

import httpx
import ollama
from haystack.dataclasses import ChatMessage
from haystack_integrations.components.generators.ollama import OllamaChatGenerator

from components.models.aiohttp_transport import AiohttpClient
from components.models.errors import InvalidGenerationError, ModelError
from components.models.replies import plain_reply
from components.models.servers import ModelServer

DEFAULT_URL = "http://127.0.0.1:11434"
# Ollama takes these beside the sampling options; OllamaChatGenerator knows only the latter for each call.
FIELDS = ("model", "format", "logprobs", "top_logprobs")


class OllamaModels(ModelServer):
    """
    The models of an Ollama server.

    :param n_ctx: Tokens of context to ask for; the server's own choice by default.
    """

    title = "Ollama"
    names_path = "/api/tags"
    busy_statuses = (429, 503)

    def __init__(self, url: str = DEFAULT_URL, n_ctx: int | None = None, **settings: Any) -> None:
        super().__init__(url, **settings)
        self.n_ctx = n_ctx

    def generator(self) -> Any:
        """:returns: A generator that takes `FIELDS` for each call."""
        return _Generator(self)

    def options(self, model: str, options: dict[str, Any], stream: bool) -> dict[str, Any]:
        """:returns: Ollama's options, and `FIELDS` among them."""
        options = {**options, "model": model}
        if "max_tokens" in options:
            options["num_predict"] = options.pop("max_tokens")
        if isinstance(options.get("stop"), str):
            options["stop"] = [options["stop"]]
        if self.n_ctx:
            options["num_ctx"] = self.n_ctx
        match options.pop("response_format", None):
            case None:
                pass
            case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
                options["format"] = schema
            case {"type": "json_object"}:
                options["format"] = "json"
            case other:
                raise InvalidGenerationError(f"unknown response_format {other!r}")
        return options

    def names(self, body: Any) -> set[str]:
        """:returns: The names, each with its tag."""
        return {entry["name"] for entry in body["models"]}

    def plain(self, model: str, reply: ChatMessage) -> ChatMessage:
        """:returns: The reply with plain meta data."""
        meta = reply.meta
        # Haystack's integration knows no other reason of Ollama's than "stop"; the other one is "length". Only the end
        # of a reply has the usage.
        reason = meta.get("finish_reason") or ("length" if meta.get("usage") else None)
        return plain_reply(model, reply.text, reason, meta.get("usage"), meta.get("logprobs"))

    def failure(self, model: str, error: Exception) -> ModelError | None:
        """:returns: What an error of Ollama's client means."""
        if isinstance(error, ConnectionError):
            return self.silent(error)
        if not isinstance(error, ollama.ResponseError):
            return None
        if error.status_code == 404:
            return self.missing(model)
        if "context" in error.error and error.status_code == 400:
            return self.too_long(error.error)
        # The client keeps no headers; what it stands for has them. An error in mid-reply has the status -1.
        answered = error.__context__
        headers = answered.response.headers if isinstance(answered, httpx.HTTPStatusError) else {}
        return self.refused(max(error.status_code, 0), error.error, headers)


class _Generator(OllamaChatGenerator):
    def __init__(self, server: OllamaModels) -> None:
        super().__init__(url=server.url, timeout=server.timeout, max_retries=0)
        self._client: _Client | None = None
        self._async_client: _AsyncClient | None = None
        self._server = server

    def warm_up(self) -> None:
        if self._client is None:
            self._client = _Client(
                self._server.url, timeout=self._server.timeout, **self._server.sync_client_options()
            )

    async def warm_up_async(self) -> None:
        if self._async_client is None:
            options = self._server.async_client_options()
            self._async_client = _AsyncClient(self._server.url, timeout=self._server.timeout, **options)

    async def _chat_async(self, **arguments: Any) -> Any:
        # Without the decorator for retries, which costs as much as a tenth of a query.
        return await OllamaChatGenerator._chat_async.__wrapped__(self, **arguments)


class _Client(ollama.Client):
    def chat(self, **arguments: Any) -> Any:
        return super().chat(**_with_fields(arguments))


class _AsyncClient(ollama.AsyncClient):
    def __init__(self, host: str, **options: Any) -> None:
        # `ollama.AsyncClient` itself only names the class of its httpx client.
        super(ollama.AsyncClient, self).__init__(AiohttpClient, host, **options)

    async def chat(self, **arguments: Any) -> Any:
        return await super().chat(**_with_fields(arguments))


def _with_fields(arguments: dict[str, Any]) -> dict[str, Any]:
    options = dict(arguments["options"])
    fields = {name: options.pop(name) for name in FIELDS if name in options}
    return {**arguments, "options": options, **fields}
