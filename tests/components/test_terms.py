from pathlib import Path

import pytest

from components.terms import TermWeights, coverage, stem, stems, words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("founded", "founding"),
        ("parties", "party"),
        ("stopped", "stopping"),
        ("creates", "created"),
        ("wrote", "written"),
        ("BÖRTE", "borte"),
        ("ﬁlm", "film"),
        ("1,000", "1000"),
    ],
)
def test_forms_of_a_word_share_a_stem(one: str, other: str) -> None:
    """Plural, past, -ing, irregular forms, case, accents and ligatures fold together."""
    assert stems(one) == stems(other)


@pytest.mark.parametrize("word", ["gas", "bus", "this", "sing", "red", "1990s", "湖", "है", "ing", "ed", "s"])
def test_a_short_or_foreign_word_has_a_stem(word: str) -> None:
    """A stem is never empty."""
    assert stem(word)


def test_scripts_without_blanks_give_pairs() -> None:
    """Chinese, Japanese and Thai runs are compared by pairs of characters; Hindi keeps its vowel signs."""
    assert words("湖有多深") == ["湖有", "有多", "多深"]
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_rare_words_weigh_more(tokenizer_path: Path) -> None:
    """A stop word weighs nothing, a frequent word little, a rare one more, an unknown one most."""
    weights = TermWeights(tokenizer_path)
    order = [weights.weight(word) for word in ("the", "time", "tribe", "panthers", "onggirat")]
    assert order[0] == 0
    assert order == sorted(order)
    assert order[-1] == 1


def test_a_question_of_stop_words_still_has_terms() -> None:
    """'Who is he?' weighs all its words, since there is nothing better."""
    assert TermWeights().of("Who is he?") == {"who": 1.0, "is": 1.0, "he": 1.0}
    assert TermWeights().of("?!") == {}


def test_coverage_is_the_weighted_share() -> None:
    """A missing rare term costs more than a missing common one; no terms are no coverage."""
    assert coverage({"lake": 0.25, "onggirat": 0.75}, {"lake", "x"}) == 0.25
    assert coverage({}, {"lake"}) == 0
