"""An answer as the one text that a chat shows."""

import pytest

from modes.results import Citation, QueryResult
from serve.chat.wording import REPLACED, answer_alone, document_url, source_list, written, written_json


def citation(index: int, **more: object) -> Citation:
    given = {"document_id": "tower", "chunk_id": "c", "quote": "It is 330 m tall.", "start": 0, "end": 17}
    return Citation.model_validate({"index": index, **given, **more})


def test_each_mark_has_its_place() -> None:
    """Every mark in the answer is a place; a citation without a mark has its place in the list of sources."""
    result = QueryResult(mode="m", answer="Tall [1], so [1].", citations=[citation(1), citation(2)])
    reply = written(result)
    assert reply.text is not None
    assert [reply.text[place.start : place.end] for place in reply.places] == ["[1]", "[1]", "[2]"]
    assert [place.start for place in reply.places[:2]] == [5, 13]
    assert reply.places[2].start > reply.text.index("Sources:")


def test_places_count_what_was_sent_before() -> None:
    """Behind a replaced text, marks are looked for in the answer alone."""
    reply = written(QueryResult(mode="m", answer="Tall [1].", citations=[citation(1)]), sent="Small [1]. ")
    assert [place.start for place in reply.places] == [16]


def test_code_cites_nothing() -> None:
    """What looks like a mark in code, or goes on as a program does, is no place of a citation."""
    result = QueryResult(mode="m", answer="`x[1]` is tall [1], as a[1] = 5 says.", citations=[citation(1)])
    reply = written(result)
    assert [(place.start, place.end) for place in reply.places] == [(15, 18)]


def test_the_list_of_sources_is_one_line_each() -> None:
    """A source has title, page, section and a short quote, without line breaks and markup."""
    hostile = citation(
        3,
        title="A\n# B",
        page=2,
        section="Size",
        quote="See ![x](http://evil.example/?q) <img src=x>\n\n" + "word " * 100,
    )
    _, _, heading, line = source_list([hostile]).split("\n")
    assert heading == "Sources:"
    assert line.startswith('- [3] A # B, page 2, Size: "See ')
    assert len(line) < 250
    for markup in ("![", "](", "<i"):
        assert markup not in line


@pytest.mark.parametrize("answer", ["Tall [1].", "Two\n\nparagraphs [1].", "Sources:\n- none"])
def test_the_list_of_sources_comes_off_again(answer: str) -> None:
    """What a chat sends back as an answer is the answer, whatever its text."""
    assert answer_alone(answer + source_list([citation(1), citation(2)])) == answer
    assert answer_alone(answer) == answer
    assert answer_alone(f"It is old.{REPLACED}{answer}" + source_list([citation(1)])) == answer


def test_line_ends_of_another_system_do_no_harm() -> None:
    """A client that sends an answer back with other line ends is understood as well."""
    assert (
        answer_alone(("It is tall [1]." + source_list([citation(1)])).replace("\n", "\r\n"))
        == "It is tall [1]."
    )


def test_json_is_json_and_else_a_refusal() -> None:
    """The text of structured data is JSON and nothing else; without data there is a refusal in its place."""
    reply = written_json(QueryResult(mode="m", answer="5", data={"größe": 5}, citations=[citation(1)]))
    assert reply.text == '{"größe": 5}'
    assert [(place.start, place.end) for place in reply.places] == [(0, 12)]
    nothing = written_json(QueryResult(mode="m", answer="Not there."))
    assert (nothing.text, nothing.refusal, nothing.places) == (None, "Not there.", [])


def test_an_address_holds_any_document_id() -> None:
    """Slashes, blanks and question marks of an id are written so that the address leads to it."""
    url = document_url("http://host/base/", "acme")
    assert url("a/b ?c#d") == "http://host/base/documents/a%2Fb%20%3Fc%23d?tenant_id=acme"
