"""How many texts a batch has."""

import pytest

from serve.jobs.batching import BATCH_SECONDS, FIRST_TEXTS, BatchSize


def test_quick_batches_grow_to_the_largest_allowed() -> None:
    """Documents that cost little share checkpoints and writes."""
    size = BatchSize(most=256)
    sizes = [size.texts]
    for _ in range(3):
        size.took(size.texts, 0.001 * size.texts)
        sizes.append(size.texts)
    assert sizes == [FIRST_TEXTS, 4 * FIRST_TEXTS, 256, 256]


def test_slow_batches_shrink_to_what_takes_a_second() -> None:
    """Little is repeated after a crash, and nobody waits long, however slow the embedding is."""
    size = BatchSize(most=256)
    size.took(texts=32, seconds=8 * BATCH_SECONDS)
    assert size.texts == 4


@pytest.mark.parametrize(("seconds", "texts"), [(100.0, 1), (0.0, 4)])
def test_one_text_is_the_least_and_grows_again(seconds: float, texts: int) -> None:
    """A document that takes minutes comes alone, and the quick ones after it soon come together."""
    size = BatchSize(most=256)
    size.took(texts=1, seconds=seconds)
    assert size.texts == texts


def test_a_small_limit_holds_from_the_first_batch_on() -> None:
    """`INGEST_BATCH_SIZE` is never exceeded."""
    size = BatchSize(most=5)
    assert size.texts == 5
    size.took(texts=5, seconds=0.0)
    assert size.texts == 5
