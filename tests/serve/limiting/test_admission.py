"""Which questions are answered now, and which refused."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

import pytest

from components.fairness import set_share
from serve.limiting.admission import Admission
from serve.limiting.errors import OverloadedError


async def visit(admission: Admission, key: str, hold: float = 0.0, patient: bool = False) -> float:
    """Come in as somebody, and stay for a while; gives the seconds that were left."""
    set_share(key=key)
    async with admission.question("acme", 60, patient) as left:
        await asyncio.sleep(hold)
    return left


def test_one_too_many_is_refused_soon() -> None:
    """Of a crowd as many come in as there are places, and the others hear within a moment that they don't."""

    async def crowd() -> None:
        admission, waits = Admission(lambda: 2), []

        async def one() -> None:
            begin = time.monotonic()
            try:
                await visit(admission, "crowd", hold=0.5)
            except OverloadedError:
                waits.append(time.monotonic() - begin)

        await asyncio.gather(*(one() for _ in range(6)))
        assert len(waits) == 4
        assert max(waits) < 0.4
        assert (admission.taken, admission.waiting) == (0, 0)

    asyncio.run(crowd())


def test_whoever_has_nothing_yet_waits_for_the_next_place() -> None:
    """A caller with nothing under way is not refused for another one's crowd, and its time goes on meanwhile."""

    async def beside_a_crowd() -> None:
        admission = Admission(lambda: 1)
        crowd = [asyncio.create_task(visit(admission, "crowd", hold=0.2)) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert await visit(admission, "polite") < 60 - 0.1
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        assert Counter(map(type, outcomes)) == {float: 1, OverloadedError: 4}

    asyncio.run(beside_a_crowd())


def test_a_patient_question_waits_for_its_turn() -> None:
    """The questions of a batch wait however many are before them, and their time begins when their turn has come."""

    async def batch() -> None:
        admission = Admission(lambda: 2)
        lefts = await asyncio.gather(*(visit(admission, "batch", 0.05, patient=True) for _ in range(8)))
        assert lefts == [60] * 8

    asyncio.run(batch())


def test_a_large_crowd_that_asks_again_is_slowed_down() -> None:
    """Refusals come one after the other, so that those who ask again at once do so no faster than can be borne."""

    async def flood() -> None:
        admission, refused = Admission(lambda: 1), 0
        holder = asyncio.create_task(visit(admission, "crowd", hold=0.5))
        await asyncio.sleep(0.01)
        end = asyncio.get_running_loop().time() + 0.4

        async def client() -> None:
            nonlocal refused
            while asyncio.get_running_loop().time() < end:
                with suppress(OverloadedError):
                    await visit(admission, "crowd")
                refused += 1

        await asyncio.gather(*(client() for _ in range(100)))
        await holder
        # 100 clients, each of which could ask 13 times if each refusal took a moment.
        assert refused < 300

    asyncio.run(flood())


def test_there_may_be_any_number_of_questions() -> None:
    """Without a most, nobody is counted."""

    async def many() -> None:
        admission = Admission(lambda: None)
        assert await asyncio.gather(*(visit(admission, "crowd", 0.01) for _ in range(50))) == [60] * 50

    asyncio.run(many())


@pytest.mark.parametrize("leave", [0.0, 0.01, 0.05])
def test_who_leaves_gives_the_place_back(leave: float) -> None:
    """Cancelled while it waits, while it is refused, or inside, a question leaves nothing behind."""

    async def leaving() -> None:
        admission = Admission(lambda: 2)
        tasks = [asyncio.create_task(visit(admission, "crowd", 10)) for _ in range(6)]
        await asyncio.sleep(leave)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admission.taken, admission.waiting) == (0, 0)
        await asyncio.gather(visit(admission, "a"), visit(admission, "b"))

    asyncio.run(leaving())
