"""Language models that a server offers over HTTP."""

import asyncio
import ipaddress
import re
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.dataclasses.streaming_chunk import AsyncStreamingCallbackT, SyncStreamingCallbackT

from components.bounded_reading import ReplyTooLargeError, bound_reply
from components.breaking import AWAY_STATUSES
from components.models.aiohttp_transport import AiohttpTransport
from components.models.errors import (
    ContextLengthExceededError,
    GenerationTimeoutError,
    ModelBusyError,
    ModelError,
    ModelRequestError,
    ModelUnavailableError,
)
from components.models.repeating import AsyncListener, Listener, repeated, repeated_async

# Of the seconds in a server's Retry-After, more than this is rather a mistake, or a quota of days.
MAX_RETRY_AFTER = 3600
_WHO = "the language model's server"
_WHY = "its own log says why, and this one does with LOG_LEVEL=DEBUG"


class ModelServer(ABC):
    """
    The models of one server, asked through a Haystack generator.

    Clients are made once and kept: one for all threads, and one for each event loop, to which an asynchronous
    client is bound.

    :param url: The server's address.
    :param api_key: Sent as a bearer token.
    :param timeout: Seconds that one call may take.
    :param concurrency: Connections kept open.
    """

    title: str
    """What the server is called in messages."""

    names_path: str
    """Where it lists its models."""

    busy_statuses: tuple[int, ...] = (429,)
    """What it answers while it has too many calls."""

    def __init__(
        self, url: str, api_key: str | None = None, timeout: float = 120.0, concurrency: int = 4
    ) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.api_key = api_key
        self.timeout = timeout
        self.concurrency = concurrency
        self._lock = threading.Lock()
        self._generator: Any = None
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    @abstractmethod
    def generator(self) -> Any:
        """:returns: A new Haystack chat generator with clients of its own."""

    @abstractmethod
    def options(self, model: str, options: dict[str, Any], stream: bool) -> dict[str, Any]:
        """:returns: OpenAI's options as the generator's `generation_kwargs`."""

    @abstractmethod
    def names(self, body: Any) -> set[str]:
        """:returns: The models in the list at `names_path`."""

    @abstractmethod
    def failure(self, model: str, error: Exception) -> ModelError | None:
        """:returns: What an error of the generator means; None for one that isn't the server's."""

    @abstractmethod
    def plain(self, model: str, reply: ChatMessage) -> ChatMessage:
        """:returns: The generator's reply with the meta data that every provider gives."""

    def ask(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: SyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """
        Ask a model.

        :param model: Its name.
        :param messages: The conversation.
        :param options: Options by OpenAI's names.
        :param callback: Called with each chunk, or once if log-probabilities are asked for.
        :returns: The reply.
        :raises ModelError: If there is none.
        """
        with self._lock:
            generator = self._generator = self._generator or self.generator()
        streamed = None if options.get("logprobs") or not callback else Listener(callback)
        kwargs = self.options(model, options, stream=streamed is not None)

        def once() -> ChatMessage:
            hear = streamed and streamed.hear
            with self._translating(model, streamed):
                result = generator.run(messages, generation_kwargs=kwargs, streaming_callback=hear)
                return self.plain(model, result["replies"][0])

        reply = repeated(once, streamed)
        self._check_end(reply)
        if callback and not streamed:
            callback(StreamingChunk(reply.text or ""))
        return reply

    async def ask_async(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: AsyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """
        Ask a model. Cancelling this closes the connection, which tells the server to stop.

        :param model: Its name.
        :param messages: The conversation.
        :param options: Options by OpenAI's names.
        :param callback: Called with each chunk, or once if log-probabilities are asked for.
        :returns: The reply.
        :raises ModelError: If there is none.
        """
        loop = asyncio.get_running_loop()
        generator = self._by_loop.get(loop)
        if generator is None:
            generator = self._by_loop[loop] = self.generator()
        streamed = None if options.get("logprobs") or not callback else AsyncListener(callback)
        kwargs = self.options(model, options, stream=streamed is not None)

        async def once() -> ChatMessage:
            hear = streamed and streamed.hear
            with self._translating(model, streamed):
                result = await generator.run_async(
                    messages, generation_kwargs=kwargs, streaming_callback=hear
                )
                return self.plain(model, result["replies"][0])

        reply = await repeated_async(once, streamed)
        self._check_end(reply)
        if callback and not streamed:
            await callback(StreamingChunk(reply.text or ""))
        return reply

    def check(self, model: str, deadline: float) -> None:
        """
        See whether the server answers and holds the model.

        :param model: Its name.
        :param deadline: Seconds to wait.
        :raises ModelUnavailableError: If not.
        """
        options = self.sync_client_options() | {"timeout": deadline}
        with self._answering(), httpx.Client(**options) as client:
            self._look_for(model, client.get(self.url + self.names_path))

    async def check_async(self, model: str, deadline: float) -> None:
        """
        See whether the server answers and holds the model.

        :param model: Its name.
        :param deadline: Seconds to wait.
        :raises ModelUnavailableError: If not.
        """
        options = self.async_client_options() | {"timeout": deadline}
        with self._answering():
            async with asyncio.timeout(deadline), httpx.AsyncClient(**options) as client:
                self._look_for(model, await client.get(self.url + self.names_path))

    async def answers_async(self, deadline: float) -> None:
        """
        See whether the server answers, whatever it says.

        :param deadline: Seconds to wait.
        :raises ModelUnavailableError: If not.
        """
        options = self.async_client_options() | {"timeout": deadline}
        with self._answering():
            async with asyncio.timeout(deadline), httpx.AsyncClient(**options) as client:
                response = await client.get(self.url + self.names_path)
                if response.status_code >= 500:
                    response.raise_for_status()

    def close(self) -> None:
        """Close the connections of the threads' client."""
        with self._lock:
            generator, self._generator = self._generator, None
        if generator:
            generator.close()

    async def close_async(self) -> None:
        """Close the connections of this event loop's client."""
        generator = self._by_loop.pop(asyncio.get_running_loop(), None)
        if generator:
            await generator.close_async()

    @property
    def address(self) -> str:
        """The URL without a password, fit for messages."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def client_options(self) -> dict[str, Any]:
        """:returns: Arguments that every httpx client for this server has."""
        # Uncompressed, so that what comes over the wire, which is bounded, can not become a thousand times as much.
        options: dict[str, Any] = {"headers": {"Accept-Encoding": "identity"}}
        if self.api_key:
            options["headers"]["Authorization"] = f"Bearer {self.api_key}"
        if self.url.startswith("http:"):
            # Loading the certificates takes 20 ms, even for a client that never uses them.
            options["verify"] = False
        if _is_loopback(urlsplit(self.url).hostname or ""):
            options["trust_env"] = False  # no proxy on the way to this machine
        return options

    def sync_client_options(self) -> dict[str, Any]:
        """:returns: Arguments of an httpx client of threads for this server."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
        return {**self.client_options(), "limits": limits, "event_hooks": {"response": [bound_reply]}}

    def async_client_options(self) -> dict[str, Any]:
        """:returns: Arguments of an asynchronous httpx client for this server, whose requests aiohttp carries."""
        options = self.client_options()
        transport = AiohttpTransport(
            verify=options.pop("verify", True), trust_env=options.pop("trust_env", True)
        )
        return {**options, "transport": transport}

    def missing(self, model: str, names: set[str] | None = None) -> ModelUnavailableError:
        """:returns: The error that says so."""
        held = f"; it holds {', '.join(sorted(names)) or 'none'}" if names is not None else ""
        told = f"{_WHO} does not hold the model '{model}': pull it or choose another"
        return ModelUnavailableError(
            f"{self.title} at {self.address} does not hold {model!r}{held}", told=told
        )

    def silent(self, error: BaseException) -> ModelUnavailableError:
        """:returns: The error that says so."""
        reason = str(error) or type(error).__name__
        return ModelUnavailableError(
            f"{self.title} at {self.address} does not answer: {reason}",
            passing=True,
            told=f"{_WHO} does not answer; try again, and see that it runs",
        )

    def broken(self, reason: str) -> ModelRequestError:
        """:returns: The error that says so."""
        return ModelRequestError(
            f"{self.title} at {self.address} broke off: {reason}",
            passing=True,
            told=f"{_WHO} broke off its reply; try again",
        )

    def endless(self, error: Exception) -> ModelRequestError:
        """:returns: The error that says so."""
        return ModelRequestError(
            f"{self.title} at {self.address} gave no reply: {error}",
            told=f"{_WHO} sent more than any reply has; see that it is one",
        )

    def garbled(self, error: Exception) -> ModelRequestError:
        """:returns: The error that says so."""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        return ModelRequestError(
            f"{self.title} at {self.address} gave what is no reply: {reason}",
            told=f"{_WHO} gave what is no reply; try again; {_WHY}",
        )

    def too_long(self, reason: str) -> ContextLengthExceededError:
        """:returns: The error that says so."""
        return ContextLengthExceededError(
            f"{self.title} at {self.address} refused the prompt: {reason}",
            told="the prompt does not fit into the model's context; ask for fewer chunks, or ask more shortly",
        )

    def refused(self, status: int, reason: str, headers: Mapping[str, str]) -> ModelError:
        """
        Say what a status means that is no success.

        :param status: The status; 0 for an error in mid-reply.
        :param reason: What the server says of it.
        :param headers: The response's headers.
        :returns: The error that says so.
        """
        reason = " ".join(reason.split())[:300]
        message = f"{self.title} at {self.address} answered {status or 'an error'}: {reason}"
        if status in self.busy_statuses:
            told = f"{_WHO} has too many calls at the moment; try again after the seconds in Retry-After"
            return ModelBusyError(message, True, told, _retry_after(headers))
        if 400 <= status < 500:
            told = f"{_WHO} refused the call with status {status}; {_WHY}"
            return ModelRequestError(message, told=told)
        passing = status >= 500
        # A plain 500 may be about a single call.
        doubtful = passing and status not in AWAY_STATUSES
        return ModelRequestError(message, passing, f"{_WHO} failed; try again", doubtful=doubtful)

    def late(self, model: str) -> GenerationTimeoutError:
        """:returns: The error that says so."""
        return GenerationTimeoutError(f"{model} had no reply ready after {self.timeout:g} s")

    def _look_for(self, model: str, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return  # it is there, and may be asked less often
        if response.is_error:
            raise ModelUnavailableError(
                f"{self.title} at {self.address} answers {response.status_code}",
                told=f"{_WHO} answers with status {response.status_code}",
            )
        names = self.names(response.json())
        if model not in names and f"{model}:latest" not in names:
            raise self.missing(model, names)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, TimeoutError) as error:
            raise self.silent(error) from error

    def _check_end(self, reply: ChatMessage) -> None:
        if reply.meta["finish_reason"] is None:
            # A stream that ends like a whole one, but without the word that it is one.
            raise self.broken("the reply has no end")

    @contextmanager
    def _translating(self, model: str, listener: Listener | AsyncListener | None) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise self.late(model) from error
        except httpx.ConnectError as error:
            raise self.silent(error) from error
        except ReplyTooLargeError as error:
            raise self.endless(error) from error
        except httpx.HTTPError as error:
            raise self.broken(repr(error)) from error
        except Exception as error:
            if listener is not None and error is listener.fault:
                raise
            # What neither client knows is something else than a reply, which each trips over in its own way.
            raise self.failure(model, error) or self.garbled(error) from error


def _retry_after(headers: Mapping[str, str]) -> int | None:
    # Not where it is a date: the server's clock need not be ours.
    said = headers.get("retry-after", "").strip()
    return int(said) if re.fullmatch(r"\d{1,9}", said) and 1 <= int(said) <= MAX_RETRY_AFTER else None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
