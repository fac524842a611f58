"""What `JobQueue` refuses, and why."""


class QueueFullError(RuntimeError):
    """The queue takes no more jobs for now."""

    def __init__(self, retry_after: int) -> None:
        """
        :param retry_after: seconds after which it is worth to try again.
        """
        super().__init__(f"the job queue is full; try again in {retry_after} seconds")
        self.retry_after = retry_after


class TenantQueueFullError(RuntimeError):
    """The queue takes no more jobs of this tenant for now."""

    def __init__(self, limit: int, retry_after: int) -> None:
        """
        :param limit: how many unfinished jobs a tenant may have.
        :param retry_after: seconds after which it is worth to try again.
        """
        super().__init__(
            f"this tenant has {limit} unfinished jobs, and no more are taken; try again in {retry_after} seconds"
        )
        self.retry_after = retry_after


class QueueUnavailableError(RuntimeError):
    """The queue can't work: its store fails, or it is not running."""

    def __init__(self, message: str = "", retry_after: int | None = None) -> None:
        """
        :param message: why.
        :param retry_after: seconds after which it is worth to try again, where that is known.
        """
        super().__init__(message)
        self.retry_after = retry_after


class IdempotencyConflictError(RuntimeError):
    """The idempotency key belongs to a job with other content."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("this idempotency key was used for another request; use a new key for a new request")


class JobNotFoundError(LookupError):
    """There is no such job, or no longer."""


class NothingToRetryError(RuntimeError):
    """No source of the job is left to be done, or it is not finished yet."""


class SourcesGoneError(RuntimeError):
    """What the job has failed to index is no longer kept."""
