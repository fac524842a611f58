"""Serving at `/{name}/run` all that has a name: modes, plain pipelines and wrappers."""

import logging
from collections.abc import Iterator

from fastapi import FastAPI

from modes.kinds import RESERVED_NAMES
from serve.hayhooks_door.library import Entry, publish
from serve.hayhooks_door.loading import WrapperFaultError, load, wrapper_directories
from serve.hayhooks_door.mode_runs import mode_entry
from serve.hayhooks_door.plain_runs import plain_entry
from serve.hayhooks_door.wrappers import NativeWrapper
from serve.service import Service

logger = logging.getLogger("thresher.wrapper")


def serve_pipelines(app: FastAPI, service: Service) -> list[str]:
    """
    Load the wrappers, and serve every mode, plain pipeline and wrapper.

    :param app: the application of `create_hayhooks_app`.
    :param service: has the modes and pipelines; its registry gets the faults of the wrappers, and where to find what is
        no mode.
    :returns: the paths that take files.
    """
    if service.serves_wrappers:
        _load_wrappers(service)
    service.registry.elsewhere |= dict(_elsewhere(service))
    entries = list(_entries(service))
    publish(app, entries)
    _refuse_broken(app, service, {entry.registration.name for entry in entries})
    return [f"/{entry.registration.name}/run" for entry in entries if entry.takes_files]


def _entries(service: Service) -> Iterator[Entry]:
    for mode in service.registry.values():
        yield mode_entry(mode, service.answering)
    for pipeline in service.registry.plain.values():
        yield plain_entry(pipeline)
    for wrapper in service.wrappers.values():
        yield wrapper.entry


def _elsewhere(service: Service) -> Iterator[tuple[str, str]]:
    for name in service.registry.plain:
        yield name, f"'{name}' is a plain pipeline: POST /{name}/run runs it."
    for name, wrapper in service.wrappers.items():
        yield name, f"'{name}' is a wrapper: {_way_to(wrapper)}."


def _way_to(wrapper: NativeWrapper) -> str:
    if wrapper.entry.route is not None:
        return f"POST /{wrapper.name}/run runs it"
    path = "chat/completions" if "chat" in wrapper.protocols else "responses"
    return f"it is a model at POST /v1/{path}"


def _refuse_broken(app: FastAPI, service: Service, served: set[str]) -> None:
    """Answer for what could not be loaded with its faults, for a 404 would say that it is not there."""

    def add(name: str) -> None:
        async def refuse() -> None:
            # Raises, for the name is that of something broken.
            _ = service.registry[name]

        app.add_api_route(f"/{name}/run", refuse, methods=["POST"], include_in_schema=False)

    for name in service.registry.broken.keys() - served - RESERVED_NAMES:
        # A stage has a path for a name, and braces would be a parameter.
        if not set(name) & set("/{}"):
            add(name)


def _load_wrappers(service: Service) -> None:
    registry, folder = service.registry, service.settings.pipelines_dir
    if folder is None:
        return
    taken = {*registry, *registry.plain, *registry.broken}
    for path in wrapper_directories(folder):
        try:
            service.wrappers[path.name] = load(path, taken, allowed=service.settings.pipeline_wrappers)
        except WrapperFaultError as error:
            logger.error("%s", error)
            registry.broken.setdefault(path.name, []).append(error.fault)
