"""What can be wrong with runs that are kept."""


class UnknownTraceError(LookupError):
    """There is no run of such a request."""

    def __init__(self, request_id: str) -> None:
        """
        Name the request.

        :param request_id: what was asked for.
        """
        super().__init__(
            f"no run of the request '{request_id[:64]}' is kept; runs are kept while TRACE_STORE is on, for TRACE_TTL"
            " seconds"
        )


class TraceStoreError(Exception):
    """The store of runs does not answer, or can't be read or written."""

    told = "the store of runs does not answer; try again after the seconds in Retry-After"


class RunsNotForgottenError(TraceStoreError):
    """All of a tenant was deleted but what is kept of its questions."""

    told = (
        "the documents and jobs of the tenant are deleted, but not what is kept of its questions: the store of runs"
        " does not answer; delete the tenant again after the seconds in Retry-After"
    )
