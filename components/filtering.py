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
# Chroma makes one SQL expression of it all, which SQLite bounds; its own keys begin with these.
_MOST_ITEMS = 500
_DEEPEST = 10
_LONGEST_CONTENT = 10_000
CHROMA_KEYS = ("$", "#", "chroma:")


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
    _check(filters)
    parts = (
        filters["conditions"] if filters.get("operator") == "AND" and "conditions" in filters else [filters]
    )
    where = [_condition(part) for part in parts if not _about_content(part)]
    where_document = [_condition(part) for part in parts if _about_content(part)]
    arguments = {"where": _all_of(where), "where_document": _all_of(where_document)}
    return {name: value for name, value in arguments.items() if value}


def _all_of(conditions: list[dict[str, Any]]) -> dict[str, Any]:
    if len(conditions) > 1:
        return {"$and": conditions}
    return conditions[0] if conditions else {}


def _about_content(part: dict[str, Any]) -> bool:
    if "conditions" not in part:
        return part["field"] == "content"
    kinds = {_about_content(inner) for inner in part["conditions"]}
    if len(kinds) > 1:
        raise InvalidFilterError(
            "an inner condition can't mix 'content' and metadata; only the outermost AND may"
        )
    return kinds.pop()


def _condition(part: dict[str, Any]) -> dict[str, Any]:
    operator = part["operator"]
    if "conditions" in part:
        inner = [_condition(condition) for condition in part["conditions"]]
        return inner[0] if len(inner) == 1 else {_LOGIC[operator]: inner}
    field, value = part["field"], part["value"]
    if field == "content":
        return {_CONTENT[operator]: value}
    field = field.removeprefix("meta.")
    if operator not in _MEMBERSHIPS:
        return {field: {_COMPARISONS[operator]: value}}
    # Chroma refuses a list of whole numbers and fractions.
    kinds = {type(item) for item in value}
    parts = [
        {field: {_MEMBERSHIPS[operator]: [item for item in value if type(item) is kind]}} for kind in kinds
    ]
    return parts[0] if len(parts) == 1 else {"$or" if operator == "in" else "$and": parts}


def _check(filters: dict[str, Any]) -> None:
    """Refuse what Chroma would fail on; goes without recursion, so no nesting is too deep for it."""
    items = 0
    pending: list[tuple[Any, int]] = [(filters, 1)]
    while pending:
        part, depth = pending.pop()
        if not isinstance(part, dict):
            raise InvalidFilterError("each condition must be an object")
        if depth > _DEEPEST:
            raise InvalidFilterError(f"conditions are nested more than {_DEEPEST} deep")
        if "conditions" in part:
            inner = _checked_logic(part)
            items += len(inner)
            pending.extend((condition, depth + 1) for condition in inner)
        else:
            _check_comparison(part)
            items += len(part["value"]) if isinstance(part["value"], list) else 0
        if items > _MOST_ITEMS:
            raise InvalidFilterError(f"there are more than {_MOST_ITEMS} conditions and list items")


def _checked_logic(part: dict[str, Any]) -> list[Any]:
    operator, conditions = part.get("operator"), part["conditions"]
    if not isinstance(operator, str) or operator not in _LOGIC:
        raise InvalidFilterError(
            f"unknown logical operator {_shown(operator)}; there are {', '.join(_LOGIC)}"
        )
    if not isinstance(conditions, list) or not conditions:
        raise InvalidFilterError("'conditions' must be a list of at least one condition")
    return conditions


def _check_comparison(part: dict[str, Any]) -> None:
    field, operator, value = part.get("field"), part.get("operator"), part.get("value")
    if not isinstance(field, str) or "value" not in part:
        raise InvalidFilterError("a comparison has 'field', 'operator' and 'value'")
    name = field.removeprefix("meta.")
    if not name or name.startswith(CHROMA_KEYS) or not _encodable(name):
        raise InvalidFilterError(f"{_shown(field)} is no metadata field")
    if not isinstance(operator, str):
        raise InvalidFilterError("'operator' must be a text")
    if field == "content":
        if operator not in _CONTENT or not isinstance(value, str) or not value or not _encodable(value):
            raise InvalidFilterError(f"'content' takes {', '.join(_CONTENT)} and a text")
        if len(value) > _LONGEST_CONTENT:
            raise InvalidFilterError(f"'content' takes a text of at most {_LONGEST_CONTENT} characters")
    elif operator in _MEMBERSHIPS:
        if not isinstance(value, list) or not value or not (_all_texts(value) or all(map(_number, value))):
            raise InvalidFilterError(f"'{operator}' takes a list of texts or a list of numbers")
    elif operator not in _COMPARISONS:
        known = ", ".join([*_COMPARISONS, *_MEMBERSHIPS])
        raise InvalidFilterError(f"unknown operator {_shown(operator)}; there are {known}")
    elif operator in ("==", "!="):
        if not (isinstance(value, bool) or _number(value) or _all_texts([value])):
            raise InvalidFilterError(f"'{operator}' takes a text, a number or a boolean")
    elif not _number(value):
        raise InvalidFilterError(f"'{operator}' takes a number")


def _number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _all_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) and _encodable(value) for value in values)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: Any) -> str:
    return ascii(value[:80]) if isinstance(value, str) else f"of type {type(value).__name__}"
