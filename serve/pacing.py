"""How fast jobs may go: at full speed while nobody asks, in small steps with rests while somebody waits for an answer.

Embedded Chroma holds the interpreter for a whole write, so a request that comes meanwhile waits for its end.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from components.pacing import paced_by
from serve.http_middleware import HttpMiddleware

# A write of 20 rows holds the interpreter for about 25 ms, one of 256 for about 180 ms, and half as long for each row.
# Fewer rows make a query wait less for each write, but what is written a second falls faster than that.
ROWS_WHILE_ASKED = 20
# Rest for each second of work; the rest of the time is the queries'.
RESTS = 0.4
# Longer work than this did not hold the interpreter: it computed embeddings, or waited for a server.
LONGEST_REST = 0.03
# Who has asked a question may soon ask the next one.
MOMENT = 3.0
# Probes come all the time; a short moment is enough for who sends several in a second, and for the jobs to go on.
PROBE_MOMENT = 0.5
PROBES = ("/health", "/ready", "/metrics")


class Activity:
    """
    Knows whether somebody waits for an answer, or did a moment ago, and paces the jobs by it.

    Usage example:
    ```python
    activity = Activity()
    with activity.answering():
        ...  # a query
    with activity.paced(check=lambda: None):
        ...  # a job, in its thread
    ```
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """
        Begin with nobody asking.

        :param clock: tells the time in seconds.
        :param sleep: waits for some seconds.
        """
        self.clock = clock
        self.sleep = sleep
        self.jobs = 0
        self._lock = threading.Lock()
        self._asking = 0
        self._busy_until = -float("inf")

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer, or did a moment ago."""
        return self._asking > 0 or self.clock() < self._busy_until

    @contextmanager
    def answering(self, moment: float = MOMENT) -> Iterator[None]:
        """
        Count what happens inside as an answer that somebody waits for.

        :param moment: seconds for which it still counts when it was given.
        """
        with self._lock:
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
                self._busy_until = max(self._busy_until, self.clock() + moment)

    @contextmanager
    def paced(self, check: Callable[[], None]) -> Iterator[None]:
        """
        Pace the work of a job inside.

        :param check: called between slices; what it raises, as when the job is cancelled, ends the work.
        """
        with self._lock:
            self.jobs += 1
        try:
            with paced_by(JobPacer(self, check)):
                yield
        finally:
            with self._lock:
                self.jobs -= 1


class JobPacer:
    """Paces one job; made by `Activity.paced` in the thread that works on it."""

    def __init__(self, activity: Activity, check: Callable[[], None]) -> None:
        """
        Begin the work.

        :param activity: tells whether somebody waits.
        :param check: raises when the job is no longer wanted.
        """
        self._activity = activity
        self._check = check
        self._began = activity.clock()

    @property
    def others_wait(self) -> bool:
        """Whether somebody waits for an answer."""
        return self._activity.busy

    def pause(self) -> None:
        """
        Rest as long as the last slice took while somebody waits; else go on at once.

        What `check` raises ends the work.
        """
        activity = self._activity
        worked = min(activity.clock() - self._began, LONGEST_REST)
        self._check()
        if activity.busy:
            # Each of several jobs rests while the others work, too; else they would take turns without a rest.
            activity.sleep(worked * (activity.jobs * (1 + RESTS) - 1))
        self._began = activity.clock()

    def rows_at_once(self, default: int) -> int:
        """
        Give small slices while somebody waits.

        :param default: the size while nobody does.
        :returns: how many rows to take.
        """
        return min(default, ROWS_WHILE_ASKED) if self._activity.busy else default


class ActivityMiddleware(HttpMiddleware):
    """Counts every request as an answer that somebody waits for, but those that bring documents or ask about jobs."""

    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param activity: where the requests are counted.
        """
        super().__init__(app)
        self.activity = activity

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Who watches a job would slow it down by that.
        if scope["path"].startswith("/ingest"):
            await self.app(scope, receive, send)
            return
        with self.activity.answering(PROBE_MOMENT if scope["path"] in PROBES else MOMENT):
            await self.app(scope, receive, send)
