"""Everything that touches Hayhooks, half-private parts included; pinned to 2.1.

Hayhooks gives `/{mode}/run` and `/status`. Taken out are its deploy, undeploy and draw routes, which run a caller's
code or send the pipeline to an outside service, and its OpenAI routes, which would answer 501 and lose files.
"""

import inspect
from types import SimpleNamespace
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI

# Read when Hayhooks is imported, so before `create_app` is.
from hayhooks.settings import settings as hayhooks_settings
from pydantic import Field

hayhooks_settings.pipelines_dir = ""
hayhooks_settings.tracing_enabled = False
hayhooks_settings.tracing_include_haystack_spans = False
hayhooks_settings.monitoring_enabled = False
hayhooks_settings.cors_allow_origins = []

from hayhooks import BasePipelineWrapper, create_app  # noqa: E402
from hayhooks.server.logger import RequestIdMiddleware  # noqa: E402
from hayhooks.server.pipelines import registry as hayhooks_registry  # noqa: E402
from hayhooks.server.routers import deploy_router, draw_router, undeploy_router  # noqa: E402
from hayhooks.server.utils.deploy_utils import commit_prepared_pipeline  # noqa: E402
from hayhooks.server.utils.models import PreparedPipeline  # noqa: E402
from hayhooks.server.utils.module_loader import create_pipeline_wrapper_instance  # noqa: E402

from modes.mode import Mode  # noqa: E402
from modes.results import QueryResult  # noqa: E402
from serve.errors import ProblemError  # noqa: E402
from serve.schemas import FilledText, TenantID, Text  # noqa: E402
from serve.service import Service  # noqa: E402
from serve.telemetry import give_back_loggers  # noqa: E402
from serve.tenancy import DEFAULT_TENANT, Tenancy  # noqa: E402

_CLOSED_ROUTERS = (deploy_router, undeploy_router, draw_router)
_INPUT_TYPES: dict[str, tuple[Any, Any]] = {
    "query": (FilledText, inspect.Parameter.empty),
    "tenant_id": (TenantID, DEFAULT_TENANT),
    "top_k": (Annotated[int | None, Field(ge=1)], None),
    "model": (Text | None, None),
    "filters": (dict[str, Any] | None, None),
}


def create_hayhooks_app() -> FastAPI:
    """
    Make Hayhooks' application, closed for deployment and without its request ids.

    :returns: the application; it serves no pipeline yet. The loggers that Hayhooks takes over are given back.
    """
    app = create_app()
    give_back_loggers()
    app.user_middleware = [entry for entry in app.user_middleware if entry.cls is not RequestIdMiddleware]
    app.router.routes = [
        route for route in app.router.routes if not _closed(getattr(route, "original_router", None))
    ]
    return app


def serve_modes(app: FastAPI, service: Service) -> None:
    """
    Serve each mode at `/{mode}/run`.

    :param app: the application of `create_hayhooks_app`.
    :param service: has the modes; they replace all that Hayhooks served before in this process.
    """
    for name in hayhooks_registry.get_names():
        hayhooks_registry.remove(name)
    for mode in service.registry.values():
        wrapper_class = _wrapper_class(mode, service)
        wrapper = create_pipeline_wrapper_instance(SimpleNamespace(PipelineWrapper=wrapper_class))
        commit_prepared_pipeline(PreparedPipeline(mode.name, wrapper), app=app)


def _closed(router: APIRouter | None) -> bool:
    # The OpenAI router is made anew for each application, so it is known by what is in it.
    return router in _CLOSED_ROUTERS or "/v1/chat/completions" in _paths(router)


def _paths(router: APIRouter | None) -> set[str]:
    paths: set[str] = set()
    for route in router.routes if router else []:
        paths |= {getattr(route, "path", "")} | _paths(getattr(route, "original_router", None))
    return paths


def _wrapper_class(mode: Mode, service: Service) -> type[BasePipelineWrapper]:
    async def run_api_async(self: BasePipelineWrapper, **given: Any) -> QueryResult:
        try:
            tenant_id = Tenancy().tenant(given.pop("tenant_id", None))
            return await service.answering.ask(mode.name, **given, tenant_id=tenant_id)
        except Exception as error:
            raise ProblemError(error) from error

    # Hayhooks reads the request's fields off the signature: the mode's own inputs, no more.
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _INPUT_TYPES.items()
        if name in mode.inputs
    ]
    owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run_api_async.__signature__ = inspect.Signature([owner, *parameters], return_annotation=QueryResult)  # type: ignore[attr-defined]
    run_api_async.__doc__ = mode.description

    def setup(self: BasePipelineWrapper) -> None:
        self.pipeline = mode.pipeline

    return type("PipelineWrapper", (BasePipelineWrapper,), {"setup": setup, "run_api_async": run_api_async})
