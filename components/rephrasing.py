"""Asking a question in other words, for a second search."""

import logging
import re
from typing import Any

from haystack import component
from haystack.dataclasses import ChatMessage

from components.events import emit
from components.extracting import LanguageModelNeededError
from components.framing import plain_line
from components.models.errors import UnknownModelError
from components.terms import TermWeights, words

logger = logging.getLogger(__name__)

SYSTEM = "You rewrite questions for a search engine. Reply with one rewritten question and nothing else."
PROMPT = (
    "Rewrite this question with other words (synonyms, full names instead of abbreviations) so that a search "
    "finds different passages. Keep names and numbers.\n\nQuestion: {query}"
)
MAX_TOKENS = 64
MAX_CHARS = 300
# More of a reply is not read: each label that leads up to the question is taken off in a round of its own.
MAX_REPLY_CHARS = 2000
# What models put before and around the question they were asked for.
PREFIX = re.compile(
    r"^\W*(?:sure|certainly|of course|here(?: is|'s)[^:\n]*|question|query|answer"
    r"|(?:the )?(?:rewritten|rephrased|reworded|self-contained|standalone|new|search)(?: question| query)?)"
    r"\b\s*[:!,.]+\s*",
    re.IGNORECASE,
)
PUNCTUATION = "?!.,:;()[]{}\"'“”„‘’«»¿¡？。"
QUOTES = " \t\n*_`\"'“”„‘’«»"


@component
class QueryRephraser:
    """
    Puts a question in other words, with one call to a language model.

    Without a model, or when its reply is of no use, the question's telling words stand in: they search
    differently too, and a second search must not fail for want of a rephrasing.

    ### Usage example
    ```python
    rephraser = QueryRephraser(chat_generator)
    rephraser.run(query="Who founded the tribe?")["query"]  # 'Which person established the tribe?'
    QueryRephraser().run(query="Who founded the tribe?")["query"]  # 'founded tribe'
    ```
    """

    def __init__(self, chat_generator: Any | None = None, term_weights: TermWeights | None = None) -> None:
        """
        Stores the parameters.

        :param chat_generator: A Haystack ChatGenerator that takes `generation_kwargs`; None: telling words.
        :param term_weights: Puts the rarest of the telling words first.
        """
        self.chat_generator = chat_generator
        self.term_weights = term_weights or TermWeights()

    def warm_up(self) -> None:
        """Loads the chat generator and the vocabulary."""
        self.term_weights.warm_up()
        if self.chat_generator is not None and hasattr(self.chat_generator, "warm_up"):
            self.chat_generator.warm_up()

    @component.output_types(query=str)
    def run(self, query: str, model: str | None = None) -> dict[str, str]:
        """
        Rephrases a question.

        :param query: The question.
        :param model: The language model to ask, when not the generator's own.
        :returns: `query`: other words for it, on one line, never empty unless the question is.
        :raises UnknownModelError: If there is no such model.
        """
        if self.chat_generator is None:
            return _told(self._telling_words(query))
        try:
            result = self.chat_generator.run(_prompt(query), generation_kwargs=_options(model))
        except UnknownModelError:
            raise
        except Exception as fault:
            return _told(self._without_model(query, fault))
        return _told(self._read(query, result))

    @component.output_types(query=str)
    async def run_async(self, query: str, model: str | None = None) -> dict[str, str]:
        """
        Rephrases a question without blocking the event loop.

        :param query: The question.
        :param model: The language model to ask, when not the generator's own.
        :returns: As `run`.
        :raises UnknownModelError: If there is no such model.
        """
        if self.chat_generator is None:
            return _told(self._telling_words(query))
        try:
            result = await self.chat_generator.run_async(_prompt(query), generation_kwargs=_options(model))
        except UnknownModelError:
            raise
        except Exception as fault:
            return _told(self._without_model(query, fault))
        return _told(self._read(query, result))

    def _read(self, query: str, result: dict[str, Any]) -> str:
        reply = next(iter(result.get("replies") or []), None)
        rephrased = clean_rephrasing((reply.text if reply else None) or "")
        if not rephrased or words(rephrased) == words(query):
            return self._telling_words(query)
        return rephrased

    def _without_model(self, query: str, fault: Exception) -> str:
        # Its message may quote the question.
        # Without a model to begin with, that is how it is meant.
        level = logging.INFO if isinstance(fault, LanguageModelNeededError) else logging.WARNING
        logger.log(level, "Rephrasing without a language model: %s", type(fault).__name__)
        return self._telling_words(query)

    def _telling_words(self, query: str) -> str:
        weights = {token.strip(PUNCTUATION): self._weight(token) for token in query.split()}
        telling = [token for token, weight in weights.items() if weight > 0]
        return " ".join(sorted(telling, key=weights.__getitem__, reverse=True)) or query

    def _weight(self, token: str) -> float:
        return max((self.term_weights.weight(word) for word in words(token)), default=0.0)


def clean_rephrasing(text: str) -> str:
    """
    Takes the rephrased question out of a model's reply.

    :param text: The reply.
    :returns: Its first line of use without label, list mark and quotes; empty if there is none, or if it is
        too long for a question.
    """
    text = text.lstrip()
    if len(text) > MAX_REPLY_CHARS:
        text = text[:MAX_REPLY_CHARS].rpartition("\n")[0]
    for line in text.splitlines():
        bare = line.strip(QUOTES)
        previous = None
        while bare != previous:  # "Sure! Here is the rewritten question: ..."
            previous, bare = bare, PREFIX.sub("", bare).strip(QUOTES)
        bare = re.sub(r"^(?:\d+[.)]|[-•])\s+", "", bare).strip(QUOTES)
        if words(bare):
            return bare if len(bare) <= MAX_CHARS and not bare.endswith(":") else ""
    return ""


def _told(rephrased: str) -> dict[str, str]:
    emit("rephrased", query=rephrased)
    return {"query": rephrased}


def _prompt(query: str) -> list[ChatMessage]:
    return [ChatMessage.from_system(SYSTEM), ChatMessage.from_user(PROMPT.format(query=plain_line(query)))]


def _options(model: str | None) -> dict[str, Any]:
    # The reply has to differ from the question, but from one run to the next it should not.
    options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0.0}
    return options | ({"model": model} if model else {})
