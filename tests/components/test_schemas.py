import json
import time

import pytest

from components.schemas import InvalidSchemaError, checked_schema, labels, schema_faults


def of(**properties):
    return {"type": "object", "properties": properties}


def deep(levels: int) -> dict:
    schema: dict = {"type": "object"}
    for _ in range(levels):
        schema = of(a=schema)
    return schema


def doubling(levels: int) -> dict:
    """A few lines of references that lead to one place in 2 ** levels ways."""
    places = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]}
        for n in range(levels)
    }
    return {"$defs": {**places, f"a{levels}": {"type": "object"}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (deep(3_000), "levels deep"),
        (of(a={"description": "long " * 4_000}), "characters; at most 20000"),
        (of(a={"maximum": 2**70}), "64 bits in 'maximum'"),
        (of(a={"pattern": "(?=a)b"}), "looks ahead"),
        (of(a={"type": [{"a": n} for n in range(200)]}), "list of more than 100 objects"),
        ({"$defs": {f"a{n}": {"not": {}} for n in range(1_001)}}, "more than 2000 parts"),
        ({"enum": list(range(1_000_000))}, "more than 2000 parts"),
        ({"patternProperties": {"^a": {}}}, "patternProperties"),
    ],
    ids=[
        "too deep",
        "too large",
        "too great a number",
        "objects to compare",
        "many parts",
        "many choices",
        "a look ahead",
        "patterns of names",
    ],
)
def test_a_schema_that_is_too_much_is_refused(schema, fault):
    """What could keep the service busy, or break the model's grammar, is named at once."""
    with pytest.raises(InvalidSchemaError, match=fault):
        checked_schema(schema)


def test_a_check_that_multiplies_is_given_up():
    """References that double at each of 30 levels end in an error within seconds, not in hours."""
    validator = checked_schema(doubling(30))
    begin = time.monotonic()
    with pytest.raises(InvalidSchemaError, match="more than 5000 checks"):
        list(schema_faults({}, validator))
    assert time.monotonic() - begin < 10
    assert list(schema_faults({}, checked_schema(doubling(3)))) == []


@pytest.mark.parametrize(
    ("prop", "match"),
    [({"\ud800": {}}, "lone surrogate"), ({"a": {"maximum": float("nan")}}, "not finite")],
)
def test_a_schema_is_what_json_can_hold(prop: dict, match: str):
    """Half a character or a number that is none is refused before any model is asked."""
    with pytest.raises(InvalidSchemaError, match=match):
        checked_schema(of(**prop))


def test_a_pattern_does_not_backtrack():
    """A pattern that takes Python's own engine longer than the universe is matched at once."""
    validator = checked_schema(of(a={"type": "string", "pattern": "^(a+)+$"}))
    assert list(schema_faults({"a": "a" * 500}, validator)) == []
    (fault,) = schema_faults({"a": "a" * 500 + "!"}, validator)
    assert "does not match" in fault.message


def test_ordinary_schemas_work():
    """Definitions, recursion, choices and ranges, as pydantic writes them."""
    node = of(
        name={"type": "string", "pattern": "^[a-z]+$"},
        next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    )
    validator = checked_schema(
        {"$defs": {"node": node}, "type": "object", **of(first={"$ref": "#/$defs/node"})}
    )
    assert list(schema_faults({"first": {"name": "a", "next": {"name": "b", "next": None}}}, validator)) == []
    assert len(list(schema_faults({"first": {"name": "a", "next": {"name": "B"}}}, validator))) == 1


def test_labels_are_what_a_schema_offers():
    """Texts of enum and const anywhere, which no passage needs to hold."""
    schema = of(a={"enum": ["yes", "no", 3]}, b={"items": {"const": "maybe"}}, c={"description": "text"})
    assert labels(json.loads(json.dumps(schema))) == {"yes", "no", "maybe"}
