"""Which questions are answered now: so many at a time, in turn between callers, and the others refused at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from components.fairness import CrowdedError, FairPlaces, LateError, current_share, set_share
from serve.limiting.errors import OverloadedError
from serve.limiting.turns import Turns

# Long enough for an answer to end, short enough for the refused to hear of it at once.
_MOMENT = 0.03
# Of a large burst few could get a place in that time, and refusing it takes long enough.
_HOPEFUL_PER_PLACE = 4
# Who is refused asks again, many without a pause. A crowd that keeps doing so waits longer each time, so that it costs
# the answers of others less; with what else a refusal takes that stays below a tenth of a second.
_LONGEST_MOMENT = 0.08
_REFUSALS_PER_PLACE = 30
_FEWEST_REFUSALS, _MOST_REFUSALS = 100, 800
# A crowd that asks once is no such crowd.
_BURST_SECONDS = 0.5
_MAX_WAITING = 1_000
# Whoever has nothing yet waits for a place no longer than so many answers usually take.
_ANSWERS = 3
_FEWEST_SECONDS, _MOST_SECONDS = 1.0, 30.0
_FIRST_GUESS = 10 / _ANSWERS
_NEWEST_PART = 0.2
_QUEUE_SECONDS = 3_600.0


class Admission:
    """
    Lets in as many questions as can be answered at a time.

    Where there is no room, a caller who has no question under way waits for the next place that gets free, if no more
    callers do so than there are places; others are refused after a moment.

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
        self._refusals = Turns()
        self._refused_until = 0.0
        self._usual_seconds = _FIRST_GUESS

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
        begin = _now()
        async with AsyncExitStack() as stack:
            await self._enter(stack, self._places, seconds, patient)
            entered = _now()
            yield seconds if patient else max(seconds - (entered - begin), 0.001)
            self._usual_seconds += _NEWEST_PART * (_now() - entered - self._usual_seconds)

    async def _enter(self, stack: AsyncExitStack, places: FairPlaces, seconds: float, patient: bool) -> None:
        first = not patient and self._is_first(places)
        wait = _QUEUE_SECONDS if patient else self._first_seconds() if first else self._moment(places)
        self._first += first
        try:
            await stack.enter_async_context(places.held_async(wait if patient else min(wait, seconds)))
        except (CrowdedError, LateError) as error:
            self._note_refusal(places)
            await self._refusals.own()
            raise OverloadedError from error
        finally:
            self._first -= first

    def _is_first(self, places: FairPlaces) -> bool:
        """Whether the caller, or the tenant of the caller, has nothing yet, and few such wait."""
        key, tenant = places.idle(current_share())
        # A caller with many tenants leaves room for other callers.
        most = places.places if key else (places.places + 1) // 2 if tenant else 0
        return self._first < most

    def _first_seconds(self) -> float:
        return min(max(_ANSWERS * self._usual_seconds, _FEWEST_SECONDS), _MOST_SECONDS)

    def _moment(self, places: FairPlaces) -> float:
        ahead = self._refused_until - _now() - _BURST_SECONDS
        return max(_MOMENT if places.waiting < places.places * _HOPEFUL_PER_PLACE else 0.0, ahead)

    def _note_refusal(self, places: FairPlaces) -> None:
        rate = min(max(places.places * _REFUSALS_PER_PLACE, _FEWEST_REFUSALS), _MOST_REFUSALS)
        now = _now()
        until = max(self._refused_until, now) + 1 / rate
        self._refused_until = min(until, now + _BURST_SECONDS + _LONGEST_MOMENT)


def _now() -> float:
    return asyncio.get_running_loop().time()
