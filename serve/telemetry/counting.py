"""The layer that counts HTTP requests."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http_middleware import HttpMiddleware
from serve.telemetry.metrics import RequestMetrics
from serve.telemetry.routes import method_of, route_of


class MetricsMiddleware(HttpMiddleware):
    """Counts every request and its problems, and measures it to the end of its answer."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param metrics: where to count.
        """
        super().__init__(app)
        self.metrics = metrics

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
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
