"""Models that need no server: GGUF files, and answers without a language model."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from haystack.dataclasses import ChatMessage
from haystack.dataclasses.streaming_chunk import AsyncStreamingCallbackT, SyncStreamingCallbackT

from components.extracting import ExtractiveChatGenerator
from components.models.errors import ModelUnavailableError
from components.models.llama_cpp import LlamaCppChatGenerator


class LlamaModels:
    """
    GGUF files run in this process, each loaded when it is first asked for and kept.

    :param files: Model name → GGUF file.
    :param settings: What `LlamaCppChatGenerator` takes besides.
    """

    def __init__(self, files: Mapping[str, str | Path], **settings: Any) -> None:
        self._files = dict(files)
        self._settings = settings
        self._lock = threading.Lock()
        self._generators: dict[str, LlamaCppChatGenerator] = {}

    def generator(self, model: str) -> LlamaCppChatGenerator:
        """
        The generator of a model.

        :param model: A name in `files`.
        :returns: The same one each time.
        """
        with self._lock:
            generator = self._generators.get(model)
            if generator is None:
                path = str(self._files[model])
                generator = LlamaCppChatGenerator(path, model=model, **self._settings)
                self._generators[model] = generator
            return generator

    def ask(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: SyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """:returns: The model's reply."""
        return self.generator(model).run(messages, options, streaming_callback=callback)["replies"][0]

    async def ask_async(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: AsyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """:returns: The model's reply."""
        result = await self.generator(model).run_async(messages, options, streaming_callback=callback)
        return result["replies"][0]

    def check(self, model: str, deadline: float) -> None:
        """
        See whether the model's file is there.

        :param model: Its name.
        :param deadline: Not needed.
        :raises ModelUnavailableError: If not.
        """
        if not Path(self._files[model]).is_file():
            raise ModelUnavailableError(f"the model file {self._files[model]} is not there")

    async def check_async(self, model: str, deadline: float) -> None:
        """See `check`."""
        self.check(model, deadline)

    def close(self) -> None:
        """Stop and let go of every model."""
        with self._lock:
            generators, self._generators = self._generators, {}
        for generator in generators.values():
            generator.close()

    async def close_async(self) -> None:
        """See `close`; it waits for nothing."""
        self.close()


class ExtractiveModel:
    """Answers with sentences of the passages, by no language model."""

    def __init__(self) -> None:
        self._generator = ExtractiveChatGenerator()

    def ask(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: SyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """:returns: The reply."""
        reply: ChatMessage = self._generator.run(messages, options, callback)["replies"][0]
        return reply

    async def ask_async(
        self,
        model: str,
        messages: list[ChatMessage],
        options: dict[str, Any],
        callback: AsyncStreamingCallbackT | None = None,
    ) -> ChatMessage:
        """:returns: The reply."""
        reply: ChatMessage = (await self._generator.run_async(messages, options, callback))["replies"][0]
        return reply

    def check(self, model: str, deadline: float) -> None:
        """Do nothing: it is always there."""

    async def check_async(self, model: str, deadline: float) -> None:
        """Do nothing: it is always there."""

    def close(self) -> None:
        """Do nothing: nothing is held."""

    async def close_async(self) -> None:
        """Do nothing: nothing is held."""
