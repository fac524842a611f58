"""What a mode's file says of how much a run may spend, and of which mode answers instead when that is spent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from components.budgets import Limits
from modes.checking import CheckedPipeline, Fault, nearest

_UNITS = ("llm_calls", "tokens", "seconds")
# What corrective retrieval tells of itself; callers of the mode that it stands in for do without.
_OWN_OUTPUTS = ("grades", "strategy", "rephrased")


@dataclass(frozen=True)
class Budget:
    """How much a run of a mode may spend, and the parts of it."""

    run: Limits
    components: Mapping[str, Limits]
    """By the name in the mode's file."""

    def to_dict(self) -> dict[str, Any]:
        """:returns: What of it is limited, as it stands in the file."""
        parts = {name: _given(limits) for name, limits in self.components.items()}
        return {**_given(self.run), **({"components": parts} if parts else {})}


def read_budget(checked: CheckedPipeline) -> Budget:
    """
    Read the budget of a mode whose file has no fault.

    :param checked: the mode's pipeline.
    :returns: its budget; without `metadata.budget` one that limits nothing.
    """
    given = dict(checked.content["metadata"].get("budget") or {})
    parts = given.pop("components", None) or {}
    return Budget(Limits(**given), {name: Limits(**limits) for name, limits in parts.items()})


def read_fallback(checked: CheckedPipeline) -> str | None:
    """
    Read which mode stands in for a mode.

    :param checked: the mode's pipeline.
    :returns: its name; None where there is none.
    """
    return checked.content["metadata"].get("fallback")


def budget_faults(checked: CheckedPipeline) -> Iterator[Fault]:
    """
    Check `metadata.budget` and the form of `metadata.fallback`.

    :param checked: a mode's pipeline.
    :returns: the faults.
    """
    metadata = checked.content.get("metadata", {})
    fallback = metadata.get("fallback")
    if fallback is not None and not isinstance(fallback, str):
        yield _fault(checked, "metadata.fallback must be the name of a mode", "fallback")
    budget = metadata.get("budget")
    if budget is None:
        return
    if not isinstance(budget, dict):
        yield _fault(checked, f"metadata.budget must be a mapping of {', '.join(_UNITS)}", "budget")
        return
    yield from _limit_faults(checked, budget, (*_UNITS, "components"), "budget")
    parts = budget.get("components") or {}
    if not isinstance(parts, dict):
        yield _fault(
            checked, "metadata.budget.components must be a mapping from a component", "budget", "components"
        )
        return
    there = list(checked.content["components"])
    for name, limits in parts.items():
        place = ("budget", "components", name)
        if name not in there:
            message = f"metadata.budget names '{name}', but there is no component '{name}'"
            yield _fault(checked, f"{message}{nearest(name, there)}; there are {', '.join(there)}", *place)
        elif not isinstance(limits, dict):
            yield _fault(
                checked, f"metadata.budget.components.{name} must be a mapping of {', '.join(_UNITS)}", *place
            )
        else:
            yield from _limit_faults(checked, limits, _UNITS, *place)


def fallback_faults(checked: CheckedPipeline, modes: Mapping[str, CheckedPipeline]) -> Iterator[Fault]:
    """
    Check that the mode which is to stand in for another one can.

    :param checked: the mode that names it.
    :param modes: the other modes there are, by name.
    :returns: the faults.
    """
    name = read_fallback(checked)
    if name is None:
        return
    way = [checked.path.stem]
    while name is not None and name not in way and (name in modes):
        way.append(name)
        name = read_fallback(modes[name])
    if name == checked.path.stem:
        yield _fault(checked, f"metadata.fallback goes round: {' → '.join([*way, name])}", "fallback")
    elif len(way) == 1:
        others = [other for other in modes if other != checked.path.stem]
        message = f"metadata.fallback names '{name}', but there is no such mode{nearest(str(name), others)}"
        yield _fault(checked, f"{message}; there are {', '.join(others)}", "fallback")
    else:
        yield from _lacking(checked, modes[way[1]])


def _lacking(checked: CheckedPipeline, other: CheckedPipeline) -> Iterator[Fault]:
    for side, needed in (
        ("input", checked.inputs),
        ("output", [name for name in checked.outputs if name not in _OWN_OUTPUTS]),
    ):
        for name in needed:
            if name not in getattr(other, f"{side}s"):
                message = f"metadata.fallback names '{other.path.stem}', which lacks the {side} '{name}' of this mode"
                yield _fault(checked, message, "fallback")


def _limit_faults(
    checked: CheckedPipeline, limits: dict[str, Any], known: tuple[str, ...], *place: str
) -> Iterator[Fault]:
    shown = ".".join(("metadata", *place))
    for name, limit in limits.items():
        if name not in known:
            message = (
                f"{shown} has an unknown key '{name}'{nearest(name, known)}; it may have {', '.join(known)}"
            )
            yield _fault(checked, message, *place, name)
        elif name == "seconds" and not (_is_number(limit, float) and 0 < limit < float("inf")):
            yield _fault(checked, f"{shown}.seconds must be a number above 0", *place, name)
        elif name in ("llm_calls", "tokens") and not (_is_number(limit) and limit > 0):
            yield _fault(checked, f"{shown}.{name} must be a whole number above 0", *place, name)


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, (int, *kinds)) and not isinstance(value, bool)


def _fault(checked: CheckedPipeline, message: str, *place: str) -> Fault:
    return Fault(checked.path, checked.lines[("metadata", *place)], message)


def _given(limits: Limits) -> dict[str, Any]:
    return {name: limit for name, limit in vars(limits).items() if limit is not None}
