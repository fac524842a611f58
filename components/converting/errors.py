"""Why a source can't be indexed, in words for the person who sent it."""


class SourceError(ValueError):
    """
    A source can't be read, and trying again would not help.

    The message is shown to the person who sent the source: it says what is wrong with it, not which program noticed.
    """


class EmptySourceError(SourceError):
    """There is nothing to index in a source, which is no failure: it is skipped."""
