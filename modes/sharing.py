"""Running a pipeline without copying what passes between its components."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import networkx  # type: ignore[import-untyped]
from haystack import Pipeline
from haystack.core.component.types import InputSocket
from haystack.core.errors import PipelineRuntimeError
from haystack.tracing import tracer

from components.budgets import Limits, limited
from components.events import emit


class SharingPipeline(Pipeline):
    """
    A Haystack pipeline that gives components the objects themselves instead of deep copies.

    Haystack deep-copies each input and each output of each component, again in each nested pipeline, which costs a
    query more processor time than its search. Here lists and dictionaries are copied, but not what is in them: as
    Haystack asks of components too, they must not change a document or message they are given.

    Everything else is Haystack's, and what is not a plain graph (cycles, variadic sockets, converting connections)
    is left to it. Haystack's tracer is told of each component either way.

    Usage example:
    ```python
    pipeline = SharingPipeline()
    pipeline.add_component("prompt_builder", GroundedPromptBuilder())
    outputs = await pipeline.run_async({"prompt_builder": {"query": "Why?", "documents": documents}})
    ```
    """

    limits: Mapping[str, Limits] = MappingProxyType({})
    """What some of the components may spend in a run, by name; holds for `run_async`."""

    _plan: "_Plan | None" = None
    _planned_for: tuple[list[Any], list[Any]] | None = None
    _warm = False

    async def run_async(
        self, data: dict[str, Any], include_outputs_from: set[str] | None = None, concurrency_limit: int = 4
    ) -> dict[str, Any]:
        """
        Run the pipeline; see `Pipeline.run_async`.

        :param data: inputs by component.
        :param include_outputs_from: components whose outputs are wanted though others take them.
        :param concurrency_limit: how many components run at once.
        :returns: outputs by component.
        :raises ValueError: if the inputs are wrong.
        :raises PipelineRuntimeError: if a component fails.
        """
        plan = self._plan_for(data)
        if plan is None:
            return await super().run_async(data, include_outputs_from, concurrency_limit)
        if not self._warm:
            # In a thread: a component that has no asynchronous warm-up would load its model on the event loop.
            await asyncio.to_thread(self.warm_up)
        self.validate_input(data)
        run = _Run(plan, data, include_outputs_from or set(), concurrency_limit, self.limits)
        await run.go_on([name for name, step in plan.items() if not step.senders])
        return run.outputs

    def run(
        self, data: dict[str, Any], include_outputs_from: set[str] | None = None, **others: Any
    ) -> dict[str, Any]:
        """
        Run the pipeline, one component after the other; see `Pipeline.run`.

        :param data: inputs by component.
        :param include_outputs_from: components whose outputs are wanted though others take them.
        :param others: break points and snapshots, which are Haystack's.
        :returns: outputs by component.
        :raises ValueError: if the inputs are wrong.
        :raises PipelineRuntimeError: if a component fails.
        """
        plan = self._plan_for(data)
        if plan is None or others:
            return super().run(data, include_outputs_from, **others)
        if not self._warm:
            self.warm_up()
        self.validate_input(data)
        run = _Run(plan, data, include_outputs_from or set())
        for step in plan.values():
            run.take_turn(step)
        return run.outputs

    def warm_up(self) -> None:
        """Warm up every component, once for all runs; see `Pipeline.warm_up`."""
        self._planned()
        super().warm_up()
        self._warm = True

    async def _run_component_async(  # type: ignore[override]
        self, component_name: str, component: dict[str, Any], *inputs: Any, **others: Any
    ) -> Mapping[str, Any]:
        # What Haystack runs is told of and limited too.
        async with _under_way(component_name, component["instance"], self.limits.get(component_name)):
            return await Pipeline._run_component_async(component_name, component, *inputs, **others)

    def _plan_for(self, data: dict[str, Any]) -> "_Plan | None":
        plan = self._planned()
        return None if plan is None or not data.keys() <= plan.keys() else plan

    def _planned(self) -> "_Plan | None":
        graph = (list(self.graph.nodes), list(self.graph.edges(keys=True)))
        if self._planned_for != graph:
            self._planned_for = graph
            self._plan = _plan(self.graph)
            self._warm = False
        return self._plan


@dataclass(frozen=True)
class _Step:
    name: str
    instance: Any
    mandatory: frozenset[str]
    defaults: Mapping[str, Any]
    senders: int
    receivers: tuple[tuple[str, str, str], ...]
    """Output socket, receiving component, its input socket."""


_Plan = dict[str, _Step]


def _plan(graph: networkx.MultiDiGraph) -> _Plan | None:
    """Prepare a run; None for what only Haystack can run."""
    edges = [edge for *_, edge in graph.edges(data=True)]
    sockets = [socket for _, node in graph.nodes(data=True) for socket in node["input_sockets"].values()]
    if not networkx.is_directed_acyclic_graph(graph) or any(
        edge.get("conversion_strategy") for edge in edges
    ):
        return None
    if any(socket.is_variadic or len(socket.senders) > 1 for socket in sockets):
        return None
    return {name: _step(graph, name) for name in networkx.topological_sort(graph)}


def _step(graph: networkx.MultiDiGraph, name: str) -> _Step:
    node = graph.nodes[name]
    sockets: list[InputSocket] = list(node["input_sockets"].values())
    return _Step(
        name,
        node["instance"],
        frozenset(socket.name for socket in sockets if socket.is_mandatory),
        {socket.name: socket.default_value for socket in sockets if not socket.is_mandatory},
        graph.in_degree(name),
        tuple(
            (edge["from_socket"].name, receiver, edge["to_socket"].name)
            for _, receiver, edge in graph.out_edges(name, data=True)
        ),
    )


class _Run:
    """One run of a plan: a component's turn comes when all that could send it something have had theirs."""

    def __init__(
        self,
        plan: _Plan,
        data: Mapping[str, Mapping[str, Any]],
        kept: Iterable[str],
        at_once: int = 1,
        limits: Mapping[str, Limits] | None = None,
    ) -> None:
        self.outputs: dict[str, Any] = {}
        self._plan = plan
        self._kept = kept
        self._slots = asyncio.Semaphore(at_once)
        self._limits = limits or {}
        self._inputs = {name: dict(data.get(name, ())) for name in plan}
        self._awaited = {name: step.senders for name, step in plan.items()}

    async def go_on(self, names: list[str]) -> None:
        """Give these components their turn, and then all whose turn comes through them."""
        while len(names) == 1:
            names = await self._turn(self._plan[names[0]])
        if not names:
            return
        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self.go_on([name]))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures.exceptions[0].__cause__

    def take_turn(self, step: _Step) -> None:
        """Run a component whose turn it is, unless it lacks an input."""
        if self._runs(step):
            with _failures_of(step.name, step.instance), _traced(step, self._given(step)) as call:
                call.outputs = step.instance.run(**call.inputs)
            self._hand_on(step, call.outputs)

    async def _turn(self, step: _Step) -> list[str]:
        """Run a component, unless it lacks an input; give those whose turn comes next."""
        if self._runs(step):
            async with self._slots:
                await _own_turn()
                async with _under_way(step.name, step.instance, self._limits.get(step.name)):
                    with _traced(step, self._given(step)) as call:
                        if hasattr(step.instance, "run_async"):
                            call.outputs = await step.instance.run_async(**call.inputs)
                        else:
                            call.outputs = await asyncio.to_thread(step.instance.run, **call.inputs)
            self._hand_on(step, call.outputs)
        for _, receiver, _ in step.receivers:
            self._awaited[receiver] -= 1
        receivers = dict.fromkeys(receiver for _, receiver, _ in step.receivers)
        return [receiver for receiver in receivers if not self._awaited[receiver]]

    def _runs(self, step: _Step) -> bool:
        inputs = self._inputs[step.name]
        return step.mandatory <= inputs.keys() and bool(inputs or not step.senders)

    def _given(self, step: _Step) -> dict[str, Any]:
        return {**step.defaults, **{name: _own(value) for name, value in self._inputs[step.name].items()}}

    def _hand_on(self, step: _Step, outputs: Any) -> None:
        if not isinstance(outputs, Mapping):
            raise PipelineRuntimeError.from_invalid_output(step.name, type(step.instance), outputs)
        for socket, receiver, its_socket in step.receivers:
            if socket in outputs:
                self._inputs[receiver][its_socket] = outputs[socket]
        taken = () if step.name in self._kept else {socket for socket, *_ in step.receivers}
        if left := {socket: value for socket, value in outputs.items() if socket not in taken}:
            self.outputs[step.name] = left


@dataclass
class _Call:
    inputs: dict[str, Any]
    outputs: Any = None


@contextmanager
def _traced(step: _Step, inputs: dict[str, Any]) -> Iterator[_Call]:
    """Make a span of a component's turn, with the words that Haystack has for it."""
    call = _Call(inputs)
    tags = {
        "haystack.component.name": step.name,
        "haystack.component.type": type(step.instance).__name__,
    }
    with tracer.trace("haystack.component.run", tags=tags) as span:
        span.set_content_tag("haystack.component.input", inputs)
        yield call
        span.set_content_tag("haystack.component.output", call.outputs)


@asynccontextmanager
async def _under_way(name: str, instance: Any, limits: Limits | None) -> AsyncIterator[None]:
    """Tell when a component begins, and when it has ended well, and hold it to its limits."""
    emit("component_started", name=name)
    with _failures_of(name, instance):
        if limits is None:
            yield
        else:
            async with limited(limits, name):
                yield
    emit("component_ended", name=name)


@contextmanager
def _failures_of(name: str, instance: Any) -> Iterator[None]:
    try:
        yield
    except PipelineRuntimeError:
        raise
    except Exception as error:
        raise PipelineRuntimeError.from_exception(name, type(instance), error) from error


_turns: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = weakref.WeakKeyDictionary()


async def _own_turn() -> None:
    """
    Wait until no component of any run has begun in this round of the event loop.

    Model calls that began together end together. If what follows them all ran in one round, nothing else would be
    answered meanwhile, and the threads that search would wait for the interpreter.
    """
    loop = asyncio.get_running_loop()
    turn = _turns.setdefault(loop, asyncio.Lock())
    await turn.acquire()
    loop.call_soon(turn.release)


def _own(value: Any) -> Any:
    return value.copy() if type(value) in (list, dict, set) else value
