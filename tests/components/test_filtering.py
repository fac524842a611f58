"""Haystack's filters for Chroma."""

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


@pytest.mark.parametrize(
    "filters",
    [
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
