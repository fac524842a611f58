import asyncio
import logging
from pathlib import Path

import pytest
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage

from components.extracting import ExtractiveChatGenerator
from components.models.errors import UnknownModelError
from components.models.llama_cpp import LlamaCppChatGenerator
from components.rephrasing import QueryRephraser, clean_rephrasing
from components.terms import TermWeights

QUESTION = "Who founded the Onggirat tribe?"
TELLING = "founded Onggirat tribe"


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("Who established it?", "Who established it?"),
        ('"Who established it?"', "Who established it?"),
        ("**Rewritten question:** Who established it?", "Who established it?"),
        ("Sure! Here is the rewritten question: Who established it?", "Who established it?"),
        ("Here's one:\n\n1. Who established it?\n2. Who set it up?", "Who established it?"),
        ("```\nWho established it?\n```", "Who established it?"),
        ("Search engines: how do they work?", "Search engines: how do they work?"),
        ("谁建立了它？", "谁建立了它？"),
        ("", ""),
        ("\n\n---\n", ""),
        ("word " * 200, ""),
    ],
)
def test_the_question_is_taken_out_of_the_reply(reply: str, question: str) -> None:
    """Labels, quotes, lists and fences around the question go; a reply without one is empty."""
    assert clean_rephrasing(reply) == question


def test_the_model_rephrases() -> None:
    """run and run_async return the model's wording."""
    rephraser = QueryRephraser(MockChatGenerator(responses="Which person established it?"))
    assert rephraser.run(QUESTION) == {"query": "Which person established it?"}
    assert asyncio.run(rephraser.run_async(QUESTION)) == rephraser.run(QUESTION)


@pytest.mark.parametrize("reply", ["", "...", QUESTION, "who founded the onggirat tribe", "word " * 200])
def test_a_useless_reply_leaves_the_telling_words(reply: str) -> None:
    """Nothing, too much or the same question again: the second search uses the telling words."""
    assert QueryRephraser(MockChatGenerator(responses=reply)).run(QUESTION) == {"query": TELLING}


def test_the_rarest_word_comes_first(tokenizer_path: Path) -> None:
    """With a vocabulary the telling words are in the order of their weight."""
    assert (
        QueryRephraser(term_weights=TermWeights(tokenizer_path)).run(QUESTION)["query"].startswith("Onggirat")
    )


@pytest.mark.parametrize("query", ["", "Who is he?", "湖有多深"])
def test_a_question_without_telling_words_stays(query: str) -> None:
    """What can't be shortened is searched as it is."""
    assert QueryRephraser().run(query) == {"query": query}


def test_without_a_model_the_telling_words_stand_in(caplog: pytest.LogCaptureFixture) -> None:
    """No generator, one that only extracts and one that fails give the telling words; only the last is a warning."""

    def fail(messages: list[ChatMessage]) -> str:
        raise ConnectionError("down")

    assert QueryRephraser().run(QUESTION) == {"query": TELLING}
    with caplog.at_level(logging.INFO):
        for generator in (ExtractiveChatGenerator(), MockChatGenerator(response_fn=fail)):
            rephraser = QueryRephraser(generator)
            assert rephraser.run(QUESTION) == asyncio.run(rephraser.run_async(QUESTION)) == {"query": TELLING}
    told = {record.args: record.levelname for record in caplog.records}
    assert told == {("LanguageModelNeededError",): "INFO", ("ConnectionError",): "WARNING"}
    assert "down" not in caplog.text


def test_a_model_that_does_not_exist_is_an_error() -> None:
    """A wrong model name is the caller's fault and is told, not papered over."""

    def refuse(messages: list[ChatMessage]) -> str:
        raise UnknownModelError("gpt-0", ["small"])

    with pytest.raises(UnknownModelError):
        QueryRephraser(MockChatGenerator(response_fn=refuse)).run(QUESTION, model="gpt-0")


@pytest.mark.model
def test_a_real_model_finds_other_words(small_model: LlamaCppChatGenerator) -> None:
    """The small model's rephrasing is one short line that differs from the question."""
    query = QueryRephraser(small_model).run("When was the company founded?")["query"]
    assert query
    assert "\n" not in query
    assert query != "When was the company founded?"


@pytest.mark.timeout(20)
def test_only_the_beginning_of_a_long_reply_is_read():
    """A model that writes labels and blanks without end gives no question, and gives it soon."""
    assert clean_rephrasing("Sure: " * 30_000 + "Who established it?") == ""
    assert clean_rephrasing("\n" * 200_000 + "Who established it?" + "\n" * 200_000) == "Who established it?"
