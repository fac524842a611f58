"""What is told of each run of a mode when it has ended, to whoever counts or keeps runs."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from haystack.dataclasses import ChatMessage

from modes.mode import RunInputs
from modes.results import QueryResult

logger = logging.getLogger("thresher.watching")


@dataclass(frozen=True)
class FinishedRun:
    """
    One question, and what became of it.

    :param request_id: the request's id; None outside of one. A batch has many runs.
    :param mode: the mode that was asked.
    :param query: the question.
    :param history: the conversation before it.
    :param inputs: what else the mode was given.
    :param started_at: when, in UTC.
    :param seconds: how long it took.
    :param result: the answer; None when there was none.
    :param error: why there was none; of a caller that left `asyncio.CancelledError` or `GeneratorExit`.
    :param first_token_seconds: when the first token of a streamed answer came.
    :param began: whether the mode began with it; False of a question that was not let in.
    """

    request_id: str | None
    mode: str
    query: str
    history: Sequence[ChatMessage]
    inputs: RunInputs
    started_at: datetime
    seconds: float
    result: QueryResult | None = None
    error: BaseException | None = None
    first_token_seconds: float | None = None
    began: bool = True


class RunWatcher(Protocol):
    """Wants to know of each run."""

    def ended(self, run: FinishedRun) -> None:
        """
        Take note of a run; called in the event loop, so it has to be quick.

        :param run: the run.
        """


def tell(watchers: Iterable[RunWatcher], run: FinishedRun) -> None:
    """
    Tell of a run; a watcher that fails costs nobody the answer.

    :param watchers: who wants to know.
    :param run: the run.
    """
    for watcher in watchers:
        try:
            watcher.ended(run)
        except Exception:
            logger.exception("%s could not take note of a run", type(watcher).__name__)
