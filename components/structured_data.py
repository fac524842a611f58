"""What the data of a JSON reply claim, and whether the chunks bear it out."""

import json
import re
from typing import Any

from haystack.dataclasses import ChatMessage

from components.citing import CANNOT_ANSWER, CitedText, no_answer
from components.confidence import answer_probability
from components.supporting import Sources

# What a model is asked for. Not for its confidence: a small model writes 1 whatever it answers, and each
# token costs time. The builder measures that itself.
ASKED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        # Bounded, so that a small model that rambles still closes its JSON.
        "answer": {
            "type": "string",
            "maxLength": 600,
            "description": "shortest exact phrase copied from the passages",
        },
        "citations": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "description": "numbers of the passages that hold the answer",
        },
        "cannot_answer": {"type": "boolean", "description": "true if no passage holds the answer"},
        "reasoning": {"type": "string", "maxLength": 160, "description": "why, in at most 12 words"},
    },
    "required": ["answer", "citations", "cannot_answer", "reasoning"],
    "additionalProperties": False,
}
# What `data` matches by default.
DEFAULT_SCHEMA: dict[str, Any] = {
    **ASKED_SCHEMA,
    "properties": {
        **ASKED_SCHEMA["properties"],
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": [*ASKED_SCHEMA["required"], "confidence"],
}
_NO_CLAIMS = ("citations", "confidence", "cannot_answer")
_BARE_CHOICE = "yes"
# A unit, a currency, a language: what a schema asks for in a form that passages seldom have.
_CODE = re.compile(r"[^\W\d]{1,3}")
# A chunk holds a value when it has this share of its words; data are given when this share of their values is held.
_HELD = 0.5
_ENOUGH = 0.5


def nothing_found(own: bool) -> dict[str, Any]:
    """
    Give the result of a question without documents.

    :param own: Whether the schema is the default one; another one's `data` can't be filled without a model.
    :returns: What `StructuredAnswerBuilder` gives.
    """
    result: dict[str, Any] = {
        **no_answer(),
        "reasoning": "There are no documents on this question.",
        "usage": {},
        "model": "",
    }
    del result["supported"]
    return result | {"data": own_data(result) if own else None}


def resolved(
    data: dict[str, Any],
    reply: ChatMessage,
    sources: Sources,
    min_confidence: float,
    labels: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """
    Resolve the citations of a valid reply and measure how far its answer can be trusted.

    :param data: What the reply holds.
    :param reply: The reply.
    :param sources: The chunks that were given.
    :param min_confidence: An answer with less confidence is not given.
    :param labels: Texts that the schema itself offers to choose from, which no chunk needs to hold.
    :returns: `answer`, `citations`, `cannot_answer`, `confidence`, `reasoning` and `removed_citations`.
    """
    answer = data.get("answer")
    claims, borne_out = _borne_out(_claims(data, labels), sources)
    cited = CitedText("\n".join(claims), sources)
    cited.cite(_numbers(data), cited.bare)
    cited.attribute_each(claims)
    cited.attribute()
    told = {"reasoning": str(data.get("reasoning") or ""), "removed_citations": cited.removed}
    refused = data.get("cannot_answer") is True or cited.refused
    probability = answer_probability(reply, answer) if isinstance(answer, str) else None
    confidence = 0.0 if refused else cited.confidence(probability)
    if refused or confidence < min_confidence:
        return {
            "answer": CANNOT_ANSWER,
            "citations": [],
            "cannot_answer": True,
            "confidence": confidence,
            **told,
        }
    if not isinstance(answer, str):
        answer = json.dumps(only_given(data, len(sources.documents)), ensure_ascii=False)
    elif answer not in labels:
        answer = cited.bare
    return {
        "answer": answer,
        "citations": cited.citations(),
        "cannot_answer": False,
        # The share counts as a lack of support does: confidence is a geometric mean of three parts.
        "confidence": round(confidence * borne_out ** (1 / 3), 3),
        **told,
    }


def own_data(result: dict[str, Any]) -> dict[str, Any]:
    """
    Put a result into the form of the default schema.

    :param result: What `resolved` gave.
    :returns: Data that match `DEFAULT_SCHEMA`.
    """
    data = {name: result[name] for name in DEFAULT_SCHEMA["properties"]}
    return data | {"citations": [citation["index"] for citation in result["citations"]]}


def _numbers(data: dict[str, Any]) -> list[int]:
    numbers = data.get("citations")
    return [number for number in numbers if type(number) is int] if isinstance(numbers, list) else []


def only_given(data: dict[str, Any], count: int) -> dict[str, Any]:
    """
    Take citations of passages that were not given out of data of any schema.

    :param data: What a reply holds.
    :param count: How many passages were given.
    :returns: The data, without such numbers in `citations`.
    """
    numbers = data.get("citations")
    if not isinstance(numbers, list):
        return data
    return {**data, "citations": [n for n in numbers if type(n) is not int or 1 <= n <= count]}


def _claims(data: dict[str, Any], labels: frozenset[str]) -> list[str]:
    """Give what the data claim: the answer, or all texts and numbers but those that the schema offers, and codes."""
    answer = data.get("answer")
    if isinstance(answer, str) and answer not in labels:
        return [answer]
    others = {name: value for name, value in data.items() if name not in _NO_CLAIMS}
    # A choice alone stands or falls with the question that it answers, as a plain "yes" does.
    said = [text for text in _leaves(others) if text not in labels and not _CODE.fullmatch(text)]
    return said or [_BARE_CHOICE]


def _borne_out(claims: list[str], sources: Sources) -> tuple[list[str], float]:
    """
    Leave out the lesser part of the claims, if no chunk bears it out: what was converted or put in other words.

    :returns: The claims by which the data are judged, and what share they are of all.
    """
    held = [claim for claim in claims if sources.support(claim, sources.best(claim)) >= _HELD]
    share = len(held) / len(claims)
    return (held, share) if share >= _ENOUGH else (claims, 1.0)


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _leaves(part)]
    if isinstance(value, list):
        return [text for part in value for text in _leaves(part)]
    return [] if value is None or isinstance(value, bool) else [str(value)]
