import pytest
from haystack import Document
from haystack.dataclasses import ChatMessage

from components.citing import CANNOT_ANSWER, CitedAnswerBuilder, without_markers
from components.converting.locating import ChunkLocator
from components.converting.merging import KIND_META
from components.models.errors import ModelRequestError

TEXT = (
    "Preface. The tower is 90 m tall. It was built in 1889 by the firm of Gustave Eiffel. It is made of iron."
)
DOCUMENTS = [
    Document(
        content=TEXT[9:],
        meta={"document_id": "tower", "start": 9, "title": "Tower"},
        score=0.8,
        embedding=None,
    ),
    Document(
        content="The bridge is 200 m long. The value of arr[1] is shown.", meta={"document_id": "bridge"}
    ),
    Document(content="Paris is the capital of France.", meta={"document_id": "paris", "start": 0}),
]


def build(reply: str | None, query: str = "How tall is the tower?", documents: list[Document] | None = None):
    message = ChatMessage.from_assistant(reply)
    builder = CitedAnswerBuilder(min_confidence=0)
    return builder.run([message], DOCUMENTS if documents is None else documents, query)


def indexes(result) -> list[int]:
    return [citation["index"] for citation in result["citations"]]


def test_citation_names_its_source_and_quotes_it_to_the_letter():
    """A citation carries document, chunk, title, score, and a quote with its place in the document."""
    (citation,) = build("It is 90 m tall [1].")["citations"]
    assert citation["document_id"] == "tower"
    assert citation["chunk_id"] == DOCUMENTS[0].id
    assert (citation["title"], citation["score"]) == ("Tower", 0.8)
    assert citation["quote"] == "The tower is 90 m tall." == TEXT[citation["start"] : citation["end"]]


def test_citation_says_page_and_section():
    """A quote's page counts the page breaks since the chunk's first words; unknown places stay unknown."""
    text = "\f# Facts\n\nIt stands in Paris.\n\fThe tower is 90 m tall.\fIt was built in 1889."
    chunk = Document(content=text, meta={"document_id": "tower", "page": 3, "section": "Facts > Height"})
    (citation,) = build("It is 90 m tall [1].", documents=[chunk])["citations"]
    assert (citation["page"], citation["section"]) == (4, "Facts > Height")
    (citation,) = build("It is 90 m tall [1].")["citations"]
    assert (citation["page"], citation["section"]) == (None, None)


def test_citation_says_the_section_of_its_quote():
    """In a chunk of several sections, each quote is cited with the one that it stands in."""
    text = "# Leave\n\n## Parental\n\nIt is 16 weeks.\n\n## Sick\n\nCall in before nine.\n"
    document = Document(content=text, meta={"document_id": "handbook", KIND_META: "markdown"})
    (chunk,) = ChunkLocator().run([document], [document])["documents"]
    for reply, section in (("It is 16 weeks", "Parental"), ("Call in before nine", "Sick")):
        (citation,) = build(f"{reply} [1].", "What about leave?", [chunk])["citations"]
        assert citation["section"] == f"Leave > {section}"


def test_each_mark_is_quoted_for_its_own_claim():
    """Two claims from one answer get the sentences that support each, in the order of first use."""
    result = build("The bridge is 200 m long [2]. It was built in 1889 [1].", "What is known?")
    assert [citation["quote"] for citation in result["citations"]] == [
        "The bridge is 200 m long.",
        "It was built in 1889 by the firm of Gustave Eiffel.",
    ]


@pytest.mark.parametrize(
    ("reply", "answer", "removed"),
    [
        ("It is 90 m tall [1, 7].", "It is 90 m tall [1].", 1),
        ("It is 90 m tall [1][9][0].", "It is 90 m tall [1].", 2),
        ("It is 90 m tall [^1].", "It is 90 m tall [1].", 0),
        ("It is 90 m tall【1】.", "It is 90 m tall[1].", 0),
        ("It is 90 m tall【1†source】.", "It is 90 m tall[1].", 0),
        ("It is 90 m tall [99999999999].", "It is 90 m tall [99999999999]. [1]", 0),
        ("It is 90 m tall. The passage is [1].", "It is 90 m tall. [1].", 0),
        ("It is 90 m tall, as stated in passage [1].", "It is 90 m tall [1].", 0),
        ("[1] It is 90 m tall.", "[1] It is 90 m tall.", 0),
        ("[1]. It is 90 m tall.", "[1]. It is 90 m tall.", 0),
    ],
)
def test_marks_of_many_forms_are_read(reply, answer, removed):
    """Lists, runs, footnotes and other brackets are read; numbers of nothing are removed and counted."""
    result = build(reply)
    assert (result["answer"], result["removed_citations"]) == (answer, removed)
    assert indexes(result) == [1]


def test_a_range_names_every_passage_in_it():
    """[1-3] is three citations, in their order."""
    documents = [Document(content="Water is wet.") for _ in range(3)]
    assert build("Water is wet [1-3].", "What is water?", documents)["answer"] == "Water is wet [1][2][3]."


def test_leading_marks_vouch_for_what_follows():
    """A model that writes its marks first means the words behind each."""
    result = build("[2] The bridge is 200 m long. [1] It was built in 1889.", "What is known?")
    assert [(c["index"], c["quote"]) for c in result["citations"]] == [
        (2, "The bridge is 200 m long."),
        (1, "It was built in 1889 by the firm of Gustave Eiffel."),
    ]


def test_a_mark_vouches_for_all_sentences_since_the_last_one():
    """One mark at the end of a paragraph stands for all of it; neighbours in the chunk are quoted together."""
    result = build("The tower is 90 m tall. It was built in 1889. [1]", "What is known?")
    assert result["citations"][0]["quote"].startswith("The tower is 90 m tall. It was built in 1889")


def test_subscripts_are_no_citations():
    """An index into an array, in code or in the passage's own words, stays as it is."""
    reply = "Use `a[0]`, m[0][1] or b[3] = 1; the value of arr[1] is shown [2]."
    result = build(reply, "What is shown?")
    assert result["answer"] == reply
    assert indexes(result) == [2]
    assert result["removed_citations"] == 0


def test_a_link_is_no_citation():
    """A number in brackets that is a link's text is left alone."""
    assert "[2](http://x)" in build("It is 90 m tall, see [2](http://x).")["answer"]


def test_an_answer_without_marks_is_attributed():
    """A model that forgets to cite gets the mark of the chunk that holds its answer."""
    result = build("90 m")
    assert result["answer"] == "90 m [1]"
    assert result["citations"][0]["quote"] == "The tower is 90 m tall."
    assert result["supported"]


def test_among_chunks_that_hold_the_answer_the_one_about_the_question_is_cited():
    """A short answer that stands in two chunks is attributed to the one that speaks of what was asked."""
    documents = [
        Document(content="The wall is 90 m long."),
        Document(content="The tower has a height of 90 m."),
    ]
    assert indexes(build("90 m", "What is the height of the tower?", documents)) == [2]


def test_an_unsupported_answer_gets_no_citation():
    """What no chunk holds is not dressed up with a source."""
    result = build("Berlin")
    assert (result["answer"], result["citations"], result["supported"]) == ("Berlin", [], False)
    assert result["confidence"] == 0


def test_a_wrong_mark_is_moved_to_the_chunk_that_holds_the_claim():
    """A citation of a chunk without the claim is corrected when another chunk has it word by word."""
    result = build("The tower is 90 m tall [3].")
    assert result["answer"] == "The tower is 90 m tall [1]."
    assert indexes(result) == [1]


@pytest.mark.parametrize(
    "reply",
    [
        "The passages do not mention the height.",
        "The height of the tower is not provided in the given passages. [1]",
        "unknown",
        "I cannot answer this question from the context.",
        "There is no information about this in the documents.",
        "No information available.",
        "Sorry, but the provided context doesn't specify when it was built.",
        "The colour is not in the context.",
        "It cannot be determined from the given passages.",
        "I don't know.",
        "[1]",
    ],
)
def test_refusals_become_the_fixed_sentence(reply):
    """However a model says that it found nothing, the caller reads one sentence and no citation."""
    result = build(reply)
    assert (result["answer"], result["citations"], result["cannot_answer"]) == (CANNOT_ANSWER, [], True)


@pytest.mark.parametrize("reply", ["", " \n", None])
def test_an_empty_reply_is_a_fault_of_the_model(reply):
    """A model that says nothing has not said that the documents lack the answer, unless there are none."""
    with pytest.raises(ModelRequestError, match="empty reply"):
        build(reply)
    assert build(reply, documents=[])["cannot_answer"]


@pytest.mark.parametrize(
    "reply",
    [
        "It is not known who built the tower, but it is 90 m tall.",
        "No, it is 90 m tall.",
        "There is no lift.",
        "The law does not mention foreigners.",
        "The treaty did not include information sharing.",
        "No information was lost.",
        "None of the towers is taller.",
        "Unknown Pleasures.",
    ],
)
def test_answers_with_a_negation_are_no_refusals(reply):
    """'Not' and 'no' about the world are answers."""
    assert not build(reply)["cannot_answer"]


def test_nothing_given_means_cannot_answer():
    """Without replies or documents the answer is the fixed sentence."""
    assert CitedAnswerBuilder().run([], [], "q")["answer"] == CANNOT_ANSWER
    assert build("It is 90 m tall [1].", documents=[])["cannot_answer"]


def test_documents_without_text_are_never_cited():
    """A chunk without text can't be a source."""
    documents = [Document(content=None), Document(content=""), Document(content="The tower is 90 m tall.")]
    result = build("The tower is 90 m tall [1][2].", documents=documents)
    assert indexes(result) == [3]
    assert result["removed_citations"] == 2


def test_usage_and_model_of_the_reply_are_passed_on():
    """What the call cost, and which model answered, comes with the answer."""
    reply = ChatMessage.from_assistant("90 m", meta={"model": "m", "usage": {"total_tokens": 3}})
    result = CitedAnswerBuilder().run([reply], DOCUMENTS, "How tall?")
    assert (result["usage"], result["model"]) == ({"total_tokens": 3}, "m")


def test_quotes_are_verbatim_in_any_script():
    """Offsets count characters of the text itself, whatever folding the comparison needs."""
    text = "Ein Satz vorweg. Der Ｔurm — „hoch“ — misst ﬁktive 90 m. Naïve Ökonomie: 东京是日本的首都。很大。"
    documents = [Document(content=text, meta={"document_id": "d", "start": 0})]
    for reply in ("fiktive 90 m [1]", "Naïve Ökonomie [1]", "东京是日本的首都 [1]"):
        (citation,) = build(reply, "?", documents)["citations"]
        assert citation["quote"] == text[citation["start"] : citation["end"]]
        assert citation["quote"]


def test_yes_stands_on_what_holds_the_question():
    """An answer without words of its own is supported, and cited, where the question's words stand."""
    result = build("Yes.", "Is the tower made of iron?")
    assert result["supported"]
    assert result["citations"][0]["quote"] == "It is made of iron."
    assert not build("Yes.", "Is the lighthouse painted blue?")["supported"]


def test_a_refusal_that_a_document_quotes_is_an_answer():
    """Documents may say what a program answers when documents hold nothing; that is their content."""
    documents = [Document(content="It then says: The documents do not hold the answer to this question.")]
    result = build("The documents do not hold the answer to this question.", "What does it say?", documents)
    assert not result["cannot_answer"]
    assert result["citations"]


@pytest.mark.parametrize(
    ("reply", "query"),
    [("In 1954 [1].", "How tall is the tower?"), ("The tower is 90 m tall [1].", "Who wrote Hamlet?")],
)
def test_an_answer_without_ground_is_not_given(reply, query):
    """Invented words, or words on something else than was asked, give way to the fixed sentence."""
    message = ChatMessage.from_assistant(reply)
    result = CitedAnswerBuilder().run([message], DOCUMENTS, query)
    assert (result["answer"], result["citations"], result["cannot_answer"]) == (CANNOT_ANSWER, [], True)
    assert result["confidence"] < 0.5


@pytest.mark.parametrize("query", ["How tall is the tower?", "Summarise the document.", "What is it?", "?"])
def test_a_grounded_answer_is_given(query):
    """An answer that the chunks hold is given if they, or nothing in particular, were asked about."""
    message = ChatMessage.from_assistant("The tower is 90 m tall [1].")
    result = CitedAnswerBuilder().run([message], DOCUMENTS, query)
    assert result["answer"] == "The tower is 90 m tall [1]."
    assert result["confidence"] >= 0.5


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        " " * 200_000 + "[",
        "[" + " " * 200_000 + "x",
        "[1" + " " * 200_000 + "x",
        "【1" + " " * 200_000 + "x",
        "[1" * 100_000,
        "[" + "1, " * 70_000,
        "x" + "`a` " * 50_000,
    ],
    ids=[
        "blanks",
        "blanks in a bracket",
        "behind a number",
        "in another bracket",
        "marks",
        "numbers",
        "code",
    ],
)
def test_no_text_takes_long_to_read(text):
    """Each character of a long reply, or of a caller's message, is looked at a few times and not a thousand."""
    assert without_markers(text) == text.strip()
    assert without_markers(f"{text}  [1] [2]. ") == f"{text.rstrip()}.".strip()
    assert build(f"{text}. It is 90 m tall [1].")["removed_citations"] == 0


@pytest.mark.timeout(30)
@pytest.mark.parametrize("part", ["no information ", "can't be found "])
def test_a_long_sentence_is_not_searched_for_a_refusal_over_and_over(part):
    """A sentence of 200,000 characters is read to where a refusal would have ended."""
    assert not build(part * 13_000)["citations"]
