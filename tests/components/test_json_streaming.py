import json

import pytest

from components.json_streaming import AnswerReader

ANSWERS = ["It is 90 m.", 'He said "no" \\ \n\t/ end', "ä 漢 😀 \u2028", "", "{[}]:,"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_answer_comes_out_whole_however_it_is_cut(answer, ascii_only, size):
    """Escapes, pairs of escapes and what follows the answer are told apart wherever a piece ends."""
    text = json.dumps({"answer": answer, "citations": [1], "why": 'x "answer": "y"'}, ensure_ascii=ascii_only)
    reader = AnswerReader()
    assert "".join(reader.read(text[at : at + size]) for at in range(0, len(text), size)) == answer


def test_the_answer_is_told_at_once():
    """No character is held back that is whole."""
    reader = AnswerReader()
    assert [reader.read(piece) for piece in ('{"answer": "It', " is", "\\", 'n90 m.", "a": 1}')] == [
        "It",
        " is",
        "",
        "\n90 m.",
    ]


@pytest.mark.parametrize(
    "text", ['{"a": {"answer": "x"}}', "[1]", "The answer", '{"answer": 3}', '{"answer": "\\ud800x"}']
)
def test_other_json_gives_nothing(text):
    """An answer elsewhere, of another type or not of whole characters is left to the result."""
    reader = AnswerReader()
    assert "".join(map(reader.read, text)) == ""
