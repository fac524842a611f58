"""Asking a language model several things at once."""

import asyncio
from collections.abc import Sequence
from typing import Any

from haystack.dataclasses import ChatMessage

from components.extracting import LanguageModelNeededError
from components.threads import ContextThreads

Prompt = list[ChatMessage]


class ConcurrentCalls:
    """
    Sends prompts that don't depend on each other at the same time, so that they take about as long as one.

    ### Usage example
    ```python
    calls = ConcurrentCalls(chat_generator, limit=8)
    replies = calls.run([[ChatMessage.from_user("Is 7 prime?")], [ChatMessage.from_user("Is 9 prime?")]], {})
    ```
    """

    def __init__(self, chat_generator: Any, limit: int) -> None:
        """
        Stores the parameters.

        :param chat_generator: A Haystack ChatGenerator that takes `generation_kwargs`.
        :param limit: How many calls of one `run` may be in flight together.
        """
        self.chat_generator = chat_generator
        self.limit = limit

    def run(self, prompts: Sequence[Prompt], options: dict[str, Any]) -> list[ChatMessage | None]:
        """
        Asks from as many threads as are needed.

        :param prompts: The messages of each call.
        :param options: The `generation_kwargs` of every call.
        :returns: The first reply of each call, in order; None where there was none or no model to ask.
        """
        if not prompts:
            return []
        with ContextThreads(min(self.limit, len(prompts)), thread_name_prefix="ask") as pool:
            return list(pool.map(lambda prompt: self._ask(prompt, options), prompts))

    async def run_async(self, prompts: Sequence[Prompt], options: dict[str, Any]) -> list[ChatMessage | None]:
        """
        Asks on the event loop. When one call fails, the others are cancelled.

        :param prompts: The messages of each call.
        :param options: The `generation_kwargs` of every call.
        :returns: As `run`.
        """
        slots = asyncio.Semaphore(self.limit)

        async def ask(prompt: Prompt) -> ChatMessage | None:
            async with slots:
                return await self._ask_async(prompt, options)

        calls = [asyncio.create_task(ask(prompt)) for prompt in prompts]
        try:
            return await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()

    def _ask(self, prompt: Prompt, options: dict[str, Any]) -> ChatMessage | None:
        try:
            return _first(self.chat_generator.run(prompt, generation_kwargs=options))
        except LanguageModelNeededError:
            return None

    async def _ask_async(self, prompt: Prompt, options: dict[str, Any]) -> ChatMessage | None:
        try:
            return _first(await self.chat_generator.run_async(prompt, generation_kwargs=options))
        except LanguageModelNeededError:
            return None


def _first(result: dict[str, Any]) -> ChatMessage | None:
    return next(iter(result.get("replies") or []), None)
