"""Who goes on in a round of the event loop."""

import asyncio
from itertools import pairwise

from serve.limiting.turns import Turns


def test_whoever_comes_beside_a_crowd_is_not_held_up() -> None:
    """Of a crowd that wants to go on at once only one does so in each round, in order, also when some have left."""

    async def crowd() -> None:
        turns, gone = Turns(), []

        async def one(number: int) -> None:
            await turns.own()
            gone.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(50)]
        await asyncio.sleep(0)
        for task in tasks[10:20]:
            task.cancel()
        seen = []
        while len(gone) < 40:
            seen.append(len(gone))
            await asyncio.sleep(0)
        assert max(after - before for before, after in pairwise(seen)) == 1
        assert gone == [*range(10), *range(20, 50)]
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(1):
            await turns.own()

    asyncio.run(crowd())
