"""Models behind OpenAI's protocol: vLLM, llama.cpp's server, OpenAI itself."""

from typing import Any

import httpx
import openai
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

from components.bounded_reading import ReplyTooLargeError
from components.models.aiohttp_transport import AiohttpClient
from components.models.errors import ModelError
from components.models.replies import plain_reply
from components.models.servers import ModelServer

# Not OpenAI's own, but vLLM and llama.cpp read these from the body too.
EXTRAS = ("grammar", "min_p", "repeat_penalty", "response_format", "top_k")


class OpenAIModels(ModelServer):
    """
    The models of a server that speaks OpenAI's protocol; `url` ends in `/v1`.

    A cancelled call closes its connection. vLLM then stops; llama.cpp's server stops only a streamed reply,
    and finishes another one for nobody.
    """

    title = "the OpenAI-compatible server"
    names_path = "/models"

    def generator(self) -> Any:
        """:returns: A generator with clients of its own."""
        return _Generator(self)

    def options(self, model: str, options: dict[str, Any], stream: bool) -> dict[str, Any]:
        """:returns: The options; those that the client would refuse or interpret go straight to the body."""
        extra = {key: value for key, value in options.items() if key in EXTRAS}
        plain = {key: value for key, value in options.items() if key not in EXTRAS}
        if stream:
            plain["stream_options"] = {"include_usage": True}
        return {**plain, "model": model, "extra_body": extra}

    def names(self, body: Any) -> set[str]:
        """:returns: The names."""
        return {entry["id"] for entry in body["data"]}

    def plain(self, model: str, reply: ChatMessage) -> ChatMessage:
        """:returns: The reply with plain meta data."""
        meta = reply.meta
        logprobs = (meta.get("logprobs") or {}).get("content")
        return plain_reply(model, reply.text, meta.get("finish_reason"), meta.get("usage"), logprobs)

    def failure(self, model: str, error: Exception) -> ModelError | None:
        """:returns: What an error of OpenAI's client means."""
        if isinstance(error, openai.APITimeoutError):
            return self.late(model)
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            if isinstance(cause, ReplyTooLargeError):
                return self.endless(cause)
            return self.silent(cause) if isinstance(cause, httpx.ConnectError) else self.broken(repr(cause))
        if isinstance(error, openai.NotFoundError):
            return self.missing(model)
        if isinstance(error, openai.BadRequestError) and "context" in error.message:
            return self.too_long(error.message)
        if isinstance(error, openai.APIStatusError):
            return self.refused(error.status_code, error.message, error.response.headers)
        return self.refused(0, str(error), {}) if isinstance(error, openai.OpenAIError) else None


class _Generator(OpenAIChatGenerator):
    def __init__(self, server: OpenAIModels) -> None:
        super().__init__(
            api_key=Secret.from_token(server.api_key or "none"),
            api_base_url=server.url,
            timeout=server.timeout,
            max_retries=0,
            http_client_kwargs=server.sync_client_options(),
        )
        self._server = server

    async def warm_up_async(self) -> None:
        if self.async_client is None:
            client: Any = AiohttpClient(**self._server.async_client_options())
            self.async_client = openai.AsyncOpenAI(http_client=client, **self._client_kwargs())

    def _prepare_api_call(self, **arguments: Any) -> dict[str, Any]:
        # The client walks through its arguments to convert them, but not through what goes straight to the body.
        call = super()._prepare_api_call(**arguments)
        return {**call, "messages": [], "extra_body": {**call["extra_body"], "messages": call["messages"]}}
