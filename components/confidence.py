"""How sure a model was of a part of its reply, by the probabilities of its tokens."""

import math
from typing import Any

from haystack.dataclasses import ChatMessage


def answer_probability(reply: ChatMessage, answer: str) -> float | None:
    """
    Read how probable the model held the tokens of its answer.

    :param reply: A reply whose meta holds `logprobs` in OpenAI's form.
    :param answer: The part of the reply that counts, as it stands in it.
    :returns: The geometric mean of the probabilities of the answer's tokens, 0 to 1; None when the reply has
        no log-probabilities or the answer isn't found among its tokens.
    """
    tokens: list[dict[str, Any]] = (reply.meta.get("logprobs") or {}).get("content") or []
    start = "".join(str(token.get("token")) for token in tokens).find(answer) if answer else -1
    if start < 0:
        return None
    place, inside = 0, []
    for token in tokens:
        end = place + len(str(token.get("token")))
        if place < start + len(answer) and end > start:
            inside.append(float(token.get("logprob") or 0.0))
        place = end
    return math.exp(sum(inside) / len(inside)) if inside else None
