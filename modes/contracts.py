"""What the file of a mode, of an indexing pipeline and of a plain pipeline has to declare."""

import re
from collections.abc import Iterator
from typing import Any, get_args

from modes.budgeting import budget_faults
from modes.checking import CheckedPipeline, Fault
from modes.indexing import INDEXING_INPUTS, INDEXING_TYPES
from modes.kinds import INDEXING_OUTPUTS, KINDS, RESERVED_NAMES, RESULT_OUTPUTS, kind_of
from modes.mode import RESULT_TYPES, RUN_INPUTS
from modes.plain import unfit_inputs

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_OTHERWISE = "; a pipeline of another kind says so: metadata: {kind: pipeline}"


def contract_faults(checked: CheckedPipeline) -> Iterator[Fault]:
    """
    Check a pipeline against the contract of its kind.

    :param checked: the pipeline.
    :returns: its faults.
    """
    kind = kind_of(checked.content)
    yield from _metadata_faults(checked)
    yield from _name_faults(checked, kind)
    if kind == "mode":
        yield from _unknown(checked, "a mode", RUN_INPUTS, RESULT_OUTPUTS)
        yield from _wrong_types(checked, RESULT_TYPES)
        yield from _missing(checked, "outputs", "a mode", "answer")
        yield from _missing(checked, "inputs", "a mode", "query")
        yield from budget_faults(checked)
    elif kind == "indexing":
        yield from _unknown(checked, "an indexing pipeline", INDEXING_INPUTS, INDEXING_OUTPUTS)
        yield from _wrong_types(checked, INDEXING_TYPES)
        yield from _missing(checked, "outputs", "an indexing pipeline", "documents_written")
        yield from _missing(checked, "inputs", "an indexing pipeline", "documents", "sources")
    else:
        for name, message in unfit_inputs(checked):
            yield Fault(checked.path, checked.lines[("inputs", name)], message)


def _metadata_faults(checked: CheckedPipeline) -> Iterator[Fault]:
    kind = checked.content.get("metadata", {}).get("kind")
    if kind is not None and kind not in KINDS:
        message = f"metadata.kind is '{kind}'; it may be {', '.join(KINDS)}"
        yield Fault(checked.path, checked.lines[("metadata", "kind")], message)
    for name in ("budget", "fallback"):
        if name in checked.content.get("metadata", {}) and kind_of(checked.content) != "mode":
            message = f"only a mode has a metadata.{name}"
            yield Fault(checked.path, checked.lines[("metadata", name)], message)


def _name_faults(checked: CheckedPipeline, kind: str) -> Iterator[Fault]:
    name = checked.path.stem
    if not _NAME.fullmatch(name):
        message = "a pipeline's file name has lower-case letters, digits, '_' and '-' only"
        yield Fault(checked.path, 1, message)
    # An indexing pipeline has no route of its own.
    if kind != "indexing" and name in RESERVED_NAMES:
        yield Fault(checked.path, 1, f"'{name}' is a route of the service; give the file another name")


def _unknown(
    checked: CheckedPipeline, kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Iterator[Fault]:
    for side, known, given in (("inputs", inputs, checked.inputs), ("outputs", outputs, checked.outputs)):
        for name in given:
            if name not in known:
                message = f"{kind} has no {side[:-1]} '{name}'; it may have {', '.join(known)}{_OTHERWISE}"
                yield Fault(checked.path, checked.lines[(side, name)], message)


def _missing(checked: CheckedPipeline, side: str, kind: str, *needed: str) -> Iterator[Fault]:
    if not set(needed) & set(getattr(checked, side)):
        names = " or ".join(f"'{name}'" for name in needed)
        message = f"{kind} must have the {side[:-1]} {names}{_OTHERWISE}"
        yield Fault(checked.path, checked.lines[(side,)], message)


def _wrong_types(checked: CheckedPipeline, types: dict[str, Any]) -> Iterator[Fault]:
    sockets = checked.pipeline.outputs(include_components_with_connected_outputs=True)
    for name, wanted in types.items():
        component, _, socket = checked.outputs.get(name, "").partition(".")
        found = sockets.get(component, {}).get(socket, {}).get("type", wanted)
        if found not in (wanted, Any) and wanted not in get_args(found):
            message = f"outputs.{name} must be {_type_name(wanted)}, but '{component}.{socket}' is {_type_name(found)}"
            yield Fault(checked.path, checked.lines[("outputs", name)], message)


def _type_name(kind: Any) -> str:
    """
    Name a type as one writes it.

    :param kind: the type.
    :returns: its name, without its module where it is a class.
    """
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
