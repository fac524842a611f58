"""Everything of Hayhooks that is used, half-private parts included; pinned to 2.1. docs/hayhooks.md says why.

Hayhooks' settings are changed before its application is imported, for it reads them then.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.params import Depends
from hayhooks.settings import settings as hayhooks_settings
from pydantic import BaseModel, ConfigDict

# What is served comes from our registry; nothing is deployed, traced or shown with its traceback.
CLOSED_SETTINGS: dict[str, Any] = {
    "pipelines_dir": "",
    "durable_mode": False,
    "chainlit_enabled": False,
    "monitoring_enabled": False,
    "show_tracebacks": False,
    "tracing_enabled": False,
    "tracing_include_haystack_spans": False,
}
ROOT_PATH = hayhooks_settings.root_path
"""`HAYHOOKS_ROOT_PATH`. Put into its place later, since FastAPI warns of it as an argument."""
hayhooks_settings.root_path = ""
for _name, _value in CLOSED_SETTINGS.items():
    setattr(hayhooks_settings, _name, _value)
if "cors_allow_origins" not in hayhooks_settings.model_fields_set:
    hayhooks_settings.cors_allow_origins = []

from hayhooks import BasePipelineWrapper, SSEStream, coerce_pipeline_inputs, create_app  # noqa: E402
from hayhooks.server.exceptions import PipelineModeError  # noqa: E402
from hayhooks.server.logger import RequestIdMiddleware  # noqa: E402
from hayhooks.server.pipelines.models import create_pipeline_metadata  # noqa: E402
from hayhooks.server.pipelines.registry import ImmutablePipelineRegistry, PipelineRegistration  # noqa: E402
from hayhooks.server.routers import deploy_router, draw_router, undeploy_router  # noqa: E402
from hayhooks.server.utils.deploy_utils import _build_run_route  # noqa: E402
from hayhooks.server.utils.module_loader import (  # noqa: E402
    _is_method_overridden,
    create_pipeline_wrapper_instance,
    load_pipeline_module,
)
from hayhooks.server.utils.request_headers import accepts_request_headers  # noqa: E402

from serve.parameters import only_forms  # noqa: E402
from serve.telemetry import give_back_loggers  # noqa: E402

__all__ = [
    "CLOSED_SETTINGS",
    "BasePipelineWrapper",
    "Entry",
    "PipelineModeError",
    "SSEStream",
    "accepts_request_headers",
    "coerce_pipeline_inputs",
    "create_hayhooks_app",
    "implements",
    "load_wrapper",
    "make_wrapper",
    "prepare",
    "publish",
]
# FastAPI's pages, whose scripts come from another host.
_FOREIGN_PAGES = ("/docs", "/docs/oauth2-redirect", "/redoc")
_CLOSED_ROUTERS = (deploy_router, undeploy_router, draw_router)


@dataclass(frozen=True)
class Entry:
    """A wrapper, ready to be served; `route` is None where it has neither `run_api` nor `run_api_async`."""

    registration: PipelineRegistration
    route: dict[str, Any] | None

    @property
    def takes_files(self) -> bool:
        """Whether `/{name}/run` takes a form with files instead of JSON."""
        return self.route is not None and bool(self.registration.metadata["requires_files"])


def create_hayhooks_app() -> FastAPI:
    """
    Make Hayhooks' application without what it must not do here.

    Taken out are its routes that deploy, undeploy and draw pipelines, which run a caller's code or send the pipeline to
    an outside service, its OpenAI routes, for we have our own, and its request ids.

    :returns: the application; it serves no pipeline yet.
    """
    app = create_app()
    app.root_path = ROOT_PATH
    give_back_loggers()
    app.user_middleware = [entry for entry in app.user_middleware if entry.cls is not RequestIdMiddleware]
    app.router.routes = [
        route
        for route in app.router.routes
        if not _closed(getattr(route, "original_router", None))
        and getattr(route, "path", "") not in _FOREIGN_PAGES
    ]
    return app


def load_wrapper(name: str, path: Path) -> BasePipelineWrapper:
    """
    Import a wrapper's directory and set the wrapper up.

    Its package has a name that nothing else has, so that a directory called like a library is in nobody's way.

    :param name: the directory's name.
    :param path: the directory.
    :returns: the wrapper.
    :raises PipelineModeError: if it is a durable one.
    :raises Exception: if it can't be loaded; what its code raised is the cause.
    """
    with warnings.catch_warnings():
        # Hayhooks gives the module a package that its spec does not name, which each import with a dot warns of.
        warnings.filterwarnings("ignore", "__package__ != __spec__.parent", ImportWarning)
        module = load_pipeline_module(name, path, package_name=f"wrapper_{name}")
    return create_pipeline_wrapper_instance(module, allow_durable=False)


def make_wrapper(methods: dict[str, Any]) -> BasePipelineWrapper:
    """
    Make a wrapper that is no directory.

    :param methods: its methods by name, `setup` among them.
    :returns: the wrapper, set up.
    """
    wrapper_class = type("PipelineWrapper", (BasePipelineWrapper,), methods)
    return create_pipeline_wrapper_instance(SimpleNamespace(PipelineWrapper=wrapper_class))


def implements(wrapper: BasePipelineWrapper, method: str) -> bool:
    """
    Say whether a wrapper has a method of its own.

    :param wrapper: the wrapper.
    :param method: one of those that `BasePipelineWrapper` names.
    :returns: whether it is more than the one that raises.
    """
    return bool(_is_method_overridden(wrapper, method))


def prepare(
    name: str,
    wrapper: BasePipelineWrapper,
    description: str | None = None,
    *,
    dependencies: Sequence[Depends] = (),
) -> Entry:
    """
    Make a wrapper's route, so that a fault of its signature shows before anything is served.

    A field that the signature does not name is refused, and so is anything but a form where files are taken.

    :param name: what it is served as.
    :param wrapper: the wrapper.
    :param description: what it does; None for the docstring of its method.
    :param dependencies: FastAPI dependencies of the route.
    :returns: what `publish` serves.
    :raises Exception: if FastAPI can make no route of the method's signature.
    """
    metadata = create_pipeline_metadata(name, wrapper)
    if description is not None:
        metadata["description"] = description
    if metadata["request_model"] is not None:
        metadata["request_model"] = _strict(metadata["request_model"])
    built = _build_run_route(name, wrapper, request_model=metadata["request_model"])
    if built is None:
        return Entry(PipelineRegistration(name, wrapper, metadata), None)
    route, more = built
    dependencies = [*dependencies, *([Depends(only_forms)] if more["requires_files"] else [])]
    route |= {"dependencies": dependencies, "description": metadata["description"] or None}
    _check(route, more)
    return Entry(PipelineRegistration(name, wrapper, {**metadata, **more}), route)


def publish(app: FastAPI, entries: Iterable[Entry]) -> None:
    """
    Serve wrappers at `/{name}/run` and tell of them at `/status`.

    :param app: the application of `create_hayhooks_app`.
    :param entries: what `prepare` gave.
    """
    entries = list(entries)
    for entry in entries:
        if entry.route is not None:
            app.add_api_route(**entry.route)
    # A registry of its own: Hayhooks' global one is shared by all applications of a process.
    app.state.pipeline_registry = ImmutablePipelineRegistry(entry.registration for entry in entries)


def _strict(model: type[BaseModel]) -> type[BaseModel]:
    namespace = {"__module__": __name__, "model_config": ConfigDict(extra="forbid", protected_namespaces=())}
    return type(model.__name__, (model,), namespace)


def _check(route: dict[str, Any], models: dict[str, Any]) -> None:
    """Do now what FastAPI does at the first look at the API's description, which one bad type would break for all."""
    APIRouter().add_api_route(**route)
    models["request_model"].model_json_schema()
    if models["response_model"] is not None:
        models["response_model"].model_json_schema(mode="serialization")


def _closed(router: APIRouter | None) -> bool:
    # The OpenAI router is made anew for each application, so it is known by what is in it.
    return router in _CLOSED_ROUTERS or "/v1/chat/completions" in _paths(router)


def _paths(router: APIRouter | None) -> set[str]:
    paths: set[str] = set()
    for route in router.routes if router else []:
        paths |= {getattr(route, "path", "")} | _paths(getattr(route, "original_router", None))
    return paths
