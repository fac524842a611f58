"""The application: Hayhooks' with our routes, wired together."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import ASGIApp

from serve import api_document, errors, mcp_door
from serve.access.describing import describe_access
from serve.access.middleware import AccessMiddleware, RouteGuard
from serve.guarding import AnswerHeadersMiddleware, PageGuard, PageGuardMiddleware
from serve.hayhooks_door.library import create_hayhooks_app
from serve.hayhooks_door.serving import serve_pipelines
from serve.leaving import LeavingMiddleware
from serve.limiting.middleware import LimitsMiddleware
from serve.mcp_door import McpDoor
from serve.middleware import (
    BodyLimit,
    BodyLimitMiddleware,
    RequestIDMiddleware,
    SlashMiddleware,
    StoppingMiddleware,
)
from serve.pacing import ActivityMiddleware
from serve.parameters import only_known_parameters
from serve.prefixing import PrefixMiddleware, take_prefix
from serve.routers import (
    batch,
    chat,
    documents,
    events,
    health,
    ingest,
    jobs,
    metrics,
    modes,
    pipelines,
    playground,
    query,
    traces,
)
from serve.service import Service
from serve.telemetry import log_as_set
from serve.telemetry.counting import MetricsMiddleware
from serve.timing import ServerTimingMiddleware
from serve.tracing.recording import TracingMiddleware
from settings import Settings

# Values that the JSON of a body may have: reading them, and telling what is wrong with each, stops the event loop.
_MOST_IN_A_QUESTION = 20_000
_MOST_INPUTS = 50_000
_MOST_IN_DOCUMENTS = 200_000
_ROUTERS = (query, batch, modes, pipelines, ingest, jobs, events, documents, traces)


def create_app(settings: Settings | None = None) -> ASGIApp:
    """
    Make the ASGI application.

    :param settings: the service's settings; read from the environment when not given.
    :returns: the application; it holds `DATA_DIR` from now until its lifespan ends.
    :raises SettingsError: if a setting is wrong.
    :raises DataDirInUseError: if another process has the data directory.
    """
    settings = settings or Settings.load()
    log_as_set(settings)
    return build_app(Service(settings))


def build_app(service: Service) -> ASGIApp:
    """
    Put the routes around a service.

    :param service: the running parts; started and closed with the application's lifespan.
    :returns: the ASGI application.
    """
    app = create_hayhooks_app()
    prefix = take_prefix(app)
    app.title = service.settings.api_title
    app.version = service.settings.api_version
    app.description = "Answers questions from a tenant's documents, with citations, in named modes."
    app.state.service = service
    takers = _add_routes(app, service)
    errors.install(app)
    api_document.install(app)
    describe_access(app, service.access)
    app.add_middleware(RouteGuard, access=service.access)
    return PrefixMiddleware(_around_requests(_around_work(app, service, takers), app, service), prefix)


def _add_routes(app: FastAPI, service: Service) -> list[str]:
    """:returns: The paths that take files, besides that of the ingestion."""
    for routes in _ROUTERS:
        app.include_router(routes.router, dependencies=[Depends(only_known_parameters)])
    # A probe, or a link to the page, may carry what it likes, and so do clients of OpenAI's.
    app.include_router(health.router)
    app.include_router(chat.router)
    app.include_router(playground.router)
    if service.settings.metrics_port is None:
        app.include_router(metrics.router)
    takers = serve_pipelines(app, service)
    door = McpDoor(service)
    app.router.routes.append(Route(mcp_door.PATH, door, methods=["POST"], include_in_schema=False))
    app.router.lifespan_context = _lifespan(service, door, app.router.lifespan_context)
    return takers


def _around_work(app: FastAPI, service: Service, takers: list[str]) -> ASGIApp:
    """The layers that have to do with what a request brings, and how long it takes; the innermost first."""
    others = [f"/{name}/run" for name in (*service.registry.plain, *service.wrappers)]
    limited = _limit_bodies(LeavingMiddleware(app), service.settings, takers, others)
    counted = ActivityMiddleware(limited, service.activity)
    return StoppingMiddleware(ServerTimingMiddleware(counted))


def _around_requests(inner: ASGIApp, app: FastAPI, service: Service) -> ASGIApp:
    """The layers that come before a request's body is read: what it is called, who it comes from; innermost first."""
    guard = PageGuard(service.settings.allowed_hosts, service.settings.bound_to_loopback)
    guarded = PageGuardMiddleware(inner, service.access, guard, always=[mcp_door.PATH])
    afforded = LimitsMiddleware(guarded, service.settings, service.answering.limits)
    admitted = AccessMiddleware(afforded, service.access, app.router.routes)
    measured = MetricsMiddleware(admitted, service.metrics.requests)
    named = RequestIDMiddleware(AnswerHeadersMiddleware(SlashMiddleware(measured, _fixed_routes())))
    return TracingMiddleware(named, service.tracing)


def _fixed_routes() -> Iterator[tuple[str, str]]:
    yield "POST", mcp_door.PATH
    for module in (*_ROUTERS, chat):
        for route in module.router.routes:
            if isinstance(route, APIRoute) and "{" not in route.path:
                yield from ((method, route.path) for method in route.methods or ())


def _limit_bodies(app: ASGIApp, settings: Settings, takers: list[str], others: list[str]) -> ASGIApp:
    upload = BodyLimit(settings.max_upload_bytes, "MAX_UPLOAD_BYTES")
    large = BodyLimit(settings.max_body_bytes, "MAX_BODY_BYTES", _MOST_INPUTS)
    question = BodyLimit(settings.max_question_bytes, "MAX_QUESTION_BYTES", _MOST_IN_A_QUESTION)
    if large.max_bytes <= question.max_bytes:
        question = large._replace(max_values=question.max_values)
    by_path = {
        **dict.fromkeys(others, large),
        "/ingest/": large._replace(max_values=_MOST_IN_DOCUMENTS),
        **dict.fromkeys([ingest.FILES_PATH, *takers], upload),
    }
    return BodyLimitMiddleware(app, question, by_path)


def _lifespan(service: Service, door: McpDoor, inner):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with inner(app):
            try:
                await service.start()
                async with door.running():
                    yield
            finally:
                await service.close()

    return lifespan
