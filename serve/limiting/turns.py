"""One after the other in rounds of the event loop, so that a crowd's requests don't hold up what else comes."""

import asyncio


class Turns:
    """
    Lets one of those who want to go on do so in each round of the event loop.

    What began together would else be worked on in one round, and a probe that came meanwhile would wait for its end.

    Usage example:
    ```python
    turns = Turns()
    await turns.own()
    ```
    """

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lock = asyncio.Lock()

    async def own(self) -> None:
        """Wait until nobody else goes on in this round."""
        await self._lock.acquire()
        asyncio.get_running_loop().call_soon(self._lock.release)
