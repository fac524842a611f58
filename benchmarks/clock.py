"""How much processor time a server has used, told by the server itself."""

import time
from typing import Any

PATH = "/cpu-seconds"


class CPUClock:
    """Answers `GET /cpu-seconds` with the processor time of all threads of the process; the rest goes on."""

    def __init__(self, app: Any) -> None:
        """
        Wrap an application.

        :param app: the application.
        """
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """
        Handle one connection.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        body = str(time.process_time()).encode()
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
