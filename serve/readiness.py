"""Readiness: what the service depends on, asked in the background, so that a probe only reads the last answers."""

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from components.breaking import Breaker

logger = logging.getLogger("thresher.ready")

ASK_SECONDS = 1.0
"""Between two questions to a dependency."""
CALM_SECONDS = 20.0
"""Between two questions to one that is well and of which it is seen when calls go well, as each question may cost."""
AGAIN_SECONDS = 0.25
"""Before it is asked again after an answer that contradicts what was known."""
ANSWER_SECONDS = 1.25
# One answer may be an accident; so many in a row turn what is known.
DOWN_AFTER = UP_AFTER = 2

Ask = Callable[[], Awaitable[Any]]


class Dependency:
    """
    One dependency, and whether it is there.

    It is asked by one question at a time. A question that is never answered is left open, and counts as a failure again
    and again, until it ends.
    """

    def __init__(
        self,
        name: str,
        ask: Ask,
        reason: Callable[[Exception], str],
        *,
        where: str = "",
        breaker: Breaker | None = None,
        spared: bool = False,
    ) -> None:
        """
        Name the dependency; nothing is asked yet.

        :param name: what it is called.
        :param ask: raises when it is not there.
        :param reason: makes of what `ask` raised what everybody may read: no address, nothing of an exception's text.
        :param where: its address, for the log.
        :param breaker: hears of every call of the dependency. It is kept open while the dependency is down, so that
            nobody waits for it in vain, unless that one is spared.
        :param spared: whether it is asked seldom while its calls go well, and soon when one failed.
        """
        self.name = name
        self.known = asyncio.Event()
        """Set when it has been asked once."""
        self.fault: str | None = None
        self._ask = ask
        self._reason = reason
        self._where = where
        self._breaker = breaker
        self._spared = spared
        self._cause = ""
        self._asked = -math.inf
        self._contradicted = 0
        self._question: asyncio.Future[Any] | None = None

    @property
    def status(self) -> str:
        """`ok`, or what is wrong."""
        return self.fault or "ok"

    async def watch(self) -> None:
        """Ask now and then, until this is cancelled."""
        try:
            while True:
                if not self._may_be_spared():
                    await self.look()
                await asyncio.sleep(AGAIN_SECONDS if self._contradicted else ASK_SECONDS)
        finally:
            if self._question is not None:
                self._question.cancel()

    async def look(self) -> None:
        """Ask once, and take note of the answer."""
        self._asked = time.monotonic()
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(self._ask())
            self._question.add_done_callback(_heard)
        await asyncio.wait({self._question}, timeout=ANSWER_SECONDS)
        self._note(self._found())
        if (
            self._breaker is not None
            and not self._spared
            and self.fault is not None
            and not self._contradicted
        ):
            self._breaker.trip()
        self.known.set()

    def _may_be_spared(self) -> bool:
        if not self._spared or self.fault is not None or self._contradicted:
            return False
        told = self._asked
        if self._breaker is not None:
            if self._breaker.last_failure >= self._asked:
                return False
            told = max(told, self._breaker.last_success)
        return time.monotonic() < told + CALM_SECONDS

    def _found(self) -> str | None:
        assert self._question is not None
        if not self._question.done():
            self._cause = "no answer in time"
            return self._reason(TimeoutError())
        error = None if self._question.cancelled() else self._question.exception()
        if error is None:
            return None
        logger.debug("%s: %s: %s", self.name, type(error).__name__, error)
        self._cause = _cause_of(error)
        return self._reason(error) if isinstance(error, Exception) else "unavailable"

    def _note(self, fault: str | None) -> None:
        if (fault is None) == (self.fault is None) and self.known.is_set():
            self.fault, self._contradicted = fault, 0
            return
        self._contradicted += 1
        if self.known.is_set() and self._contradicted < (UP_AFTER if fault is None else DOWN_AFTER):
            return
        self.fault, self._contradicted = fault, 0
        if fault is not None:
            cause = ", ".join(filter(None, (self._cause, self._where)))
            logger.warning("not ready: %s: %s (%s)", self.name, fault, cause)
        elif self.known.is_set():
            logger.info("ready again: %s", self.name)


class Readiness:
    """
    The dependencies of a service, watched by tasks of the running event loop.

    Usage example:
    ```python
    readiness = Readiness([Dependency("chroma", stores.ping, lambda error: "Chroma does not answer")])
    readiness.start()
    print(await readiness.statuses())
    await readiness.close()
    ```
    """

    def __init__(self, dependencies: list[Dependency]) -> None:
        """
        Take the dependencies; nothing is asked yet.

        :param dependencies: what to watch.
        """
        self._dependencies = dependencies
        self._watching: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to ask."""
        self._watching = [asyncio.create_task(each.watch()) for each in self._dependencies]

    async def statuses(self) -> Mapping[str, str]:
        """
        Tell how the dependencies stand, at once; only before the first answers does this wait for them.

        :returns: by name `ok`, or what is wrong.
        """
        for each in self._dependencies if self._watching else ():
            await each.known.wait()
        return {each.name: each.status for each in self._dependencies}

    async def close(self) -> None:
        """Ask no more."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)


def _cause_of(error: BaseException) -> str:
    # Only what it is called: a message may quote what a server said, or a URL with its password.
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    root = causes[-1]
    if type(root) is OSError and root.errno:
        return f"OSError: {os.strerror(root.errno)}"
    return type(root).__name__


def _heard(question: "asyncio.Future[Any]") -> None:
    # Of one that nobody waits for any more, nobody asks how it ended.
    if not question.cancelled():
        question.exception()
