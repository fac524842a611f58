"""Circuit breakers: a dependency that keeps failing is left alone for a while, and its callers are told at once."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Literal

logger = logging.getLogger(__name__)

BreakerState = Literal["closed", "open", "half-open"]
AWAY_STATUSES = (502, 503, 504)
"""What a server that is overloaded, or a proxy before one that is away, answers to whatever it is asked."""


class CircuitOpenError(ConnectionError):
    """
    A dependency has kept failing, and is not asked at the moment.

    :param name: The dependency.
    :param seconds: After how long it is asked again.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        super().__init__(f"{name} kept failing, and is asked again in {self.retry_after} s")


class Breaker:
    """
    Counts the failures of one dependency, for all threads and event loops of the process.

    It is *closed* while the dependency works. So many failures in a row *open* it: `check` then raises at once. After
    some seconds it is *half-open*: one caller is let through, whose success closes it and whose failure opens it again.
    A caller that tells neither, as it was cancelled, only delays the next one.

    A failure may be *doubtful*: the dependency's own, or due to what it was asked. Such ones count only when several
    askers had one without a success in between, so that nobody can take the dependency from the others.

    Usage example:
    ```python
    breaker = Breaker("Chroma", failures=5, seconds=10)
    with breaker.guarding(lambda error: isinstance(error, ConnectionError)):
        ask_chroma()
    ```
    """

    def __init__(
        self,
        name: str,
        failures: int = 5,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Begin closed.

        :param name: The dependency, for messages.
        :param failures: How many failures in a row open it.
        :param seconds: How long it stays open.
        :param clock: Gives the time.
        """
        self.name = name
        self.failures = failures
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._doubts: Counter[Hashable] = Counter()
        self._open_until: float | None = None
        self._trying = False
        self.last_success = -math.inf
        """When a call last went well, by the clock."""
        self.last_failure = -math.inf
        """When one last failed, doubtfully or not."""

    @property
    def state(self) -> BreakerState:
        """How it stands."""
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "half-open" if self._trying or self._clock() >= self._open_until else "open"

    def check(self, trial: bool = True) -> None:
        """
        Say whether the dependency may be asked now.

        :param trial: Whether the caller goes on to ask, and so may be the one that is let through while half-open.
        :raises CircuitOpenError: If not.
        """
        with self._lock:
            if self._open_until is None:
                return
            now = self._clock()
            if now < self._open_until:
                raise CircuitOpenError(self.name, self._open_until - now)
            if trial:
                self._trying, self._open_until = True, now + self.seconds

    def succeeded(self) -> None:
        """Note that the dependency did what it was asked."""
        with self._lock:
            was_open, self._open_until = self._open_until is not None, None
            self._failed, self._trying = 0, False
            self._doubts.clear()
            self.last_success = self._clock()
        if was_open:
            logger.warning("%s works again", self.name)

    def failed(self) -> None:
        """Note that the dependency failed."""
        with self._lock:
            self.last_failure = self._clock()
            if self._open_until is not None and not self._trying:
                return  # it was asked before the breaker opened
            self._failed += 1
            if self._trying or self._counted() >= self.failures:
                self._open()

    def doubted(self, asker: Hashable) -> None:
        """
        Note that the dependency failed, perhaps due to what it was asked.

        :param asker: who asked.
        """
        with self._lock:
            self.last_failure = self._clock()
            if self._open_until is not None and not self._trying:
                return
            self._doubts[asker] += 1
            if self._counted() >= self.failures or (self._trying and len(self._doubts) > 1):
                self._open()
            else:
                self._let_next_try()

    def undecided(self) -> None:
        """Note that a call has ended which shows nothing of the dependency; if it was let through, so is the next."""
        with self._lock:
            self._let_next_try()

    def trip(self) -> None:
        """Open it, or leave it open for longer, as the dependency is known to be away."""
        with self._lock:
            self._open_until, self._trying = self._clock() + self.seconds, False

    def seems_well(self) -> None:
        """Note that the dependency answers a question whether it is there: the next caller is let through."""
        with self._lock:
            if self._open_until is not None and not self._trying:
                self._open_until = self._clock()

    @contextmanager
    def guarding(
        self, counts: Callable[[BaseException], bool | None], asker: Hashable = None
    ) -> Iterator[None]:
        """
        Ask the dependency inside the block.

        :param counts: Whether an error is a failure of the dependency; None for a doubtful one, False for what shows
            nothing.
        :param asker: Who asks.
        :raises CircuitOpenError: If it may not be asked now.
        """
        self.check()
        try:
            yield
        except Exception as error:
            match counts(error):
                case True:
                    self.failed()
                case None:
                    self.doubted(asker)
                case False:
                    self.undecided()
            raise
        self.succeeded()

    def _counted(self) -> int:
        return self._failed + (self._doubts.total() if len(self._doubts) > 1 else 0)

    def _open(self) -> None:
        if self._open_until is None:
            logger.error(
                "%s failed %d times in a row; nobody asks it for %g s", self.name, self.failures, self.seconds
            )
        self._open_until, self._trying = self._clock() + self.seconds, False
        # From here on one failure of a trial is enough.
        self._failed = 0
        self._doubts.clear()

    def _let_next_try(self) -> None:
        if self._trying:
            self._open_until, self._trying = self._clock(), False
