"""Haystack's filters as Chroma's `where` and `where_document`.

chroma-haystack's own conversion finds nothing when one AND mixes content and metadata, and refuses an AND of one
condition, so this is ours.
"""

import math
from typing import Any

_COMPARISONS = {"==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_MEMBERSHIPS = {"in": "$in", "not in": "$nin"}
_CONTENT = {"contains": "$contains", "not contains": "$not_contains"}
_LOGIC = {"AND": "$and", "OR": "$or"}


class InvalidFilterError(ValueError):
    """Filters don't have Haystack's form, or use what Chroma lacks."""


def chroma_filters(filters: dict[str, Any] | None) -> dict[str, Any]:
    """
    Convert filters.

    :param filters: Haystack filters: a comparison `{"field", "operator", "value"}` or a logical condition
        `{"operator": "AND" | "OR", "conditions": [...]}`. Fields are metadata fields, with or without `meta.`, and
        `content`, with `contains` and `not contains`.
    :returns: keyword arguments for Chroma's `query` and `get`: `where`, `where_document` or none.
    :raises InvalidFilterError: if they can't be converted; says what is allowed.
    """
    if not filters:
        return {}
    if not isinstance(filters, dict):
        raise InvalidFilterError("filters must be an object")
    parts = (
        filters["conditions"] if filters.get("operator") == "AND" and "conditions" in filters else [filters]
    )
    if not isinstance(parts, list) or not parts:
        raise InvalidFilterError("'conditions' must be a list of at least one condition")
    where = [_condition(part) for part in parts if not _about_content(part)]
    where_document = [_condition(part) for part in parts if _about_content(part)]
    arguments = {"where": _all_of(where), "where_document": _all_of(where_document)}
    return {name: value for name, value in arguments.items() if value}


def _all_of(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    if len(conditions) > 1:
        return {"$and": conditions}
    return conditions[0] if conditions else {}


def _about_content(part: Any) -> bool:
    if not isinstance(part, dict):
        raise InvalidFilterError("each condition must be an object")
    if "conditions" not in part:
        return part.get("field") == "content"
    kinds = {_about_content(inner) for inner in _inner(part)}
    if len(kinds) > 1:
        raise InvalidFilterError(
            "an inner condition can't mix 'content' and metadata; only the outermost AND may"
        )
    return kinds.pop()


def _inner(part: dict[str, Any]) -> list[Any]:
    conditions = part["conditions"]
    if not isinstance(conditions, list) or not conditions:
        raise InvalidFilterError("'conditions' must be a list of at least one condition")
    return conditions


def _condition(part: dict[str, Any]) -> dict[str, Any]:
    operator = part.get("operator")
    if "conditions" in part:
        if operator not in _LOGIC:
            raise InvalidFilterError(f"unknown logical operator {operator!r}; there are {', '.join(_LOGIC)}")
        inner = [_condition(condition) for condition in _inner(part)]
        return inner[0] if len(inner) == 1 else {_LOGIC[operator]: inner}
    field, value = part.get("field"), part.get("value")
    if not isinstance(field, str) or "value" not in part:
        raise InvalidFilterError("a comparison has 'field', 'operator' and 'value'")
    if field == "content":
        if operator not in _CONTENT or not isinstance(value, str) or not value:
            raise InvalidFilterError(f"'content' takes {', '.join(_CONTENT)} and a text")
        return {_CONTENT[operator]: value}
    return {field.removeprefix("meta."): _comparison(operator, value)}


def _comparison(operator: Any, value: Any) -> dict[str, Any]:
    if operator in _MEMBERSHIPS:
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(item, str | int | float) for item in value)
        ):
            raise InvalidFilterError(f"'{operator}' takes a list of texts or numbers")
        return {_MEMBERSHIPS[operator]: value}
    if operator not in _COMPARISONS:
        known = ", ".join([*_COMPARISONS, *_MEMBERSHIPS])
        raise InvalidFilterError(f"unknown operator {operator!r}; there are {known}")
    if operator in ("==", "!="):
        if not isinstance(value, str | int | float) or value != value:
            raise InvalidFilterError(f"'{operator}' takes a text, a number or a boolean")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidFilterError(f"'{operator}' takes a number")
    return {_COMPARISONS[operator]: value}
