"""`/{name}/run` of a plain pipeline: its declared inputs by the types of their sockets, its declared outputs."""

import functools
import inspect
from typing import Any

from components.fairness import set_share
from modes.plain import PlainPipeline
from serve.errors import ProblemError
from serve.hayhooks_door.calls import ROUTE_DEPENDENCIES, Call, current_call
from serve.hayhooks_door.library import BasePipelineWrapper, Entry, make_wrapper, prepare
from serve.hayhooks_door.mode_runs import signature
from serve.hayhooks_door.streaming import Deadline
from serve.schemas import TenantID


def plain_entry(pipeline: PlainPipeline) -> Entry:
    """
    Make what Hayhooks serves of a plain pipeline.

    :param pipeline: the pipeline.
    :returns: the entry.
    """

    async def run_api_async(self: BasePipelineWrapper, **given: Any) -> dict[str, Any]:
        call = current_call()
        try:
            given |= _tenants(pipeline, given, call)
            async with Deadline(call.seconds).hold():
                return await pipeline.run_async(**given)
        except Exception as error:
            raise ProblemError(error) from error

    run_api_async.__signature__ = signature(_fields(pipeline), dict[str, Any])  # type: ignore[attr-defined]
    methods = {"setup": functools.partialmethod(_setup, pipeline), "run_api_async": run_api_async}
    return prepare(
        pipeline.name,
        make_wrapper(methods),
        pipeline.description,
        dependencies=ROUTE_DEPENDENCIES,
    )


def _tenants(pipeline: PlainPipeline, given: dict[str, Any], call: Call) -> dict[str, str]:
    """Let the caller's tenancy decide, as on every door."""
    tenants = {name: call.tenancy.tenant(given[name]) for name in pipeline.tenant_inputs}
    set_share(tenant=" ".join(tenants.values()))
    return tenants


def _fields(pipeline: PlainPipeline) -> dict[str, tuple[Any, Any]]:
    fields = {
        parameter.name: (
            parameter.annotation,
            inspect.Parameter.empty if parameter.required else parameter.default,
        )
        for parameter in pipeline.parameters
    }
    return fields | dict.fromkeys(pipeline.tenant_inputs, (TenantID | None, None))


def _setup(wrapper: BasePipelineWrapper, pipeline: PlainPipeline) -> None:
    wrapper.pipeline = pipeline.pipeline
