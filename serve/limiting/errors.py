"""What is wrong with a request that comes when there is no room for it."""


class OverloadedError(RuntimeError):
    """As many questions are answered already as can be at a time."""

    retry_after = 1

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "the service answers as many questions already as it may at a time; ask again after the seconds in "
            "Retry-After (who runs the service can let more questions wait with MAX_QUESTIONS)"
        )


class TooManyRequestsError(RuntimeError):
    """A caller has as many requests under way as one may have."""

    retry_after = 1

    def __init__(self, most: int) -> None:
        """
        Say what to do.

        :param most: how many there may be.
        """
        super().__init__(
            f"this caller has {most} requests under way already (MAX_CONCURRENT_REQUESTS); wait for the answer of one"
        )


class RateLimitedError(RuntimeError):
    """A caller has used up what one may use in a minute."""

    def __init__(self, what: str, most: int, setting: str, seconds: int) -> None:
        """
        Say what to do.

        :param what: what was used up, in the plural.
        :param most: how many there may be in a minute.
        :param setting: the setting that says so.
        :param seconds: when there will be new ones.
        """
        super().__init__(
            f"this caller has used up its {most} {what} of this minute ({setting}); try again after the seconds in "
            "Retry-After"
        )
        self.what = what
        self.most = most
        self.retry_after = seconds


class HeadersTooLargeError(ValueError):
    """The headers of a request are over their limit."""

    def __init__(self, max_bytes: int) -> None:
        """
        Name the limit.

        :param max_bytes: the limit.
        """
        super().__init__(f"the request's headers are larger than {max_bytes} bytes (MAX_HEADER_BYTES)")


class UrlTooLongError(ValueError):
    """The URL of a request is longer than any question needs."""

    def __init__(self, max_bytes: int) -> None:
        """
        Name the limit.

        :param max_bytes: the limit.
        """
        super().__init__(f"the URL is longer than {max_bytes} bytes; send the question in a JSON body")
