"""Haystack's filters for Chroma."""

import math

import pytest

from components.filtering import InvalidFilterError, chroma_filters


def test_no_filters_are_no_arguments() -> None:
    """None and an empty mapping filter nothing."""
    assert chroma_filters(None) == chroma_filters({}) == {}


def test_a_single_condition_needs_no_and() -> None:
    """An AND or OR of one condition is that condition, which Chroma would refuse otherwise."""
    condition = {"field": "meta.year", "operator": ">", "value": 2000}
    assert chroma_filters({"operator": "AND", "conditions": [condition]}) == {
        "where": {"year": {"$gt": 2000}}
    }
    assert chroma_filters({"operator": "OR", "conditions": [condition]}) == {"where": {"year": {"$gt": 2000}}}


def test_content_and_metadata_are_parted() -> None:
    """In the outermost AND, conditions on the content go to where_document."""
    filters = {
        "operator": "AND",
        "conditions": [
            {"field": "content", "operator": "contains", "value": "x"},
            {"field": "a", "operator": "in", "value": [1, 2]},
            {"operator": "OR", "conditions": [{"field": "b", "operator": "==", "value": 1}] * 2},
        ],
    }
    assert chroma_filters(filters) == {
        "where": {"$and": [{"a": {"$in": [1, 2]}}, {"$or": [{"b": {"$eq": 1}}] * 2}]},
        "where_document": {"$contains": "x"},
    }


def nested(depth: int) -> dict:
    """Give a condition that many levels deep."""
    filters: dict = {"field": "a", "operator": "==", "value": 1}
    for _ in range(depth - 1):
        filters = {"operator": "AND", "conditions": [filters]}
    return filters


def test_whole_numbers_and_fractions_may_be_mixed() -> None:
    """A list of both becomes two conditions, since Chroma takes lists of one type only."""
    mixed = chroma_filters({"field": "a", "operator": "in", "value": [1, 2.5]})["where"]["$or"]
    assert sorted(mixed, key=str) == [{"a": {"$in": [1]}}, {"a": {"$in": [2.5]}}]
    assert list(chroma_filters({"field": "a", "operator": "not in", "value": [1, 2.5]})["where"]) == ["$and"]


def test_the_largest_filters_are_taken() -> None:
    """500 items, ten levels and 64 bits are allowed."""
    values = [2**63 - 1, -(2**63), *range(498)]
    assert chroma_filters({"field": "meta.a", "operator": "in", "value": values}) == {
        "where": {"a": {"$in": values}}
    }
    assert chroma_filters(nested(10)) == {"where": {"a": {"$eq": 1}}}


@pytest.mark.parametrize("depth", [11, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    """Conditions nested too deep are refused, however deep."""
    with pytest.raises(InvalidFilterError, match="10 deep"):
        chroma_filters(nested(depth))


def test_messages_hold_no_lone_surrogate() -> None:
    """What is wrong is quoted so that any client can read it."""
    for wrong in ({"field": "\ud800", "operator": "==", "value": 1}, {**nested(1), "operator": "\ud800"}):
        with pytest.raises(InvalidFilterError) as error:
            chroma_filters(wrong)
        str(error.value).encode("utf-8")


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "a", "operator": ["=="], "value": 1},
        {"field": "a", "operator": {}, "value": 1},
        {"operator": ["AND"], "conditions": [{"field": "a", "operator": "==", "value": 1}]},
        {"field": "", "operator": "==", "value": 1},
        {"field": "meta.", "operator": "==", "value": 1},
        {"field": "$and", "operator": "==", "value": 1},
        {"field": "meta.$or", "operator": "==", "value": 1},
        {"field": "#document", "operator": "==", "value": 1},
        {"field": "chroma:document", "operator": "==", "value": 1},
        {"field": "a", "operator": "==", "value": math.inf},
        {"field": "a", "operator": "==", "value": 2**63},
        {"field": "a", "operator": ">", "value": -(2**63) - 1},
        {"field": "a", "operator": "==", "value": "\ud800"},
        {"field": "content", "operator": "contains", "value": "\udfff"},
        {"field": "content", "operator": "contains", "value": "x" * 10_001},
        {"field": "a", "operator": "in", "value": [1, "x"]},
        {"field": "a", "operator": "in", "value": [1, True]},
        {"field": "a", "operator": "in", "value": [math.nan]},
        {"field": "a", "operator": "in", "value": ["x", "\ud800"]},
        {"field": "a", "operator": "in", "value": list(range(40_000))},
        {"operator": "OR", "conditions": [{"field": "a", "operator": "==", "value": 1}] * 2_000},
        {"field": "a"},
        {"field": "a", "operator": "~", "value": 1},
        {"field": "a", "operator": ">", "value": "text"},
        {"field": "a", "operator": "in", "value": []},
        {"field": "a", "operator": "==", "value": None},
        {"field": "content", "operator": "==", "value": "x"},
        {"operator": "AND", "conditions": []},
        {"operator": "AND", "conditions": ["a"]},
        {"operator": "NOT", "conditions": [{"field": "a", "operator": "==", "value": 1}]},
        {
            "operator": "OR",
            "conditions": [
                {"field": "content", "operator": "contains", "value": "x"},
                {"field": "a", "operator": "==", "value": 1},
            ],
        },
        ["a"],
    ],
)
def test_what_cannot_be_converted_is_refused(filters: object) -> None:
    """A malformed filter is an error that says what is allowed, never an empty result."""
    with pytest.raises(InvalidFilterError):
        chroma_filters(filters)  # type: ignore[arg-type]
