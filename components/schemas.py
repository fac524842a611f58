"""JSON Schemas that come with a question: which ones are fit for a reply, and checking data against them safely."""

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema

# A schema is a caller's: checking it, and data against it, must not take long whatever it says.
MAX_CHARS = 20_000
MAX_DEPTH = 40
MAX_PARTS = 2_000
# Of objects and lists, which are compared in pairs where they have to differ.
MAX_NESTED_ENTRIES = 100
MAX_STEPS = 5_000
_MAX_NUMBER = 2**63 - 1
_SHOWN = 300

_steps: ContextVar[Iterator[int]] = ContextVar("schema_steps")


class InvalidSchemaError(ValueError):
    """The JSON schema asked for can't be used."""


def checked_schema(schema: Any) -> Draft202012Validator:
    """
    Check a JSON schema (draft 2020-12) for a reply.

    Large ones take some tenths of a second, the first time: not on an event loop.

    :param schema: The schema; of an object, and whole in itself.
    :returns: Its validator, for `schema_faults`.
    :raises InvalidSchemaError: If it is no valid schema, not one of an object, points outside itself, or is too
        large, too deep or of a kind that can take long to check.
    """
    if not isinstance(schema, dict):
        raise InvalidSchemaError(f"json_schema is a {type(schema).__name__}; it should be an object")
    _check_size(schema)
    text = _written(schema)
    if len(text) > MAX_CHARS:
        raise InvalidSchemaError(f"json_schema has {len(text)} characters; at most {MAX_CHARS} are accepted")
    return _checked(text)


def _written(schema: dict[str, Any]) -> str:
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise InvalidSchemaError(
            "json_schema holds a lone surrogate, which is no valid Unicode text"
        ) from None
    except ValueError:
        raise InvalidSchemaError("json_schema holds a number that is not finite") from None
    return text


# More than a batch has questions, each of which may bring a schema of its own.
@lru_cache(maxsize=256)
def _checked(text: str) -> Draft202012Validator:
    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as fault:
        where = "/".join(str(part) for part in fault.absolute_path) or "its top"
        raise InvalidSchemaError(f"json_schema is not valid at {where}: {fault.message[:_SHOWN]}") from fault
    if schema.get("type", "object") != "object":
        kind = json.dumps(schema["type"])
        raise InvalidSchemaError(
            f'json_schema has the type {kind}; it must be "object", for replies are objects'
        )
    for part in _parts(schema):
        _check_part(part)
    return _Validator(schema)


def _check_part(part: dict[str, Any]) -> None:
    for key in ("$ref", "$dynamicRef"):
        # Looking up an address that a caller names would send requests on its behalf.
        if isinstance(part.get(key), str) and not part[key].startswith("#"):
            raise InvalidSchemaError(
                f"json_schema refers to {part[key]!r}; only references inside it ('#...') work"
            )
    if isinstance(part.get("patternProperties"), dict):
        raise InvalidSchemaError("json_schema has 'patternProperties', which is not supported")
    if isinstance(part.get("pattern"), str):
        _pattern(part["pattern"])
    for name, value in part.items():
        if isinstance(value, int) and abs(value) > _MAX_NUMBER:
            raise InvalidSchemaError(f"json_schema has a number of more than 64 bits in '{name}'")


def schema_faults(data: Any, validator: Draft202012Validator) -> Iterator[ValidationError]:
    """
    Find what data lack to match a schema.

    :param data: What was read from JSON.
    :param validator: What `checked_schema` gave.
    :returns: The faults, found one by one.
    :raises InvalidSchemaError: If the schema turns out to be unusable: a reference to nothing or to itself, or so
        much to check that it would take long.
    """
    token = _steps.set(count(1))
    try:
        yield from list(validator.iter_errors(data))
    except InvalidSchemaError:
        raise
    except Exception as problem:
        # jsonschema finds a broken reference only now, and an endless one by running out of stack.
        raise InvalidSchemaError(f"json_schema can't be applied: {str(problem)[:_SHOWN]}") from problem
    finally:
        _steps.reset(token)


def labels(schema: Any) -> frozenset[str]:
    """
    List the texts that a schema offers to choose from.

    :param schema: A checked schema.
    :returns: Every text of an `enum` or `const` in it.
    """
    found: set[str] = set()
    for part in _parts(schema):
        choices = part.get("enum")
        offered = [*(choices if isinstance(choices, list) else []), part.get("const")]
        found |= {text for text in offered if isinstance(text, str)}
    return frozenset(found)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Give every object in a schema."""
    rest = [schema]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
            rest += part.values()
        elif isinstance(part, list):
            rest += part


def _check_size(schema: Any) -> None:
    # Without recursion: the depth is the caller's choice.
    level, depth, parts = [schema], 0, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidSchemaError(f"json_schema is more than {MAX_DEPTH} levels deep")
        inner: list[Any] = []
        for part in level:
            parts += len(part)
            if parts > MAX_PARTS:
                raise InvalidSchemaError(f"json_schema has more than {MAX_PARTS} parts")
            nested = [
                value
                for value in (part.values() if isinstance(part, dict) else part)
                if isinstance(value, dict | list)
            ]
            if isinstance(part, list) and nested and len(part) > MAX_NESTED_ENTRIES:
                raise InvalidSchemaError(
                    f"json_schema has a list of more than {MAX_NESTED_ENTRIES} objects or lists"
                )
            inner += nested
        level = inner


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> SchemaValidator:
    # An engine without backtracking: Python's own takes minutes, and the interpreter, for "(a+)+$".
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except PatternError as error:
        raise InvalidSchemaError(
            f"json_schema has the pattern {pattern[:80]!r}, which can't be used; "
            "references back and looks ahead or behind are not supported"
        ) from error


def _matches(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _pattern(pattern).isinstance_python(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
    def check(*arguments: Any) -> Any:
        # References that lead to one place in many ways multiply: twenty lines can ask for a million checks.
        if next(_steps.get()) > MAX_STEPS:
            raise InvalidSchemaError(f"json_schema asks for more than {MAX_STEPS} checks of one reply")
        return keyword(*arguments)

    return check


_KEYWORDS = {**Draft202012Validator.VALIDATORS, "pattern": _matches}
_Validator = extend(Draft202012Validator, {name: _counted(check) for name, check in _KEYWORDS.items()})
