"""Reading a pipeline file and finding every fault in it before anything runs.

Haystack ignores unknown keys and loses declared inputs and outputs; here each fault gets its file, line, and what
would have been right.
"""

import difflib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from haystack import Pipeline
from haystack.core.errors import PipelineError
from haystack.core.serialization import DeserializationCallbacks

from modes.kinds import kind_of
from modes.sharing import SharingPipeline

TRUSTED_MODULES = ("components", "components.*")
_FILE_KEYS = (
    "components",
    "connections",
    "inputs",
    "outputs",
    "metadata",
    "max_runs_per_component",
    "connection_type_validation",
    # Hayhooks', which says it for its streaming; it has no effect here.
    "streaming_components",
)
_TENANT = "tenant_id"
# A few lines of anchors that name each other can stand for more than any machine can look at.
_MOST_VALUES = 20_000
_COMPONENT_KEYS = ("type", "init_parameters")
_CONNECTION_KEYS = ("sender", "receiver")


@dataclass(frozen=True, order=True)
class Fault:
    """Something wrong in a pipeline file."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        """Show it as `file:line: message`."""
        return f"{self.file}:{self.line}: {self.message}"

    @property
    def brief(self) -> str:
        """The same without the directories of the server: for a wrapper its own, else none."""
        name = f"{self.file.parent.name}/{self.file.name}" if self.file.suffix == ".py" else self.file.name
        return f"{name}:{self.line}: {self.message}"


class PipelineFileError(Exception):
    """A pipeline file has faults; `faults` lists them all."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        """
        Collect the faults.

        :param faults: what is wrong, at least one.
        """
        self.faults = sorted(set(faults))
        super().__init__("\n".join(str(fault) for fault in self.faults))


@dataclass
class PipelineFile:
    """A pipeline file's content, with the line of everything in it."""

    path: Path
    data: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "PipelineFile":
        """
        Read YAML.

        :param path: the file.
        :returns: its content.
        :raises PipelineFileError: if it can't be read, is no YAML, repeats a key or is no mapping.
        """
        try:
            text = path.read_text("utf-8")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise PipelineFileError([Fault(path, 1, f"can't be read: {error}")]) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error) or type(error).__name__
            raise PipelineFileError(
                [Fault(path, mark.line + 1 if mark else 1, f"not valid YAML: {problem}")]
            ) from None
        if node is None or not isinstance(data, dict):
            raise PipelineFileError(
                [Fault(path, 1, "must be a mapping with 'components', 'inputs' and 'outputs'")]
            )
        found = cls(path, data, {})
        found._index(node, (), ())
        if found.faults:
            raise PipelineFileError(found.faults)
        return found

    def fault(self, message: str, *place: str | int) -> None:
        """
        Note a fault.

        :param message: what was found and what there was.
        :param place: keys that lead to it; the nearest line known is named.
        """
        while place and place not in self.lines:
            place = place[:-1]
        self.faults.append(Fault(self.path, self.lines.get(place, 1), message))

    def mapping(self, key: str) -> dict[str, Any]:
        """
        Give a top-level mapping, noting a fault when it is something else.

        :param key: its name.
        :returns: the mapping, empty when missing or wrong.
        """
        value = self.data.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fault(f"'{key}' must be a mapping", key)
            return {}
        return value

    def _index(self, node: yaml.Node, place: tuple[str | int, ...], within: tuple[int, ...]) -> None:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        if len(self.lines) > _MOST_VALUES:
            message = f"holds more than {_MOST_VALUES} values, with what its anchors stand for each time"
            raise PipelineFileError([Fault(self.path, line, message)])
        if id(node) in within:
            self.faults.append(Fault(self.path, line, "an anchor holds itself"))
        elif isinstance(node, yaml.MappingNode):
            self._index_mapping(node, place, (*within, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for number, value_node in enumerate(node.value):
                self._index(value_node, (*place, number), (*within, id(node)))

    def _index_mapping(
        self, node: yaml.MappingNode, place: tuple[str | int, ...], within: tuple[int, ...]
    ) -> None:
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str":
                message = f"key '{key_node.value}' is no text; put it into quotes"
                self.faults.append(Fault(self.path, line, message))
                continue
            inner = (*place, key_node.value)
            if inner in self.lines:
                self.faults.append(Fault(self.path, line, f"key '{key_node.value}' is given twice"))
            self.lines[inner] = line
            self._index(value_node, inner, within)


@dataclass(frozen=True)
class CheckedPipeline:
    """A pipeline whose file has no fault; `content` is what the file holds."""

    path: Path
    content: dict[str, Any]
    pipeline: Pipeline
    inputs: dict[str, list[str]]
    outputs: dict[str, str]
    description: str
    lines: dict[tuple[str | int, ...], int]

    @cached_property
    def read_from(self) -> set[str]:
        """The components that outputs are read from."""
        return {socket.partition(".")[0] for socket in self.outputs.values()}

    def feed(self, given: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """
        Give values to the sockets they are declared for.

        :param given: values by public name; names that are not declared feed nothing.
        :returns: what `Pipeline.run` takes.
        """
        data: dict[str, dict[str, Any]] = {}
        for name, value in given.items():
            for socket in self.inputs.get(name, []):
                component, _, key = socket.partition(".")
                data.setdefault(component, {})[key] = value
        return data

    def read(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """
        Collect the declared outputs of a run.

        :param outputs: what `Pipeline.run` gave.
        :returns: values by public name, without those that are None or were not given.
        """
        values: dict[str, Any] = {}
        for name, socket in self.outputs.items():
            component, _, key = socket.partition(".")
            value = outputs.get(component, {}).get(key)
            if value is not None:
                values[name] = value
        return values


class PipelineChecker:
    """Builds the pipeline of a file, or says everything that is wrong with the file."""

    def __init__(self, resources: dict[str, Any], allowed_modules: Iterable[str] = ()) -> None:
        """
        Set what files may use.

        :param resources: shared objects by the name of the `__init__` parameter they are given to.
        :param allowed_modules: modules, besides Haystack's and `components`, whose classes files may name.
        """
        self._resources = resources
        self._allowed_modules = [*TRUSTED_MODULES, *allowed_modules]

    def build(self, path: Path) -> CheckedPipeline:
        """
        Read, check and build a file.

        :param path: the file.
        :returns: its pipeline with declared inputs and outputs.
        :raises PipelineFileError: with every fault found.
        """
        file = PipelineFile.read(path)
        _check_keys(file, file.data, _FILE_KEYS, "the file")
        description = _description(file)
        pipeline = _empty_pipeline(file)
        broken = self._add_components(file, pipeline)
        if not broken:
            _connect(file, pipeline)
        inputs = _declared_inputs(file, pipeline, broken)
        outputs = _declared_outputs(file, pipeline, broken)
        if not file.faults:
            _check_all_fed(file, pipeline, inputs)
        if file.faults:
            raise PipelineFileError(file.faults)
        return CheckedPipeline(path, file.data, pipeline, inputs, outputs, description, file.lines)

    def _add_components(self, file: PipelineFile, pipeline: Pipeline) -> bool:
        components = file.mapping("components")
        if not components:
            file.fault("'components' is missing or empty", "components")
        broken = not components
        for name, data in components.items():
            before = len(file.faults)
            if self._component_data_is_sound(file, name, data):
                self._add_component(file, pipeline, name, data)
            broken = broken or len(file.faults) > before
        return broken

    def _component_data_is_sound(self, file: PipelineFile, name: str, data: Any) -> bool:
        place = ("components", name)
        if not isinstance(data, dict) or not isinstance(data.get("type"), str):
            file.fault(
                f"component '{name}' must have a 'type', e.g. components.retrieving.TenantRetriever", *place
            )
            return False
        _check_keys(file, data, _COMPONENT_KEYS, f"component '{name}'", *place)
        if not isinstance(data.get("init_parameters", {}), dict):
            file.fault(
                f"'init_parameters' of component '{name}' must be a mapping", *place, "init_parameters"
            )
            return False
        return True

    def _add_component(self, file: PipelineFile, pipeline: Pipeline, name: str, data: dict[str, Any]) -> None:
        place = ("components", name)

        def prepare(_: str, component_class: type, init_params: dict[str, Any]) -> None:
            self._check_parameters(file, name, component_class, init_params)
            init_params.update(self._missing(component_class, init_params))

        try:
            single = Pipeline.from_dict(
                {"components": {name: {"init_parameters": {}, **data}}},
                callbacks=DeserializationCallbacks(component_pre_init=prepare),
                allowed_modules=self._allowed_modules,
            )
            instance = single.get_component(name)
            single.remove_component(name)
            pipeline.add_component(name, instance)
        except Exception as error:  # a component's __init__ may raise anything
            cause = _root_cause(error)
            if isinstance(cause, PipelineFileError):
                file.faults.extend(cause.faults)
                file.fault(
                    f"component '{name}' names a stage that has faults", *place, "init_parameters", "file"
                )
            elif not isinstance(cause, _ParameterError):
                file.fault(f"component '{name}': {_first_line(cause)}", *place, "type")

    def _check_parameters(self, file: PipelineFile, name: str, cls: type, given: dict[str, Any]) -> None:
        parameters = dict(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]
        parameters.pop("self")
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        place = ("components", name, "init_parameters")
        before = len(file.faults)
        for key in given:
            if key not in parameters:
                near = nearest(key, parameters)
                message = f"{cls.__name__} has no init parameter '{key}'{near}; it has {_listed(parameters)}"
                file.fault(f"component '{name}': {message}", *place, key)
        for key, parameter in parameters.items():
            if parameter.default is parameter.empty and key not in given and key not in self._resources:
                file.fault(f"component '{name}': {cls.__name__} needs the init parameter '{key}'", *place)
        if len(file.faults) > before:
            raise _ParameterError

    def _missing(self, cls: type, given: dict[str, Any]) -> dict[str, Any]:
        parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
        return {
            key: value for key, value in self._resources.items() if key in parameters and key not in given
        }


class _ParameterError(ValueError):
    """Init parameters are unknown or missing, which has been noted as faults."""


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and not isinstance(error, PipelineFileError):
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _description(file: PipelineFile) -> str:
    metadata = file.mapping("metadata")
    description = metadata.get("description")
    if description is None and kind_of(file.data) == "pipeline" and file.path.parent.name != "stages":
        return ""
    if not isinstance(description, str) or not description.strip():
        file.fault("'metadata.description' must say in a sentence what the pipeline does", "metadata")
        return ""
    return " ".join(description.split())


def _empty_pipeline(file: PipelineFile) -> Pipeline:
    runs = file.data.get("max_runs_per_component", 100)
    if not isinstance(runs, int) or isinstance(runs, bool) or runs < 1:
        file.fault("'max_runs_per_component' must be a whole number above 0", "max_runs_per_component")
        runs = 100
    validation = file.data.get("connection_type_validation", True)
    if not isinstance(validation, bool):
        file.fault("'connection_type_validation' must be true or false", "connection_type_validation")
        validation = True
    return SharingPipeline(
        metadata=file.mapping("metadata"), max_runs_per_component=runs, connection_type_validation=validation
    )


def _connect(file: PipelineFile, pipeline: Pipeline) -> None:
    connections = file.data.get("connections") or []
    if not isinstance(connections, list):
        file.fault("'connections' must be a list of {sender, receiver}", "connections")
        return
    for number, connection in enumerate(connections):
        place = ("connections", number)
        if not isinstance(connection, dict) or not all(
            isinstance(connection.get(k), str) for k in _CONNECTION_KEYS
        ):
            file.fault("a connection has a 'sender' and a 'receiver', e.g. retriever.documents", *place)
            continue
        _check_keys(file, connection, _CONNECTION_KEYS, "a connection", *place)
        ends = (
            _socket_problem(connection["sender"], _sockets(pipeline, "outputs")),
            _socket_problem(connection["receiver"], _sockets(pipeline, "inputs")),
        )
        for key, problem in zip(_CONNECTION_KEYS, ends, strict=True):
            if problem:
                file.fault(f"connections: {key} {problem}", *place, key)
        if not any(ends):
            try:
                pipeline.connect(connection["sender"], connection["receiver"])
            except (PipelineError, ValueError) as error:
                file.fault(f"connections: {_first_line(error)}", *place)


def _declared_inputs(file: PipelineFile, pipeline: Pipeline, broken: bool) -> dict[str, list[str]]:
    declared: dict[str, list[str]] = {}
    every = _sockets(pipeline, "inputs")
    free = {(component, socket) for component, sockets in pipeline.inputs().items() for socket in sockets}
    for name, target in file.mapping("inputs").items():
        sockets = target if isinstance(target, list) else [target]
        if not sockets or not all(isinstance(socket, str) for socket in sockets):
            file.fault(f"inputs.{name} must be 'component.socket' or a list of them", "inputs", name)
            continue
        for socket in sockets:
            problem = None if broken else _socket_problem(socket, every)
            if problem:
                file.fault(f"inputs.{name} {problem}", "inputs", name)
            elif not broken and tuple(socket.split(".", 1)) not in free:
                file.fault(
                    f"inputs.{name} names '{socket}', which a connection feeds already", "inputs", name
                )
        declared[name] = sockets
    if not declared and not file.faults:
        file.fault("'inputs' is missing: public name → component.socket", "inputs")
    return declared


def _declared_outputs(file: PipelineFile, pipeline: Pipeline, broken: bool) -> dict[str, str]:
    declared: dict[str, str] = {}
    every = _sockets(pipeline, "outputs")
    for name, socket in file.mapping("outputs").items():
        if not isinstance(socket, str):
            file.fault(f"outputs.{name} must be 'component.socket'", "outputs", name)
            continue
        if not broken and (problem := _socket_problem(socket, every)):
            file.fault(f"outputs.{name} {problem}", "outputs", name)
        declared[name] = socket
    if not declared and not file.faults:
        file.fault("'outputs' is missing: public name → component.socket", "outputs")
    return declared


def _check_all_fed(file: PipelineFile, pipeline: Pipeline, inputs: dict[str, list[str]]) -> None:
    fed = {socket for sockets in inputs.values() for socket in sockets}
    _check_tenants(file, pipeline, inputs, fed)
    for component, sockets in pipeline.inputs().items():
        for socket, info in sockets.items():
            if info["is_mandatory"] and f"{component}.{socket}" not in fed:
                message = f"component '{component}' needs '{socket}', which no connection and no input feeds"
                file.fault(message, "components", component)


def _check_tenants(
    file: PipelineFile, pipeline: Pipeline, inputs: dict[str, list[str]], fed: set[str]
) -> None:
    """
    Let nothing but an input decide whose documents are read, for only what a request names is checked.

    A default would be one tenant's for every caller, and a connection could carry what a caller wrote elsewhere. A
    stage's own users know an input of it as the tenant's by its name.
    """
    for component, sockets in _sockets(pipeline, "inputs").items():
        if _TENANT in sockets and f"{component}.{_TENANT}" not in fed:
            message = f"component '{component}' reads a tenant's documents: let an input feed '{component}.{_TENANT}'"
            file.fault(message, "components", component)
    for name, places in inputs.items():
        tenant_fed = any(place.endswith(f".{_TENANT}") for place in places)
        if tenant_fed and name != _TENANT and file.path.parent.name == "stages":
            file.fault(
                f"inputs.{name} feeds a tenant's id, so a stage must call it '{_TENANT}'", "inputs", name
            )


def _sockets(pipeline: Pipeline, side: str) -> dict[str, list[str]]:
    if side == "inputs":
        every = pipeline.inputs(include_components_with_connected_inputs=True)
    else:
        every = pipeline.outputs(include_components_with_connected_outputs=True)
    return {component: list(sockets) for component, sockets in every.items()}


def _socket_problem(name: str, every: dict[str, list[str]]) -> str | None:
    component, _, socket = name.partition(".")
    if component not in every:
        return f"names '{name}', but there is no component '{component}'{nearest(component, every)}"
    if not socket:
        return f"names '{name}' without a socket; it has {_listed(every[component])}"
    if socket not in every[component]:
        return f"names '{name}'; it has {_listed(every[component])}"
    return None


def _check_keys(
    file: PipelineFile, data: dict[str, Any], known: Iterable[str], owner: str, *place: str | int
) -> None:
    for key in data:
        if key not in known:
            file.fault(f"{owner} has an unknown key '{key}'{nearest(str(key), known)}", *place, key)


def nearest(word: str, known: Iterable[str]) -> str:
    """
    Suggest what a misspelt name may have been meant to be.

    :param word: the name.
    :param known: the names there are.
    :returns: the end of a sentence; empty where none is near.
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
