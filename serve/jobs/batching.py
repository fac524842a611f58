"""BatchSize: as many texts between two checkpoints as take about a second."""

BATCH_SECONDS = 1.0
FIRST_TEXTS = 32
GROWTH = 4


class BatchSize:
    """
    How many texts the next batch of a job has.

    A batch is what a crash repeats and what others wait for, so it shall not last; each costs a checkpoint and writes
    of its own, so it shall not be small.

    Usage example:
    ```python
    size = BatchSize(most=256)
    size.took(texts=32, seconds=0.1)
    size.texts  # 128
    ```
    """

    def __init__(self, most: int) -> None:
        """
        :param most: texts in a batch at most.
        """
        self._most = most
        self.texts = min(most, FIRST_TEXTS)

    def took(self, texts: int, seconds: float) -> None:
        """
        Note how long a batch took, which decides about the next one.

        :param texts: how many it had.
        :param seconds: how long it took.
        """
        fitting = texts * BATCH_SECONDS / max(seconds, 1e-6)
        self.texts = max(1, int(min(fitting, GROWTH * texts, self._most)))
