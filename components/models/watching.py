"""What is told of each language model call when it has ended, to whoever counts calls."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from haystack.dataclasses import ChatMessage


@dataclass(frozen=True)
class FinishedCall:
    """
    A call, and what became of it.

    :param model: The model that was asked.
    :param seconds: How long it took, without the wait for a free slot.
    :param usage: `prompt_tokens` and `completion_tokens` of the reply, as far as they are known.
    :param error: Why there was no reply; of a caller that left `asyncio.CancelledError`.
    """

    model: str
    seconds: float
    usage: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


CallWatcher = Callable[[FinishedCall], None]
"""Called in the thread of the call; has to be quick, and must not raise."""


@contextmanager
def watched_call(
    watchers: Sequence[CallWatcher], model: str
) -> Iterator[Callable[[ChatMessage], ChatMessage]]:
    """
    Tell the watchers of the call that is made inside.

    :param watchers: Who wants to know.
    :param model: The model.
    :returns: Takes the reply, and gives it back.
    """
    begin = time.perf_counter()
    usage: dict[str, Any] = {}
    fault: BaseException | None = None

    def answered(reply: ChatMessage) -> ChatMessage:
        usage.update(reply.meta.get("usage") or {})
        return reply

    try:
        yield answered
    except BaseException as error:
        fault = error
        raise
    finally:
        call = FinishedCall(model, time.perf_counter() - begin, usage, fault)
        for watcher in watchers:
            watcher(call)
