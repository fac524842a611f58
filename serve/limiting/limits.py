"""What one caller may do: so many requests at a time, and so many requests and tokens a minute."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from components.fairness import current_share
from components.models.chat_models import EXTRACTIVE
from components.models.watching import FinishedCall
from serve.limiting.counts import MinuteCounts, Used
from serve.limiting.errors import RateLimitedError, TooManyRequestsError
from settings import Settings


class CallerLimits:
    """
    Counts what each caller does, and refuses what is too much.

    Usage example:
    ```python
    limits = CallerLimits(settings)
    with limits.under_way("key-1"):
        await limits.check_requests("key-1")
    ```
    """

    def __init__(self, settings: Settings) -> None:
        """
        Begin with nothing done.

        :param settings: the service's settings.
        """
        self._most_at_once = settings.max_concurrent_requests
        self._most_requests = settings.max_requests_per_minute
        self._most_tokens = settings.max_tokens_per_minute
        self._requests = MinuteCounts(settings, "requests") if self._most_requests else None
        self._tokens = MinuteCounts(settings, "tokens") if self._most_tokens else None
        self._under_way: Counter[str] = Counter()
        self._counting: set[asyncio.Task[Used]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def under_way(self, caller: str) -> Iterator[None]:
        """
        Count what happens inside as a request under way.

        :param caller: who sent it.
        :raises TooManyRequestsError: if there are too many.
        """
        if self._most_at_once and self._under_way[caller] >= self._most_at_once:
            raise TooManyRequestsError(self._most_at_once)
        self._under_way[caller] += 1
        try:
            yield
        finally:
            self._under_way[caller] -= 1
            if not self._under_way[caller]:
                del self._under_way[caller]

    async def check_requests(self, caller: str) -> dict[str, str]:
        """
        Count one request more.

        :param caller: who sent it.
        :returns: headers that tell what is left.
        :raises RateLimitedError: if there were too many this minute.
        """
        self._loop = asyncio.get_running_loop()
        if self._requests is None:
            return {}
        most = self._most_requests
        used = await self._requests.add(caller, 1)
        if used.amount > most:
            raise RateLimitedError("requests", most, "MAX_REQUESTS_PER_MINUTE", used.seconds)
        return _told("requests", most, used)

    async def check_tokens(self) -> None:
        """
        Let a question be asked unless its caller has used up the minute's tokens.

        :raises RateLimitedError: if it has.
        """
        if self._tokens is None:
            return
        used = await self._tokens.look(current_share()[0])
        if used.amount >= self._most_tokens:
            raise RateLimitedError("tokens", self._most_tokens, "MAX_TOKENS_PER_MINUTE", used.seconds)

    def call_ended(self, call: FinishedCall) -> None:
        """
        Count the tokens of a model call, whatever became of it; a `CallWatcher`.

        :param call: the call.
        """
        if self._tokens is None or self._loop is None or not call.share[0] or call.model == EXTRACTIVE:
            return
        # The call may have been made in a thread, or in another event loop.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._count, call.share[0], call.spent)

    def _count(self, caller: str, tokens: int) -> None:
        if self._tokens is not None and tokens:
            counting = asyncio.create_task(self._tokens.add(caller, tokens))
            self._counting.add(counting)
            counting.add_done_callback(self._counting.discard)

    async def close(self) -> None:
        """Count to the end, and close the connections."""
        await asyncio.gather(*self._counting, return_exceptions=True)
        for counts in (self._requests, self._tokens):
            if counts is not None:
                await counts.close()


def refusal_headers(error: RateLimitedError | TooManyRequestsError) -> dict[str, str]:
    """
    Give the headers of a refusal.

    :param error: why the request is refused.
    :returns: the headers.
    """
    told = {"Retry-After": str(error.retry_after)}
    if isinstance(error, RateLimitedError):
        told |= _told(error.what, error.most, Used(error.most, error.retry_after))
    return told


def _told(what: str, most: int, used: Used) -> dict[str, str]:
    left = max(most - used.amount, 0)
    return {"RateLimit-Policy": f'"{what}";q={most};w=60', "RateLimit": f'"{what}";r={left};t={used.seconds}'}
