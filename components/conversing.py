"""Making a question self-contained from the conversation before it, so that a search can find what it is about."""

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any

from haystack import component
from haystack.dataclasses import ChatMessage

from components.citing import without_markers
from components.events import emit
from components.extracting import LanguageModelNeededError
from components.framing import plain_text
from components.models.errors import UnknownModelError
from components.rephrasing import PUNCTUATION, clean_rephrasing
from components.terms import TermWeights, coverage, stem, stems, words

logger = logging.getLogger(__name__)

SYSTEM = (
    "You make the last question of a conversation self-contained, for a search engine that has not seen the "
    "conversation. Put names in place of words such as it, its, he, she, they, there or that. Keep the question's "
    "other words, its meaning and its language. A question that needs nothing of the conversation stays as it is. "
    "Reply with the question and nothing else.\n\n"
    "User: Who built the Eiffel Tower?\nAssistant: Gustave Eiffel's company.\nLast question: And how tall is it?\n"
    "Self-contained: How tall is the Eiffel Tower?\n\n"
    "User: Where was Marie Curie born?\nAssistant: In Warsaw.\nLast question: What was her first discovery?\n"
    "Self-contained: What was Marie Curie's first discovery?"
)
# Words that stand for a name. A small model leaves every third question with one as it is.
REFERRING = frozenset(
    words(
        "it its he him his she her hers they them their theirs this these those "
        "er sie ihn ihm ihr ihre sein seine dort elle elles ils lui leur leurs ella ellos ellas su sus"
    )
)
MAX_TOKENS = 64
# The part of a prompt's text that the conversation gets: it is read before the search can begin.
_SHARE = 3
_ANSWER_CHARS = 200
# So much of a message is read for each character that there is room for: marks and blanks are yet to be taken out.
_READ = 4
# Of all messages, however many are blank, no more than the last of them are looked at.
_MESSAGES = 100
# A rewriting may bring this share of words from elsewhere, such as another form of a word, and has to keep
# that share of the question's own telling words. What doesn't is an answer, or another question.
_FOREIGN = 0.35
_KEPT = 0.5
# More words lead to where the last answer stood: recall@1 falls from 0.92 to 0.60 with eight words of any kind.
_ADDED_WORDS = 3


@component
class ConversationRephraser:
    """
    Puts what a question refers to into the question itself, with one call to a language model.

    A search knows nothing of a conversation: "When was it built?" finds anything. Rewriting such questions from the
    conversation is the task of CANARD (Elgohary et al. 2019, "Can You Unpack That?") and a step of conversational
    retrieval in ORConvQA (Qu et al. 2020, arXiv:2005.11364).

    Without a model, or when its reply is of no use, the names that were spoken of last are put behind the question.
    That a conversation can't be followed is never an error.

    ### Usage example
    ```python
    history = [ChatMessage.from_user("Who built the Eiffel Tower?"), ChatMessage.from_assistant("Eiffel's company.")]
    ConversationRephraser(chat_generator).run(query="How tall is it?", history=history)["query"]
    # 'How tall is the Eiffel Tower?'
    ConversationRephraser().run(query="How tall is it?", history=history)["query"]
    # 'How tall is it? (Eiffel Tower)'
    ```
    """

    def __init__(
        self,
        chat_generator: Any | None = None,
        term_weights: TermWeights | None = None,
        max_context_chars: int = 1600,
        max_turns: int = 3,
    ) -> None:
        """
        Store the parameters.

        :param chat_generator: A Haystack ChatGenerator that takes `generation_kwargs`; None: telling words.
        :param term_weights: Tells which words tell most.
        :param max_context_chars: Characters of text that prompts hold; a third of them may be conversation.
        :param max_turns: How many questions back the conversation is read.
        """
        self.chat_generator = chat_generator
        self.term_weights = term_weights or TermWeights()
        self.max_context_chars = max_context_chars
        self.max_turns = max_turns

    def warm_up(self) -> None:
        """Load the chat generator and the vocabulary."""
        self.term_weights.warm_up()
        if self.chat_generator is not None and hasattr(self.chat_generator, "warm_up"):
            self.chat_generator.warm_up()

    @component.output_types(query=str)
    def run(self, query: str, history: list[ChatMessage], model: str | None = None) -> dict[str, str]:
        """
        Make a question self-contained.

        :param query: The question.
        :param history: The conversation before it, oldest message first. Messages of users and assistants count.
        :param model: The language model to ask, when not the generator's own.
        :returns: `query`: the question, as it was when there is no conversation.
        :raises UnknownModelError: If there is no such model.
        """
        turns = self._turns(history)
        if not turns or self.chat_generator is None:
            return _told(self._with_words(query, turns))
        try:
            result = self.chat_generator.run(self._prompt(query, turns), generation_kwargs=_options(model))
        except UnknownModelError:
            raise
        except Exception as fault:
            return _told(self._without_model(query, turns, fault))
        return _told(self._read(query, turns, result))

    @component.output_types(query=str)
    async def run_async(
        self, query: str, history: list[ChatMessage], model: str | None = None
    ) -> dict[str, str]:
        """
        Make a question self-contained without blocking the event loop.

        :param query: The question.
        :param history: The conversation before it.
        :param model: The language model to ask, when not the generator's own.
        :returns: As `run`.
        :raises UnknownModelError: If there is no such model.
        """
        turns = self._turns(history)
        if not turns or self.chat_generator is None:
            return _told(self._with_words(query, turns))
        try:
            prompt = self._prompt(query, turns)
            result = await self.chat_generator.run_async(prompt, generation_kwargs=_options(model))
        except UnknownModelError:
            raise
        except Exception as fault:
            return _told(self._without_model(query, turns, fault))
        return _told(self._read(query, turns, result))

    def _turns(self, history: Sequence[ChatMessage]) -> list[ChatMessage]:
        """Give the last turns that there is room for, each message as one line."""
        turns: list[ChatMessage] = []
        room, questions = self.max_context_chars // _SHARE, 0
        for message in islice(reversed(history), _MESSAGES):
            from_user = message.is_from("user")
            length = room if from_user else min(room, _ANSWER_CHARS)
            told = (message.text or "") if from_user or message.is_from("assistant") else ""
            text = _cut(_line(told.lstrip()[: _READ * length]), length)
            if not text:
                continue
            room, questions = room - len(text), questions + from_user
            turns.insert(0, ChatMessage.from_user(text) if from_user else ChatMessage.from_assistant(text))
            if room <= 0 or questions >= self.max_turns:
                break
        return turns

    def _prompt(self, query: str, turns: list[ChatMessage]) -> list[ChatMessage]:
        lines = [f"{'User' if turn.is_from('user') else 'Assistant'}: {turn.text}" for turn in turns]
        text = "\n".join([*lines, f"Last question: {_line(query)}", "Self-contained:"])
        return [ChatMessage.from_system(SYSTEM), ChatMessage.from_user(plain_text(text))]

    def _read(self, query: str, turns: list[ChatMessage], result: dict[str, Any]) -> str:
        reply = next(iter(result.get("replies") or []), None)
        rewritten = clean_rephrasing((reply.text if reply else None) or "")
        known = stems(" ".join([query, *(turn.text or "" for turn in turns)]))
        faithful = (
            rewritten
            and coverage(self.term_weights.of(rewritten), known) >= 1 - _FOREIGN
            and coverage(self.term_weights.of(query), stems(rewritten)) >= _KEPT
        )
        if not faithful or (self._refers(query) and stems(rewritten) <= stems(query)):
            return self._with_words(query, turns)
        return rewritten

    def _refers(self, query: str) -> bool:
        """Tell whether a question stands on the conversation: by a pronoun, or since it hardly says anything."""
        return not REFERRING.isdisjoint(words(query)) or len(self.term_weights.of(query)) <= 1

    def _without_model(self, query: str, turns: list[ChatMessage], fault: Exception) -> str:
        if not isinstance(fault, LanguageModelNeededError):
            # Its message may quote the conversation.
            logger.warning("Following the conversation without a language model: %s", type(fault).__name__)
        return self._with_words(query, turns)

    def _with_words(self, query: str, turns: list[ChatMessage]) -> str:
        """Put the names last spoken of behind the question, or for want of names, telling words."""
        asked = stems(query)
        for place in reversed(range(len(turns))):
            if not turns[place].is_from("user"):
                continue
            # A question's names come before its answer's: what is asked about tends to stay, answers to change.
            for turn in turns[place : place + 2]:
                if names := self._telling(turn, asked, names_only=True):
                    return f"{query} ({' '.join(names)})"
        last = next((turn for turn in reversed(turns) if turn.is_from("user")), None)
        telling = self._telling(last, asked, names_only=False) if last else []
        return f"{query} ({' '.join(telling)})" if telling else query

    def _telling(self, turn: ChatMessage, asked: frozenset[str], names_only: bool) -> list[str]:
        """Give the most telling words of a message that the question lacks, as they follow each other."""
        weights: dict[str, float] = {}
        for place, token in enumerate((turn.text or "").split()):
            bare = token.strip(PUNCTUATION).removesuffix("'s")
            # Of a question, the first word has its capital letter for nothing.
            if names_only and not (bare[:1].isupper() and (place or turn.is_from("assistant"))):
                continue
            new = [word for word in words(bare) if stem(word) not in asked]
            weights[bare] = max(map(self.term_weights.weight, new), default=0.0)
        kept = sorted(filter(weights.__getitem__, weights), key=weights.__getitem__, reverse=True)[
            :_ADDED_WORDS
        ]
        return [token for token in weights if token in kept]


def _told(question: str) -> dict[str, str]:
    emit("standalone_question", query=question)
    return {"query": question}


def _line(text: str) -> str:
    return " ".join(without_markers(text).split())


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length].rpartition(" ")[0] or text[:length]


def _options(model: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0.0}
    return options | ({"model": model} if model else {})
