from itertools import pairwise

import pytest

from components.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Gray went home. Did she? Yes!", ["Dr. Gray went home.", "Did she?", "Yes!"]),
        (
            "It rose 3.5 % (e.g. in the U.S. alone). Then.",
            ["It rose 3.5 % (e.g. in the U.S. alone).", "Then."],
        ),
        (
            "It ended in 1999. J. R. Smith saw it. He left.",
            ["It ended in 1999.", "J. R. Smith saw it.", "He left."],
        ),
        ('He said "Go." Then he went.', ['He said "Go."', "Then he went."]),
        ("# Title\nText below\n\n- one\n- two. More", ["# Title", "Text below", "- one", "- two.", "More"]),
        ("1. First point.\n2. Second", ["1. First point.", "2. Second"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |", ["| a | b |", "|---|---|", "| 1 | 2 |"]),
        ("```\nx = 1\ny = 2\n```\nDone.", ["```", "x = 1", "y = 2", "```", "Done."]),
        ("湖有多深？很深。他说：“好。”走了", ["湖有多深？", "很深。", "他说：“好。”", "走了"]),
        ("क्या हाल है? ठीक है। हाँ।", ["क्या हाल है?", "ठीक है।", "हाँ।"]),
        ("كم عمق البحيرة؟ عميقة. نعم.", ["كم عمق البحيرة؟", "عميقة.", "نعم."]),
        ("", []),
        (" \n\t\n", []),
    ],
)
def test_a_text_is_split_into_its_sentences(text: str, sentences: list[str]) -> None:
    """Abbreviations, initials, lists, headings, tables, code and other scripts divide as one reads."""
    assert [text[start:end] for start, end in split_sentences(text)] == sentences


def test_a_wrapped_line_continues_its_sentence() -> None:
    """A line break inside a sentence of a hard-wrapped paragraph divides nothing."""
    text = (
        "The lake was measured in 1987 by two men from\nOslo, who found it to be 40 metres deep.\nIt is old."
    )
    assert len(split_sentences(text)) == 2


@pytest.mark.parametrize("text", ["a" * 5000, "word " * 1000, "so, it goes, " * 300, "ทะเลสาบ ลึก มาก " * 100])
def test_no_sentence_is_longer_than_the_limit(text: str) -> None:
    """What no mark ends is cut, and nothing but blanks is lost by it."""
    spans = split_sentences(text, max_chars=600)
    assert max(end - start for start, end in spans) <= 600
    assert "".join("".join(text[start:end] for start, end in spans).split()) == "".join(text.split())


def test_spans_are_in_order_and_do_not_overlap() -> None:
    """Each sentence starts behind the one before, without blanks at its ends."""
    text = "One. Two!  Three?\n\n* four\n" * 20
    spans = split_sentences(text)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)


@pytest.mark.parametrize("text", ["." * 200_000 + "x", "." + '"' * 200_000 + "x", ".!?" * 70_000 + "x"])
def test_a_long_run_of_marks_is_read_once(text: str) -> None:
    """Ten thousand dots before a page's number take no longer than as many letters; once they took minutes."""
    assert split_sentences(text)[-1][1] == len(text)
