"""Which questions are answered now: so many at a time, in turn between callers, and the others refused at once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from components.fairness import CrowdedError, FairPlaces, LateError, current_share, set_share
from serve.limiting.errors import OverloadedError

# Long enough for an answer to end, short enough for the refused to hear of it at once.
_MOMENT = 0.03
# Who is refused asks again, many without a pause. Refused one after the other, a large crowd slows down itself, and not
# the answers of others; one of three times the places is through in 70 ms.
_REFUSALS_PER_PLACE = 30
_FEWEST_REFUSALS, _MOST_REFUSALS = 100, 800
_LONGEST_MOMENT = 2.0
_MAX_WAITING = 1_000
# No answer takes so long, unless the model hangs.
_FIRST_SECONDS = 30.0
_QUEUE_SECONDS = 3_600.0


class Admission:
    """
    Lets in as many questions as can be answered at a time.

    Where there is no room, a caller who has less than an equal part waits for the next place that gets free; others are
    refused after a moment.

    Usage example:
    ```python
    admission = Admission(lambda: 8)
    async with admission.question("acme", seconds=60) as left:
        result = await mode.run_async("What is a mode?", timeout=left)
    ```
    """

    def __init__(self, most: Callable[[], int | None]) -> None:
        """
        Begin with no question.

        :param most: tells how many questions there may be at a time, None for any number; asked once, by the first
            question.
        """
        self._most = most
        self._places: FairPlaces | None = None
        self._asked = False
        self._first = 0
        self._next_refusal = 0.0

    @property
    def taken(self) -> int:
        """How many questions are being answered; 0 where there may be any number."""
        return self._places.taken if self._places else 0

    @property
    def waiting(self) -> int:
        """How many wait to be let in."""
        return self._places.waiting if self._places else 0

    @asynccontextmanager
    async def question(self, tenant: str, seconds: float, patient: bool = False) -> AsyncIterator[float]:
        """
        Let a question in for what happens inside, on the account of the caller and the tenant.

        :param tenant: whose documents are asked.
        :param seconds: how long the caller waits.
        :param patient: whether it waits for its turn, however many are before it, and only then the caller's time
            begins.
        :returns: the seconds that are left.
        :raises OverloadedError: if there is no room.
        """
        set_share(tenant=tenant)
        if not self._asked:
            self._asked, most = True, self._most()
            self._places = None if most is None else FairPlaces(most, _MAX_WAITING)
        if self._places is None:
            yield seconds
            return
        begin = time.monotonic()
        async with AsyncExitStack() as stack:
            await self._enter(stack, self._places, seconds, patient)
            yield seconds if patient else max(seconds - (time.monotonic() - begin), 0.001)

    async def _enter(self, stack: AsyncExitStack, places: FairPlaces, seconds: float, patient: bool) -> None:
        key_below, tenant_below = places.below_part(current_share())
        # So few of them that the last one waits for little more than one answer's time.
        first = not patient and (key_below or (tenant_below and self._first < places.places))
        wait = _QUEUE_SECONDS if patient else min(seconds, _FIRST_SECONDS if first else _MOMENT)
        self._first += first
        try:
            await stack.enter_async_context(places.held_async(wait))
        except (CrowdedError, LateError) as error:
            await self._turn_of_refusal(places)
            raise OverloadedError from error
        finally:
            self._first -= first

    async def _turn_of_refusal(self, places: FairPlaces) -> None:
        rate = min(max(places.places * _REFUSALS_PER_PLACE, _FEWEST_REFUSALS), _MOST_REFUSALS)
        now = time.monotonic()
        self._next_refusal = min(max(now, self._next_refusal + 1 / rate), now + _LONGEST_MOMENT)
        await asyncio.sleep(self._next_refusal - now)
