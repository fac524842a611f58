"""Places that are handed out in turn to all who want one, so that one caller's crowd does not keep out another's few.

The share is a context variable, so that it reaches a model call inside a stage without passing through sockets.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field

Share = tuple[str, str]
"""Who wants a place: the caller's key, and the tenant that the caller asks for."""

# Who has had a place may soon want the next one, and finds one then.
RECENT_SECONDS = 5.0

_share: ContextVar[Share] = ContextVar("share", default=("", ""))


def current_share() -> Share:
    """:returns: On whose account the work of this context goes."""
    return _share.get()


def set_share(key: str | None = None, tenant: str | None = None) -> None:
    """
    Put the work of this context, and of the tasks and threads that it starts from now on, on an account.

    :param key: The caller's key; as it was when not given.
    :param tenant: The tenant; as it was when not given.
    """
    known_key, known_tenant = _share.get()
    _share.set((known_key if key is None else key, known_tenant if tenant is None else tenant))


class CrowdedError(Exception):
    """So many wait for a place already that one more is sent away."""


class LateError(Exception):
    """Nobody's place got free in time."""


class FairPlaces:
    """
    A number of places, and a waiting room.

    A free place goes to the key, and of that key to the tenant, that holds the fewest; of several with as few to the
    one whose turn was the longest ago. Nobody holds all places while others have been there lately, and when the
    waiting room is full, the one who came last of the largest crowd has to go.

    ### Usage example
    ```python
    from components.fairness import FairPlaces, set_share

    places = FairPlaces(places=2, max_waiting=100)
    set_share(key="alice", tenant="acme")
    with places.held(timeout=10):
        print(places.taken)
    ```
    """

    def __init__(self, places: int, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Begin with every place free.

        :param places: How many may be held at once, by threads and tasks together.
        :param max_waiting: How many may wait.
        :param clock: Tells the time in seconds.
        """
        self.places = places
        self.max_waiting = max_waiting
        self.taken = 0
        self.waiting = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, _Account] = {}
        self._shares: dict[Share, _Account] = {}
        self._queues: dict[Share, deque[_Waiter]] = {}
        self._turns = 0
        self._looked = clock()

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """
        Hold a place for what happens inside the `with` block, in a thread.

        :param timeout: Seconds to wait for it.
        :raises CrowdedError: If too many wait already.
        :raises LateError: If there is none in time.
        """
        woken = threading.Event()
        waiter = self._ask(woken.set)
        try:
            if not waiter.ended:
                woken.wait(timeout)
            waiter.check()
            yield
        finally:
            self._leave(waiter)

    @asynccontextmanager
    async def held_async(self, timeout: float) -> AsyncIterator[None]:
        """
        Hold a place for what happens inside; see `held`.

        :param timeout: Seconds to wait for it.
        :raises CrowdedError: If too many wait already.
        :raises LateError: If there is none in time.
        """
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        waiter = self._ask(lambda: loop.call_soon_threadsafe(woken.set))
        try:
            if not waiter.ended:
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await woken.wait()
            waiter.check()
            yield
        finally:
            self._leave(waiter)

    def idle(self, share: Share) -> tuple[bool, bool]:
        """
        Say whether somebody neither holds a place nor waits for one.

        :param share: Who.
        :returns: Whether that is so of the key, and whether of the tenant of the key.
        """
        with self._lock:
            of_key, of_share = self._keys.get(share[0]), self._shares.get(share)
            return not (of_key and of_key.present), not (of_share and of_share.present)

    def _ask(self, wake: Callable[[], object]) -> "_Waiter":
        waiter = _Waiter(current_share(), wake)
        with self._lock:
            self._forget()
            self._queues.setdefault(waiter.share, deque()).append(waiter)
            self._count(waiter.share, waiting=1)
            self._fill()
            if self.waiting > self.max_waiting:
                self._send_away()
        return waiter

    def _leave(self, waiter: "_Waiter") -> None:
        with self._lock:
            if waiter.placed:
                self._count(waiter.share, held=-1)
            elif not waiter.ended:
                waiter.ended = True
                self._take_out(waiter)
            self._fill()

    def _fill(self) -> None:
        """Give the free places to those whose turn it is."""
        while self.taken < self.places:
            share = min(filter(self._may_hold, self._queues), key=self._rank, default=None)
            if share is None:
                return
            waiter = self._queues[share][0]
            self._take_out(waiter)
            self._count(share, held=1)
            self._turns += 1
            for account in self._accounts(share):
                account.turn = self._turns
            waiter.end(placed=True)

    def _may_hold(self, share: Share) -> bool:
        """Keep the last place free for others, where there are any and more places than one."""
        if self.places == 1:
            return True
        of_key, of_share = self._accounts(share)
        return (len(self._keys) == 1 or of_key.held < self.places - 1) and (
            len(self._shares) == 1 or of_share.held < self.places - 1
        )

    def _rank(self, share: Share) -> tuple[int, ...]:
        of_key, of_share = self._accounts(share)
        return of_key.held, of_key.turn, of_share.held, of_share.turn

    def _send_away(self) -> None:
        crowd = max(
            self._queues, key=lambda share: tuple(account.waiting for account in self._accounts(share))
        )
        waiter = self._queues[crowd][-1]
        self._take_out(waiter)
        waiter.end(placed=False)

    def _take_out(self, waiter: "_Waiter") -> None:
        queue = self._queues[waiter.share]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.share]
        self._count(waiter.share, waiting=-1)

    def _count(self, share: Share, held: int = 0, waiting: int = 0) -> None:
        self.taken += held
        self.waiting += waiting
        now = self._clock()
        for account in self._accounts(share):
            account.held += held
            account.waiting += waiting
            account.seen = now

    def _accounts(self, share: Share) -> "tuple[_Account, _Account]":
        return self._keys.setdefault(share[0], _Account()), self._shares.setdefault(share, _Account())

    def _forget(self) -> None:
        """Forget, once a second, those who have not been there for a while."""
        now = self._clock()
        if now - self._looked < 1.0:
            return
        self._looked = now
        self._keys = {key: account for key, account in self._keys.items() if account.stays(now)}
        self._shares = {share: account for share, account in self._shares.items() if account.stays(now)}


@dataclass
class _Account:
    """What a key, or a tenant of a key, has."""

    held: int = 0
    waiting: int = 0
    turn: int = 0
    """When it was given its last place, in places given."""
    seen: float = 0.0

    @property
    def present(self) -> bool:
        return bool(self.held or self.waiting)

    def stays(self, now: float) -> bool:
        return self.present or now - self.seen <= RECENT_SECONDS


@dataclass(eq=False)
class _Waiter:
    """One who wants a place."""

    share: Share
    wake: Callable[[], object] = field(repr=False)
    placed: bool = False
    ended: bool = False
    """Whether the waiting is over, with a place or without one."""

    def end(self, placed: bool) -> None:
        self.placed = placed
        self.ended = True
        self.wake()

    def check(self) -> None:
        if not self.placed:
            raise CrowdedError if self.ended else LateError
