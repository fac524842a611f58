from components.embedding import OnnxEmbeddingModel
from components.evidence import EvidenceReader, Passage

QUESTION = "How deep is the lake?"
PASSAGES = [
    Passage("Bread is baked from flour."),
    Passage("The lake is old. It is 40 metres deep. Fish live in it."),
]


def test_the_sentence_that_answers_comes_first(embedding_model: OnnxEmbeddingModel) -> None:
    """Meaning and terms together find the sentence, and its place in its passage."""
    best = EvidenceReader(embedding_model).best_sentences(QUESTION, PASSAGES, limit=2)
    assert len(best) == 2
    assert best[0].passage == 1
    assert PASSAGES[1].text[best[0].start : best[0].end] == "It is 40 metres deep."


def test_evidence_tells_passages_apart(embedding_model: OnnxEmbeddingModel) -> None:
    """The passage that answers has more of everything than the other."""
    other, right = EvidenceReader(embedding_model).measure(QUESTION, PASSAGES)
    assert right.coverage == right.window == 1
    assert other.coverage == 0
    assert (right.similarity or 0) > (other.similarity or 0) + 0.3


def test_the_title_counts_as_part_of_the_passage() -> None:
    """A term in the title is covered though no sentence repeats it."""
    reader = EvidenceReader()
    bare, titled = reader.measure(
        "How deep is Loch Ness?", [Passage("It is deep."), Passage("It is deep.", "Loch Ness")]
    )
    assert titled.window == titled.coverage > bare.coverage


def test_without_a_model_nothing_is_embedded() -> None:
    """Terms alone are compared, and the similarity is unknown instead of zero."""
    evidence = EvidenceReader().measure(QUESTION, PASSAGES)
    assert [found.similarity for found in evidence] == [None, None]
    assert EvidenceReader().best_sentences(QUESTION, PASSAGES)[0].passage == 1


def test_sentences_are_embedded_once(embedding_model: OnnxEmbeddingModel) -> None:
    """A sentence met again is remembered, up to the limit."""
    embedded: list[str] = []

    class Watching(OnnxEmbeddingModel):
        def encode(self, texts):  # type: ignore[no-untyped-def]
            embedded.extend(texts)
            return embedding_model.encode(texts)

    reader = EvidenceReader(Watching(embedding_model.tokenizer_path), remembered=3)
    first = reader.measure(QUESTION, PASSAGES[1:])
    assert reader.measure(QUESTION, PASSAGES[1:]) == first
    assert len(embedded) == 3  # the question and two sentences
    reader.measure("What is bread?", PASSAGES[:1])
    reader.measure(QUESTION, PASSAGES[1:])
    assert embedded.count(QUESTION) == 2


def test_empty_passages_and_questions_are_no_evidence(embedding_model: OnnxEmbeddingModel) -> None:
    """Nothing to read gives zeros, not an error."""
    reader = EvidenceReader(embedding_model)
    assert reader.measure("", [Passage("")])[0].coverage == 0
    assert reader.measure(QUESTION, []) == []
    assert reader.best_sentences(QUESTION, [Passage("")]) == []
