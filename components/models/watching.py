"""What is told of each language model call when it has ended, to whoever counts calls."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.dataclasses.streaming_chunk import AsyncStreamingCallbackT, SyncStreamingCallbackT

from components.fairness import Share, current_share
from components.models.errors import GenerationTimeoutError, ModelError

# Of a token, where nobody counted them.
_CHARACTERS = 4
_KINDS = ("prompt", "completion")


@dataclass(frozen=True)
class FinishedCall:
    """
    A call, and what became of it.

    :param model: The model that was asked.
    :param seconds: How long it took, without the wait for a free slot.
    :param usage: `prompt_tokens` and `completion_tokens` of the reply, as far as they are known.
    :param error: Why there was no reply; of a caller that left `asyncio.CancelledError`.
    :param share: On whose account it was made.
    :param spent: Tokens of prompt and reply; estimated where no reply tells them, and 0 of a call that failed at once.
    """

    model: str
    seconds: float
    usage: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    share: Share = ("", "")
    spent: int = 0


CallWatcher = Callable[[FinishedCall], None]
"""Called in the thread of the call; has to be quick, and must not raise."""


class WatchedCall:
    """What is heard of a call while it runs."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        """
        Begin with nothing heard.

        :param messages: The prompt.
        """
        self._messages = messages
        self._chunks = 0
        self._reply: ChatMessage | None = None

    def heard_by(self, callback: SyncStreamingCallbackT | None) -> SyncStreamingCallbackT | None:
        """
        Count the chunks of the reply.

        :param callback: Who hears them, if anybody does.
        :returns: The same, or who tells both.
        """
        if callback is None:
            return None

        def hear(chunk: StreamingChunk) -> None:
            self._chunks += 1
            callback(chunk)

        return hear

    def heard_by_async(self, callback: AsyncStreamingCallbackT | None) -> AsyncStreamingCallbackT | None:
        """
        Count the chunks of the reply.

        :param callback: Who hears them, if anybody does.
        :returns: The same, or who tells both.
        """
        if callback is None:
            return None

        async def hear(chunk: StreamingChunk) -> None:
            self._chunks += 1
            await callback(chunk)

        return hear

    def answered(self, reply: ChatMessage) -> ChatMessage:
        """
        Note the reply.

        :param reply: It.
        :returns: The same.
        """
        self._reply = reply
        return reply

    @property
    def usage(self) -> dict[str, Any]:
        """The reply's counts of tokens, as far as they are known."""
        return dict(self._reply.meta.get("usage") or {}) if self._reply else {}

    def spent(self, error: BaseException | None) -> int:
        """
        Estimate what the call cost.

        :param error: Why there was no reply, if there was none.
        :returns: Tokens of prompt and reply.
        """
        usage = self.usage
        if known := usage.get("total_tokens") or sum(usage.get(f"{kind}_tokens") or 0 for kind in _KINDS):
            return int(known)
        if (
            isinstance(error, ModelError)
            and not isinstance(error, GenerationTimeoutError)
            and not self._chunks
        ):
            return 0
        heard = max(self._chunks, len((self._reply and self._reply.text) or "") // _CHARACTERS)
        return sum(len(message.text or "") for message in self._messages) // _CHARACTERS + heard


@contextmanager
def watched_call(
    watchers: Sequence[CallWatcher], model: str, messages: Sequence[ChatMessage]
) -> Iterator[WatchedCall]:
    """
    Tell the watchers of the call that is made inside.

    :param watchers: Who wants to know.
    :param model: The model.
    :param messages: The prompt.
    :returns: Takes what is heard of the call.
    """
    begin = time.perf_counter()
    watched = WatchedCall(messages)
    fault: BaseException | None = None
    try:
        yield watched
    except BaseException as error:
        fault = error
        raise
    finally:
        seconds = time.perf_counter() - begin
        call = FinishedCall(model, seconds, watched.usage, fault, current_share(), watched.spent(fault))
        for watcher in watchers:
            watcher(call)
