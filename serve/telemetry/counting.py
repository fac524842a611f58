"""The layer that counts HTTP requests."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.telemetry.metrics import RequestMetrics
from serve.telemetry.routes import method_of, route_of


class MetricsMiddleware:
    """Counts every request and its problems, and measures it to the end of its answer."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param metrics: where to count.
        """
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Handle one connection.

        :param scope: the ASGI scope.
        :param receive: gives the request's messages.
        :param send: takes the response's messages.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "none"

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        begin = time.perf_counter()
        try:
            with self.metrics.under_way.track_inprogress():
                await self.app(scope, receive, watched)
        finally:
            route = route_of(scope)
            self.metrics.count.labels(route, method_of(scope), status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begin)
            if kind := scope.get("state", {}).get("problem"):
                self.metrics.problems.labels(kind).inc()
