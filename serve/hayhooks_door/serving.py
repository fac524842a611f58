"""Serving at `/{name}/run` all that has a name: modes, plain pipelines and wrappers."""

from collections.abc import Iterator

from fastapi import FastAPI

from serve.hayhooks_door.library import Entry, publish
from serve.hayhooks_door.loading import WrapperFaultError, load, wrapper_directories
from serve.hayhooks_door.mode_runs import mode_entry
from serve.hayhooks_door.plain_runs import plain_entry
from serve.service import Service


def serve_pipelines(app: FastAPI, service: Service) -> list[str]:
    """
    Load the wrappers, and serve every mode, plain pipeline and wrapper.

    :param app: the application of `create_hayhooks_app`.
    :param service: has the modes and pipelines; gets the wrappers and their faults.
    :returns: the paths that take files.
    """
    if service.serves_wrappers:
        _load_wrappers(service)
    entries = list(_entries(service))
    publish(app, entries)
    return [f"/{entry.registration.name}/run" for entry in entries if entry.takes_files]


def _entries(service: Service) -> Iterator[Entry]:
    for mode in service.registry.values():
        yield mode_entry(mode, service.answering)
    for pipeline in service.registry.plain.values():
        yield plain_entry(pipeline)
    for wrapper in service.wrappers.values():
        yield wrapper.entry


def _load_wrappers(service: Service) -> None:
    registry, folder = service.registry, service.settings.pipelines_dir
    if folder is None:
        return
    taken = {*registry, *registry.plain, *registry.broken}
    for path in wrapper_directories(folder):
        try:
            service.wrappers[path.name] = load(path, taken, allowed=service.settings.pipeline_wrappers)
        except WrapperFaultError as error:
            service.broken_wrappers[path.name] = [error.fault]
